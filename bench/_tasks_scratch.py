"""Texts and labels from fresh weights: nothing is learned from but the set's own training texts.

What the defaults of fresh weights leave open was chosen on the sets' own validation data.
"""

from typing import Any

import _tasks_classify
from _tasks_classify import figure_of


def trained(name: str, quick: bool, **settings: Any) -> Any:
    """A model of one data set, from fresh weights."""
    return _tasks_classify.trained(name, quick, **{"start": "", **settings})


def from_scratch(quick: bool) -> dict[str, Any]:
    made = trained("sst2", quick)
    return {"sst2_scratch_accuracy": figure_of(made, "accuracy", ">= 0.80")}


def chnsenticorp(quick: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {} if quick else {"epochs": 5}
    made = trained("chnsenticorp_hotel", quick, task={"words": True}, lr=2e-3, word_dropout=0.4, **settings)
    return {"chnsenticorp_accuracy": figure_of(made, "accuracy", ">= 0.89")}


def cold(quick: bool) -> dict[str, Any]:
    columns = {"text": "text", "label": "label"}  # there are finer labels too
    made = trained("cold_zh", quick, task={"words": True}, columns=columns, lr=2e-3, average=0.995)
    return {"cold_accuracy": figure_of(made, "accuracy", ">= 0.80")}


PARTS = [from_scratch, chnsenticorp, cold]
