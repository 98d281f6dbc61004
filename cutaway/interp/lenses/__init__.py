"""What the model would say at each layer."""
