"""A loss by token, a gradient by token against finite differences, and what cannot be learned from."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from cutaway.errors import ConfigError, InputError
from cutaway.interp import gradient_ledger, lesson_of, loss_ledger, update_ledger
from cutaway.models import (
    Decoder,
    Encoder,
    EncoderConfig,
    Model,
    Seq2Seq,
    Seq2SeqConfig,
)
from cutaway.tokenizers import Tokenizer
from cutaway.training import Optimizer, OptimizerConfig

TEXT = "the cat sat"
WEIGHT = "layers.1.self_attn.v_proj.weight"


def noisy(network: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network.double().eval()


def losses(model: Model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return F.cross_entropy(model.network(ids)[0, :-1], ids[0, 1:], reduction="none")


@pytest.mark.parametrize("kind", ["model", "recurrent"])
def test_a_tokens_term_is_the_slope_of_its_own_loss(kind: str, request: pytest.FixtureRequest):
    """Central differences of every token's loss, one weight moved."""
    model: Model = request.getfixturevalue(kind)
    model.network.double()
    parameter, index = (WEIGHT, (5, 7)) if kind == "model" else ("layers.0.weight_hh", (25, 3))
    ids = model.ids(TEXT)
    opened = gradient_ledger(model, TEXT, parameter, index)
    weight, step = dict(model.network.named_parameters())[parameter], 1e-5
    with torch.no_grad():
        weight[index] += step
        above = losses(model, ids)
        weight[index] -= 2 * step
        below = losses(model, ids)
        weight[index] += step
    slopes = (above - below) / (2 * step) / (len(TEXT) - 1)
    assert opened.error < 1e-12
    found = {term.name: (term.value, term.label) for term in opened.terms}
    for place, slope in enumerate(slopes.tolist()):
        value, label = found.get(f"token.{place}", (0.0, TEXT[place + 1]))
        assert value == pytest.approx(slope, abs=1e-8)
        assert label == TEXT[place + 1]


def test_several_texts_open_into_their_tokens(model: Model):
    opened = gradient_ledger(model, ["the cat", TEXT], WEIGHT, (5, 7))
    assert [term.name for term in opened.terms] == ["text.0", "text.1"]
    assert [term.label for term in opened.expand("text.0").terms] == list("he cat")
    weight = dict(model.network.named_parameters())[WEIGHT]
    assert weight.grad is None
    lesson = lesson_of(model, ["the cat", TEXT])
    loss, count = lesson.loss(lesson.learner)
    (slope,) = torch.autograd.grad(loss / count, weight)
    assert opened.total == pytest.approx(float(slope[5, 7]), rel=1e-5)


def test_an_encoder_and_an_encoder_decoder_learn_too(tokenizer: Tokenizer):
    encoder = Model(noisy(Encoder(EncoderConfig(tokenizer.vocab_size, 32, 1, 16, 2))), tokenizer, "an encoder")
    ids = encoder.ids(TEXT)
    targets = ids.masked_fill(torch.arange(ids.shape[1]) % 4 != 0, -100)
    opened = gradient_ledger(encoder, TEXT, "layers.0.mlp.up_proj.weight", (1, 2), targets=targets)
    assert [term.name for term in opened.terms] == ["token.0", "token.4", "token.8"]
    assert opened.error < 1e-12
    with pytest.raises(ConfigError, match="predicts no next token: give targets="):
        gradient_ledger(encoder, TEXT, "layers.0.mlp.up_proj.weight", (1, 2))
    both = Model(noisy(Seq2Seq(Seq2SeqConfig(tokenizer.vocab_size, layers=1, width=16, heads=2))), tokenizer, "both")
    for weight in ("encoder.layers.0.self_attn.q_proj.weight", "decoder.layers.0.cross_attn.k_proj.weight"):
        opened = gradient_ledger(both, TEXT, weight, (1, 2), source="a cat")
        assert len(opened.terms) == len(TEXT)
        assert opened.error < 1e-12
    assert loss_ledger(both, TEXT, source="a cat").error < 1e-9


def test_a_loss_opens_into_logits_and_logsumexps(model: Model):
    model.network.double()
    ids = model.ids(TEXT)
    opened = loss_ledger(model, TEXT)
    assert opened.total == pytest.approx(float(losses(model, ids).sum()), abs=1e-9)
    assert [term.value for term in opened.terms] == pytest.approx(losses(model, ids).tolist(), abs=1e-9)
    assert [term.label for term in opened.terms] == list(TEXT[1:])
    logits = model.network(ids)[0, 3].detach()
    token = opened.expand("token.3")
    chosen = int(ids[0, 4])
    assert token["logit"].value == pytest.approx(-float(logits[chosen]), abs=1e-9)
    assert token["logsumexp"].value == pytest.approx(float(logits.logsumexp(0)), abs=1e-9)
    assert token.expand("logit")["layers.1.head.2"].opens
    normaliser = token.expand("logsumexp")
    chance = logits.softmax(0)
    assert normaliser["token.7"].value == pytest.approx(float(chance[7] * logits[7]), abs=1e-12)
    assert normaliser["entropy"].value == pytest.approx(-float((chance * chance.log()).sum()), abs=1e-9)
    assert normaliser.expand("token.7").total == pytest.approx(float(chance[7] * logits[7]), abs=1e-12)


def test_a_step_changes_nothing_before_it_is_taken(model: Model):
    optimizer = Optimizer(OptimizerConfig("adamw", weight_decay=0.1), model.network)
    before = {
        name: value.clone() for name, value in (optimizer.state() | dict(model.network.named_parameters())).items()
    }
    opened = update_ledger(model, TEXT, optimizer, WEIGHT, (5, 7), lr_scale=0.5)
    for name, value in (optimizer.state() | dict(model.network.named_parameters())).items():
        assert torch.equal(value, before[name])
    assert "learning rate 0.0005; root mean square" in opened["gradient"].frozen
    # Adam's first step is the learning rate against the sign of the gradient
    gradient = gradient_ledger(model, TEXT, WEIGHT, (5, 7))
    sign = -1 if gradient.total > 0 else 1
    assert opened["gradient"].value == pytest.approx(sign * 0.0005, rel=1e-3)
    shares = [t.value / gradient.total for t in gradient.terms]
    assert [t.value / opened["gradient"].value for t in opened.expand("gradient").terms] == pytest.approx(
        shares, rel=1e-3
    )
    other = Optimizer(OptimizerConfig("sgd"), Decoder(model.config).requires_grad_(True))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="did you mean"):
        update_ledger(model, TEXT, other, "layers.1.self_attn.v_proj.weigh", (5, 7))


@pytest.mark.parametrize(
    ("parameter", "index", "message"),
    [
        ("layers.1.self_attn.v_proj.wait", (0, 0), "unknown weight .* did you mean layers.1.self_attn.v_proj.weight"),
        (WEIGHT, (0,), r"has the shape \(16, 32\), but the number at \(0,\)"),
        (WEIGHT, (16, 0), r"but the number at \(16, 0\)"),
    ],
)
def test_a_weight_that_is_not_there_is_named(model: Model, parameter: str, index: tuple, message: str):
    with pytest.raises(InputError, match=message):
        gradient_ledger(model, TEXT, parameter, index)


def test_there_must_be_something_to_ask_for(model: Model):
    for analysis in (loss_ledger, lambda m, t: gradient_ledger(m, t, WEIGHT, (0, 0))):
        with pytest.raises(InputError, match="a text needs two tokens"):
            analysis(model, "t")
