"""Questions that a text answers: the answer word for word, its place, how sure it is, and why."""

from cutaway.tasks.answer.task import AnswerQuestions, Found

__all__ = ["AnswerQuestions", "Found"]
