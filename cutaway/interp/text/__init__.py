"""What a model makes of a text, token by token."""
