"""Sentences of texts: where they begin and end, and that nothing is lost."""

import random

import pytest

from cutaway.text.sentences import sentence_spans, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rains. We stay in! Do you?", ["It rains.", "We stay in!", "Do you?"]),
        ("Dr. Smith met Mr. J. R. Jones. They spoke.", ["Dr. Smith met Mr. J. R. Jones.", "They spoke."]),
        ("See Fig. 3 and Sec. 2. It holds.", ["See Fig. 3 and Sec. 2.", "It holds."]),
        (
            "As Bartunov et al. (2018) find, it fails. We agree.",
            ["As Bartunov et al. (2018) find, it fails.", "We agree."],
        ),
        (
            "We use nets, e.g. CNNs. They work, i.e. Well enough.",
            ["We use nets, e.g. CNNs.", "They work, i.e. Well enough."],
        ),
        ("It has cats, dogs, etc. The rest is new.", ["It has cats, dogs, etc.", "The rest is new."]),
        ("He lives in the U.S. Senate building.", ["He lives in the U.S. Senate building."]),
        ("He lives in the U.S. The flat is small.", ["He lives in the U.S.", "The flat is small."]),
        ("Pi is 3.14159. E is 2.718.", ["Pi is 3.14159.", "E is 2.718."]),
        ('"Go!" he said. "Now?" She went.', ['"Go!" he said.', '"Now?"', "She went."]),
        ("Really?! Yes... and no. Wait... What?", ["Really?!", "Yes... and no.", "Wait...", "What?"]),
        ("He asked (why?). She told him.", ["He asked (why?).", "She told him."]),
        (
            "1. Introduction\nWe begin.\n2. Method\nWe go on.",
            ["1. Introduction", "We begin.", "2. Method", "We go on."],
        ),
        ("- one thing\n- another\nEnd", ["- one thing", "- another", "End"]),
        ("No. We do not. See No. 5 of it.", ["No.", "We do not.", "See No. 5 of it."]),
        ("今天下雨。我们在家！你呢？", ["今天下雨。", "我们在家！", "你呢？"]),
        ("他说：“走吧。”她走了。", ["他说：“走吧。”", "她走了。"]),
        ("“走吧！”，他说。", ["“走吧！”，他说。"]),
        ("他想了想……然后走了。圆周率是3.14。", ["他想了想……然后走了。", "圆周率是3.14。"]),
        ("We met 张三。他很好. Then we left.", ["We met 张三。", "他很好.", "Then we left."]),
        ("真的吗？！是的。", ["真的吗？！", "是的。"]),
        ("it rains. we stay in, e.g. here. ok?", ["it rains.", "we stay in, e.g. here.", "ok?"]),
        ("", []),
        (" \n\n ", []),
        ("no stop at all", ["no stop at all"]),
        ("...", ["..."]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_full_lines_go_on_and_short_ones_do_not() -> None:
    wrapped = "The quick brown fox jumps over the lazy dog of the United\nStates and is never seen again. So be it."
    assert sentences(wrapped) == [wrapped[:-10], "So be it."]
    assert sentences("A heading\nThe text begins here.\n\nAnd here\ngoes on.") == [
        "A heading",
        "The text begins here.",
        "And here\ngoes on.",
    ]
    chinese = "这是一个很长的句子它在二十五个汉字以后被换行了因为页面太窄\n所以下一行继续。完。"
    assert sentences(chinese) == [chinese[:-2], "完。"]


def test_nothing_is_lost_of_any_text() -> None:
    letters = [
        "a",
        "B",
        "1",
        "。",
        ".",
        "!",
        "？",
        "”",
        '"',
        "\n",
        " ",
        "…",
        "，",
        "字",
        "Dr",
        "e.g",
        "\u3000",
        "-",
        "(",
        "𠀀",
    ]
    draw = random.Random(0)
    for _ in range(3000):
        text = "".join(draw.choices(letters, k=draw.randrange(40)))
        spans = sentence_spans(text, longest=draw.choice([1, 5, 2000]))
        at = 0
        for start, end in spans:
            assert start < end
            assert not text[at:start].strip()
            assert text[start:end] == text[start:end].strip()
            at = end
        assert not text[at:].strip()


def test_long_stretches_are_cut_at_commas_spaces_or_anywhere() -> None:
    text = "word, " * 1000
    spans = sentence_spans(text, longest=100)
    assert max(end - start for start, end in spans) <= 100
    assert all(text[end - 1] == "," for _, end in spans)
    assert all(text[start : start + 4] == "word" for start, _ in spans)
    assert [end - start for start, end in sentence_spans("x" * 250, longest=100)] == [100, 100, 50]
    assert len(sentence_spans("字" * 100_000)) == 50
