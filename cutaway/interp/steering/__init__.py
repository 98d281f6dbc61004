"""Change what a model says: vectors added to activations, and edits of weights."""
