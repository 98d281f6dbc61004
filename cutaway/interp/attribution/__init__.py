"""Which parts of the input a number is owed to."""
