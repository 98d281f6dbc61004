"""What happens when activations are replaced by those of another run."""
