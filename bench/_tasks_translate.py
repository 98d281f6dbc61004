"""Translation from scratch, beside the translation of the most similar sentence that was seen.

The network is small: 3 + 3 layers, width 256, one vocabulary of 6,000 tokens for both languages. English to German
trains for 60 minutes, English to Chinese for 20 epochs; the weights are those of the best evaluation on the
validation part. BLEU is sacrebleu's, cased, 13a and zh.
"""

import tempfile
from pathlib import Path
from typing import Any

import _bench

from cutaway.tasks import TaskConfig, Trained, train_task

NETWORK = {"layers": 3, "heads": 4}
RECIPE: dict[str, Any] = {"size": 4, "vocab_size": 6000, "context": 96, "network": NETWORK, "evaluations": 20}


def translator(name: str, parts: dict[str, str], columns: dict[str, str], quick: bool, **how: Any) -> Trained:
    """A model trained on one data set's own parts."""
    files = {split: str(_bench.data(name, f"{part}.tsv.gz")) for split, part in parts.items()}
    length: dict[str, Any] = {**how, "minutes": None, "epochs": 0.05} if quick else how
    with tempfile.TemporaryDirectory() as room:
        return train_task(
            TaskConfig("translate", out=str(Path(room, "model")), columns=columns, **files, **RECIPE, **length)
        )


def figure_of(made: Trained, goal: str) -> dict[str, Any]:
    """BLEU beside the translation memory's, with chrF and how it was counted."""
    report = made.report
    assert report is not None
    assert report.baseline is not None
    bleu, chrf = report.figures["bleu"], report.figures["chrf"]
    return _bench.figure(
        [bleu.value],
        goal,
        cutaway=f"{bleu.value:.2f} ({bleu.low:.2f} to {bleu.high:.2f})",
        peer=f"{report.baseline['bleu'].value:.2f}",
        peer_name=report.baseline_name,
        p=report.p,
        chrf=f"{chrf.value:.2f}, the memory {report.baseline['chrf'].value:.2f}",
        counted=report.tables[0][2][0][1],
        steps=made.model.about["training"]["steps"],
        seconds=round(made.seconds, 1),
    )


def multi30k_en_de(quick: bool) -> dict[str, Any]:
    parts = {"data": "train", "valid": "val", "test": "test_2016_flickr"}
    columns = {"source": "en", "target": "de"}
    made = translator("multi30k_en_de_fr", parts, columns, quick, minutes=60.0, dropout=0.3)
    return {"multi30k_en_de_bleu": figure_of(made, ">= 35")}


def tatoeba_en_zh(quick: bool) -> dict[str, Any]:
    parts = {"data": "train", "valid": "valid", "test": "test"}
    columns = {"source": "en", "target": "zh"}
    made = translator("tatoeba_en_zh", parts, columns, quick, minutes=None, epochs=20.0, dropout=0.3)
    report = made.report
    assert report is not None
    assert report.baseline is not None
    return {"tatoeba_en_zh_bleu": figure_of(made, f">= {2 * report.baseline['bleu'].value:.2f}")}


PARTS = [multi30k_en_de, tatoeba_en_zh]
