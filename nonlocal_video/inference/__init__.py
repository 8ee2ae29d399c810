"""Inference: from a clip, a folder or a long video to predictions and explanations."""
