"""One-sentence summaries of paper abstracts, from MiniLM, beside the first sentence; and what needs no training.

The title, which the data set gives beside each abstract, is read too. Rate and passes are those that other tasks take;
the weights are those of the pass that is best on validation data.
"""

from typing import Any

import _bench
from _minilm import MINILM
from _tasks_classify import figure_of, trained

from cutaway.tasks import read_examples
from cutaway.tasks.summarise import Summarise
from cutaway.text.sentences import sentence_spans

RECIPE: dict[str, Any] = {"epochs": 3, "lr": 2e-4, "batch": 16, "context": 512, "evaluations": 6}


def scitldr(quick: bool) -> dict[str, Any]:
    made = trained("scitldr_abstract", quick, task="summarise", start=MINILM, **RECIPE)
    report = made.report
    assert report is not None
    assert report.baseline is not None
    row = figure_of(made, "rouge1", f"> {report.baseline['rouge1'].value:.4f}")
    for name in ("rouge2", "rougeL"):
        row[name] = f"{report.figures[name].value:.4f}, the first sentence {report.baseline[name].value:.4f}"
    return {"scitldr_rouge1": {**row, "untrained": untrained("textrank")}}


def untrained(way: str) -> str:
    """ROUGE-1 of a way that compares sentences by their words, without any model."""
    task = Summarise(way=way, sentences=1)  # pyright: ignore[reportArgumentType]
    examples, _, _ = read_examples(task, _bench.data("scitldr_abstract", "test.jsonl.gz"))
    answers = []
    for example in examples:
        text = example.given["text"]
        spans = sentence_spans(text)
        raw = task.extracted([text[start:end] for start, end in spans], spans, None)
        answers.append(task.answer(raw, example, (), {}))
    found = task.measure(answers, examples, ()).quantities[0].figure()
    return f"{way} {found.value:.4f} ({found.low:.4f} to {found.high:.4f})"


PARTS = [scitldr]
