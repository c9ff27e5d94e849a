"""Training: the loop over epochs, its checkpoints, and signs of overfitting."""
