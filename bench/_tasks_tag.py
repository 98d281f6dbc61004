"""Spans and pairs: from MiniLM, beside a linear model on words and beside the words that two texts share."""

from typing import Any

from _tasks_classify import figure_of, trained


def ncbi(quick: bool) -> dict[str, Any]:
    made = trained("ncbi_disease", quick, task={"name": "diseases"})
    return {"ncbi_entity_f1": figure_of(made, "f1", ">= 0.80")}


def personal(quick: bool) -> dict[str, Any]:
    made = trained("presidio_pii_synth", quick, task={"name": "personal-data"})
    assert made.report is not None
    assert made.report.baseline is not None
    figures = {name: figure_of(made, name, f"> {made.report.baseline[name].value:.4f}") for name in ("f1", "recall")}
    return {f"personal_data_{name}": figure for name, figure in figures.items()}


def medical_pairs(quick: bool) -> dict[str, Any]:
    made = trained("medical_question_pairs", quick, task={"name": "medical-pairs"})
    return {"medical_pairs_accuracy": figure_of(made, "accuracy", ">= 0.75")}


PARTS = [ncbi, personal, medical_pairs]
