"""A tiny corpus, a tiny run, and processes that can be killed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import Processes

from cutaway.tokenizers import TokenStore, prepare_examples, train_tokenizer
from cutaway.training import OBJECTIVES, TrainConfig, loop, train_config

NETWORK = {"layers": 1, "width": 16, "heads": 2, "dropout": 0.1}
TINY: dict[str, Any] = {
    "network": NETWORK, "context": 16, "batch": 4, "steps": 12, "eval_every": 4, "save_every": 3, "eval_tokens": 256,
    "dtype": "fp32", "compile": "off", "tensorboard": "off", "baseline": False, "threads": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and no measuring of the machine at every start."""
    monkeypatch.setattr(loop, "matmul_rate", lambda dtype: 1e11)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token store of short texts."""
    draw = random.Random(0)
    words = ["the", "a", "cat", "dog", "sees", "likes", "big", "small", "red", "tree", "and", "or"]
    texts = [" ".join(draw.choice(words) for _ in range(60)) + "." for _ in range(40)]
    tokenizer = train_tokenizer(texts, "char", 300)
    folder = tmp_path_factory.mktemp("data") / "corpus"
    TokenStore.from_texts({"train": texts[:36], "valid": texts[36:]}, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def learnable(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store for each objective: words to be reversed, classed by their first letter, and counted letters."""
    draw, folder = random.Random(0), tmp_path_factory.mktemp("examples")
    words = ["".join(draw.choice("abcd") for _ in range(draw.randint(2, 9))) for _ in range(300)]
    rows = [f"{w}\t{w[::-1]}\t{'early' if w < 'c' else 'late'}\t{w.count('a') + 0.5}" for w in words]
    (folder / "words.tsv").write_text("\n".join(["word\tback\tclass\tnumber", *rows]))
    stores = dict.fromkeys(OBJECTIVES, corpus)
    columns: dict[str, dict[str, Any]] = {"seq2seq": {"target": "back"}, "classify": {"label": "class"}}
    columns["regress"] = {"label": "number"}
    for name, asked in columns.items():
        made = prepare_examples(
            str(folder / "words.tsv"),
            folder / name,
            text="word",
            tokenizer="char",
            vocab_size=300,
            valid=0.1,
            **asked,
        )
        stores[name] = made.folder
    return stores


@pytest.fixture
def tiny(corpus: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Makes configs of small fast runs."""

    def make(out: str = "run", **settings: Any) -> TrainConfig:
        return train_config({**TINY, "data": str(corpus), "out": str(tmp_path / out), **settings})

    return make


@pytest.fixture(scope="session")
def processes() -> Processes:
    """One forking parent for all tests."""
    return Processes()
