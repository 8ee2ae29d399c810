"""The model zoo: the catalogue of published checkpoints, their download and their conversion."""
