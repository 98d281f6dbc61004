"""A decoder with another head than the next token's: what it makes, what padding changes, what it refuses."""

from typing import Any

import pytest
import torch

from cutaway import generate, record, replace
from cutaway.errors import ConfigError, InputError
from cutaway.interp import logit_lens, surprisal
from cutaway.models import DecoderConfig, Model, build_network, embed
from cutaway.models.config_parts import HEADS
from cutaway.models.heads import pool
from cutaway.tokenizers import Tokenizer, train_tokenizer

LABELS = {"labels": ("a", "b", "c")}
SHAPES: dict[str, dict[str, Any]] = {
    "texts": {"head": "sequence_classification", **LABELS, "tied": False},
    "means of texts": {"head": "sequence_classification", **LABELS, "pooling": "mean", "position": "learned"},
    "tokens": {"head": "token_classification", **LABELS, "norm": "layernorm", "windows": (4, 0)},
    "spans": {"head": "span_extraction", "parallel": True},
    "vectors": {"head": "embedding", "normalize": True},
    "states": {"head": "none", "tied": False},
}
TEXT = "the cat sat on the mat"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT * 3], "char", 300)


def made(tokenizer: Tokenizer, **fields: Any) -> Model:
    torch.manual_seed(0)
    network = build_network(DecoderConfig(tokenizer.vocab_size, 32, 2, 24, 2, **fields)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(network, tokenizer, "a test")


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Model:
    return made(tokenizer, **SHAPES[request.param])


def test_every_head_has_the_shape_it_states(model: Model):
    config, ids = model.config, torch.cat((model.ids(TEXT), model.ids(TEXT[::-1])))
    assert isinstance(config, DecoderConfig)
    sizes = {"B": 2, "T": ids.shape[1], "C": config.width, "V": config.vocab_size, "L": len(config.labels), "2": 2}
    stated = HEADS[config.head].rpartition("(")[2].removesuffix(")")
    assert model.network(ids).shape == tuple(sizes[letter] for letter in stated.split(", "))


@torch.no_grad()
def test_padding_on_either_side_changes_nothing(model: Model):
    network: Any = model.network.double()
    ids = model.ids(TEXT)
    alone, real, other = network(ids), torch.ones_like(ids, dtype=torch.bool), model.ids("tth")
    for side in (0, 1):
        padded, mask = ((ids, other), (real, real[:, :3] & False))
        padded, mask = (torch.cat(x if side else x[::-1], dim=1) for x in (padded, mask))
        found = network(padded, mask=mask)
        found = found[mask][None] if found.shape[:2] == padded.shape else found
        assert (found - alone).abs().max() < 1e-12


def test_every_activation_matters(model: Model):
    """Changing any place that is computed with changes what comes out; softmax alone ignores a constant."""
    for name in model.network.tap_names():
        generator = torch.Generator().manual_seed(1)
        changed = replace(model, TEXT, {name: lambda x, g=generator: x + torch.rand(x.shape, generator=g)})
        assert changed.receipt.difference > 1e-6, name


def test_what_predicts_the_next_token_says_that_it_cannot(model: Model):
    assert isinstance(model.config, DecoderConfig)
    has = "no head" if model.config.head == "none" else f"a head for {model.config.head}"
    recording = record(model, TEXT)
    for purpose, wants in {
        "generating": lambda: generate(model, TEXT),
        "surprisal": lambda: surprisal(recording),
        "the logit lens": lambda: logit_lens(recording),
    }.items():
        with pytest.raises(ConfigError, match=f"{purpose} needs a model that predicts .* decoder with {has}"):
            wants()


@torch.no_grad()
def test_only_what_reads_tokens_one_by_one_takes_a_cache(model: Model):
    network: Any = model.network
    ids, cache = model.ids(TEXT), network.new_cache(1)
    assert isinstance(model.config, DecoderConfig)
    if model.config.head in ("sequence_classification", "embedding"):
        with pytest.raises(InputError, match=f"a head for {model.config.head} reads a whole text at once"):
            network(ids, cache=cache)
        return
    parts = [network(part, cache=cache) for part in ids.split([5, 1, 16], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), network(ids), rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused(tokenizer: Tokenizer):
    with pytest.raises(ConfigError, match="needs the names of its labels"):
        made(tokenizer, head="token_classification")
    with pytest.raises(ConfigError, match="a head for causal_lm has none"):
        made(tokenizer, labels=("a",))
    with pytest.raises(ConfigError, match="longest must not be negative"):
        made(tokenizer, head="embedding", longest=-1)
    with pytest.raises(ConfigError, match="a test is a decoder with a head for causal_lm; embedding texts needs"):
        embed(made(tokenizer), [TEXT])
    assert made(tokenizer, head="none", logit_cap=5.0).config == made(tokenizer, head="none").config  # it caps nothing


def test_the_last_real_token():
    states = torch.tensor([[[1.0], [2.0], [3.0]]]).expand(4, 3, 1)
    real = torch.tensor([[True, True, True], [False, True, True], [True, True, False], [False, True, False]])
    assert pool(states, real, "last").flatten().tolist() == [3.0, 3.0, 2.0, 2.0]
    assert pool(states, real, "cls").flatten().tolist() == [1.0, 2.0, 1.0, 2.0]
    assert pool(states, None, "last").flatten().tolist() == [3.0] * 4
