"""Two texts in a row that do not see each other, beside the same network on each of them by itself."""

import dataclasses
from typing import Any

import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.generation import Engine
from cutaway.interp import ledger, occlusion, pair_of, patch_sweep, record
from cutaway.interp.inputs import Inputs
from cutaway.models import Model, build_network, load_model, save_model
from cutaway.models.config import EncoderConfig
from cutaway.models.heads import compared, pool
from cutaway.tokenizers import train_tokenizer
from cutaway.tokenizers.frame import frame_pair

BERT = {"norm_place": "sum", "position": "learned", "gated": False, "norm_bias": True, "token_types": 2,
        "head_activation": "none"}  # fmt: skip
MODERN = {"windows": (3, 0), "rotary_base_local": 100.0}
TEXTS = ["the cat sat", "a dog ran far away", "the dog", "and a cat"]


@pytest.fixture(scope="module", params=[BERT, MODERN], ids=["bert", "modern"])
def model(request: pytest.FixtureRequest) -> Model:
    tokenizer = train_tokenizer(TEXTS * 3, "bpe", 280)
    head = {"head": "sequence_classification", "labels": ("no", "yes"), "pooling": "mean", "apart": True}
    torch.default_generator.manual_seed(0)
    network = build_network(EncoderConfig(tokenizer.vocab_size, 64, 2, 32, 2, **head, **request.param))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Model(network.eval(), tokenizer)


@torch.no_grad()
def alone(model: Model, first: list[int], second: list[int]) -> torch.Tensor:
    """The logits, of each text read by a network that knows of no other."""
    config: Any = model.config
    fields = {"apart": False, "head": "none", "labels": ()}
    body = build_network(dataclasses.replace(model.config, **fields)).eval()
    weights = {k: v for k, v in model.network.state_dict().items() if not k.startswith("head.")}
    body.load_state_dict(weights)
    u, v = (pool(body(torch.tensor([ids])), None, config.pooling) for ids in (first, second))
    head: Any = model.network.head
    read = compared(u, v)
    if config.head_activation == "gelu":
        read = head.norm(torch.nn.functional.gelu(head.dense(read)))
    return head.out(read)[0]


def ids_of(model: Model, first: str, second: str) -> tuple[list[int], list[int]]:
    both = (model.tokenizer.encode(text) for text in (first, second))
    return frame_pair(model.tokenizer, *both, longest=64, apart=True)


@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (2, 2)])
def test_each_text_is_read_as_if_by_itself(model, pair):
    first, second = (TEXTS[i] for i in pair)
    expected = alone(model, model.tokenizer.encode(first), model.tokenizer.encode(second))
    ids, types = ids_of(model, first, second)
    (read,) = Engine(model).read([ids], types=[types]).results()
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(record(model, pair_of(model, first, second)).logits[0], expected, atol=1e-5, rtol=1e-5)


def test_pairs_of_different_lengths_in_one_batch(model):
    pairs = [(a, b) for a in TEXTS for b in TEXTS]
    made = [ids_of(model, a, b) for a, b in pairs]
    read = Engine(model).read([ids for ids, _ in made], types=[types for _, types in made]).results()
    for logits, (a, b) in zip(read, pairs, strict=True):
        expected = alone(model, model.tokenizer.encode(a), model.tokenizer.encode(b))
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    longest = max(len(ids) for ids, _ in made)
    ids = torch.tensor([one + [0] * (longest - len(one)) for one, _ in made])
    types = torch.tensor([kinds + [0] * (longest - len(kinds)) for _, kinds in made])
    mask = torch.arange(longest) < torch.tensor([len(one) for one, _ in made])[:, None]
    padded = model.network(ids, mask=mask, token_types=types)
    torch.testing.assert_close(padded, torch.stack(read), atol=1e-5, rtol=1e-5)


def test_it_can_be_looked_into(model):
    pair = pair_of(model, TEXTS[0], TEXTS[1])
    recording = record(model, pair)
    pattern = recording["layers.1.attn.pattern"][0]
    assert pair.token_types is not None
    border = int((pair.token_types[0] == 0).sum())
    assert float(pattern[:, :border, border:].abs().max()) == 0
    assert float(pattern[:, border:, :border].abs().max()) == 0
    assert recording["head.pooled"].shape == (1, 2 * model.config.width)
    assert recording.receipt.bytes == sum(v.numel() * v.element_size() for v in recording.values())
    found = occlusion(model, pair, token="yes", grain="word", replace="delete")
    assert found.value == pytest.approx(float(recording.logits[0, 1]), abs=1e-5)
    assert [token.strip() for token in found.tokens] == f"{TEXTS[0]} {TEXTS[1]}".split()
    other = pair_of(model, TEXTS[0], TEXTS[1])
    swept = patch_sweep(model, pair, Inputs(other.ids.flip(1), token_types=other.token_types))
    assert swept is not None


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_the_ledger_of_a_logit_adds_up_over_both_texts(model, pooling):
    config = dataclasses.replace(model.config, pooling=pooling)
    network = build_network(config)
    network.load_state_dict(model.network.state_dict())
    again = Model(network.eval(), model.tokenizer)
    pair = pair_of(again, TEXTS[0], TEXTS[1])
    opened = ledger(record(again, pair), token="yes")
    assert opened.error < 1e-5
    assert sum(term.name.startswith("token.") for term in opened.terms) == pair.ids.shape[1]
    largest = max((t for t in opened.terms if t.name.startswith("token.")), key=lambda term: abs(term.value))
    inner = opened.expand(largest)
    assert inner.error < 1e-5
    assert inner.total == pytest.approx(largest.value, abs=1e-5)


def test_it_is_saved_and_opened(model, tmp_path):
    pair = pair_of(model, TEXTS[0], TEXTS[1])
    save_model(model, tmp_path / "own")
    assert torch.equal(record(load_model(tmp_path / "own"), pair).logits, record(model, pair).logits)
    with pytest.raises(ConfigError, match="apart"):
        save_model(model, tmp_path / "other", "huggingface")


def test_what_is_no_pair_is_told(model):
    ids = torch.tensor([model.tokenizer.encode(TEXTS[1])])
    for types in (None, torch.zeros_like(ids), torch.ones_like(ids), torch.ones_like(ids).cumsum(1) % 2):
        with pytest.raises(InputError, match="token types"):
            model.network(ids, token_types=types)
    with pytest.raises(ConfigError, match="read apart by a head for sequence_classification"):
        EncoderConfig(300, apart=True)
