"""Every number of every network opens, at every level, and adds up: plain and edited, in float64 and float32."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from test_contracts_models import SHAPES, TEXT, given, made

from cutaway import record, replace
from cutaway.errors import ConfigError
from cutaway.interp import Ledger, Recording, Term
from cutaway.interp.inputs import Side
from cutaway.models import Model
from cutaway.tokenizers import Tokenizer, train_tokenizer

BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-5}  # relative to all that was added up


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([(TEXT + "a mat that the cat sat on") * 3], "char", 300)


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Model:
    return made(request.param, tokenizer)


def options(recording: Recording, name: str) -> dict[str, Any]:
    """Which number of an activation to open."""
    value, last = recording[name], name.rsplit(".", 1)[-1]
    if name == list(recording)[-1]:
        return {}
    if last in ("q", "k", "v", "z"):
        return {"head": value.shape[1] - 1, "index": 3, "position": -4}
    if last in ("scores", "pattern"):
        return {"head": value.shape[1] - 1, "index": -1, "position": -1}
    if last == "router":
        return {"index": int(value[0, -4].argmax()), "position": -4}
    return {"index": 5, "position": -4}


def first(names: Iterable[str]) -> list[str]:
    """Those of first layers, and those of none."""
    return [name for name in names if "layers." not in name or "layers.0." in name]


def check(opened: Ledger, depth: int, bound: float, most: int = 1) -> None:
    """It adds up, and so do its largest terms and its last one, down to a depth."""
    assert opened.error <= bound * max(opened.scale, *(abs(term.value) for term in opened.terms)), opened.what
    assert opened.receipt.gap == opened.error
    names = [term.name for term in opened.terms]
    assert len(names) == len(set(names))
    opens = [term for term in opened.top(len(names)) if term.opens]
    for term in [*opens[:most], *opens[-1:]] if depth else ():
        below = opened.expand(term)
        assert below.total == pytest.approx(term.value, rel=1e-9, abs=1e-12)
        check(below, depth - 1, bound, most)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_every_number_opens_at_every_level(model: Model, dtype: torch.dtype):
    model.network.to(dtype)
    recording = record(model, TEXT, **given(model))
    for name in recording if dtype == torch.float64 else first(recording):
        opened = recording.ledger(name, **options(recording, name))
        check(opened, 3 if name == list(recording)[-1] else 2, BOUNDS[dtype])
        if dtype == torch.float64:
            assert opened.error < 1e-9


def test_the_outputs_add_up_wherever_they_are_asked(model: Model):
    model.network.double()
    recording = record(model, TEXT, **given(model))
    kinds = getattr(model.config, "labels", ()) or range(2)
    for position in (0, 7, -1):
        for minus in (None, 0) if len(kinds) > 1 else (None,):
            opened = recording.ledger(position=position, token=1, minus=minus)
            check(opened, 1, 1e-12)
            output = recording.logits if recording.logits.ndim == 2 else recording.logits[:, position]
            wanted = output[0, 1] - (0 if minus is None else output[0, 0])
            assert opened.total == pytest.approx(float(wanted), abs=1e-5)  # a recording's logits are float32


def test_an_edit_is_a_term_wherever_it_is_made(model: Model):
    """At every place: the edited number has the edit as a term, and the output of the edited run adds up."""
    model.network.double()
    noise = torch.Generator().manual_seed(0)

    def edit(x: torch.Tensor) -> torch.Tensor:
        pushed = x * 0.7 + 0.05 * torch.rand(x.shape, generator=noise, dtype=x.dtype) * (x != 0)
        return torch.where(x.isfinite(), pushed, x)

    for name in first(model.network.tap_names()):
        edited = replace(model, TEXT[:6], {name: edit}, "*", **given(model, "a mat"))
        opened = edited.ledger(name, **options(edited, name))
        assert any(term.name.endswith(".edit") and term.label == "edited" for term in opened.terms)
        check(opened, 1, 1e-12)
        check(edited.ledger(), 1, 1e-12)


@pytest.mark.parametrize("nonlinear", ["shapley", "integrated"])
def test_what_is_attributed_through_a_norm_is_complete(model: Model, nonlinear: str):
    model.network.double()
    recording = record(model, TEXT, **given(model))
    through = 0
    for name in first(recording):
        ways = {"nonlinear": nonlinear, "samples": 4 if nonlinear == "shapley" else 64}
        last = name.rsplit(".", 1)[-1]
        single = last not in ("z", "scores", "pattern", "attn_out", "cross_attn_out", "mlp_out", "router")
        if model.config.kind == "recurrent":
            single = last in ("reset", "update", "candidate", "input", "forget", "output")
        if not single:
            with pytest.raises(ConfigError, match="leave nonlinear at frozen"):
                recording.ledger(name, **options(recording, name), **ways)
            continue
        opened = recording.ledger(name, **options(recording, name), **ways)
        through += 1
        leap = name == "embedding"  # brought to length 1: a leap at zero that no node can see
        if nonlinear == "shapley" or not leap:
            assert opened.error < (1e-12 if nonlinear == "shapley" else 1e-6), name
        assert opened.receipt.seed == (0 if nonlinear == "shapley" else None)
        assert not any(term.opens for term in opened.terms)
    assert through


def test_padding_and_other_texts_change_no_term(model: Model):
    """A text alone, in a batch, and padded on either side."""
    if given(model) and "source" in given(model) and not isinstance(given(model)["source"], str):
        return  # sound is not padded
    model.network.double()
    texts, read = [TEXT[:9], TEXT], ["a mat", "that the cat"] if given(model) else None
    alone = [record(model, text, source=None if read is None else read[i]) for i, text in enumerate(texts)]
    sides: tuple[Side, ...] = ("right",) if model.config.kind == "recurrent" else ("right", "left")
    for side in sides:
        both = record(model, texts, source=read, pad=side)
        for row, single in enumerate(alone):
            for what in [n for n in ("logits", "layers.0.mlp.post", "layers.0.hidden") if n in both or n == "logits"]:
                which = {} if what == "logits" else {"index": 3}
                one, other = single.ledger(what, **which), both.ledger(what, row=row, **which)
                compare(one, other, 2)


def compare(one: Ledger, other: Ledger, depth: int) -> None:
    """The same terms, but for the numbers of the positions."""

    def values(opened: Ledger) -> list[float]:
        return [term.value for term in opened.terms]

    assert values(one) == pytest.approx(values(other), abs=1e-9)
    opens: list[tuple[Term, Term]] = [(a, b) for a, b in zip(one.terms, other.terms, strict=True) if a.opens]
    for a, b in opens[:1] + opens[-1:] if depth else []:
        compare(one.expand(a), other.expand(b), depth - 1)
