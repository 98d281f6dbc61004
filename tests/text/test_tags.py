"""Spans and tags beside seqeval, in every scheme; and where words begin in any writing."""

import random

import numpy as np
import pytest
from seqeval.metrics.sequence_labeling import get_entities

from cutaway.errors import InputError
from cutaway.text.tags import Span, read_tags, spans_of, tag_names, tags_of, words_of


def expected(tags: list[str]) -> list[Span]:
    """seqeval's spans; its last word is inside."""
    return [Span(start, end + 1, label) for label, start, end in get_entities(tags)]


@pytest.mark.parametrize("prefixes", ["BI", "IO", "BIES"])
def test_spans_are_those_of_seqeval(prefixes):
    draw = random.Random(0)
    for _ in range(500):
        tags = [draw.choice(["O", *(f"{p}-{t}" for p in prefixes if p != "O" for t in "ab")])
                for _ in range(draw.randint(1, 12))]  # fmt: skip
        assert read_tags(tags)[0] == expected(tags)


def test_numbers_of_tags_lead_there_and_back():
    draw, names = np.random.default_rng(0), tag_names(("a", "b", "c"))
    assert names[:4] == ("O", "B-a", "I-a", "B-b")
    for _ in range(300):
        numbers = draw.integers(0, 7, draw.integers(0, 15))
        spans = [Span(a, b, "abc"[k]) for a, b, k in spans_of(numbers).tolist()]
        assert spans == expected([names[n] for n in numbers])
        again = tags_of(spans, len(numbers), ("a", "b", "c"))
        assert spans_of(again).tolist() == spans_of(numbers).tolist()
    assert tags_of([Span(0, 2, "strange")], 3, ("a",)).tolist() == [0, 0, 0]


def test_schemes_are_told():
    cases = {
        "BIO": ["B-a", "I-a", "O"],
        "IOB1": ["I-a", "I-a", "B-a"],
        "BIOES": ["B-a", "E-a", "S-a"],
        "BILOU": ["B-a", "L-a", "U-a"],
        "BMES": ["B-a", "M-a", "E-a"],
        "IO": ["a", "a", "O"],
    }
    for name, tags in cases.items():
        assert read_tags(tags)[1] == name
    assert read_tags(cases["BILOU"])[0] == read_tags(cases["BIOES"])[0] == [Span(0, 2, "a"), Span(2, 3, "a")]
    for wrong in (["B_a"], ["7"], [""], ["B-a", "a"]):
        with pytest.raises(InputError, match="scheme"):
            read_tags(wrong)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ataxia-telangiectasia (A-T)", ["Ataxia", "-", "telangiectasia", "(", "A", "-", "T", ")"]),
        ("ada@x.org, 3.5%", ["ada", "@", "x", ".", "org", ",", "3", ".", "5", "%"]),
        ("cafe\u0301s e\u0301l", ["cafe\u0301s", "e\u0301l"]),
        ("我在2024年abc", ["我", "在", "2024", "年", "abc"]),
        ("👩\u200d👩\u200d👧👍🏽 ok", ["👩\u200d👩\u200d👧", "👍🏽", "ok"]),
        ("a\u200d b", ["a\u200d", "b"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("  \n\t ", []),
    ],
)
def test_words_in_any_writing(text, words):
    bounds = words_of(text)
    assert [text[a:b] for a, b in bounds] == words
    assert all(a < b for a, b in bounds)
    assert "".join(text.split()) == "".join(text[a:b] for a, b in bounds)
