"""`cutaway train` as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from cutaway.cli import main
from cutaway.cli.train import curve
from cutaway.training import TrainConfig

Tiny = Callable[..., TrainConfig]
SETTINGS = ["--set", "network.layers=1", "--set", "network.width=16", "--set", "network.heads=2", "--set", "batch=4"]
SETTINGS += ["--context", "16", "--set", "tensorboard=off", "--set", "dtype=fp32", "--set", "eval_tokens=256"]
SETTINGS += ["--set", "sample_tokens=5"]


def test_train_and_resume(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = str(tmp_path / "run")
    assert main(["train", str(corpus), "--out", out, "--steps", "8", *SETTINGS]) == 0
    printed = capsys.readouterr()
    assert "counting" in printed.out
    assert f"Next: cutaway generate {out}" in printed.out
    assert "training 100 %" in printed.err
    assert main(["train", "--resume", out, "--steps", "10", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["steps"], result["folder"]) == (10, out)
    assert not printed.err


def test_raw_texts_are_prepared_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "topics.txt").write_text("\n\n".join(list(topics.values())[:8]))
    out = tmp_path / "run"
    settings = tmp_path / "settings.toml"
    settings.write_text("steps = 3\nbaseline = false\n")
    words = ["train", str(tmp_path / "topics.txt"), "-o", str(out), "-c", str(settings), *SETTINGS, "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3
    assert (out / "corpus" / "store.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "give the texts or the corpus"),
        (["train", "nowhere"], "nowhere"),
        (["train", "{corpus}", "--set", "optimiser=adam"], "did you mean optimizer"),
        (["train", "{corpus}", "--minutes", "1", "--steps", "5"], "not both"),
        (["train", "{corpus}", "--context", "1000000"], "add text, or choose a context"),
        (["train", "--resume", "nowhere"], "not a run folder"),
        (["train", "{corpus}", "--stpes", "5"], "--stpes"),
    ],
)
def test_mistakes(words: list[str], message: str, corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path,
                  monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([word.format(corpus=corpus) for word in words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_curve_is_as_wide_as_asked():
    assert curve([4.0, 3.0, 2.0, 1.0], width=4) == "█▆▃▁"
    assert curve([2.0, 2.0]) == "▁▁"
    assert len(curve([float(i) for i in range(1000)])) == 60
