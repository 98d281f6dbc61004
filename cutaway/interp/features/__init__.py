"""Activations as sums of few learned directions: sparse autoencoders, transcoders, attribution graphs."""
