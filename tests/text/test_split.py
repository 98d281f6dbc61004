"""Splits depend on content and seed alone."""

import random

import pytest

from cutaway.errors import ConfigError
from cutaway.text.split import split


def texts(count: int) -> list[str]:
    return [f"This is text number {i}." for i in range(count)]


def test_shares_are_met_and_another_seed_divides_otherwise() -> None:
    names = split(texts(20_000), valid=0.05, test=0.1)
    assert abs(names.count("valid") - 1000) < 130
    assert abs(names.count("test") - 2000) < 180
    other = split(texts(20_000), valid=0.05, test=0.1, seed=1)
    both = sum(a == b == "valid" for a, b in zip(names, other, strict=True))
    assert both < 90  # 50 by chance


def test_order_and_company_do_not_matter() -> None:
    whole = texts(2000)
    place = dict(zip(whole, split(whole, valid=0.2, test=0.2), strict=True))
    shuffled = random.Random(0).sample(whole, 700)
    assert split(shuffled, valid=0.2, test=0.2) == [place[t] for t in shuffled]


def test_the_division_is_for_ever() -> None:
    """Pinned: a corpus prepared again with a later version must not leak its validation texts into training."""
    assert [i for i, name in enumerate(split(texts(100))) if name == "valid"] == [22, 33, 55, 57, 76, 84]


def test_a_larger_share_only_adds() -> None:
    small = split(texts(3000), valid=0.05)
    large = split(texts(3000), valid=0.1)
    assert all(b == "valid" for a, b in zip(small, large, strict=True) if a == "valid")


def test_duplicates_share_a_split() -> None:
    double = [t for text in texts(500) for t in (text, text.upper() + "  ")]
    names = split(double, valid=0.5)
    assert names[::2] == names[1::2]


def test_near_duplicates_share_a_split_when_asked() -> None:
    rng = random.Random(0)
    base = [" ".join(str(rng.randrange(10**6)) for _ in range(100)) for _ in range(60)]
    double = [t for text in base for t in (text, text + " more")]
    names = split(double, valid=0.5, near=True)
    assert names[::2] == names[1::2]
    assert {"train", "valid"} == set(names)
    order = list(range(len(double)))
    rng.shuffle(order)
    assert split([double[i] for i in order], valid=0.5, near=True) == [names[i] for i in order]


@pytest.mark.parametrize(
    ("valid", "test", "word"), [(1.0, 0, "valid"), (-0.1, 0, "valid"), (0.5, 0.5, "nothing to train")]
)
def test_impossible_shares(valid: float, test: float, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        split(["a"], valid=valid, test=test)
