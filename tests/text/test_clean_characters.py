"""Unicode repair, unseen characters and white space: what must change does, what must not does not."""

import unicodedata

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway.text.clean.characters import _MAY_COMPOSE, characters, unicode, whitespace
from cutaway.text.documents import Document


def run(step, text: str, kind: str = "") -> str:
    outcome = step([Document(text, "a.txt", {"kind": kind} if kind else {})])
    assert not outcome.dropped
    # every change is counted, but for the line break at the end of a file
    assert outcome.changed.total() == (outcome.kept[0].text not in (text, text.rstrip("\n")))
    return outcome.kept[0].text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "macroman", "cp1251"])
@pytest.mark.parametrize("text", ["The café’s menu – “déjà vu”", "Ärger über Öl"])
def test_mojibake_of_common_encodings_is_repaired(text: str, encoding: str) -> None:
    try:
        broken = text.encode("utf-8").decode(encoding)
    except UnicodeDecodeError:
        pytest.skip("this text cannot be read wrongly in this encoding")
    if ftfy.fix_encoding(broken) != text:
        pytest.skip("ftfy itself leaves this one")
    assert broken != text
    assert run(unicode, f"First line.\n{broken}\nLast line.") == f"First line.\n{text}\nLast line."


@pytest.mark.parametrize(
    "text",
    [
        "Il a parlé « ainsi »…",
        "中文，没有问题。“引号”……",
        "Größe – naïve “quotes” it’s",
        "Привет, мир! Рост и Сила",
        "x = 'ÃÂ'",
        "👩‍👩‍👧 می‌خواهم",
    ],
)
def test_sound_text_is_left_alone(text: str) -> None:
    assert run(characters, run(unicode, text)) == text


def test_surrogates_join_or_go_so_that_the_text_can_be_written() -> None:
    assert run(unicode, "a \ud83d\ude00 b \ud83d c") == "a 😀 b  c".replace("b  c", "b � c").replace("�", "\ufffd")


def test_nfc() -> None:
    assert run(unicode, "cafe\u0301") == "café"


@given(st.text(max_size=200))
def test_every_text_comes_out_writable_normal_and_the_second_time_unchanged(text: str) -> None:
    for kind in ("", "code"):
        once = run(whitespace, run(characters, run(unicode, text)), kind)
        once.encode("utf-8")
        assert not any(unicodedata.category(c) == "Cc" and c not in "\t\n" for c in once)
    assert run(characters, run(characters, text)) == run(characters, text)
    assert run(whitespace, run(whitespace, text)) == run(whitespace, text)


def test_only_texts_that_nfc_cannot_change_skip_the_check() -> None:
    """Characters that pass unchecked are in NFC, have no combining class, and are never the second half of another."""
    seconds = set()
    for code in range(0x110000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(int(parts[1], 16))
    for code in range(0x110000):
        if not _MAY_COMPOSE.search(chr(code)):
            assert unicodedata.normalize("NFC", chr(code)) == chr(code)
            assert unicodedata.combining(chr(code)) == 0
            assert code not in seconds


def test_unseen_characters_and_line_ends() -> None:
    text = "\ufeffone\r\ntwo\rthree\u2028four\x85five\x00\x1b[31mred\x1b[0m so\u00adft\u200b \u202eevil"
    assert run(characters, text) == "one\ntwo\nthree\nfour\nfivered soft evil"


def test_joiners_stay() -> None:
    assert run(characters, "👩\u200d💻 نمی\u200cدانم") == "👩\u200d💻 نمی\u200cدانم"


def test_white_space_of_prose() -> None:
    text = "\n\n  Indented\u00a0first.  \nTwo  spaces.\t\n\n\n\n\nEnd.  \n\n"
    assert run(whitespace, text) == "  Indented first.\nTwo spaces.\n\nEnd."


def test_white_space_of_source_code_keeps_every_indentation_and_alignment() -> None:
    code = "def f(x):\n    if x:\n\t\treturn  {  'a':   1 }  # odd\u00a0\n\n\n\n\nx   = 1   \n"
    assert run(whitespace, code, "code") == "def f(x):\n    if x:\n\t\treturn  {  'a':   1 }  # odd\u00a0\n\n\nx   = 1"


def test_fenced_code_in_prose_keeps_its_columns() -> None:
    text = "See:\n\n```\na    = 1\nbcd  = 2\n```\n\n    x   = 3"
    assert run(whitespace, text) == text


def test_the_report_shows_what_changed() -> None:
    outcome = characters([Document("fine", "a"), Document("bell \x07 here", "b")])
    assert outcome.changed == {"control and unseen characters removed": 1}
    assert outcome.examples["control and unseen characters removed"] == r"bell \x07 here → bell  here"


def test_the_line_break_at_the_end_of_a_file_is_not_worth_telling() -> None:
    outcome = whitespace([Document("one\ntwo\n", "a.txt"), Document("one  \ntwo\n", "b.txt")])
    assert [document.text for document in outcome.kept] == ["one\ntwo", "one\ntwo"]
    assert outcome.changed == {"white space normalised": 1}
