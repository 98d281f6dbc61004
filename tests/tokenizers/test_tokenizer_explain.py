"""Explanations: the replay gives the tokenizer's ids, and each step is one that the algorithm could take."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from cutaway.errors import ConfigError
from cutaway.tokenizers import Tokenizer

pieces = st.sampled_from(
    ["the", " ing", "object", "aaaa", "'s", "123", "\n  ", "中文", "模型", "é", "😀", "\x00", "…", "##"]
)
some_text = st.one_of(st.text(max_size=40), st.lists(pieces).map("".join))


@settings(deadline=None, max_examples=200)
@given(text=some_text)
def test_the_replay_gives_the_ids_of_encode(trained: dict[str, Tokenizer], text: str) -> None:
    for tokenizer in trained.values():
        found = tokenizer.explain(text)
        assert [token.id for token in found] == tokenizer.encode(text)
        assert b"".join(token.bytes for token in found) == text.encode()


def test_spans_cover_the_text(tokenizer: Tokenizer) -> None:
    text = "The models’ naïve 中文 😀 objects\n"
    found = tokenizer.explain(text)
    assert found[0].span[0] == 0
    assert found[-1].span[1] == len(text)
    for token, following in pairwise(found):
        assert token.span[0] <= following.span[0] <= token.span[1] <= following.span[1]
        assert token.word <= following.word
    for token in found:
        assert token.bytes in text[slice(*token.span)].encode()


def test_merges_build_the_token_from_single_bytes(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["bpe"]
    for token in tokenizer.explain("Understanding the representation of 模型 objects"):
        parts = list(map(tokenizer.show, tokenizer.spec["model"]["vocab"])) if not token.merges else []
        assert len(token.merges) == len(token.bytes) - 1
        if token.merges:
            assert token.merges[-1].left + token.merges[-1].right == token.text or "\\x" in token.merges[-1].left
            assert f"{len(token.merges)} merge" in token.how
        else:
            assert token.text in parts
    ranks = {tuple(pair): rank for rank, pair in enumerate(tokenizer.spec["model"]["merges"])}
    word = next(token for token in tokenizer.explain("the") if token.merges)
    assert all(ranks[merge.left, merge.right] == merge.rank for merge in word.merges)


def test_a_unigram_token_comes_with_other_cuts_of_its_word(trained: dict[str, Tokenizer]) -> None:
    found = trained["unigram"].explain(" representations")
    best, *others = found[0].alternatives
    assert best.pieces == tuple(token.text for token in found)
    assert best.score == pytest.approx(sum(token.score or 0 for token in found))
    assert others
    assert all(best.score >= other.score and "".join(other.pieces) == " representations" for other in others)


def test_a_wordpiece_token_comes_with_what_was_tried_before_it(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["wordpiece"]
    found = tokenizer.explain("zzq")
    assert [token.text for token in found] == ["z", "z", "q"]
    assert found[0].tried == ("zzq", "zz")
    assert found[1].tried == ("zq",)
    assert found[2].tried == ()


def llama_like() -> Library:
    """As Llama 2: spaces as ▁, bytes where a character is unknown, no pre-tokenizer."""
    library = Library(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])  # pyright: ignore[reportAttributeAccessIssue]
    library.decoder = decoders.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    library.train_from_iterator(
        ["the model reads the text and the text reads the model " * 9],
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False),
    )
    spec = json.loads(library.to_str())
    spec["added_tokens"] = spec["added_tokens"][:3]
    return Library.from_str(json.dumps(spec))


def bert_like() -> Library:
    library = Library(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    library.normalizer = normalizers.BertNormalizer()  # pyright: ignore[reportAttributeAccessIssue]
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    library.decoder = decoders.WordPiece()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[UNK]", "[SEP]", "[MASK]"], show_progress=False
    )
    library.train_from_iterator(["the model reads the text and the text reads the model " * 9], trainer)
    return library


def t5_like() -> Library:
    library = Library(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    library.decoder = decoders.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    library.train_from_iterator(["the model reads the text and the text reads the model " * 9], trainer)
    return library


@pytest.mark.parametrize("make", [llama_like, bert_like, t5_like])
@settings(deadline=None, max_examples=60)
@given(text=st.lists(st.sampled_from(["the ", "model", "reads", "x", "Text", " ", "é", "中", "zz"])).map("".join))
def test_tokenizers_of_other_makes_are_explained_and_streamed_too(make, text: str) -> None:
    library = make()
    tokenizer = Tokenizer(library.to_str())
    expected = library.encode(text, add_special_tokens=False)
    assert tokenizer.encode(text) == expected.ids
    assert [token.id for token in tokenizer.explain(text)] == expected.ids
    assert tokenizer.decode(expected.ids) == library.decode(expected.ids, skip_special_tokens=False)
    stream = tokenizer.stream()
    assert "".join(map(stream.add, expected.ids)) + stream.finish() == tokenizer.decode(expected.ids)
    assert not tokenizer.exact


def test_special_names_are_text_even_where_the_vocabulary_holds_them() -> None:
    for make, name in ((llama_like, "</s>"), (bert_like, "[SEP]"), (t5_like, "</s>")):
        tokenizer = Tokenizer(make().to_str())
        assert tokenizer.special[name] not in tokenizer.encode(f"the{name}model")
        assert tokenizer.special[name] in tokenizer.encode(f"the{name}model", allow_special=True)


def test_a_step_that_is_not_known_is_said() -> None:
    library = llama_like()
    library.add_tokens([AddedToken("model", normalized=False)])  # cut out before the model sees the text
    tokenizer = Tokenizer(library.to_str())
    with pytest.raises(ConfigError, match="a step that explain does not know"):
        tokenizer.explain("the model")
    assert tokenizer.encode("the model")
