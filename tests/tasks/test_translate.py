"""Translation of a toy language whose words are other words, backwards: learned, searched, held to terms, told why."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cutaway.tasks import TaskConfig, Trained, open_task, train_task
from cutaway.tasks.translate.files import translate_file, translate_lines

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fuenf", "six": "sechs", "cat": "Katze"}


def reversed_words(text: str) -> str:
    """The translation."""
    return " ".join(WORDS[word] for word in reversed(text.split()))


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(list(WORDS)) for _ in range(draw.randint(2, 5))) for _ in range(count)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("translate")
    rows = [f"{text}\t{reversed_words(text)}" for text in sentences(1500, 0)]
    data = folder / "pairs.tsv"
    data.write_text("\n".join(["source\ttarget", *rows]) + "\n", "utf-8")
    config = TaskConfig(
        "translate",
        str(data),
        str(folder / "model"),
        size=1,
        vocab_size=320,
        epochs=12,
        batch=32,
        lr=4e-3,
        dropout=0.0,
        context=32,
        evaluations=2,
        valid=0.05,
        test=0.05,
        network={"heads": 4},
        threads=1,
    )
    return train_task(config)


def test_it_learns(trained: Trained):
    assert trained.report is not None
    assert trained.report.baseline is not None
    texts = sentences(60, 1)
    said = [answer.answer for answer in trained.model.predict(texts)]
    assert np.mean([one == reversed_words(text) for one, text in zip(said, texts, strict=True)]) > 0.95
    assert trained.report.figures["bleu"].value > 95 > trained.report.baseline["bleu"].value
