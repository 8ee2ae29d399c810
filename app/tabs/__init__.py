"""Layout of the tabs, one file a tab; what they do stands in `callbacks`."""
