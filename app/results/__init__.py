"""Results that are kept for a while: their store, their page at /r/ID, and their files to download."""
