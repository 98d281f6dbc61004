"""The classic steps for bag-of-words models."""

import math

import numpy as np
import pytest

from cutaway.errors import ConfigError
from cutaway.text.bag import CLASSIC, WHY_NOT, check_classic, classic, segment, stem, stop_words, vectorize, why_not


def test_english() -> None:
    assert classic("The cats were NOT sleeping; it's 3 a.m.!", list(CLASSIC)) == "cat sleep s 3 m"
    assert classic("Running runners ran.", ["stem"]) == "Run runner ran."


def test_chinese_is_segmented_into_dictionary_words() -> None:
    assert classic("我们在北京大学学习自然语言处理。", ["segment", "punctuation", "stop_words", "stem"]).split() == [
        "北京大学", "学习", "自然语言", "处理",
    ]  # fmt: skip
    assert segment("no Chinese here") == "no Chinese here"


def test_stemming_speaks_other_languages() -> None:
    assert stem("Häuser", "de") == "Haus"
    with pytest.raises(ConfigError, match="stemmer 'xx'"):
        stem("a", "xx")
    with pytest.raises(ConfigError, match="stop words 'de'"):
        stop_words("a", "de")


def test_names_are_checked_and_every_step_says_why_not() -> None:
    with pytest.raises(ConfigError, match="did you mean lowercase"):
        check_classic(["lowercas"])
    assert set(WHY_NOT) == set(CLASSIC)
    assert "capital letter" in why_not(["lowercase"])[0]


def test_counts_and_tfidf_by_hand() -> None:
    bags = vectorize(["a a b", "b c"], "counts")
    assert bags.vocabulary == ["a", "b", "c"]
    assert bags.matrix.toarray().tolist() == [[2, 1, 0], [0, 1, 1]]
    rare, common = math.log(3 / 2) + 1, 1.0  # smoothed inverse document frequency of 1 and of 2 texts in 2
    row = np.array([2 * rare, common, 0])
    assert vectorize(["a a b", "b c"]).matrix.toarray()[0] == pytest.approx(row / np.linalg.norm(row))
    assert bags.vectorizer.transform(["c c x"]).toarray().tolist() == [[0, 0, 2]]


def test_vectorize_says_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="did you mean tfidf"):
        vectorize(["a"], "tf-idf")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="no words to count in 2 texts"):
        vectorize(["", " "])
