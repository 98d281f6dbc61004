"""Answers out of texts, from MiniLM, beside the sentence that shares most with the question; and what search finds."""

import tempfile
from pathlib import Path
from typing import Any

import _bench
import numpy as np
from _minilm import MINILM
from _tasks_classify import figure_of, trained

from cutaway.tasks import read_examples
from cutaway.tasks.answer import AnswerQuestions
from cutaway.tasks.search import build_index, fuse

RECIPE: dict[str, Any] = {"epochs": 3, "lr": 2e-4, "batch": 16, "context": 320, "evaluations": 3, "freeze": 1}


def squad(quick: bool) -> dict[str, Any]:
    made = trained("squad11_dev", quick, task={"name": "answer"}, start=MINILM, **RECIPE)
    row = figure_of(made, "f1", ">= 60")
    # F1 is a share here and per cent in the goal
    hundred = {
        key: [100 * one for one in row[key]] if key == "spread" else 100 * row[key] for key in ("value", "spread")
    }
    report = made.report
    assert report is not None
    exact = report.figures["exact"]
    return {"squad_f1": {**row, **hundred, "exact": f"{exact.value:.4f} ({exact.low:.4f} to {exact.high:.4f})"}}


def squad_search(quick: bool) -> dict[str, Any]:
    """Of the test questions, how many have their text among the best five of all test texts."""
    examples, _, _ = read_examples(AnswerQuestions(), _bench.data("squad11_dev", "test.jsonl.gz"))
    asked = examples[:100] if quick else examples
    with tempfile.TemporaryDirectory() as room:
        docs = Path(room, "docs")
        docs.mkdir()
        texts = list(dict.fromkeys(example.given["context"] for example in examples))
        for number, text in enumerate(texts):
            (docs / f"{number:04}.txt").write_text(text, "utf-8")
        index = build_index(docs, Path(room, "idx"), model=MINILM, settings={"size": 10_000, "language": "en"})
        place = {text: f"{number:04}.txt" for number, text in enumerate(texts)}
        store = index.store
        found: dict[str, list[bool]] = {how: [] for how in ("hybrid", "words", "vectors")}
        for example in asked:
            question = example.given["question"]
            by_word, by_vector = index.by_words(question, 100), index.by_vectors(question, 100)
            rankings = {"words": by_word, "vectors": by_vector, "hybrid": fuse([list(by_word), list(by_vector)])}
            for how, ranking in rankings.items():
                hits = [store.documents[store.passages[passage][0]].file for passage in list(ranking)[:5]]
                found[how].append(place[example.given["context"]] in [Path(file).name for file in hits])
    shares = {how: float(np.mean(hits)) for how, hits in found.items()}
    words = {
        "cutaway": f"BM25 and vectors {shares['hybrid']:.4f}",
        "peer": f"{shares['words']:.4f}",
        "peer_name": "BM25",
    }
    return {"squad_search_recall5": _bench.figure([shares["hybrid"]], f"> {shares['words']:.4f}", **words,
                                                  vectors=f"{shares['vectors']:.4f}")}  # fmt: skip


PARTS = [squad, squad_search]
