"""Training a tokenizer: what can go wrong is said, and what was asked for is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cutaway.errors import ConfigError, InputError
from cutaway.progress import Progress
from cutaway.tokenizers import KINDS, train_tokenizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["a", "中", "\n", "ababab", "x y z " * 9], ids=ascii)
def test_little_text_still_gives_a_tokenizer_of_at_most_the_size_asked_for(kind: str, text: str) -> None:
    for size in (515, 600):
        tokenizer = train_tokenizer([text], kind, size, min_frequency=1)
        assert tokenizer.vocab_size <= size
        assert tokenizer.decode(tokenizer.encode("hé 中\n")) == "hé 中\n"


def test_unigram_says_when_there_is_too_little_to_estimate_from() -> None:
    with pytest.raises(InputError, match="so little text"):
        train_tokenizer(["a" * 30], "unigram", 600)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "word", "char"])
def test_what_is_rarer_than_the_minimum_is_not_learned(kind: str) -> None:
    text = "зебра " * 3 + "common " * 9
    assert (
        train_tokenizer([text], kind, 1000, min_frequency=6).vocab_size < train_tokenizer([text], kind, 1000).vocab_size
    )


def test_the_most_frequent_words_are_kept() -> None:
    tokenizer = train_tokenizer(["one " * 3 + "two " * 5 + "three " * 4], "word", 256 + 3 + 2)
    assert [tokenizer.token(id) for id in (256, 257)] == [" two", " three"]


def test_progress_tells_of_the_bytes_read() -> None:
    told: list[Progress] = []
    train_tokenizer(["abc", "中"], progress=told.append)
    assert [(p.done, p.unit) for p in told] == [(3, "bytes"), (6, "bytes")]


@pytest.mark.parametrize("texts", [[], [""], iter(())])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match="no text to learn"):
        train_tokenizer(texts)


def test_a_reader_that_fails_is_heard() -> None:
    def texts() -> Iterator[str]:
        yield "fine"
        raise InputError("the disk is gone")

    with pytest.raises(InputError, match="the disk is gone"):
        train_tokenizer(texts())


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean wordpiece"):
        train_tokenizer(["a"], "wordpeice")
    for kind, size in (("bpe", 258), ("wordpiece", 514), ("char", True), ("bpe", 1e4), ("bpe", 2**30)):
        with pytest.raises(ConfigError, match="vocab_size must lie in"):
            train_tokenizer(["a"], kind, size)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="min_frequency"):
        train_tokenizer(["a"], min_frequency=0)
    with pytest.raises(InputError, match=r"text 1 holds the lone surrogate"):
        train_tokenizer(["a", "\ud800"])
