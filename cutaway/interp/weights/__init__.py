"""What can be seen in weights alone, and over the checkpoints of a run."""
