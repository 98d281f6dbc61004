"""Surprisal, the lens and attention against what they are defined by; what they refuse."""

import math

import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp import attention, ledger, logit_lens, record, replace, surprisal
from cutaway.models import Decoder, DecoderConfig, Model, Recurrent, RecurrentConfig
from cutaway.tokenizers import train_tokenizer

TEXT = "the cat sat"


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = train_tokenizer([TEXT * 5], "char", 300)
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=32, layers=3, width=32, heads=4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(network.eval(), tokenizer, "a test")


def test_surprisal_is_the_loss_in_bits(model: Model):
    scores = surprisal(model, TEXT)
    ids = model.ids(TEXT)
    loss = torch.nn.functional.cross_entropy(model.logits(ids)[0, :-1], ids[0, 1:])
    assert scores.scores[0] is None
    assert scores.mean == pytest.approx(float(loss) / math.log(2), rel=1e-5)
    assert scores.tokens == list(TEXT)


def test_the_lens_ends_with_the_models_own_output(model: Model):
    lens = logit_lens(model, TEXT, top=3)
    probabilities = model.logits(TEXT)[0].softmax(-1)
    assert lens.layers == ["embedding", "layer 0", "layer 1", "layer 2"]
    for t, cell in enumerate(lens.cells[-1]):
        values, ids = probabilities[t].topk(3)
        assert [token for token, _ in cell.top] == [model.tokenizer.token(int(i)) for i in ids]
        assert [p for _, p in cell.top] == values.tolist()
        entropy = -(probabilities[t] * probabilities[t].log2()).sum()
        assert cell.entropy == pytest.approx(float(entropy), rel=1e-4)


def test_attention_holds_every_head(model: Model):
    found = attention(model, TEXT)
    assert found.patterns.shape == (3, 4, len(TEXT), len(TEXT))
    assert torch.equal(found.patterns[1], record(model, TEXT, "layers.1.attn.pattern")["layers.1.attn.pattern"][0])


def test_the_sharpest_head_is_the_one_that_looks_back(model: Model):
    found = attention(model, TEXT)
    patterns = torch.zeros_like(found.patterns)
    patterns[..., 0] = 1
    patterns[2, 1] = torch.eye(len(TEXT)).roll(-1, 1)  # each token looks at the one before
    assert type(found)(found.tokens, patterns).sharpest() == (2, 1)


def test_a_logit_difference_is_the_difference_of_ledgers(model: Model):
    both = ledger(model, TEXT, token="t", minus="a")
    one, other = ledger(model, TEXT, token="t"), ledger(model, TEXT, token="a")
    for term, a, b in zip(both.terms, one.terms, other.terms, strict=True):
        assert term.value == pytest.approx(a.value - b.value, abs=1e-9)


def test_a_head_switched_off_loses_what_the_ledger_says(model: Model):
    """The ledger's term is causal where nothing comes after it: a head of the last layer, the norm held."""
    opened = ledger(model, TEXT, token="t")
    name = "layers.2.head.1"
    term = next(t for t in opened.terms if t.name == name)

    def off(z: torch.Tensor) -> torch.Tensor:
        z = z.clone()
        z[:, 1] = 0
        return z

    mlp = record(model, TEXT, "layers.2.mlp_out")["layers.2.mlp_out"]
    final = record(model, TEXT, "layers.2.resid_post")["layers.2.resid_post"]
    edited = replace(model, TEXT, {"layers.2.attn.z": off, "layers.2.mlp_out": mlp}, "layers.2.resid_post")
    change = (final - edited["layers.2.resid_post"])[0, -1].double()
    scale = (final[0, -1].double().square().mean() + 1e-6).rsqrt()
    network = model.network
    assert isinstance(network, Decoder)
    read = network.lm_head.weight[model.tokenizer.id("t")].double() * network.norm.weight.double()  # pyright: ignore
    assert float((change @ read * scale).detach()) == pytest.approx(term.value, abs=1e-5)


def test_a_leaf_and_a_wrong_name_are_named(model: Model):
    opened = ledger(model, TEXT)
    with pytest.raises(InputError, match="embed is a leaf"):
        opened.expand("embed")
    with pytest.raises(InputError, match=r"did you mean layers\.1\.mlp"):
        opened.expand("layers.1.mpl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": 11}, "position 11 is outside the text of 11 tokens"),
        ({"token": "th"}, "not one token"),
        ({"token": 9999}, "must lie in 0"),
    ],
)
def test_what_cannot_be_opened_is_named(model: Model, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        ledger(model, TEXT, **options)


def test_too_large_a_recording_is_refused_before_the_run(model: Model):
    with pytest.raises(InputError, match=r"takes .* MB, above the limit"):
        record(model, TEXT, limit=1000)
    with pytest.raises(InputError, match="the text is empty"):
        record(model, "")


def test_recurrent_models_say_what_they_lack():
    tokenizer = train_tokenizer([TEXT * 5], "char", 300)
    recurrent = Model(Recurrent(RecurrentConfig(tokenizer.vocab_size, width=8, hidden=8)), tokenizer)
    with pytest.raises(ConfigError, match="no attention"):
        attention(recurrent, TEXT)
    with pytest.raises(ConfigError, match="residual stream"):
        logit_lens(recurrent, TEXT)
    assert len(surprisal(recurrent, TEXT).tokens) == len(TEXT)
