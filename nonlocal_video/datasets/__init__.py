"""Labelled clips: found, checked, divided into training and validation sets, written as a manifest."""
