"""The quality filters: each rule drops what it is for, and prose, poems, dialogue, Chinese and code pass."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway.text.clean.quality import WEB, Quality, quality
from cutaway.text.documents import Document
from cutaway.text.measure import Measured

ENGLISH = (
    "The old harbour lay quiet under the morning fog. A single boat moved between the moorings, its oars wrapped in "
    "cloth, and nobody on the quay could have said where it came from. Later, when the sun had burned the grey away, "
    "the boat was gone."
)
CHINESE = (
    "清晨的旧港口在雾中十分安静。一只小船在泊位之间移动，船桨上裹着布，"
    "码头上没有人说得出它从哪里来。后来太阳驱散了灰色，小船已经不见了。"
)
POEM = """Tyger Tyger, burning bright,
In the forests of the night;
What immortal hand or eye,
Could frame thy fearful symmetry?"""
PLAY = """FIRST CITIZEN:
Before we proceed any further, hear me speak.

ALL:
Speak, speak.

FIRST CITIZEN:
You are all resolved rather to die than to famish?

ALL:
Resolved. resolved.

FIRST CITIZEN:
First, you know Caius Marcius is chief enemy to the people.

ALL:
We know it, we know it."""


def reason(text: str, rules: Quality | None = None, kind: str = "") -> str:
    outcome = quality([Document(text, "a", {"kind": kind} if kind else {})], rules)
    assert len(outcome.kept) + len(outcome.dropped) == 1
    return outcome.dropped[0].reason if outcome.dropped else ""


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, POEM, PLAY, "床前明月光，疑是地上霜。举头望明月，低头思故乡。"])
def test_good_texts_pass(text: str) -> None:
    assert reason(text) == ""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("too short", "fewer than 16"),
        ("12 / 7 = 1.714; 22 / 7 = 3.142; (4 + 4) * 2 = 16 <> 99 %%%% ----", "letters"),
        ("词。" * 3 + "1234567890!@#$%^&*()1234567890=+[]{}|;:", "letters"),
        ("abcdefghijklmnopqrstuvwxyz " * 3 + "qwertyuiopasdfghjklzxcvbnm zyxwvutsrqponmlkjihgfedcba", "longer than 12"),
        ("a b c d e f g h i j k l m n o p q r s t u v w x y z", "shorter than 2"),
        ("Well ... I ... do not ... know # what # to # say ... about ... this", "ellipses"),
        (ENGLISH[:60] + "\ufffd\ufffd" + ENGLISH[60:100], "undecodable"),
        ("\n".join(f"- item {name}" for name in ["alpha", "beta", "gamma", "delta", "epsilon"]), "bullet"),
        ("\n".join(f"{w} is what a long story goes on about, and then some more of it …" for w in "abcde"), "ellipsis"),
        ("\n".join([ENGLISH[:90]] * 3 + [ENGLISH[90:150], ENGLISH[150:210]]), "repeated lines"),
        ("\n".join([ENGLISH, *"abc", ENGLISH]), "characters in repeated lines"),
        ("buy cheap watches here now " * 20, "repeated 5-grams"),
        ("今天天气很好我们去公园" * 8, "repeated 5-grams"),
        ("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor.", "lorem"),
    ],
)  # fmt: skip
def test_each_rule_drops_what_it_is_for(text: str, word: str) -> None:
    assert word in reason(text)


def test_the_web_preset_is_stricter() -> None:
    words = (ENGLISH + " " + POEM).replace(".", "").replace(",", "").split()
    menu = "\n".join(" ".join(words[i : i + 5]) for i in range(0, len(words), 5))
    assert reason(menu) == ""
    assert "punctuation" in reason(menu, WEB)
    assert "short lines" in reason("\n".join(["And so it went on.", *POEM.split()] * 4), Quality(max_short_lines=0.67))


def test_source_code_is_not_judged_as_prose() -> None:
    code = "\n".join(f"    self.x[{i}] = (y[{i}] << {i}) & 0x{i:02X}  # {i}" for i in range(30))
    assert reason(code)
    assert reason(code, kind="code") == ""
    assert "mean line" in reason("var a=1;" * 100, kind="code")
    assert "line over" in reason("x = 1\n" * 100 + "y = '" + "ab" * 600 + "'", kind="code")
    assert "letters" in reason("{[(,.)]}; // --\n" * 20, kind="code")


def test_rules_can_be_switched_off() -> None:
    off = Quality(
        min_characters=0,
        min_letters=0,
        max_symbols=1,
        min_mean_word=0,
        max_repeated_lines=1,
        max_repeated_line_characters=1,
        max_repeated_paragraphs=1,
        max_repeated_paragraph_characters=1,
        max_repeated_ngrams=1,
    )
    assert reason("1 # 2 # 3\n" * 40, off) == ""


def units_of(text: str) -> list[str]:
    """The plain way to cut a text into words and single characters of scripts without spaces."""
    units: list[str] = []
    previous = " "
    for c in text:
        alone = 0x3400 <= ord(c) <= 0x9FFF
        if not c.isspace():
            if previous.isspace() or alone or 0x3400 <= ord(previous) <= 0x9FFF:
                units.append("")
            units[-1] += c
        previous = c
    return units


@given(st.lists(st.text("ab 中文\n1#é", max_size=40), min_size=1, max_size=6))
def test_the_vectorised_counts_are_those_of_the_plain_way(texts: list[str]) -> None:
    measured = Measured(texts)
    for text, counts in zip(texts, measured.counts, strict=True):
        assert counts.characters == len(text)
        assert counts.letters == sum(c.isalpha() for c in text)
        assert counts.spaces == sum(c.isspace() for c in text)
        assert counts.symbols == text.count("#")
        assert counts.unspaced == sum(c in "中文" for c in text)
        assert counts.units == len(units_of(text))


@given(st.lists(st.text("ab中", min_size=1, max_size=3), max_size=40))
def test_repeated_ngrams_are_those_of_the_plain_way(words: list[str]) -> None:
    text = " ".join(words)
    units, spans, place = units_of(text), [], 0
    for unit in units:
        start = text.index(unit, place)
        place = start + len(unit)
        spans.append((start, place))
    grams = Counter(text[start : spans[i + 2][1]] for i, (start, _) in enumerate(spans[:-2]))
    expected = 1 - len(grams) / grams.total() if grams else 0.0
    other = "something else to stand before and behind it in the batch"
    share = Measured([other, text, other]).repeated_ngrams(3)[1]
    assert share == pytest.approx(expected)


def test_of_long_documents_a_sample_gives_the_share() -> None:
    rng = random.Random(0)
    words = [str(rng.randrange(10**9)) for _ in range(30_000)]
    text = " ".join(words + words[:10_000])
    short, long = Measured(["one two three four five six", text]).repeated_ngrams(5)
    assert short == 0
    assert long == pytest.approx(0.25, abs=0.02)
    assert Measured([text[:200_000]]).repeated_ngrams(5)[0] == 0


def test_a_batch_gives_what_each_document_gives_alone() -> None:
    rng = random.Random(0)
    texts = [ENGLISH[rng.randrange(50) : rng.randrange(60, 300)] * rng.choice([1, 1, 3]) for _ in range(60)]
    together = {d.document.text for d in quality([Document(t, "a") for t in texts]).dropped}
    assert together == {t for t in texts if reason(t)}
    assert quality([]).kept == []
