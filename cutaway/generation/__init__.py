"""Placeholder docstring until the folder is filled."""
