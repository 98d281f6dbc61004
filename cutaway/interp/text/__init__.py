"""What a model makes of a text, token by token."""

from cutaway.interp.text.branches import generation_tree
from cutaway.interp.text.calibration import calibration
from cutaway.interp.text.chances import chances
from cutaway.interp.text.surprisal import compare, entropy, surprisal
from cutaway.interp.text.tokens import text_of, tokens_of, written

__all__ = [
    "calibration",
    "chances",
    "compare",
    "entropy",
    "generation_tree",
    "surprisal",
    "text_of",
    "tokens_of",
    "written",
]
