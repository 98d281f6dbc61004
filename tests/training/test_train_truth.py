"""A source whose entropy is known: the loss must come down to it, and cannot go below."""

from pathlib import Path

import numpy as np

from cutaway.tokenizers import TokenStore, train_tokenizer
from cutaway.training import train, train_config

STATES = 8


def markov(transitions: np.ndarray, length: int, draw: np.random.Generator) -> str:
    """A walk through the states, as letters."""
    edges, state, walk = transitions.cumsum(axis=1), 0, []
    for u in draw.random(length):
        state = min(int(np.searchsorted(edges[state], u)), STATES - 1)
        walk.append(state)
    return "".join(chr(ord("a") + state) for state in walk)


def test_the_loss_comes_within_one_percent_of_the_entropy(tmp_path: Path):
    draw = np.random.default_rng(0)
    transitions = draw.dirichlet(np.full(STATES, 0.5), size=STATES)
    values, vectors = np.linalg.eig(transitions.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    entropy = float(-(stationary[:, None] * transitions * np.log(transitions)).sum())  # nats a letter

    texts = {name: [markov(transitions, size, draw)] for name, size in (("train", 100_000), ("valid", 60_000))}
    tokenizer = train_tokenizer(texts["train"], "char", 300)
    TokenStore.from_texts(texts, tokenizer, tmp_path / "data")
    config = train_config(
        {"data": str(tmp_path / "data"), "out": str(tmp_path / "run"), "context": 64, "batch": 16, "steps": 150,
         "network": {"layers": 1, "width": 32, "heads": 2}, "dtype": "fp32", "compile": "off", "tensorboard": "off",
         "eval_tokens": 0}
    )  # fmt: skip
    run = train(config)
    assert abs(run.metrics["valid_loss"] / entropy - 1) < 0.01
    # counting knows the truth here as well
    assert abs(run.metrics["ngram_loss"] / entropy - 1) < 0.01
