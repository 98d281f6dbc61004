"""What is read from files of questions, and what is refused with the line that is to blame."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from cutaway.errors import DamagedFile, InputError
from cutaway.evaluation import read_suite


def written(path: Path, *rows: dict[str, Any]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


def test_pairs_are_read_under_both_names_packed_and_not(tmp_path: Path) -> None:
    one = {"sentence_good": "She runs.", "sentence_bad": "She run.", "UID": "agreement", "linguistics_term": "verbs"}
    other = {"good": "She runs.", "bad": "She run.", "uid": "agreement", "term": "verbs", "field": "syntax"}
    first = read_suite(written(tmp_path / "a.jsonl", one))
    second = read_suite(written(tmp_path / "b.jsonl.gz", other), "blimp")
    assert (first.name, first.kind, second.name) == ("a", "pairs", "blimp")
    for suite in (first, second):
        (item,) = suite.items
        assert (item.context, item.choices, item.answer) == ("", (" She runs.", " She run."), 0)
        assert (item.groups["phenomenon"], item.groups["paradigm"]) == ("verbs", "agreement")


@pytest.mark.parametrize(
    ("row", "context", "choices", "answer"),
    [
        ({"question": "2 + 2 =", "choices": ["3", "4"], "answer": 1}, "2 + 2 =", (" 3", " 4"), 1),
        (
            {"question": "Sky?", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answerKey": "B"},
            "Sky?",
            (" red", " blue"),
            1,
        ),
        (
            {"question": "Sky?", "choices": {"text": ["7", "8"], "label": ["1", "2"]}, "answerKey": "2"},
            "Sky?",
            (" 7", " 8"),
            1,
        ),
        ({"ctx": "He", "endings": ["sits.", "sat?", "x"], "label": "2"}, "He", (" sits.", " sat?", " x"), 2),
        ({"prompt": "Say", "choices": ["yes", "no"], "target": "no"}, "Say", (" yes", " no"), 1),
    ],
)
def test_choices_are_read_as_published_suites_write_them(
    tmp_path: Path, row: dict[str, Any], context: str, choices: tuple[str, ...], answer: int
) -> None:
    (item,) = read_suite(written(tmp_path / "x.jsonl", row)).items
    assert (item.context, item.choices, item.answer) == (context, choices, answer)
    assert item.lengths == tuple(len(choice) - 1 for choice in choices)


def test_a_last_word_is_what_follows_the_last_space(tmp_path: Path) -> None:
    (item,) = read_suite(written(tmp_path / "x.jsonl", {"text": "one\n\ntwo three"})).items
    assert (item.context, item.choices) == ("one\n\ntwo", (" three",))


def test_a_table_says_the_same_as_json_lines(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        'question,choices,answer\n"a, ""b""\nc","[""x"", ""y""]",1\n', "utf-8-sig", newline=""
    )
    (item,) = read_suite(tmp_path / "x.csv").items
    assert (item.context, item.choices, item.answer) == ('a, "b"\nc', (" x", " y"), 1)


def test_a_folder_is_one_suite_whose_files_are_its_paradigms(tmp_path: Path) -> None:
    for name in ("plurals", "anaphors"):
        written(tmp_path / f"{name}.jsonl", *({"good": f"{name} {i}", "bad": "x"} for i in range(3)))
    suite = read_suite(tmp_path)
    assert [item.groups["paradigm"] for item in suite.items] == ["anaphors"] * 3 + ["plurals"] * 3
    assert [item.choices[0] for item in suite.first(1).items] == [" anaphors 0", " plurals 0"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"good": "a", "bad": "b"}', "{"], "line 2 is no JSON"),
        (['["good", "bad"]'], "line 1 must be a JSON object"),
        (['{"good": "a"}'], "line 1 has the columns good"),
        (['{"good": "a", "bad": ""}'], "bad must be a text"),
        (['{"text": "word"}'], "a last word"),
        (['{"question": "q", "choices": ["a", "b"]}'], "no answer"),
        (['{"question": "q", "choices": ["a"], "answer": 0}'], "at least two"),
        (['{"question": "q", "choices": ["a", "b"], "answer": 2}'], "unknown answer '2'"),
        (['{"question": "q", "choices": ["a", "b"], "answer": true}'], "unknown answer 'True'"),
        (['{"question": "q", "choices": "a, b", "answer": 0}'], "in CSV as JSON"),
        (['{"good": "a", "bad": "b"}', '{"text": "a b"}'], "several kinds: pairs .*line 1.* and words .*line 2"),
        ([], "holds no questions"),
    ],
)
def test_what_is_no_question_is_told_with_its_line(tmp_path: Path, lines: list[str], words: str) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(lines), "utf-8")
    with pytest.raises((InputError, DamagedFile), match=words):
        read_suite(tmp_path / "x.jsonl")


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"good": "a", "bad": "b"}\n' * 999)[:60])
    (tmp_path / "latin.jsonl").write_bytes('{"good": "é", "bad": "b"}'.encode("latin-1"))
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    for name, words in (
        ("none.jsonl", "does not exist"),
        ("cut.jsonl.gz", "cut short"),
        ("latin.jsonl", "not UTF-8"),
        ("x.parquet", "no .jsonl or .csv"),
    ):
        with pytest.raises((InputError, DamagedFile), match=words):
            read_suite(tmp_path / name)
