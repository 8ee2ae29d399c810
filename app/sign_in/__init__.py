"""The sign-in, a document of its own."""
