"""Spans and pairs: from MiniLM, beside a linear model on words and beside the words that two texts share."""

from typing import Any

from _minilm import MINILM
from _tasks_classify import figure_of, trained

DISEASES = {"lr": 3e-4, "epochs": 4, "batch": 16, "context": 128, "evaluations": 4}
PERSONAL = {"lr": 3e-4, "epochs": 10, "batch": 16, "context": 128, "evaluations": 5}
MEDICAL_PAIRS = {"lr": 1e-3, "epochs": 10, "how": "head", "evaluations": 10}


def ncbi(quick: bool) -> dict[str, Any]:
    made = trained("ncbi_disease", quick, task="tag", start=MINILM, **DISEASES)
    return {"ncbi_entity_f1": figure_of(made, "f1", ">= 0.80")}


def personal(quick: bool) -> dict[str, Any]:
    made = trained("presidio_pii_synth", quick, task="tag", start=MINILM, **PERSONAL)
    assert made.report is not None
    assert made.report.baseline is not None
    figures = {name: figure_of(made, name, f"> {made.report.baseline[name].value:.4f}") for name in ("f1", "recall")}
    return {f"personal_data_{name}": figure for name, figure in figures.items()}


def medical_pairs(quick: bool) -> dict[str, Any]:
    task = {"name": "pair", "reads": "apart"}
    made = trained("medical_question_pairs", quick, task=task, start=MINILM, **MEDICAL_PAIRS)
    return {"medical_pairs_accuracy": figure_of(made, "accuracy", ">= 0.75")}


PARTS = [ncbi, personal, medical_pairs]
