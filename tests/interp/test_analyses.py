"""Surprisal, the lens and attention against what they are defined by; what they refuse."""

import dataclasses
import math

import pytest
import torch

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp import attention, logit_lens, record, replace, surprisal
from cutaway.models import Model

TEXT = "the cat sat"


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
    assert dataclasses.replace(found, patterns=patterns).sharpest() == (2, 1)


def test_too_large_gradients_are_refused_before_the_run(model: Model):
    with pytest.raises(InputError, match=r"take .* MB, and their gradients as much, above the limit"):
        record(model, TEXT, limit=1000, gradients=True)
    with pytest.raises(InputError, match="the text is empty"):
        record(model, "")


def test_an_edited_recording_is_analysed_with_its_edits(model: Model):
    edited = replace(model, TEXT, {"layers.0.attn.pattern": lambda p: torch.ones_like(p).tril() / p.shape[-1]})
    assert torch.equal(attention(edited).patterns[0, 0], edited["layers.0.attn.pattern"][0, 0])
    lens = logit_lens(edited)
    top = edited.logits[0, -1].softmax(-1).max()
    assert lens.cells[-1][-1].top[0][1] == float(top)
    assert surprisal(edited).scores != surprisal(model, TEXT).scores


def test_habits_name_where_a_head_looks(model: Model):
    found = attention(model, TEXT)
    T = len(TEXT)
    patterns = torch.zeros(1, 4, T, T)
    patterns[0, 0] = torch.eye(T)
    patterns[0, 1, :, 0] = 1
    patterns[0, 2] = torch.eye(T).roll(-1, 1)
    patterns[0, 3] = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]
    ((itself, first, previous, others),) = dataclasses.replace(found, patterns=patterns).habits()
    assert (itself, first, previous) == (("itself", 1.0), ("first", 1.0), ("previous", 1.0))
    assert others[0] == "others"
    for layer, habits in enumerate(found.habits()):
        for head, (place, share) in enumerate(habits):
            if place == "itself":
                rows = found.patterns[layer, head].diagonal()[2:]
                assert share == pytest.approx(float(rows.mean()), rel=1e-5)


@pytest.mark.parametrize("text", ["t", "th"])
def test_the_shortest_texts_have_every_result(model: Model, text: str):
    assert len(attention(model, text).habits()) == 3
    assert len(logit_lens(model, text).cells[0]) == len(text)
    assert surprisal(model, text).scores[0] is None
    assert surprisal(model, "t").mean is None


def test_a_not_a_number_is_named_where_it_first_appears(model: Model):
    with torch.no_grad():
        model.network.layers[1].mlp.down_proj.weight[0, 0] = torch.nan  # pyright: ignore
    with pytest.raises(NonFinite, match=r"layers\.1\.mlp_out holds a NaN"):
        record(model, TEXT, "embed")
    with torch.no_grad():
        model.network.layers[1].mlp.down_proj.weight[0, 0] = 0  # pyright: ignore
    with pytest.raises(NonFinite, match=r"layers\.2\.attn\.z holds .* look at the edits"):
        replace(model, TEXT, {"layers.2.attn.z": lambda z: z / 0})


def test_an_edit_that_fails_leaves_the_model_as_it_was(model: Model):
    plain = model.logits(TEXT)
    model.network.train()
    with pytest.raises(ZeroDivisionError):
        replace(model, TEXT, {"layers.1.resid_pre": lambda x: x * (1 // 0)})
    with pytest.raises(ConfigError, match=r"the edit of layers\.1\.resid_pre gave shape"):
        replace(model, TEXT, {"layers.1.resid_pre": lambda x: x[:, :1]})
    assert model.network.training
    assert torch.equal(model.logits(TEXT), plain)


def test_recurrent_models_say_what_they_lack(recurrent: Model):
    with pytest.raises(ConfigError, match="no attention"):
        attention(recurrent, TEXT)
    with pytest.raises(ConfigError, match="residual stream"):
        logit_lens(recurrent, TEXT)
    assert len(surprisal(recurrent, TEXT).tokens) == len(TEXT)
