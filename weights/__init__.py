"""The embedded model's weights, the label lists, and the scripts that make them. Data; nothing here is imported."""
