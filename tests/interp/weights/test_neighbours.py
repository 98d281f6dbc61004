"""Neighbours that were put beside a token are found there."""

import pytest
import torch
from kinds import SHAPES, letters, made

from cutaway.errors import ConfigError, InputError
from cutaway.interp import neighbours


def test_planted_neighbours_are_found():
    model = made("llama", letters())
    a, b, c = (model.tokenizer.id(letter) for letter in "cat")
    with torch.no_grad():
        weight = model.network.embed_tokens.weight
        weight[b] = 2 * weight[a] + 0.01 * torch.randn_like(weight[a])
        output = model.network.lm_head.weight  # pyright: ignore
        output[c] = output[a]
    found = neighbours(model, "c", top=3, centred=False)
    first = {row[1]: (row[3], row[5]) for row in found.rows if row[2] == 1}
    assert first["input"][0] == "a"
    assert first["input"][1] == pytest.approx(1, abs=1e-3)
    assert first["output"][0] == "t"
    assert first["output"][1] == pytest.approx(1, abs=1e-6)


def test_cosines_are_those_of_torch():
    model = made("gru", letters())
    found = neighbours(model, "s", embedding="input", top=5)
    vectors = model.network.embed_tokens.weight.detach().double()
    vectors = vectors - vectors[: model.tokenizer.vocab_size].mean(0)
    here = vectors[model.tokenizer.id("s")]
    for row in found.rows:
        expected = torch.nn.functional.cosine_similarity(here, vectors[int(row[4])], dim=0)  # pyright: ignore
        assert row[5] == pytest.approx(float(expected), abs=1e-9)
    values = [row[5] for row in found.rows]
    assert values == sorted(values, reverse=True)  # pyright: ignore
    assert not {row[4] for row in found.rows} & set(model.tokenizer.special.values())


def test_a_common_direction_is_taken_away_unless_told_otherwise():
    model = made("llama", letters())
    with torch.no_grad():
        model.network.embed_tokens.weight.add_(100)
    plain = neighbours(model, "c", embedding="input", centred=False)
    assert min(float(v) for v in plain.column("cosine")) > 0.99  # pyright: ignore
    assert max(float(v) for v in neighbours(model, "c", embedding="input").column("cosine")) < 0.9  # pyright: ignore


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_has_neighbours(shape: str):
    model = made(shape, letters())
    found = neighbours(model, "cat", top=2)
    tied = getattr(model.config, "tied", False)
    assert len(found.rows) == 3 * 2 * (1 if tied else 2)


def test_what_has_no_neighbours_is_refused():
    model = made("gpt2", letters())
    with pytest.raises(ConfigError, match="did you mean input"):
        neighbours(model, "c", embedding="inputs")
    with pytest.raises(InputError, match="top must be at least 1"):
        neighbours(model, "c", top=0)
    with pytest.raises(InputError, match="the text is empty"):
        neighbours(model, "")
    with pytest.raises(ConfigError, match="no output matrix"):
        neighbours(made("gpt2", letters(), head="none", tied=False), "c", embedding="output")
