"""How good a model is on labelled clips: which clips, their answers, the figures, the report."""
