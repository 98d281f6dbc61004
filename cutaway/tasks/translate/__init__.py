"""Texts of one language in another: trained on parallel texts, searched for with beams, held to a list of terms.

`files` translates whole files line by line.
"""

from cutaway.tasks.translate.task import Translate

__all__ = ["Translate"]
