"""Rows of tables: what a damaged file costs, named by its lines."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from cutaway.errors import DamagedFile, InputError
from cutaway.text.readers.base import Skipped
from cutaway.text.rows import read_rows


def rows_of(path: Path, data: bytes, **more) -> tuple[list[tuple[int, tuple]], dict[int, str]]:
    """Line -> values, and line -> why it was left out."""
    path.write_bytes(data)
    left: list[Skipped] = []
    found = [
        (int(row.source.rpartition(":")[2]), tuple(row.values.values()))
        for row in read_rows(path, skipped=left.append, **more)
    ]
    assert all(one.source.startswith(str(path)) for one in left)
    return found, {int(one.source.rpartition(":")[2]): one.reason for one in left}


def test_rows_know_their_lines_whatever_stands_in_them(tmp_path: Path):
    data = '\ufefftext,label\n"one\ntwo",a\n\nthree,b\nfour,c,d\nfive\n'.encode()
    found, left = rows_of(tmp_path / "t.csv", data)
    assert found == [(3, ("one\ntwo", "a")), (5, ("three", "b")), (7, ("five", None))]
    assert left == {6: "more fields than the table has columns (3, not 2)"}


@pytest.mark.parametrize("encoding", ["latin-1", "gbk"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_lines_in_another_encoding_than_the_rest_are_set_aside(tmp_path: Path, encoding: str, suffix: str):
    word = {"latin-1": "déjà vu à l'été", "gbk": "服务很好"}[encoding]
    lines = [f"text {n} 房间很好 naïve,good".encode() for n in range(40)]
    if suffix == ".jsonl":
        lines = [b'{"text": "%s", "label": "a"}' % line.partition(b",")[0] for line in lines]
    bad = (f"{word},good" if suffix == ".csv" else f'{{"text": "{word}"}}').encode(encoding)
    head = [b"text,label"] if suffix == ".csv" else []
    found, left = rows_of(tmp_path / f"t{suffix}", b"\n".join([*head, *lines[:20], bad, *lines[20:], b""]))
    assert len(found) == 40
    assert found[30][1][0].endswith("房间很好 naïve")
    assert list(left) == [21 + len(head)]
    assert "encoding of the rest of the file (UTF-8)" in left[21 + len(head)]


@pytest.mark.parametrize(("encoding", "word"), [("cp1252", "déjà"), ("gb18030", "房间很大，服务员也很好")])
def test_lines_of_utf_8_in_a_file_of_another_encoding_are_read_as_such(tmp_path: Path, encoding: str, word: str):
    lines = [f"{word} {n},good".encode(encoding) for n in range(40)]
    lines[30] = f"{word} 30,good".encode()
    found, left = rows_of(tmp_path / "t.csv", b"text,label\n" + b"\n".join(lines) + b"\n")
    assert not left
    assert [values[0] for _, values in found] == [f"{word} {n}" for n in range(40)]


def test_a_nul_costs_its_row_and_many_the_file(tmp_path: Path):
    lines = [b"text %d,good" % n for n in range(40)]
    lines[7] = b"te\0xt 7,good"
    found, left = rows_of(tmp_path / "t.csv", b"text,label\n" + b"\n".join(lines))
    assert len(found) == 39
    assert list(left) == [9]
    assert "NUL" in left[9]
    with pytest.raises(InputError, match="is not text: it is binary data"):
        rows_of(tmp_path / "t.csv", b"text,label\n" + b"\0\1\2" * 500)


def test_a_quote_left_open_is_named_by_its_line_and_a_long_text_is_none(tmp_path: Path):
    rows = b"".join(b'"text %d",good\n' % n for n in range(2000))
    with pytest.raises(InputError, match=r"t\.csv:2002 opens a quote that it does not close, so that .* rows"):
        rows_of(tmp_path / "t.csv", b"text,label\n" + rows + b'"open,good\n' + rows.replace(b'"', b""))
    with pytest.raises(InputError, match=r"t\.csv:43 opens a quote that it does not close, so that 2 rows would be"):
        rows_of(tmp_path / "t.csv", b"text,label\n" + b"a,good\n" * 40 + b'"b",bad\n"open,good\nnext,bad\n')
    verse = b"a line, with commas, of a poem\n" * 60 + b"and one without\n" * 60
    found, left = rows_of(tmp_path / "t.csv", b"text,label\n" + rows + b'"' + verse + b'",good\n' + rows)
    assert (len(found), left) == (4001, {})


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"text,label\n", r"has a header \(text, label\) but no rows"),
        ("t.csv", b"text,label,text\na,b,c\n", "has two columns 'text'"),
        ("t.csv", b"\n\n\n", "holds no rows"),
        ("t.xlsx", b"PK\x03\x04", "unknown kind of table '.xlsx'"),
        ("t.csv", b"PK\x03\x04\0\0\0\0\0", "a zip archive, as Word and Excel files are"),
        ("t.json", b'{"text": "a"}', "must hold a list of records, but it holds dict"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_told_in_a_sentence(tmp_path: Path, name: str, data: bytes, said: str):
    with pytest.raises(InputError, match=said):
        rows_of(tmp_path / name, data, asked=["text"])


def test_a_folder_and_a_wrong_name_are_told(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder; give one file with a table"):
        list(read_rows(tmp_path))
    (tmp_path / "reviews.csv").write_text("text\na\n")
    with pytest.raises(InputError, match=r"did you mean .*reviews\.csv"):
        list(read_rows(tmp_path / "review.csv"))


def test_broken_records_cost_themselves_and_nothing_but_them_the_file(tmp_path: Path):
    found, left = rows_of(
        tmp_path / "t.jsonl", b'\n{"text": "a", "n": NaN}\n{"text": \n[1]\n\xef\xbb\xbf{"text": "b"}\n'
    )
    assert found == [(2, ("a", None))]
    assert left == {3: "not JSON", 4: "a list, no record of named values", 5: "not JSON"}
    with pytest.raises(DamagedFile, match="not one line is a JSON record"):
        rows_of(tmp_path / "t.jsonl", b"text\nlabel\n")


def test_numbers_that_are_none_are_nothing_in_parquet(tmp_path: Path):
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    table = arrow.table({"text": ["a", None], "stars": [float("nan"), 2.0]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert [row.values for row in read_rows(tmp_path / "t.parquet")] == [
        {"text": "a", "stars": None},
        {"text": None, "stars": 2.0},
    ]


def test_halves_of_characters_are_mended_wherever_they_stand(tmp_path: Path):
    record = {"tokens": ["Ada", "\ud800x"], "spans": [{"label": "\udc00"}], "text": "\ud83d\ude00", "far": float("inf")}
    (tmp_path / "t.jsonl").write_text(json.dumps(record) + "\n", "utf-8")
    (row,) = read_rows(tmp_path / "t.jsonl")
    assert row.values == {
        "tokens": ["Ada", "\ufffdx"],
        "spans": [{"label": "\ufffd"}],
        "text": "\U0001f600",
        "far": None,
    }
