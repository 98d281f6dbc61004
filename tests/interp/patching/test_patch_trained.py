"""Known answers on models trained here: induction (B2, B7) and recall (B11), each at three seeds with a control."""

import functools

import pytest
import torch
from trained_small import (
    KEYS,
    TOKENS,
    facts,
    induction_model,
    recall_model,
    repeated_losses,
)

from cutaway.interp import attribution_patching, causal_trace, patch_sweep, record, replace
from cutaway.models import Model, build_network

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)


@functools.cache
def inducing(layers: int, seed: int) -> Model:
    return induction_model(layers, seed, heads=2, steps=1000, rate=5e-3, position="learned", qk_norm=False)


def untrained(model: Model) -> Model:
    torch.manual_seed(7)
    return Model(build_network(model.config).eval(), model.tokenizer, "untrained")


def looks(model: Model, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each layer's heads, how much they look at the previous token, and at the one behind the last of their kind."""
    drawn = torch.Generator().manual_seed(seed + 50)
    first = torch.stack([torch.randperm(TOKENS, generator=drawn)[:16] for _ in range(8)])
    ids = torch.cat((first, first), dim=1)
    rec = record(model, ids, "layers.*.attn.pattern")
    patterns = torch.stack([rec[name] for name in rec])  # (L, B, H, T, T)
    T, second = ids.shape[1], torch.arange(17, 31)
    previous = patterns[..., torch.arange(1, T), torch.arange(T - 1)].mean((1, 3))
    return previous, patterns[..., second, second - 15].mean((1, 3))


@pytest.mark.parametrize("seed", SEEDS)
def test_b2_induction_comes_with_two_layers_and_not_with_one(seed: int):
    model, shallow = inducing(2, seed), inducing(1, seed)
    repeated, fresh = repeated_losses(model)
    assert repeated < 0.7
    assert abs(fresh - 4.16) < 0.35
    assert repeated_losses(shallow)[0] > 2.5
    previous, prefix = looks(model, seed)
    assert float(previous[0].max()) > 0.8
    assert float(prefix[1].max()) > 0.8
    assert float(looks(shallow, seed)[1].max()) < 0.3
    assert float(looks(untrained(model), seed)[1].max()) < 0.3
    drawn = torch.Generator().manual_seed(99)
    first = torch.randint(0, TOKENS, (64, 20), generator=drawn)
    ids = torch.cat((first, first), dim=1)
    for layer, chosen in ((0, previous[0] > 0.3), (1, prefix[1] > 0.3)):  # without them it is not there

        def silence(z: torch.Tensor, chosen: torch.Tensor = chosen) -> torch.Tensor:
            return z * (~chosen)[:, None, None]

        logits = replace(model, ids, {f"layers.{layer}.attn.z": silence}).logits
        loss = torch.nn.functional.cross_entropy(logits[:, 21:-1].flatten(0, 1), ids[:, 22:].flatten())
        assert float(loss) > 2.5


@pytest.mark.parametrize("seed", SEEDS)
def test_b7_attribution_agrees_with_patching(seed: int):
    """Pairs in which what follows a token is another, and pairs in which the token itself is."""
    model = induction_model(2, seed)
    drawn = torch.Generator().manual_seed(100 + seed)
    true, guessed = torch.zeros(()), torch.zeros(())
    for kind in ("answer", "key"):
        for _ in range(32):
            tokens = torch.randperm(TOKENS, generator=drawn)
            clean, other = torch.cat((tokens[:17], tokens[:10]))[None], int(tokens[40])
            corrupt = clean.clone()
            corrupt[0, 10 if kind == "answer" else 9] = other
            asked = {"token": int(clean[0, 10]), "minus": other if kind == "answer" else None}
            options = {"what": "head positions", "normalise": False, **asked}
            swept = patch_sweep(model, clean, corrupt, **options)
            made = attribution_patching(model, clean, corrupt, check=0, **options)
            true, guessed = true + swept.change.flatten() / 64, guessed + made.change.flatten() / 64
    assert float(torch.corrcoef(torch.stack((true, guessed)))[0, 1]) > 0.9
    best = [set(numbers.abs().topk(5).indices.tolist()) for numbers in (true, guessed)]
    assert best[0] == best[1]
    shuffled = guessed[torch.randperm(len(guessed), generator=drawn)]
    assert abs(float(torch.corrcoef(torch.stack((true, shuffled)))[0, 1])) < 0.5


@functools.cache
def recalling(seed: int) -> Model:
    return recall_model(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_b11_a_trace_finds_the_subject(seed: int):
    model = recalling(seed)
    ids, _ = facts(12, torch.Generator().manual_seed(5))
    assert bool((model.logits(ids[:, :-1])[:, -1].argmax(-1) == ids[:, -1]).all())
    at_subject, elsewhere, lost, control = [], [], [], []
    for row in ids:
        place = int((row < len(KEYS)).nonzero()[0])
        options = {"subject": (place, place + 1), "samples": 5, "noise": 6.0, "token": int(row[-1])}
        found = causal_trace(model, row[None, :-1], **options)
        traced = found.values
        at_subject.append(traced[:2, place])
        elsewhere.append(traced[:2, [i for i in range(6) if i != place]])
        lost.append(found.clean - found.corrupt)  # pyright: ignore[reportOptionalOperand]
        filler = 1 + place % 4  # noise on another token takes nothing that could come back
        other = causal_trace(model, row[None, :-1], **{**options, "subject": (filler, filler + 1)})
        control.append(abs(other.clean - other.corrupt))  # pyright: ignore[reportOptionalOperand]
    assert float(torch.stack(at_subject).mean()) > 0.9
    assert float(torch.stack(elsewhere).abs().max()) < 0.05
    assert sum(control) < 0.1 * sum(lost)
