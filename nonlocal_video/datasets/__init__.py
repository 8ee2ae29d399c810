"""Data sets of labelled clips: reading, checking, splitting, and the manifest."""
