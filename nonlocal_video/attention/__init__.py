"""Explanations of a prediction: attention of non-local blocks and class evidence, on the clip's own frames."""
