"""Interchange on a network whose circuit was set by hand: (a and b) xor c, with "a and b" in one direction."""

import itertools
from typing import Any

import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp import interchange
from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.tokenizers import Tokenizer

NAME = "layers.0.resid_post"
BITS = list(itertools.product((0, 1), repeat=3))  # a token for each (a, b, c); tokens 8 and 9 are the answers 0 and 1


def boolean(tokenizer: Tokenizer, seed: int = 0) -> tuple[Model, torch.Tensor]:
    """The network, and the direction in which its first layer writes "a and b"."""
    width = 12
    config = DecoderConfig(
        16, context=4, layers=2, width=width, heads=1, gated=False, activation="relu", mlp_bias=True, qk_norm=False,
        tied=False, mlp_width=4, norm_eps=1e-12,
    )  # fmt: skip
    network = Decoder(config).double().eval()
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed)).double()).Q
    blocks: Any = network.blocks
    a, b, c, both, answer, one = turn.T[:6]  # orthonormal directions
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for token, (x, y, z) in enumerate(BITS):
            bits = [(2 * x - 1) * a, (2 * y - 1) * b, (2 * z - 1) * c]
            network.embed_tokens.weight[token] = torch.stack(bits).sum(0) + one
        first, second = (block.mlp for block in blocks)
        for block in blocks:
            for norm in block.norms:
                if norm is not None:
                    norm.weight.fill_(1.0)
        network.norm.load_state_dict({"weight": torch.ones(width)})
        # the norm divides a sum of four (then five) orthonormal directions by sqrt(4 / 12) (then sqrt(5 / 12))
        before, after = (4 / width) ** 0.5, (5 / width) ** 0.5
        first.up_proj.weight[0] = (a + b) * before
        first.up_proj.bias[0] = -1.0
        first.down_proj.weight[:, 0] = 2 * both
        first.down_proj.bias[:] = -both  # +1 if both, else -1
        for i, sign in enumerate((1.0, -1.0)):
            second.up_proj.weight[i] = sign * (both - c) * after
            second.up_proj.bias[i] = -1.0
            second.down_proj.weight[:, i] = 2 * answer
        second.down_proj.bias[:] = -answer
        network.lm_head.weight[9], network.lm_head.weight[8] = answer, -answer
    return Model(network, tokenizer, "a boolean circuit"), both[:, None]


def pairs() -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Every text with every donor of the other "a and b", and as many of the same: expected are both as often."""
    texts, donors, expected = [], [], []
    for (i, base), (j, donor) in itertools.product(enumerate(BITS), enumerate(BITS)):
        both = (base[0] and base[1], donor[0] and donor[1])
        if both[0] == both[1] and (i + 3 * j) % 2:
            continue
        texts.append([i])
        donors.append([j])
        expected.append(8 + (both[1] ^ base[2]))
    return texts, donors, expected


def test_the_circuit_computes_what_it_should(tokenizer: Tokenizer):
    model, _ = boolean(tokenizer)
    said = model.network(torch.arange(8)[:, None])[:, -1].argmax(-1)
    assert said.tolist() == [8 + ((x & y) ^ z) for x, y, z in BITS]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_aligned_direction_is_the_variable_and_random_ones_are_not(tokenizer: Tokenizer, seed: int):
    model, aligned = boolean(tokenizer, seed)
    found = interchange(model, *pairs(), NAME, subspace=aligned, seed=seed)
    shares = dict(zip(found["numbers"].column("exchanged"), found["numbers"].column("share"), strict=True))
    assert found.figures["accuracy"] == 1.0
    assert shares["the whole activation"] < 0.75  # brings the donor's c along
    assert shares["nothing exchanged"] < 0.65
    assert shares["10 random subspaces"] < 0.65
    assert shares["arbitrary answers"] < 0.75
    assert shares["the untrained model"] < 0.75


def test_the_search_finds_the_direction_and_warns(tokenizer: Tokenizer):
    model, aligned = boolean(tokenizer)
    found = interchange(model, *pairs(), NAME, subspace=1, train=0.6, steps=60, random=2)
    assert found.figures["accuracy"] == 1.0
    # a and b themselves lie beside their conjunction, so directions near it do as well
    assert float((found.subspace.T @ aligned).abs()) > 0.6
    assert any("can be made to fit" in note for note in found.notes)
    shares = dict(zip(found["numbers"].column("exchanged"), found["numbers"].column("share"), strict=True))
    assert shares["arbitrary answers, searched anew"] < 0.85
    assert shares["the untrained model"] < 0.85


def test_an_exchange_with_itself_changes_nothing(model: Model):
    texts = ["the cat", "a cat sat", "sat"]
    said = [int(model.logits(text)[0, -1].argmax()) for text in texts]
    found = interchange(model, texts, texts, said, "layers.1.resid_post", untrained=False)
    assert found.figures["accuracy"] == 1.0
    assert found.said.tolist() == said


def test_a_whole_exchange_of_the_last_stream_gives_the_donors_answer(model: Model, recurrent: Model):
    for speaker, name in ((model, "layers.2.resid_post"), (recurrent, "layers.1.hidden")):
        texts, donors = ["the cat", "a cat sat"], ["sat the", "the"]
        said = [int(speaker.logits(text)[0, -1].argmax()) for text in donors]
        assert interchange(speaker, texts, donors, said, name, untrained=False).figures["accuracy"] == 1.0


def test_what_an_interchange_refuses(model: Model):
    texts = ["the cat", "a cat"]
    with pytest.raises(InputError, match="as many donors"):
        interchange(model, texts, texts[:1], ["a", "b"], NAME)
    with pytest.raises(ConfigError, match="exactly one"):
        interchange(model, texts, texts, ["a", "t"], "layers.*.resid_post")
    with pytest.raises(ConfigError, match="belongs to heads"):
        interchange(model, texts, texts, ["a", "t"], "layers.0.attn.z")
    with pytest.raises(ConfigError, match="has 32 channels"):
        interchange(model, texts, texts, ["a", "t"], NAME, subspace=torch.ones(8, 1))
    with pytest.raises(ConfigError, match=r"must be 1 … 32 directions"):
        interchange(model, texts, texts, ["a", "t"], NAME, subspace=40)
