"""Bytes to metadata and tensors, and back: what checkpoints are stored as."""
