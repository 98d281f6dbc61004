"""What may come next is the model's own probability, and what is left of it the sampler's."""

import math

import pytest
import torch
from kinds import TEXT, given, letters, made

from cutaway.errors import ConfigError, InputError
from cutaway.generation import Sampling, distribution
from cutaway.interp import chances, record, surprisal, tokens_of, written
from cutaway.models import Model

NARROWED = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.5},
    {"temperature": 1.7, "top_k": 7},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"temperature": 1.3, "top_k": 12, "top_p": 0.8, "min_p": 0.05},
]


@pytest.fixture(scope="module")
def model() -> Model:
    return made("qwen3", letters())


@pytest.mark.parametrize("shape", ["qwen3", "gemma", "gru", "lstm", "t5", "bart", "whisper"])
def test_the_probabilities_are_the_models_and_the_samplers(shape: str):
    model = made(shape, letters())
    V = model.config.vocab_size
    logits = model.logits(TEXT, **given(model))[0, 4]
    for how in NARROWED:
        found = chances(model, TEXT, position=4, shown=V, **how, **given(model))
        ids = [one.id for one in found.candidates]
        assert sorted(ids) == list(range(V))
        assert [one.logit for one in found.candidates] == logits[ids].tolist()
        assert [one.share for one in found.candidates] == pytest.approx(
            logits.double().softmax(-1)[ids].tolist(), abs=1e-12
        )
        left = distribution(logits, Sampling(**{"temperature": 1.0, **how}))
        assert [one.left for one in found.candidates] == pytest.approx(left[ids].tolist(), abs=1e-7)
        assert {one.id for one in found.candidates if one.dropped is None} == set(left.nonzero()[:, 0].tolist())
        assert found.others == pytest.approx(0, abs=1e-12)
        assert found.entropy == pytest.approx(
            float(torch.special.entr(logits.double().softmax(-1)).sum()) / math.log(2)
        )
        assert found.came is not None
        assert found.came.id == int(model.ids(TEXT)[0, 5])


def test_each_step_says_how_many_it_leaves(model: Model):
    found = chances(model, TEXT, shown=100, **NARROWED[-1])
    counts = {step.name: step.kept for step in found.steps}
    assert counts["temperature"] == model.config.vocab_size > counts["top_k"] == 12
    assert 12 > counts["top_p"] >= counts["min_p"] >= 1
    dropped = {step: sum(one.dropped == step for one in found.candidates) for step in ("top_p", "min_p")}
    assert dropped == {"top_p": 12 - counts["top_p"], "min_p": counts["top_p"] - counts["min_p"]}
    assert sum(one.left for one in found.candidates) == pytest.approx(1)
    assert found.came is None
    cold = chances(model, TEXT, temperature=0.0)
    assert (cold.candidates[0].left, cold.entropy_left, cold.steps[-1].kept) == (1.0, 0.0, 1)
    assert cold.candidates[1].dropped == "temperature"


def test_other_options_need_no_other_run(model: Model):
    first = chances(model, TEXT, position=3)
    for how in NARROWED:
        moved, anew = first.under(**how), chances(model, TEXT, position=3, **how)
        assert moved.candidates == anew.candidates
        assert moved.steps == anew.steps
        assert moved.receipt.code == anew.receipt.code
    assert len(first.under(shown=5).candidates) == 5
    with pytest.raises(ConfigError, match="top_p must be above 0"):
        first.under(top_p=0.0)
    with pytest.raises(ConfigError, match="1 … 500 candidates"):
        first.under(shown=0)


def test_chances_of_a_recording_are_those_of_its_run(model: Model):
    recording = record(model, TEXT)
    assert chances(recording, position=2).candidates == chances(model, TEXT, position=2).candidates


def test_an_encoder_is_asked_what_stands_in_a_gap():
    model = made("bert", letters())
    ids = model.ids(TEXT)[0]
    found = chances(model, TEXT, position=6, masked=True, shown=5)
    hidden = ids.clone()
    assert model.tokenizer.mask is not None
    hidden[6] = model.tokenizer.mask
    assert found.ids == hidden.tolist()
    shares = model.logits(hidden)[0, 6].double().softmax(-1)
    assert [one.share for one in found.candidates] == pytest.approx(shares.topk(5).values.tolist(), abs=1e-6)
    assert found.came is not None
    assert found.came.id == int(ids[6])
    bits = surprisal(model, TEXT, masked=True).scores[6]
    assert bits is not None
    assert -math.log2(found.came.share) == pytest.approx(bits, abs=1e-4)
    with pytest.raises(ConfigError, match="masked=True asks"):
        chances(model, TEXT)
    with pytest.raises(ConfigError, match="leave it out"):
        chances(made("gru", letters()), TEXT, masked=True)
    with pytest.raises(InputError, match="position 99"):
        chances(model, TEXT, position=99, masked=True)


@pytest.mark.parametrize(("shape", "masked"), [("qwen3", False), ("gru", False), ("t5", False), ("modernbert", True)])
def test_tokens_have_their_bytes_and_their_surprise(shape: str, masked: bool):
    model = made(shape, letters())
    found = tokens_of(model, TEXT, masked=masked, **given(model))
    old = surprisal(model, TEXT, masked=masked, **given(model))
    assert (found.tokens, found.ids) == (old.tokens, old.ids)
    assert found.mean == pytest.approx(old.mean, abs=1e-9)
    tokenizer = model.tokenizer
    spelled = [bytes.fromhex(one) for one, special in zip(found.spelled, found.special, strict=True) if not special]
    assert b"".join(spelled).decode() == TEXT
    assert found.bytes == len(TEXT)
    assert [tokenizer.token_bytes(id).hex(" ") for id in found.ids] == found.spelled
    known = [bits for bits in found.scores if bits is not None]
    assert found.perplexity == pytest.approx(2 ** (sum(known) / len(known)))
    assert found.bits_per_byte == pytest.approx(sum(known) / len(known))  # a letter is a byte
    if not masked:
        row = model.logits(TEXT, **given(model))[0, 4]
        assert found.ranks[5] == int((row > row[found.ids[5]]).sum()) + 1
        assert found.entropies[5] == pytest.approx(
            float(torch.special.entr(row.double().softmax(-1)).sum()) / math.log(2)
        )
    assert bool(found.source) == ("source" in given(model))


def test_tokens_are_shown_of_models_that_name_none():
    for shape, fields in (("bert", {}), ("qwen3", {"head": "sequence_classification", "labels": ("a", "b")})):
        found = tokens_of(made(shape, letters(), **fields), TEXT)
        assert set(found.scores) == {None}
        assert found.perplexity is None
    with pytest.raises(ConfigError, match="names tokens"):
        tokens_of(made("bert", letters(), head="none"), TEXT, masked=True)


def test_what_was_written_has_the_surprise_that_it_was(model: Model):
    made_ = model.generate(TEXT, max_new_tokens=6, seed=4, temperature=1.0)
    found = written(model, made_, temperature=1.0)
    assert found.ids == made_.ids
    whole = surprisal(model, [*model.ids(TEXT)[0].tolist(), *made_.ids])
    assert found.scores == pytest.approx(whole.scores[-6:], abs=1e-4)
    scope: dict = {"cutaway": None}
    code = found.receipt.code.replace("import cutaway\n", "").replace(f"cutaway.load_model({model.source!r})", "given")
    exec(code, scope | {"given": model}, scope)  # noqa: S102 (our own)
    assert scope["result"].ids == found.ids
    assert found.receipt.seed == 4
