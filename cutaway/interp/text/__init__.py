"""What a model makes of a text, token by token."""

from cutaway.interp.text.branches import generation_tree
from cutaway.interp.text.calibration import calibration
from cutaway.interp.text.surprisal import compare, entropy, surprisal

__all__ = ["calibration", "compare", "entropy", "generation_tree", "surprisal"]
