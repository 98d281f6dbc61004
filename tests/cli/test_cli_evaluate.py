"""`cutaway evaluate`: what it prints, writes and refuses."""

import json
from pathlib import Path

import pytest
import torch

from cutaway.cli import main
from cutaway.models import Decoder, DecoderConfig, Model, save_model
from cutaway.tokenizers import train_tokenizer

TEXT = "The old cat sleeps. The dogs run <b>home</b> & bark. "


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    room = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer([TEXT * 9], "char", 300)
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = Decoder(DecoderConfig(tokenizer.vocab_size, context=64, layers=1, width=16, heads=2))
        made.append(str(save_model(Model(network, tokenizer), room / f"m{seed}")))
    return made


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [{"good": "The cat sleeps.", "bad": "The cat sleep.", "uid": name} for name in ("a", "a", "</script>b")]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "text.txt").write_text(TEXT * 40, "utf-8")
    return tmp_path


def test_one_model_as_json_and_as_a_page(
    models: list[str], questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", models[0], "--suite", f"mine={questions}/q.jsonl", "--perplexity", f"{questions}/text.txt"]
    page, items = questions / "page.html", questions / "items.jsonl"
    assert main([*words, "--json", "--html", str(page), "--items", str(items)]) == 0
    told = json.loads(capsys.readouterr().out)
    ((suite,),), ((text,),) = told["suites"], told["texts"]
    assert (suite["name"], suite["items"]) == ("mine", 3)
    assert [group["name"] for group in suite["groups"]] == ["a", "</script>b"]
    assert text["bytes"] == len(TEXT * 40)
    assert text["figures"]["bits_per_byte"]["low"] <= text["figures"]["bits_per_byte"]["value"]
    assert told["differences"] == []
    written = page.read_text("utf-8")
    assert "default-src 'none'" in written
    assert "</script>b" not in written
    rows = [json.loads(line) for line in items.read_text("utf-8").splitlines()]
    assert sum(row["logprobs"][row["answer"]] for row in rows) == pytest.approx(suite["logprob"])


def test_a_long_path_is_told_once_and_whole(
    models: list[str], questions: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["evaluate", models[0], "--suite", f"{questions}/q.jsonl"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 60
    assert "".join(lines).replace(" ", "").count(models[0]) == 1
    assert not any("…" in line for line in lines)


def test_two_models_beside_each_other(models: list[str], questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", models[0], "--compare", models[1], "--perplexity", f"{questions}/text.txt", "--stride", "16"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (difference,) = told["differences"]
    values = [one["figures"]["bits_per_byte"]["value"] for one in told["texts"][0]]
    assert difference["difference"]["value"] == pytest.approx(values[1] - values[0])
    assert told["texts"][0][0]["stride"] == 16
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "bits_per_byte" in shown.out
    assert "100 %" in shown.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--suite PATH or --perplexity PATH"),
        (["--suite", "none.jsonl"], "none.jsonl does not exist"),
        (["--suite", "{q}", "--limit", "0"], "at least 1"),
        (["--perplexity", "{t}", "--window", "65"], "2 … 64"),
        (["--perplexity", "{t}", "--compare", "nobody"], "nobody does not exist"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    models: list[str], questions: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(q=questions / "q.jsonl", t=questions / "text.txt") for word in words]
    assert main(["evaluate", models[0], *given]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error.splitlines()[-1]
