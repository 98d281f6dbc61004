"""The ledger of training on every objective's own batches: its gradient and its step are those of a real step."""

from pathlib import Path
from typing import Any

import pytest
from test_objectives import SMALL, Stores, Tiny, every, ready, stepper

from cutaway.interp import Ledger, gradient_ledger, lesson_from, update_ledger
from cutaway.models import Model
from cutaway.tokenizers import TokenStore
from cutaway.training import TrainConfig
from cutaway.training.ranks import Ranks
from cutaway.training.stepper import Stepper


def prepared(tiny: Tiny, learnable: Stores, name: str, **settings: Any) -> tuple[TrainConfig, Stepper, Model, Any]:
    """A step that is about to be taken: its config, the stepper, the model, and the batch."""
    config, store = ready(tiny, learnable, name, batch=3, context=12, dtype="fp32", compile="off", **settings)
    taken = stepper(config, store)
    network: Any = taken.network
    tokenizer = config.objective.tokenizer(TokenStore.open(Path(config.data)).tokenizer)
    model = Model(getattr(network, "discriminator", network), tokenizer, "a test")
    return config, taken, model, config.objective.batch(store["train"], config, Ranks(), 0)


def weights(model: Model) -> list[str]:
    return [name for name, p in model.network.named_parameters() if name.endswith(("q_proj.weight", "norm.weight"))]


@every
def test_a_gradient_is_the_sum_of_what_each_token_asked_for(tiny: Tiny, learnable: Stores, name: str):
    config, taken, model, batch = prepared(tiny, learnable, name)
    lesson = lesson_from(model, config.objective, batch.tensors, config, taken.network)
    loss, count = config.objective.loss(taken.network, batch.tensors, config)
    (loss / count).backward()
    for parameter in weights(model)[:1]:
        weight = dict(model.network.named_parameters())[parameter]
        index = (3, 2)[: weight.ndim]
        opened = gradient_ledger(model, lesson, parameter, index)
        assert weight.grad is not None
        assert opened.total == pytest.approx(float(weight.grad[index]), rel=1e-4, abs=1e-8)
        assert opened.error < 1e-5 * opened.scale
        assert len(opened.terms) == 3
        for term in opened.terms:
            if term.opens:
                assert opened.expand(term).error < 1e-9


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw", "muon"])
def test_a_step_is_what_the_stepper_takes(tiny: Tiny, learnable: Stores, optimizer: str):
    """Bit for bit the change of the weight, with clipping, momentum and weight decay; and its terms add up to it."""
    settings = {"optimizer": optimizer, "weight_decay": 0.1, "clip": 0.05}
    config, taken, model, batch = prepared(tiny, learnable, "causal", **settings)
    store = TokenStore.open(Path(config.data))
    for step in range(3):  # something for the momentum
        taken.step(config.objective.batch(store["train"], config, Ranks(), step + 1), lr_scale=1.0, seed=0)
    lesson = lesson_from(model, config.objective, batch.tensors, config)
    named = dict(model.network.named_parameters())
    chosen = {"layers.0.self_attn.q_proj.weight": (3, 2), "layers.0.mlp.up_proj.weight": (40, 2)}
    chosen |= {"layers.0.mlp.down_proj.weight": (2, 40), "embed_tokens.weight": (5, 2), "norm.weight": (2,)}
    foreseen: dict[str, Ledger] = {}
    for parameter, index in chosen.items():
        foreseen[parameter] = update_ledger(model, lesson, taken.optimizer, parameter, index, lr_scale=0.5, clip=0.05)
    before = {parameter: float(named[parameter].detach()[index]) for parameter, index in chosen.items()}
    taken.step(batch, lr_scale=0.5, seed=0)
    for parameter, index in chosen.items():
        opened = foreseen[parameter]
        change = float(named[parameter].detach()[index]) - before[parameter]
        assert opened.total == pytest.approx(change, rel=2e-3 if optimizer == "muon" else 1e-4, abs=1e-9)
        names = [term.name for term in opened.terms]
        assert ("momentum" in names) == (optimizer != "sgd")
        assert ("weight decay" in names) == (parameter != "norm.weight")
        assert ("rounding" in names) == ((optimizer == "muon" and "self_attn" in parameter) or "rounding" in names)
        tokens = opened.expand("gradient")
        assert tokens.error < 1e-4 * tokens.scale
        assert tokens.total == opened["gradient"].value
    assert SMALL
