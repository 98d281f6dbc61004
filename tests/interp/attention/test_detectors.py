"""Heads that are known by construction are found, by shape and by effect; a head that cheats is not."""

import math

import pytest
import torch
from by_hand import alphabet, induction, repeat
from kinds import TEXT, given, letters, made

from cutaway.errors import ConfigError, InputError
from cutaway.interp import Panel, head_detectors, head_scores, record, repeated_tokens, replace
from cutaway.interp.attention import detectors
from cutaway.interp.attention.detectors import head_effects
from cutaway.interp.attention.parts import heads_of
from cutaway.interp.attention.repeats import exam_of_repeats


@pytest.mark.parametrize("beta", [2.0, 5.0, 10.0])
def test_an_induction_head_by_hand_looks_as_the_formula_says(beta: float):
    model = induction(beta)
    for seed in range(3):
        prefix, size = 4 + seed, 12
        ids = repeat(model.tokenizer, begin=True, prefix=prefix, size=size, seed=seed)
        seen = record(model, ids, ["layers.1.attn.pattern", "logits"])
        again = range(1 + prefix + size, ids.shape[1])
        for t in again:
            expected = math.exp(beta) / (math.exp(beta) + t)
            assert float(seen["layers.1.attn.pattern"][0, 0, t, t - size + 1]) == pytest.approx(expected, abs=1e-12)
        said = seen["logits"][0].argmax(-1)
        assert [int(said[t]) for t in again[:-1]] == ids[0, again.start + 1 :].tolist()


def test_without_a_first_token_the_attention_is_split():
    model = induction(20.0)
    ids = repeat(model.tokenizer, begin=False, prefix=0, size=10, seed=0)
    pattern = record(model, ids, "layers.1.attn.pattern")["layers.1.attn.pattern"][0, 0]
    assert pattern[10, :2].tolist() == pytest.approx([0.5, 0.5], abs=1e-6)


def test_detectors_find_the_heads_that_were_built():
    model = induction(10.0)
    found = head_detectors(model, rows=4, seed=1)
    scores = {name: found[name].values[:, 0].tolist() for name in ("previous", "induction", "duplicate", "effect")}  # pyright: ignore[reportAttributeAccessIssue]
    assert scores["previous"][0] > 0.999
    assert scores["previous"][1] < 0.1
    assert scores["induction"][1] > 0.99
    assert scores["induction"][0] < 0.01
    assert max(scores["duplicate"]) < 0.05
    assert found.figures["bits of repeated tokens"] < 1e-6
    assert found.figures["bits of new tokens"] > 3
    # without either of the two the repetition tells nothing
    assert min(scores["effect"]) > 3
    best = {row[0]: row[1] for row in reversed(found["best heads"].rows)}  # pyright: ignore[reportAttributeAccessIssue]
    assert (best["previous"], best["induction"]) == ("0.0", "1.0")


def test_a_head_of_one_layer_that_matches_tokens_says_nothing_of_what_comes():
    model = induction(10.0)
    with torch.no_grad():  # the second layer looks for its token among the tokens
        matrix = model.network.blocks[1].self_attn.k_proj.weight  # pyright: ignore
        V = model.config.vocab_size
        matrix.zero_()
        matrix[:V, :V] = torch.eye(V).double()
    ids = repeat(model.tokenizer, begin=True, prefix=3, size=12, seed=0)
    said = record(model, ids, "logits")["logits"][0].argmax(-1)
    again = range(16, ids.shape[1] - 1)
    assert not any(int(said[t]) == int(ids[0, t + 1]) for t in again)
    found = head_detectors(model, rows=4, seed=1)
    assert float(found["induction"].values.max()) < 0.05  # pyright: ignore[reportAttributeAccessIssue]


def test_a_head_that_looks_so_far_back_always_is_no_induction_head():
    model = induction(1.0)
    ids = repeated_tokens(model, rows=64, seed=0)
    T = ids.shape[1]
    fixed = torch.eye(T).roll(-11, 1).tril()[None, None].expand(64, 1, T, T)  # eleven tokens back
    assert float(head_scores([fixed], ids)["induction"]) < 0.15
    same = torch.cat([repeat(model.tokenizer, begin=True, prefix=3, size=12, seed=s) for s in range(8)])
    T = same.shape[1]
    fixed = torch.eye(T).roll(-11, 1).tril()[None, None].expand(8, 1, T, T)
    assert float(head_scores([fixed], same)["induction"]) == 1.0  # what a fixed distance would have said


