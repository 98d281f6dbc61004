"""How good is it? Perplexity and bits per byte of any text, suites of questions, and whether two models differ."""

from cutaway.evaluation.compare import Difference, compare
from cutaway.evaluation.evaluate import Scores, evaluate
from cutaway.evaluation.perplexity import Perplexity, perplexity
from cutaway.evaluation.report import Results
from cutaway.evaluation.run import run
from cutaway.evaluation.suites import Suite, read_suite

__all__ = [
    "Difference",
    "Perplexity",
    "Results",
    "Scores",
    "Suite",
    "compare",
    "evaluate",
    "perplexity",
    "read_suite",
    "run",
]
