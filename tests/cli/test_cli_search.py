"""Indexing, searching and asking from the command line."""

import json
from pathlib import Path

import pytest

from cutaway.cli import main


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "parcels.txt").write_text("A parcel takes three days. It can be sent back within a month.", "utf-8")
    (folder / "letters.txt").write_text("A letter needs a stamp. Stamps are sold at the counter.", "utf-8")
    return folder


def test_an_index_is_made_searched_and_brought_up_to_date(docs, tmp_path, capsys):
    idx = str(tmp_path / "idx")
    assert main(["task", "index", str(docs), "--out", idx, "--size", "40", "--overlap", "0", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert len(made["added"]) == 2
    assert made["embedded"] == 0
    assert main(["task", "search", idx, "how many days does a parcel take?", "--top", "2", "--why", "--json"]) == 0
    first, *_ = json.loads(capsys.readouterr().out)["hits"]
    assert first["text"] == "A parcel takes three days."
    assert (first["start"], first["end"]) == (0, 26)
    assert sum(word["adds"] for word in first["why"]["words"]) == pytest.approx(first["words"]["score"], abs=1e-5)
    (docs / "letters.txt").unlink()
    (docs / "money.txt").write_text("An order of money is paid out in cash.", "utf-8")
    assert main(["task", "index", "--out", idx, "--update"]) == 0
    assert "1 added, 1 removed" in " ".join(capsys.readouterr().out.split())
    assert main(["task", "search", idx, "paid in cash"]) == 0
    shown = capsys.readouterr().out
    assert "money.txt [0–38]" in shown
    assert "An order of money" in shown
    assert main(["task", "search", idx, "stamp"]) == 0
    assert "nothing was found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["index", "--out", "idx"], "name the files or folders"),
        (["index", "--out", "idx", "--update", "--size", "80"], "keeps the size that it was built with"),
        (["index", "nothing", "--out", "idx"], "there is no file or folder nothing"),
        (["search", "nothing", "stamp"], "nothing is no folder"),
        (["search", "docs", "stamp"], "is no index"),
        (["ask", "docs", "which?", "--model", "qa"], "is no index"),
        (["index", "docs", "--out", "idx", "--segmenter", "scissors"], "segmenter"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words, said, docs, capsys, monkeypatch):
    monkeypatch.chdir(docs.parent)
    assert main(["task", *words]) == 2
    errors = capsys.readouterr().err.strip()
    assert said in errors
    assert "\n" not in errors
