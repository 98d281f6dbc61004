"""Settings: where they come from, what is refused, and what the network becomes."""

from pathlib import Path
from typing import Any

import pytest

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.models import DecoderConfig, RecurrentConfig
from cutaway.training import train_config
from cutaway.training.config import network_for, parse_settings, read_settings, train_config_to_dict

PLACES = {"data": "corpus", "out": "run"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stpes": 5}, "unknown TrainConfig key 'stpes'; did you mean steps?"),
        ({"optimizer": "adamv"}, "did you mean adam or adamw"),
        ({"steps": "many"}, "steps must be"),
        ({"steps": 0}, "steps must be at least 1, but 0"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"betas": [0.9]}, "two numbers"),
        ({"steps": 5, "minutes": 1.0}, "not both"),
        ({"batch": 5, "accumulate": 2}, "multiple of accumulate"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"cooldown": 1.5}, "cooldown must be in 0 … 1"),
        ({"network": 3}, "network must be a preset's name or a table"),
        ({"schedule": "cosin"}, "did you mean cosine"),
    ],
)
def test_refused(values: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        train_config({**PLACES, **values})


def test_data_and_out_are_needed():
    with pytest.raises(ConfigError, match="needs a value for data, out"):
        train_config({})


@pytest.mark.parametrize("network", [None, "gru-classic", {"kind": "recurrent", "hidden": 8}, {"layers": 2}])
def test_as_plain_data_and_back(network: Any):
    config = train_config({**PLACES, "network": network, "betas": [0.8, 0.9]})
    assert train_config(train_config_to_dict(config)) == config


def test_networks():
    def made(vocab_size: int = 50, **values: Any):
        return network_for(train_config({**PLACES, "context": 32, **values}), vocab_size)

    dial = made(size=2)
    assert isinstance(dial, DecoderConfig)
    assert (dial.layers, dial.width, dial.vocab_size, dial.context) == (2, 128, 50, 32)
    part = made(network={"layers": 3, "width": 24, "heads": 2, "gated": False})
    assert isinstance(part, DecoderConfig)
    assert (part.layers, part.width, part.head_dim, part.mlp_width) == (3, 24, 12, 96)
    gru = made(network="gru-classic")
    assert isinstance(gru, RecurrentConfig)
    assert (gru.hidden, gru.vocab_size, gru.context) == (1024, 50, 32)
    lstm = made(network={"kind": "recurrent", "cell": "lstm", "hidden": 12})
    assert isinstance(lstm, RecurrentConfig)
    assert lstm.cell == "lstm"
    whole = DecoderConfig(vocab_size=64, context=40, layers=1, width=16, heads=2)
    assert made(network=whole) == whole
    with pytest.raises(ConfigError, match=r"vocab_size \(64\) is smaller than the tokenizer's \(65\)"):
        made(65, network=whole)
    with pytest.raises(ConfigError, match="larger than the network's"):
        made(network=whole, context=41)
    with pytest.raises(ConfigError, match="did you mean gru-classic"):
        made(network="gru-clasic")
    with pytest.raises(ConfigError, match="did you mean width"):
        made(network={"widht": 3})
    with pytest.raises(ConfigError, match=r"a network whose head is .causal_lm., but network.head is .none."):
        made(network={"head": "none"})


def test_settings_as_words():
    words = ["lr=0.01", "network.layers=4", "network.width=64", "schedule=cosine", 'samples=["a", "b"]', "clip=0"]
    assert parse_settings(words) == {
        "lr": 0.01, "network": {"layers": 4, "width": 64}, "schedule": "cosine", "samples": ["a", "b"], "clip": 0,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="key=value"):
        parse_settings(["lr"])
    with pytest.raises(ConfigError, match="given as a whole"):
        parse_settings(["network=gru-classic", "network.layers=2"])


def test_settings_from_a_file(tmp_path: Path):
    (tmp_path / "a.toml").write_text("steps = 5\n[network]\nlayers = 2\n")
    (tmp_path / "a.json").write_text('{"steps": 5, "network": {"layers": 2}}')
    expected = {"steps": 5, "network": {"layers": 2}}
    assert read_settings(tmp_path / "a.toml") == read_settings(tmp_path / "a.json") == expected
    (tmp_path / "b.toml").write_text("steps = = 5")
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(DamagedFile, match="not valid TOML"):
        read_settings(tmp_path / "b.toml")
    with pytest.raises(ConfigError, match="table of settings"):
        read_settings(tmp_path / "b.json")
    for name in ("none.toml", "none.json"):
        with pytest.raises(InputError, match="does not exist"):
            read_settings(tmp_path / name)
