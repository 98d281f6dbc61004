"""What can be read out of activations, and whether the model uses it."""
