"""Whatever a network is made of, its numbers open: random configs of every kind (hypothesis)."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutaway.interp import Ledger, record
from cutaway.models import DecoderConfig, EncoderConfig, Model, RecurrentConfig, Seq2SeqConfig, build_network
from cutaway.tokenizers import Tokenizer

TEXT, SOURCE = "the cat", "a sat"
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "relu2")
switch, activation = st.booleans(), st.sampled_from(ACTIVATIONS)
small = {"context": st.just(32), "layers": st.integers(1, 2), "width": st.just(8)}
biases = {
    "attention_bias": switch,
    "output_bias": switch,
    "mlp_bias": switch,
    "gated": switch,
    "activation": activation,
}
decoders = st.fixed_dictionaries(
    {
        **small,
        **biases,
        "heads": st.sampled_from((2, 4)),
        "kv_heads": st.sampled_from((0, 1, 2)),
        "head_dim": st.sampled_from((2, 4, 6)),
        "mlp": st.sampled_from((True, True, True, False)),
        "norm": st.sampled_from(("rmsnorm", "layernorm", "none")),
        "norm_plus_one": switch,
        "norm_place": st.sampled_from(("before", "after", "both")),
        "parallel": switch,
        "position": st.sampled_from(("rotary", "learned", "sinusoidal", "none")),
        "rotary_dim": st.sampled_from((0, 2)),
        "qk_norm": switch,
        "qk_norm_joint": switch,
        "score_cap": st.sampled_from((0.0, 2.0)),
        "logit_cap": st.sampled_from((0.0, 3.0)),
        "embed_scale": st.sampled_from((1.0, 3.0)),
        "attention_scale": st.sampled_from((0.0, 0.3)),
        "experts": st.sampled_from((0, 0, 3)),
        "experts_used": st.just(2),
        "expert_weights_sum_to_one": switch,
        "tied": switch,
        "head": st.sampled_from(("causal_lm", "none", "span_extraction", "embedding")),
        "pooling": st.sampled_from(("last", "cls", "mean", "max")),
        "normalize": switch,
    }
)
encoders = st.fixed_dictionaries(
    {
        **small,
        **biases,
        "heads": st.just(2),
        "embed_norm": switch,
        "norm_bias": switch,
        "norm_place": st.sampled_from(("before", "sum")),
        "first_norm": switch,
        "position": st.sampled_from(("rotary", "learned", "none")),
        "token_types": st.sampled_from((0, 2)),
        "embed_width": st.sampled_from((0, 6)),
        "head": st.sampled_from(("masked_lm", "sequence_classification", "token_classification", "replaced_token")),
        "head_activation": st.sampled_from((*ACTIVATIONS, "tanh")),
        "head_norm": switch,
        "head_dense_bias": switch,
        "pooling": st.sampled_from(("cls", "mean", "max", "last")),
    }
)
pairs = st.fixed_dictionaries(
    {
        **small,
        **biases,
        "heads": st.just(4),
        "encoder_layers": st.integers(1, 2),
        "encoder_heads": st.sampled_from((2, 4)),
        "norm": st.sampled_from(("rmsnorm", "layernorm")),
        "norm_place": st.sampled_from(("before", "sum")),
        "embed_norm": switch,
        "position": st.sampled_from(("relative", "learned", "sinusoidal", "none")),
        "position_offset": st.sampled_from((0, 2)),
        "key_bias": switch,
        "attention_scale": st.sampled_from((0.0, 1.0)),
        "embed_scale": st.sampled_from((1.0, 3.0)),
        "output_scale": st.sampled_from((1.0, 0.5)),
        "logit_bias": switch,
        "tied": switch,
    }
)
cells = st.fixed_dictionaries(
    {
        "layers": st.integers(1, 3),
        "width": st.just(6),
        "hidden": st.just(6),
        "tied": switch,
        "cell": st.sampled_from(("gru", "lstm")),
    }
)
LABELLED = ("sequence_classification", "token_classification")


def check(opened: Ledger, choose: Any, depth: int) -> None:
    largest = max(abs(opened.total), *(abs(term.value) for term in opened.terms))
    assert opened.error < 1e-9 * max(1.0, largest)  # without norms numbers may be very large
    assert opened.error <= 1e-12 * max(opened.scale, largest, 1e-300)
    opens = [term for term in opened.terms if term.opens]
    if depth and opens:
        term = choose(st.sampled_from(opens))
        below = opened.expand(term)
        assert below.total == pytest.approx(term.value, rel=1e-9, abs=1e-12)
        check(below, choose, depth - 1)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_any_number_of_any_network_opens(tokenizer: Tokenizer, data: st.DataObject):
    kinds: Any = (
        (DecoderConfig, decoders),
        (EncoderConfig, encoders),
        (Seq2SeqConfig, pairs),
        (RecurrentConfig, cells),
    )
    kind, fields = data.draw(st.sampled_from(kinds))
    drawn: dict[str, Any] = dict(data.draw(fields))
    if drawn.get("heads", 1) % (drawn.get("kv_heads") or 1):
        drawn["kv_heads"] = 0
    if kind is EncoderConfig and drawn["embed_width"] and drawn["head"] == "replaced_token":
        drawn["head_norm"] = True
    if not drawn.get("mlp", True):
        drawn |= {"parallel": False, "experts": 0, "mlp_bias": False}
    if drawn.get("norm") == "none":
        drawn |= {"norm_place": "before", "norm_plus_one": False}
    if drawn.get("head") in LABELLED:
        drawn["labels"] = ("a", "b")
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    network: Any = build_network(kind(vocab_size=tokenizer.vocab_size, **drawn))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model = Model(network.double().eval(), tokenizer, "a test")
    recording = record(model, TEXT, source=SOURCE if kind is Seq2SeqConfig else None)
    check(recording.ledger(position=data.draw(st.integers(-4, 3))), data.draw, 4)
    name = data.draw(st.sampled_from(list(recording)[:-1]))
    which: dict[str, int] = {}
    last, value = name.rsplit(".", 1)[-1], recording[name]
    if last in ("q", "k", "v", "z", "scores", "pattern"):
        which["head"] = data.draw(st.integers(0, value.shape[1] - 1))
    which["index"] = data.draw(st.integers(0, value.shape[-1] - 1))
    if last in ("scores", "pattern"):
        which["index"] = int(value[0, which["head"], -1].argmax())  # without norms all others may be given nothing
    if last == "router":
        which["index"] = int(value[0, -1].argmax())
    check(recording.ledger(name, **which), data.draw, 3)
