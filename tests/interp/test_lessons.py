"""The lessons tell the numbers that a model computes, and that torch's own gradients and optimisers find."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kinds import SHAPES, TEXT, given, letters, made

from cutaway.errors import ConfigError, InputError
from cutaway.interp import (
    Ledger,
    Worked,
    adamw_by_hand,
    attention_by_hand,
    block_by_hand,
    embedding_by_hand,
    gates_by_hand,
    gradient_by_hand,
    ledger,
    loss_by_hand,
    record,
    sampling_by_hand,
    sigmoid_by_hand,
    step_by_hand,
    tokens_by_hand,
    training_by_hand,
)
from cutaway.interp.analyses import analyse
from cutaway.interp.lessons.asked import asked_of
from cutaway.interp.lessons.learning import with_own
from cutaway.models import Model
from cutaway.tokenizers import Tokenizer, train_tokenizer

LABELS: dict[str, Any] = {"head": "sequence_classification", "labels": ("good", "bad", "neither"), "pooling": "cls"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return letters()


def opened(model: Model, worked: Worked) -> int:
    """Every number that has a ledger is the one that its ledger opens; how many there are."""
    recording, count = record(model, TEXT, **given(model)), 0
    numbers = [(figure.name, figure.value, figure.opens) for figure in worked.figures]
    for column, ledgers in worked.ledgers.items():
        at = worked.columns.index(column)
        numbers += [(column, row[at], opens) for row, opens in zip(worked.rows, ledgers, strict=True)]
    for name, value, opens in numbers:
        if opens is None:
            continue
        asked: dict[str, Any] = dict(opens)
        found = ledger(recording, **asked).total
        assert isinstance(value, float)
        if str(opens["what"]).endswith("pattern"):  # a weight is opened as its logarithm, which is a sum
            found = math.exp(found)
        assert found == pytest.approx(-value if name == "loss" else value, rel=1e-4, abs=1e-5), (name, opens)
        count += 1
    return count


@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"gru", "lstm"}))
def test_attention_and_a_layer_are_the_models_own_numbers(shape: str, tokenizer: Tokenizer):
    model = made(shape, tokenizer)
    for part in (None, "encoder", "cross") if model.config.kind == "seq2seq" else (None,):
        found = attention_by_hand(model, TEXT, part=part, layer=1, head=1, **given(model))
        assert found.receipt.gap is not None
        assert found.receipt.gap < 1e-5
        assert found["sum"] == pytest.approx(found["recorded"], abs=1e-5)
        shown = [float(x) for x in found.column("product")]  # pyright: ignore[reportArgumentType]
        assert sum(shown) + found["others"] == pytest.approx(found["sum"], abs=1e-9)
        assert opened(model, found) > 10
    layer = block_by_hand(model, TEXT, layer=1, **given(model))
    assert layer.receipt.gap is not None
    assert layer.receipt.gap < 1e-4
    assert opened(model, layer) >= len(layer.rows) + 2
    assert layer["write"] == pytest.approx(layer["post"] * layer["weight"])
    norm = (layer["norm in"] - (layer["mean"] if "mean" in [f.name for f in layer.figures] else 0)) / layer["rms"]
    bias = layer["bias"] if "bias" in [f.name for f in layer.figures] else 0
    assert layer["norm out"] == pytest.approx(norm * layer["gain"] + bias, rel=1e-6, abs=1e-9)
    assert opened(model, embedding_by_hand(model, TEXT, position=2, **given(model))) == 8


def test_attention_is_softmax_of_scaled_products(tokenizer: Tokenizer):
    model = made("gpt2", tokenizer)
    run = record(model, TEXT)
    q, k, v = (run[f"layers.2.attn.{one}"][0, 1].double() for one in "qkv")
    for sharpness in (1.0, 2.5, 0.0):
        found = attention_by_hand(model, TEXT, layer=2, head=1, position=7, channel=3, sharpness=sharpness)
        dots = k[:8] @ q[7]
        weights = (sharpness * dots / math.sqrt(8)).softmax(0)
        assert found.column("dot") == pytest.approx(dots.tolist(), rel=1e-5)
        assert found.column("weight") == pytest.approx(weights.tolist(), rel=1e-5)
        assert found["sum"] == pytest.approx(float(weights @ v[:8, 3]), rel=1e-5)
    with pytest.raises(InputError, match="channel 8 is not there"):
        attention_by_hand(model, TEXT, channel=8)


@pytest.mark.parametrize("shape", ["gru", "lstm"])
def test_gates_make_the_state(shape: str, tokenizer: Tokenizer):
    model = made(shape, tokenizer)
    for position in (0, 5, -1):
        found = gates_by_hand(model, TEXT, position=position, unit=4)
        assert found.receipt.gap is not None
        assert found.receipt.gap < 1e-6
        assert opened(model, found) >= 4
    first, last = (gates_by_hand(model, TEXT, unit=4, gate=gate) for gate in (0.0, 1.0))
    if shape == "gru":
        assert first["made"] == pytest.approx(first["candidate"])
        assert last["made"] == pytest.approx(last["before"])


def test_tokens_and_vectors_are_those_of_the_tables():
    tokenizer = train_tokenizer(["das Wörterbuch 你好 the cat sat"] * 9, "bpe", 300)
    model = made("gpt2", tokenizer)
    found = tokens_by_hand(model, "the Wört 你好")
    assert b"".join(bytes.fromhex(str(piece)) for piece in found.column("bytes")) == "the Wört 你好".encode()
    assert (found["characters"], found["bytes"]) == (11, 16)
    assert found["bits"] == pytest.approx(math.log2(tokenizer.vocab_size))
    worked = embedding_by_hand(model, "the cat", position=1)
    table = model.network.embed_tokens.weight.detach().double()
    row = table[int(worked.facts["id"])]
    cosines = F.cosine_similarity(table, row[None])
    cosines[int(worked.facts["id"])] = -2
    assert worked["length"] == pytest.approx(float(row.norm()))
    assert worked["cosine"] == pytest.approx(float(cosines.max()), rel=1e-6)
    assert worked.column("row") == pytest.approx(row[:8].tolist())


@pytest.mark.parametrize(("shape", "options"), [
    ("llama", {}), ("gru", {}), ("t5", {}), ("bert", {"head": "masked_lm"}), ("bert", LABELS),
    ("gru", LABELS | {"pooling": "last"}),
])  # fmt: skip
def test_losses_and_gradients_are_torchs(shape: str, options: dict[str, Any], tokenizer: Tokenizer):
    model = made(shape, tokenizer, **options)
    before = {name: weight.clone() for name, weight in model.network.state_dict().items()}
    asked = asked_of(model, TEXT, given(model).get("source"))
    kinds: dict[str, Any] = {} if asked.inputs.source is None else {"source": asked.inputs.source}
    output = model.network(asked.inputs.ids, **kinds)
    row = output[0] if asked.place is None else output[0, asked.place]
    loss = F.cross_entropy(row[None].double(), torch.tensor([asked.target]))
    found = loss_by_hand(model, TEXT, **given(model))
    assert found["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    (slope,) = torch.autograd.grad(loss, row)
    asks = [float(slope[int(id)]) for id in found.column("id")]  # pyright: ignore[reportArgumentType]
    assert found.column("gradient") == pytest.approx(asks, abs=1e-6)
    if asked.own:
        assert opened(model, found) >= 5

    name = gradient_by_hand(model, TEXT, **given(model)).facts["parameter"]
    weight = dict(model.network.named_parameters())[name]
    place = tuple(n // 2 for n in weight.shape)
    learned = gradient_by_hand(model, TEXT, parameter=name, index=place, **given(model))
    output = model.network(asked.inputs.ids, **kinds)
    mean = F.cross_entropy(output.flatten(0, -2), asked.targets.flatten())
    (own,) = torch.autograd.grad(mean, weight)
    assert learned["gradient"] == pytest.approx(float(own[place]), rel=1e-4, abs=1e-7)
    assert learned["loss"] == pytest.approx(float(mean.detach()), rel=1e-5)
    assert sum(float(x) for x in learned.column("share")) == pytest.approx(learned["gradient"], abs=1e-7)  # pyright: ignore[reportArgumentType]
    (opens,) = [figure.opens for figure in learned.figures if figure.name == "gradient"]
    assert opens is not None
    options = {option: value for option, value in opens.items() if option != "analysis"}
    shares = analyse(str(opens["analysis"]), model, TEXT, options | given(model))
    assert isinstance(shares, Ledger)
    assert shares.total == pytest.approx(learned["gradient"], abs=1e-9)
    assert [term.value for term in shares.terms] == pytest.approx(learned.column("share"), abs=1e-9)
    strongest = gradient_by_hand(model, TEXT, **given(model))
    assert abs(strongest["gradient"]) == pytest.approx(float(own.abs().max()), rel=1e-4)
    assert strongest["slope"] == pytest.approx(strongest["gradient"], rel=0.05)
    after = model.network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not model.network.training


def test_steps_are_those_of_torchs_adamw(tokenizer: Tokenizer):
    weight = torch.nn.Parameter(torch.tensor([0.7], dtype=torch.float64))
    optimiser = torch.optim.AdamW([weight], lr=0.02, betas=(0.9, 0.98), weight_decay=0.3)
    gradients = [0.5, -0.1, 0.0, 2.0]
    rows = adamw_by_hand(0.7, gradients, lr=0.02, weight_decay=0.3)
    for gradient, row in zip(gradients, rows, strict=True):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
        state = optimiser.state[weight]
        assert row[3] == pytest.approx(float(state["exp_avg"]), rel=1e-12, abs=1e-15)
        assert row[4] == pytest.approx(float(state["exp_avg_sq"]), rel=1e-12)
        assert row[-1] == pytest.approx(float(weight.detach()), rel=1e-12)
    model = made("llama", tokenizer)
    found = step_by_hand(model, TEXT, lr=0.01, steps=2)
    worked = gradient_by_hand(model, TEXT)
    assert found["weight"] == worked["weight"]
    assert found["gradient"] == worked["gradient"]
    assert found["after"] == pytest.approx(
        found["weight"] * (1 - 0.01 * 0.1) - 0.01 * math.copysign(1, found["gradient"]), rel=1e-5
    )
    with pytest.raises(InputError, match=r"betas in \[0, 1\)"):
        adamw_by_hand(1.0, [0.1], betas=(1.0, 0.9))


def test_training_is_torchs_on_a_copy(tokenizer: Tokenizer):
    model, twin = made("llama", tokenizer), made("llama", tokenizer)
    found = training_by_hand(model, TEXT, lr=0.003, steps=4)
    ids = twin.ids(TEXT)
    optimiser = torch.optim.AdamW(twin.network.parameters(), lr=0.003, betas=(0.9, 0.98), weight_decay=0.1)
    losses = []
    for _ in range(5):
        loss = F.cross_entropy(twin.network(ids)[0, :-1], ids[0, 1:])
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert found.column("loss") == pytest.approx(losses, rel=1e-4)
    assert found["after"] < found["before"]
    same, other = model.network.state_dict(), made("llama", tokenizer).network.state_dict()
    assert all(torch.equal(same[key], value) for key, value in other.items())


def test_a_copy_shares_all_but_its_own(tokenizer: Tokenizer):
    model = made("qwen3", tokenizer)  # whose table of tokens is its output matrix too
    copy, (own,) = with_own(model, ["embed_tokens.weight"])
    network: Any = copy.network
    first: Any = model.network
    assert network.lm_head.weight is own is network.embed_tokens.weight
    assert own is not first.embed_tokens.weight
    assert network.norm.weight is first.norm.weight


def test_the_next_token_is_where_the_sum_exceeds_the_number(tokenizer: Tokenizer):
    model = made("llama", tokenizer)
    scores = model.network(model.ids(TEXT))[0, -1].detach().double()
    for temperature, top_k, top_p in ((1.0, None, None), (0.5, 4, None), (1.5, None, 0.8)):
        chances = (scores / temperature).softmax(0).sort(descending=True)
        kept = len(chances.values) if top_k is None else top_k
        if top_p is not None:
            kept = int((chances.values.cumsum(0) < top_p).sum()) + 1
        left = chances.values[:kept] / chances.values[:kept].sum()
        for uniform in (0.0, 0.4, 0.99):
            found = sampling_by_hand(model, TEXT, temperature=temperature, top_k=top_k, top_p=top_p, uniform=uniform)
            assert found["kept"] == kept
            place = int((left.cumsum(0) > uniform).int().argmax())
            assert found["rank"] == place + 1
            assert found["chance"] == pytest.approx(float(left[place]), rel=1e-4)
            assert found["entropy"] == pytest.approx(float(-(left * left.log2()).sum()), rel=1e-4)
    assert sampling_by_hand(model, TEXT, temperature=0.0)["chance"] == 1.0
    with pytest.raises(ConfigError, match="no next token to draw"):
        sampling_by_hand(made("bert", tokenizer), TEXT)


@pytest.mark.parametrize("target", [0, 1])
def test_two_classes_by_hand_are_torchs(target: int):
    features, weights, bias, lr = [3.0, 1.0, -0.5], [0.4, -1.2, 2.0], 0.25, 0.3
    w = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(bias, dtype=torch.float64, requires_grad=True)
    x, y = torch.tensor(features, dtype=torch.float64), torch.tensor(float(target), dtype=torch.float64)
    optimiser = torch.optim.SGD([w, b], lr=lr)
    found = sigmoid_by_hand(features, weights, bias, target, lr=lr, names=["good", "bad", "length"])
    loss = F.binary_cross_entropy_with_logits(w @ x + b, y)
    loss.backward()
    assert w.grad is not None
    assert found["z"] == pytest.approx(float((w @ x + b).detach()))
    assert found["loss"] == pytest.approx(float(loss.detach()))
    assert found.column("gradient") == pytest.approx(w.grad.tolist())
    assert found["bias gradient"] == pytest.approx(float(b.grad))  # pyright: ignore[reportArgumentType]
    optimiser.step()
    assert found.column("after") == pytest.approx(w.tolist())
    assert found["loss after"] == pytest.approx(float(F.binary_cross_entropy_with_logits(w @ x + b, y).detach()))
    assert found["loss after"] < found["loss"]
    assert sigmoid_by_hand([1.0], [2000.0], 0, 0)["loss"] == 2000.0
    with pytest.raises(InputError, match="as many weights"):
        sigmoid_by_hand([1.0], [], 0)
    with pytest.raises(InputError, match="finite"):
        sigmoid_by_hand([math.inf], [1.0])
