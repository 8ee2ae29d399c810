"""Parameter names in published checkpoints, one module for each source."""
