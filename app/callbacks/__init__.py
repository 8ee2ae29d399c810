"""Callbacks of the page: one file a task, no layout."""
