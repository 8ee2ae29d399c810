"""Folder runs on a Ray cluster."""
