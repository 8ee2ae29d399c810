"""The catalogue of models and the readers of published weights."""
