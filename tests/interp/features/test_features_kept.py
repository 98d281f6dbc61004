"""Dictionaries in a folder by their names, and all features of one at a glance."""

from pathlib import Path

import pytest
import torch

from cutaway.errors import InputError
from cutaway.interp import feature_overview
from cutaway.interp.features import open_features, stored_features, train_features
from cutaway.interp.samples import samples_of
from cutaway.models import Model

TEXTS = ["the cat sat", "sat the cat", "the sat", "cat the cat sat the", "a cat sat"]


def test_what_is_kept_is_found_by_its_name_alone(tmp_path: Path, model: Model):
    assert stored_features(tmp_path / "none") == []
    made = train_features(model, TEXTS, "layers.1.resid_post", width=12, k=3, samples=512, batch=32)
    made.save(tmp_path / "one.two-3")
    (tmp_path / "features.json").write_text("{}")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "features.json").write_text('{"reads": -1}')
    (tmp_path / "link").symlink_to(tmp_path / "one.two-3")
    (found,) = stored_features(tmp_path)
    assert (found.name, found.config) == ("one.two-3", made.config)
    opened = open_features(tmp_path, "one.two-3")
    assert torch.equal(opened.decoder, made.decoder)
    for name in ("link", "damaged", "../one.two-3", ".", "", "one.two-3/", str(tmp_path / "one.two-3")):
        with pytest.raises(InputError, match="unknown dictionary of features"):
            open_features(tmp_path, name)
    told = feature_overview(model, opened, TEXTS)
    assert f"load_features({str(tmp_path / 'one.two-3')!r})" in told.receipt.code
    compile(told.receipt.code, "receipt", "exec")


def test_the_overview_is_counted_from_the_activations(model: Model):
    made = train_features(model, TEXTS, "layers.1.resid_post", width=12, k=3, samples=512, batch=32)
    samples = samples_of(model, TEXTS, ["layers.1.resid_post"])
    active = made.encode(samples.values["layers.1.resid_post"]).detach()
    found = feature_overview(model, made, TEXTS)
    rows = found["features"].rows
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
    for number, share, mean, largest, token, context, text in rows:
        own = active[:, number]
        assert share == pytest.approx(float((own > 0).double().mean()))
        assert mean == pytest.approx(float(own.mean()), rel=1e-5)
        assert largest == pytest.approx(float(own.max()))
        at = int(own.argmax())
        assert token == model.tokenizer.token(int(samples.ids[at]))
        assert context.endswith(token)
        assert text == int(samples.texts[at])
        assert context in TEXTS[text]
    assert len(rows) == int((active.amax(0) > 0).sum())
    assert found.figures["active per token"] == pytest.approx(float((active > 0).sum() / len(active)))
    assert len(feature_overview(model, made, TEXTS, top=2)["features"].rows) == 2
    with pytest.raises(InputError, match="top must be at least 1"):
        feature_overview(model, made, TEXTS, top=0)
