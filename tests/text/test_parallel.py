"""Parallel text files: rows line by line, refused where one has more lines."""

from pathlib import Path

import pytest

from cutaway.errors import InputError
from cutaway.tasks import read_examples, task_from
from cutaway.text.parallel import parallel_files
from cutaway.text.rows import read_rows


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_lines_stand_beside_each_other(tmp_path: Path):
    english = write(tmp_path, "a.en", "\ufeffone\r\ntwo, three\r\n\r\nfour")
    german = write(tmp_path, "a.de", 'eins\n"zwei\tdrei\n\nvier\n')
    rows = list(read_rows(f"en={english},de={german}"))
    assert [row.values for row in rows] == [
        {"en": "one", "de": "eins"},
        {"en": "two, three", "de": '"zwei\tdrei'},
        {"en": "", "de": ""},
        {"en": "four", "de": "vier"},
    ]
    assert rows[3].source == f"{english}:4"


def test_the_first_is_the_source(tmp_path: Path):
    english, german = write(tmp_path, "a.en", "one\n\ntwo\n"), write(tmp_path, "a.de", "eins\n\nzwei\n")
    task = task_from("translate")
    examples, aside, columns = read_examples(task, f"en={english},de={german}")
    assert columns == {"source": "en", "target": "de"}
    assert [(one.given["source"], one.truth) for one in examples] == [("one", "eins"), ("two", "zwei")]
    assert [one.source for one in aside] == [f"{english}:2"]
    examples, _, _ = read_examples(task, f"en={english},de={german}", columns={"source": "de", "target": "en"})
    assert examples[0].given["source"] == "eins"


def test_unequal_files_are_refused_with_both_counts(tmp_path: Path):
    english, german = write(tmp_path, "a.en", "one\ntwo\nthree"), write(tmp_path, "a.de", "eins\nzwei\n")
    with pytest.raises(InputError, match=r"a\.en has 3 and .*a\.de has 2 lines"):
        list(read_rows(f"en={english},de={german}"))
    with pytest.raises(InputError, match=r"missing\.de"):
        list(read_rows(f"en={english},de={tmp_path / 'missing.de'}"))
    broken = tmp_path / "b.de"
    broken.write_bytes(b"eins\nzw\xffei\ndrei\n")
    with pytest.raises(InputError, match=r"b\.de:2 is not UTF-8"):
        list(read_rows(f"en={english},de={broken}"))


def test_what_is_one_file_stays_one(tmp_path: Path):
    odd = write(tmp_path, "a=b,c=d.csv", "x,y\n1,2\n")
    assert parallel_files(odd) == {}
    assert parallel_files("train.tsv") == {}
    assert parallel_files("a=b,c") == {}
