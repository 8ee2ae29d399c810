"""Training: data loading, augmentation, initialization, the training loop and the folder of a run."""
