"""Duplicates: exact against a plain set, near against the true Jaccard similarity, a set of keys against Python's."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cutaway.text.dedup import BANDS, Seen, band_keys, exact_duplicates, near_duplicates, near_groups, text_key
from cutaway.text.documents import Document

WORDS = [f"w{i}" for i in range(3000)]


def text_of(rng: random.Random, length: int = 120) -> str:
    return " ".join(rng.choices(WORDS, k=length))


def test_keys_ignore_case_and_white_space_and_nothing_else() -> None:
    assert text_key("Hello  World\n") == text_key("hello world") == text_key("HELLOWORLD")
    assert text_key("hello, world") != text_key("hello world")
    assert text_key("a+b") != text_key("a-b")
    assert text_key("你好 世界") == text_key("你好世界")
    assert text_key("\ud800") != text_key("")  # a stray surrogate is no reason to fail


@given(st.lists(st.sampled_from(["a", "A ", "b", "b\n", "c", "aa", "a a"]), max_size=30))
def test_exact_duplicates_keep_the_first_of_each(texts: list[str]) -> None:
    outcome = exact_duplicates([Document(t, str(i)) for i, t in enumerate(texts)])
    seen: set[str] = set()
    expected = []
    for i, text in enumerate(texts):
        normal = "".join(text.lower().split())
        if normal not in seen:
            expected.append(str(i))
        seen.add(normal)
    assert [d.source for d in outcome.kept] == expected
    assert len(outcome.dropped) == len(texts) - len(expected)


@given(st.lists(st.lists(st.integers(0, 60), max_size=12), max_size=12))
def test_seen_is_a_set(batches: list[list[int]]) -> None:
    seen, plain = Seen(), set()
    for batch in batches:
        keys = np.array(batch, np.uint64)
        assert seen.has(keys).tolist() == [k in plain for k in batch]
        expected = []
        for k in batch:
            expected.append(k not in plain)
            plain.add(k)
        assert seen.first(keys).tolist() == expected
        assert len(seen) == len(plain)


def test_seen_takes_eight_bytes_a_key() -> None:
    seen = Seen()
    rng = np.random.default_rng(0)
    for _ in range(50):
        seen.add(rng.integers(0, 2**63, 2000).astype(np.uint64))
    assert sum(run.nbytes for run in seen._runs) == 8 * len(seen) == 800_000
    assert len(seen._runs) < 10


def jaccard(a: str, b: str) -> float:
    first, second = ({tuple(t.split()[i : i + 5]) for i in range(len(t.split()) - 4)} for t in (a, b))
    return len(first & second) / len(first | second)


def test_near_duplicates_follow_the_true_similarity() -> None:
    """The chance to meet in a band must rise with Jaccard similarity as 1 - (1 - s**8)**14 says."""
    rng = random.Random(0)
    found: dict[str, list[bool]] = {"near": [], "far": [], "apart": []}
    for _ in range(150):
        text = text_of(rng)
        words = text.split()
        for name, edits in (("near", 1), ("far", 20), ("apart", 120)):
            other = list(words)
            for place in rng.sample(range(len(words)), edits):
                other[place] = "x" + str(rng.random())
            similarity = jaccard(text, " ".join(other))
            assert {"near": similarity > 0.9, "far": 0.1 < similarity < 0.5, "apart": similarity < 0.01}[name]
            a, b = band_keys([text, " ".join(other)])
            found[name].append(bool((a == b).any()))
    assert np.mean(found["near"]) > 0.97
    assert np.mean(found["far"]) < 0.1
    assert not any(found["apart"])


def test_near_duplicates_keep_the_first_and_short_texts_are_their_own() -> None:
    rng = random.Random(1)
    texts = [text_of(rng), text_of(rng)]
    near = texts[0] + " end"
    short = ["one two", "three four", "one two"]
    outcome = near_duplicates([Document(t, str(i)) for i, t in enumerate([texts[0], near, texts[1], *short])])
    assert [d.source for d in outcome.kept] == ["0", "2", "3", "4"]
    assert [d.reason for d in outcome.dropped] == ["nearly the same text came before"] * 2


def test_near_duplicates_in_chinese() -> None:
    rng = random.Random(2)
    text = "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(300))
    a, b, c = band_keys([text, text[:150] + "中" + text[150:], text[::-1]])
    assert (a == b).any()
    assert not (a == c).any()
    assert a.shape == (BANDS,)
    assert band_keys([]).shape == (0, BANDS)


def test_groups_link_through_others() -> None:
    rng = random.Random(3)
    words = text_of(rng, 200).split()
    chain = [" ".join(words[i : i + 170]) for i in (0, 4, 8, 12, 16, 20, 24, 28)]
    assert near_groups([text_of(rng), *chain]).tolist() == [0] + [1] * len(chain)