def test_rows_have_one_repetition_and_differ():
    model = induction(1.0)
    ids = repeated_tokens(model, rows=32, seed=3)
    assert torch.equal(ids, repeated_tokens(model, rows=32, seed=3))
    assert not torch.equal(ids, repeated_tokens(model, rows=32, seed=4))
    distances = set()
    for row in ids.tolist():
        assert row[0] == model.tokenizer.end_of_text
        found = {j - i for i in range(len(row)) for j in range(i + 1, len(row)) if row[i] == row[j]}
        assert len(found) == 1
        distances |= found
    assert len(distances) > 10
    with pytest.raises(InputError, match="8 … 48"):
        repeated_tokens(model, length=49)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma"])
@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_effects_in_batches_are_those_one_by_one(shape: str, ablation: str, monkeypatch: pytest.MonkeyPatch):
    model = made(shape, alphabet())
    model.network.double()
    heads = heads_of(model)
    exam, _ = exam_of_repeats(model, rows=3, length=20, seed=0)
    together = head_effects(model, heads, exam, ablation=ablation)
    monkeypatch.setattr(detectors, "LOGITS", 1)  # a head at a time
    torch.testing.assert_close(head_effects(model, heads, exam, ablation=ablation), together)
    ids = exam.inputs.ids
    plain = record(model, ids, ["logits", "layers.1.attn.z"])

    def loss(logits: torch.Tensor) -> float:
        wanted = logits.double().log_softmax(-1).gather(-1, exam.targets[..., None])[..., 0]
        return -float(wanted[exam.asked].mean()) / math.log(2)

    def without(z: torch.Tensor) -> torch.Tensor:
        z = z.clone()
        z[:, 2] = 0 if ablation == "zero" else plain["layers.1.attn.z"][:, 2].mean((0, 1))
        return z

    edited = replace(model, ids, {"layers.1.attn.z": without}, "logits")
    expected = loss(edited["logits"]) - loss(plain["logits"])
    assert float(together[1, 2]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", ["bert", "modernbert"])
def test_an_encoder_is_asked_for_gaps(shape: str):
    model = made(shape, alphabet(), head="masked_lm")
    found = head_detectors(model, rows=4, length=24)
    assert {"previous", "next", "last", "effect"} <= set(found.parts)
    assert found["previous"].values.shape[0] == model.config.layers  # pyright: ignore[reportAttributeAccessIssue]
    assert float(found["effect"].values.abs().max()) > 1e-3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("part", ["decoder", "encoder", "cross"])
def test_an_encoder_decoder_is_looked_at_part_by_part(part: str):
    model = made("t5", letters())
    found = head_detectors(model, TEXT, part=part, **given(model))
    assert ("same place" in found.parts) == (part == "cross")
    layers = 3 if part == "encoder" else 2
    assert found["induction"].values.shape == (layers, 3)  # pyright: ignore[reportAttributeAccessIssue]
    assert float(found["effect"].values.abs().max()) > 1e-3  # pyright: ignore[reportAttributeAccessIssue]


def test_cross_attention_that_copies_scores_as_such():
    target, source = torch.tensor([[9, 3, 5, 7]]), torch.tensor([[3, 5, 7, 2]])
    copies = torch.tensor([[0, 0, 0, 1.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])[None, None]
    scores = head_scores([copies], target, source, part="cross")
    assert float(scores["induction"]) == 1.0
    assert float(scores["duplicate"]) == 0.0
    assert float(scores["last"]) == 0.5


def test_a_text_without_repetition_says_so():
    model = made("qwen3", letters())
    found = head_detectors(model, "the c", causal=False)
    assert isinstance(found, Panel)
    assert any("no place" in note and "duplicate" in note for note in found.notes)
    assert math.isnan(float(found["duplicate"].values[0, 0]))  # pyright: ignore[reportAttributeAccessIssue]
    assert "effect" not in found.parts


def test_what_cannot_be_looked_at_is_refused():
    letters_ = letters()
    with pytest.raises(ConfigError, match="a recurrent model has no attention"):
        head_detectors(made("gru", letters_))
    with pytest.raises(InputError, match="give a text and its source"):
        head_detectors(made("t5", letters_))
    with pytest.raises(ConfigError, match="did you mean mean"):
        head_detectors(made("qwen3", letters_), ablation="meen")
    with pytest.raises(ConfigError, match="has no part 'cross'"):
        head_detectors(made("qwen3", letters_), part="cross")
    with pytest.raises(ConfigError, match="unknown part"):
        head_detectors(made("t5", letters_), TEXT, part="decodr", **given(made("t5", letters_)))
