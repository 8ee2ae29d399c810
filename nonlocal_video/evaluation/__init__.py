"""Evaluation of a model on labelled clips: predictions, metrics and the report."""
