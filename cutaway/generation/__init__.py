"""Weights and a prompt to text."""

from cutaway.generation.generate import Generation, Token, generate, stream
from cutaway.generation.sampling import Sampling, distribution

__all__ = ["Generation", "Sampling", "Token", "distribution", "generate", "stream"]
