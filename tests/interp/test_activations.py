"""Trees of parameters and activations with their strips, and the numbers of one activation."""

import math
from typing import Any

import pytest
import torch
from every_kind import SOURCE, TEXT, given, made

from cutaway.errors import ConfigError, InputError
from cutaway.interp import Tensors, activation, activations, ledger, parameters, record
from cutaway.models import Model
from cutaway.tokenizers import Tokenizer, train_tokenizer

SOME = ["llama", "experts", "bert", "t5", "whisper", "encoder of texts", "gru"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([(TEXT + SOURCE) * 3], "char", 300)


@pytest.fixture(scope="module", params=SOME)
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Model:
    return made(request.param, tokenizer)


def leaves(listed: Tensors, below) -> list:
    found = []
    for entry in listed.entries:
        found += [entry] if entry.tensor else leaves(below(entry.name), below)
    return found


def test_the_tree_of_parameters_holds_every_tensor_once(model: Model):
    state = dict(model.network.state_dict())
    if getattr(model.config, "tied", False) and "lm_head.weight" in state:
        del state["lm_head.weight"]
    root = parameters(model)
    found = leaves(root, lambda branch: parameters(model, branch=branch))
    assert {entry.name: tuple(entry.shape) for entry in found} == {k: tuple(v.shape) for k, v in state.items()}
    assert sum(entry.count for entry in root.entries) == sum(v.numel() for v in state.values())


def test_strips_are_root_mean_squares_of_rows_and_columns(tokenizer: Tokenizer):
    model = made("llama", tokenizer)
    listed = parameters(model, branch="layers.1.mlp")
    names = [entry.name for entry in listed.entries]
    assert names == [f"layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
    weight = dict(model.network.named_parameters())[names[2]].detach().float()
    cells = [part.square().mean().sqrt() for part in weight.tensor_split(64, dim=1)]
    torch.testing.assert_close(listed.by_column[names[2]], torch.stack(cells))
    torch.testing.assert_close(listed.by_row[names[2]], weight.square().mean(1).sqrt())
    assert listed.entries[2].size == pytest.approx(float(weight.square().mean().sqrt()), rel=1e-5)
    assert all(len(strip) <= 64 for strip in [*listed.by_row.values(), *listed.by_column.values()])
    norm = parameters(model, branch="layers.1").by_column["layers.1.input_layernorm.weight"]
    torch.testing.assert_close(
        norm, dict(model.network.named_parameters())["layers.1.input_layernorm.weight"].abs().float()
    )


def test_an_unknown_branch_is_named_with_near_ones(tokenizer: Tokenizer):
    model = made("llama", tokenizer)
    with pytest.raises(ConfigError, match=r"unknown branch 'layers.1.mpl'; did you mean layers.1.mlp"):
        parameters(model, branch="layers.1.mpl")
    with pytest.raises(ConfigError, match="unknown branch 'layer'"):
        activations(model, TEXT, branch="layer")


def test_the_tree_of_activations_holds_what_is_recorded(model: Model):
    recording = record(model, TEXT[:14], **given(model))
    found = leaves(activations(recording), lambda branch: activations(recording, branch=branch))
    assert {entry.name: tuple(entry.shape) for entry in found} == {k: tuple(v[0].shape) for k, v in recording.items()}


def test_every_activation_shows_its_numbers_which_its_ledger_opens(model: Model):
    recording = record(model, TEXT[:14], **given(model))
    for name in recording:
        shown = activation(recording, name=name, most=5)
        assert shown.values.shape == (len(shown.rows), len(shown.columns))
        row, column = shown.values.shape[0] - 1, shown.values.shape[1] - 1
        number = float(shown.values[row, column])
        options: dict[str, Any] = {} if shown.head is None else {"head": shown.head}
        options["token" if name == model.network.tap_names()[-1] else "index"] = column
        if math.isnan(number) or (name.endswith(("pattern", "router")) and not number):
            with pytest.raises(InputError):  # what is not seen, or not used
                ledger(recording, what=name, position=row, **options)
            continue
        number = math.log(number) if name.endswith(("pattern", "router")) else number
        opened = ledger(recording, what=name, position=row, **options)
        assert opened.total == pytest.approx(number, rel=1e-5, abs=1e-6), name


def test_a_heads_scores_leave_out_what_is_not_seen(tokenizer: Tokenizer):
    model = made("llama", tokenizer)
    shown = activation(model, TEXT, name="layers.0.attn.scores", head=1)
    assert shown.columns == shown.rows == list(TEXT)
    assert torch.equal(shown.values.isnan(), torch.ones(len(TEXT), len(TEXT)).triu(1).bool())
    assert (shown.head, shown.heads, shown.size) == (1, 4, len(TEXT))
    strip = activations(model, TEXT, branch="layers.0.attn").by_row["layers.0.attn.scores"]
    scores = record(model, TEXT)["layers.0.attn.scores"][0]
    first = float(scores[0, 0, 0].abs())  # of a head's first query, which sees itself alone
    assert len(strip) == 64
    assert len(TEXT) > 4 * len(TEXT) // 64 == 1  # the first cell holds two rows
    second = float(scores[0, 1, :2].square().mean())
    assert float(strip[0]) == pytest.approx(((first**2 + second) / 2) ** 0.5, rel=1e-5)


def test_numbers_are_shown_in_pieces(tokenizer: Tokenizer):
    model = made("llama", tokenizer)
    value = record(model, TEXT)["layers.0.mlp.post"][0]
    shown = activation(model, TEXT, name="layers.0.mlp.post", first=10, most=7)
    assert torch.equal(shown.values, value[:, 10:17].float())
    assert shown.columns == [str(i) for i in range(10, 17)]
    wrong: dict[str, Any]
    for wrong, message in (
        ({"name": "layers.0.mlp.pots"}, "did you mean layers.0.mlp.post"),
        ({"name": "embed", "head": 0}, "leave head out"),
        ({"name": "layers.0.attn.z", "head": 4}, "heads 0 … 3, but 4"),
        ({"name": "embed", "first": 32}, "32 numbers at a position"),
        ({"name": "embed", "most": 0}, "at least 1"),
    ):
        with pytest.raises((ConfigError, InputError), match=message):
            activation(model, TEXT, **wrong)
