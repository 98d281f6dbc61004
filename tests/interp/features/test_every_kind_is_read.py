"""Probes, erasers, exchanges and dictionaries on every kind of network, or a sentence on why not."""

from typing import Any

import pytest
import torch
from kinds import SHAPES, letters, made

from cutaway.errors import ConfigError
from cutaway.interp import (
    attribution_graph,
    erase,
    evaluate_features,
    feature_dashboard,
    interchange,
    probe,
    train_features,
)
from cutaway.interp.samples import samples_of, streams_of
from cutaway.models import Decoder, Model, Seq2SeqConfig

TEXTS = ["the cat sat", "a mat that sat", "that hat", "on the mat", "the that", "cats on mats"]
LABELS = [i % 2 for i in range(6)]


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Model:
    return made(request.param, letters())


def sources(model: Model) -> dict[str, Any]:
    if not isinstance(model.config, Seq2SeqConfig):
        return {}
    if model.config.source == "text":
        return {"source": TEXTS[::-1]}
    return {"source": torch.randn(6, model.config.mel_bins, 31, generator=torch.Generator().manual_seed(0))}


def test_every_kind_is_probed_erased_and_exchanged(model: Model):
    found = probe(model, TEXTS, LABELS, **sources(model))
    assert len(found["numbers"].rows) == model.config.layers
    gone = erase(model, TEXTS, LABELS, streams_of(model), **sources(model))
    assert [row[0] for row in gone["numbers"].rows] == [row[0] for row in found["numbers"].rows]
    name = found["numbers"].rows[-1][0]
    said = interchange(model, TEXTS, TEXTS, ["a"] * 6, name, untrained=False, **sources(model)).said
    again = interchange(model, TEXTS, TEXTS, said.tolist(), name, untrained=False, **sources(model))
    assert again.figures["accuracy"] == 1.0


def test_every_kind_has_features(model: Model):
    place = streams_of(model).replace("*", "0")
    features = train_features(model, TEXTS, place, width=12, k=2, samples=500, batch=16, **sources(model))
    found = evaluate_features(model, features, TEXTS, **sources(model))
    speaks = model.config.kind in ("decoder", "recurrent", "seq2seq")
    assert ("loss recovered" in found.figures) == speaks
    board = feature_dashboard(model, features, TEXTS, **sources(model))
    assert ("promoted" in board.parts) == isinstance(model.network, Decoder)
    if not isinstance(model.network, Decoder):
        with pytest.raises(ConfigError, match="made for decoders: "):
            train_features(model, TEXTS, "layers.0.mlp", width=12, transcoder=True, **sources(model))
        with pytest.raises(ConfigError, match="made for decoders: "):
            attribution_graph(model, TEXTS[0])


@pytest.mark.parametrize("shape", ["t5", "whisper"])
def test_an_encoders_activations_are_those_of_the_source(shape: str):
    model = made(shape, letters())
    rows = samples_of(model, TEXTS, "encoder.layers.*.resid_post", **sources(model))
    lengths = torch.bincount(rows.texts).tolist()
    if shape == "whisper":
        assert len(set(lengths)) == 1
    else:
        assert lengths == [model.source_ids(text).shape[1] for text in TEXTS[::-1]]
        assert rows.ids[:3].tolist() == model.source_ids(TEXTS[-1])[0, :3].tolist()
    last = samples_of(model, TEXTS, "encoder.layers.*.resid_post", position=-1, **sources(model))
    name = "encoder.layers.0.resid_post"
    ends = torch.tensor(lengths).cumsum(0) - 1
    assert torch.equal(last.values[name], rows.values[name][ends])
    with pytest.raises(ConfigError, match="read different texts"):
        samples_of(model, TEXTS, ["encoder.layers.0.resid_post", "layers.0.resid_post"], **sources(model))


def test_rows_are_those_of_each_text_alone(model: Model):
    name = streams_of(model).replace("*", "1" if model.config.layers > 1 else "0")
    together = samples_of(model, TEXTS, name, batch=4, **sources(model))
    for i in range(6):
        reads = {key: value[i : i + 1] for key, value in sources(model).items()}
        alone = samples_of(model, [TEXTS[i]], name, **reads)
        assert torch.allclose(together.values[name][together.texts == i], alone.values[name], atol=1e-5)
        assert torch.equal(together.ids[together.texts == i], alone.ids)
        assert together.places[together.texts == i].tolist() == list(range(len(alone.ids)))
