"""Parameter names in published checkpoints, one module a source."""
