"""A short text that says what a long one says: by its own best sentences, or written by a model, each supported."""

from cutaway.tasks.summarise.documents import linked, summarise_text
from cutaway.tasks.summarise.support import Supports
from cutaway.tasks.summarise.task import Summarise

__all__ = ["Summarise", "Supports", "linked", "summarise_text"]
