"""Recording: batches, padding, gradients, files, and what is refused."""

import gc
from pathlib import Path

import pytest
import torch

from cutaway.errors import ConfigError, DamagedFile, InputError, NonFinite
from cutaway.interp import inputs_of, open_spill, record, replace, target_of
from cutaway.models import ActiveTap, Decoder, Model, Recurrent

TEXTS = ["the cat sat", "the", "cat sat"]
OVER_TWO = ("attn.q", "attn.k", "attn.v", "attn.z")


@pytest.fixture(params=["decoder", "recurrent"])
def either(request: pytest.FixtureRequest, model: Model, recurrent: Model) -> Model:
    return model if request.param == "decoder" else recurrent


@pytest.mark.parametrize("pad", ["right", "left"])
def test_a_padded_batch_gives_what_its_texts_give(either: Model, pad):
    if isinstance(either.network, Recurrent) and pad == "left":
        with pytest.raises(ConfigError, match="padding before a text would enter"):
            record(either, TEXTS, pad=pad)
        return
    both = record(either, TEXTS, pad=pad)
    for row, text in enumerate(TEXTS):
        alone, count = record(either, text), len(text)
        start = 0 if pad == "right" else 11 - count
        for name, value in alone.items():
            over = 1 if name.endswith(OVER_TWO) else 0
            found = both[name][row]
            if name.endswith(("scores", "pattern")):
                found = found[:, start : start + count, start : start + count]
            else:
                found = found.narrow(over, start, count)
            torch.testing.assert_close(found, value[0], rtol=1e-5, atol=1e-5)


def test_positions_are_counted_in_each_text(model: Model):
    for pad in ("right", "left"):
        inputs = inputs_of(model, TEXTS, pad=pad)
        assert inputs.places(-1).tolist() == ([10, 2, 6] if pad == "right" else [10, 10, 10])
        assert inputs.places(1).tolist() == ([1, 1, 1] if pad == "right" else [1, 9, 5])
        with pytest.raises(InputError, match="position 3 is outside the text of 3 tokens"):
            inputs.places(3)


def test_gradients_are_those_of_finite_differences(either: Model):
    either.network.double()
    text, token = "the cat sat", either.tokenizer.id("a")
    inputs = inputs_of(either, text)
    target = target_of(either, inputs, token=token, minus="t", position=5, quantity="logprob")
    names = [name for name in either.network.tap_names() if not name.endswith("scores")]
    recording = record(either, text, names, gradients=target)
    assert recording.gradients is not None
    assert recording.receipt.difference < 1e-12
    generator = torch.Generator().manual_seed(0)
    for name, value in recording.items():
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if name == "logits":
            direction[:, 6:] = 0

        def moved(step: float, name: str = name, direction: torch.Tensor = direction) -> float:
            edit = {name: lambda x: x + step * direction}
            logits = either.network(inputs.ids, tap=ActiveTap(edits=edit))
            return float(target(logits, inputs)[0].detach())

        slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
        expected = float((recording.gradients[name] * direction).sum())
        if isinstance(either.network, Decoder):
            assert slope == pytest.approx(expected, rel=1e-5, abs=1e-8), name
        else:  # inside a recurrence an edit is asked at every step, with what was computed there
            assert slope == pytest.approx(expected, rel=1e-4, abs=1e-7), name


def test_gradients_of_the_likeliest_answer_by_default(model: Model):
    recording = record(model, "the cat sat", "embed", gradients=True)
    assert recording.target is not None
    assert recording.target.chosen == int(recording.logits[0, -1].argmax())
    assert recording.gradients is not None
    assert recording.gradients["embed"].abs().max() > 0
    edited = replace(model, "the cat sat", {"layers.2.mlp_out": torch.zeros(())}, "embed", gradients=True)
    assert edited.gradients is not None
    assert not torch.allclose(edited.gradients["embed"], recording.gradients["embed"])


def test_above_the_limit_it_goes_to_files(model: Model, tmp_path: Path):
    plain, notes = record(model, "the cat sat"), []
    spilled = record(model, "the cat sat", limit=1000, on_note=notes.append)
    assert "above the limit: they go to memory-mapped files" in notes[0]
    assert list(spilled) == list(plain)
    assert all(torch.equal(spilled[name], plain[name]) for name in plain)
    assert torch.equal(spilled.logits, plain.logits)
    assert spilled.receipt.bytes == plain.receipt.bytes
    folder = spilled._values.folder  # pyright: ignore[reportAttributeAccessIssue]
    assert folder.is_dir()
    del spilled
    gc.collect()
    assert not folder.exists()

    kept = record(model, "the cat sat", "layers.*.resid_post", spill=tmp_path / "kept")
    again = open_spill(tmp_path / "kept")
    assert list(again) == list(kept)
    assert all(torch.equal(again[name], plain[name]) for name in again)
    with pytest.raises(InputError, match="kept holds something already; name a new folder"):
        record(model, "the cat", spill=tmp_path / "kept")
    path = tmp_path / "kept" / "layers.0.resid_post.bin"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DamagedFile, match="does not hold 1 x 11 x 32 numbers of float32"):
        open_spill(tmp_path / "kept")


def test_bfloat16_goes_to_files_as_it_is(model: Model, tmp_path: Path):
    model.network.bfloat16()
    kept = record(model, "the cat sat", spill=tmp_path / "kept")
    plain = record(model, "the cat sat")
    again = open_spill(tmp_path / "kept")
    assert all(value.dtype == torch.bfloat16 and torch.equal(value, plain[name]) for name, value in again.items())
    assert kept.receipt.bytes == plain.receipt.bytes


def test_a_broken_weight_is_named_wherever_it_stands(model: Model):
    network = model.network
    assert isinstance(network, Decoder)
    with torch.no_grad():
        network.blocks[1].mlp.up_proj.weight[0, 0] = torch.nan  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
    with pytest.raises(NonFinite, match=r"layers\.1\.mlp\.post holds a NaN"):
        record(model, "the cat sat", "embed")
    with pytest.raises(NonFinite, match=r"layers\.1\.mlp\.post holds a NaN"):
        record(model, "the cat sat", "embed", gradients=True)


def test_what_is_wrong_is_said(model: Model):
    with pytest.raises(ConfigError, match="a source is for an encoder–decoder"):
        record(model, "the", source="cat")
    with pytest.raises(InputError, match="empty"):
        record(model, ["the", ""])
    with pytest.raises(InputError, match="this model sees 64 at once"):
        record(model, "the cat sat" * 9)
    inputs = inputs_of(model, "the cat")
    with pytest.raises(ConfigError, match="unknown quantity 'logits'; did you mean logit"):
        target_of(model, inputs, quantity="logits")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="position 7 is outside the text of 7 tokens"):
        target_of(model, inputs, position=7)
