"""Lessons: how a language model computes, one formula after the other, in the numbers of a model on a text."""

from __future__ import annotations

from cutaway.interp.lessons.block import block_by_hand
from cutaway.interp.lessons.choosing import sampling_by_hand
from cutaway.interp.lessons.learning import (
    adamw_by_hand,
    gradient_by_hand,
    gradient_by_token,
    loss_by_hand,
    step_by_hand,
    training_by_hand,
)
from cutaway.interp.lessons.mixing import attention_by_hand, gates_by_hand
from cutaway.interp.lessons.reading import embedding_by_hand, tokens_by_hand
from cutaway.interp.lessons.sigmoid import sigmoid_by_hand
from cutaway.interp.lessons.worked import Shown, Worked

__all__ = [
    "Shown",
    "Worked",
    "adamw_by_hand",
    "attention_by_hand",
    "block_by_hand",
    "embedding_by_hand",
    "gates_by_hand",
    "gradient_by_hand",
    "gradient_by_token",
    "loss_by_hand",
    "sampling_by_hand",
    "sigmoid_by_hand",
    "step_by_hand",
    "tokens_by_hand",
    "training_by_hand",
]
