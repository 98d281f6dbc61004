"""Every kind of tokenizer: nothing is lost, nothing is injected, and what is not text is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import InputError
from cutaway.tokenizers import KINDS, Tokenizer, compression, load_tokenizer, train_tokenizer
from cutaway.tokenizers.tokenizer import LONG

SPECIALS = ("<|endoftext|>", "<|pad|>", "<|mask|>")
TRICKY = (
    "",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    " \n \t\n",
    "\x00",
    "a\x00b\x7f\x1b[0m",
    "\u0085\u2028\u3000\ufeff\ufffe\U0010ffff",
    "中文，没有空格。二〇二五",
    "👩‍👩‍👧‍👦🏳️‍🌈😀",
    "e\u0301 é \u0301",
    "## … ▁ Ġ Ċ <0x41> [UNK] </s>",
    "…ing ##ing",
    "  indented\n\n\n    more",
    "x" * 5000,
    " " * 5000,
    "中" * 2000,
    *SPECIALS,
    "a<|endoftext|>b",
)
# Text as people write it, and every code point that can be written.
anything = st.one_of(st.text(max_size=60), st.lists(st.sampled_from([*TRICKY[:18], "the ", "ing", "'s"])).map("".join))


@pytest.mark.parametrize("text", TRICKY, ids=lambda text: ascii(text[:16]))
def test_nothing_is_lost_from_tricky_texts(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(np.array(ids, np.int64)) == text.encode()
    assert tokenizer.exact


@settings(deadline=None, max_examples=150)
@given(text=anything)
def test_nothing_is_lost_from_any_text(trained: dict[str, Tokenizer], text: str) -> None:
    for tokenizer in trained.values():
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= id < tokenizer.vocab_size for id in ids)
        assert not set(ids) & set(tokenizer.special.values())


@settings(deadline=None, max_examples=100)
@given(ids=st.lists(st.integers(0, 1400)), text=anything)
def test_a_stream_shows_what_decoding_at_once_shows(trained: dict[str, Tokenizer], ids: list[int], text: str) -> None:
    for tokenizer in trained.values():
        for given_ids in ([id % tokenizer.vocab_size for id in ids], tokenizer.encode(text)):
            stream = tokenizer.stream()
            shown = "".join(stream.add(id) for id in given_ids)
            assert shown + stream.finish() == tokenizer.decode(given_ids)


def test_a_stream_waits_for_the_rest_of_a_character(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["char"]
    ids = tokenizer.encode("𝄞")  # not in the vocabulary: four bytes
    stream = tokenizer.stream()
    assert [stream.add(id) for id in ids] == ["", "", "", "𝄞"]
    stream = tokenizer.stream()
    stream.add(ids[0])
    assert stream.finish() == "�"


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(anything, max_size=8))
def test_bulk_gives_the_ids_of_encode(trained: dict[str, Tokenizer], texts: list[str]) -> None:
    for tokenizer in trained.values():
        found = tokenizer.encode_bulk(texts)
        assert [ids.tolist() for ids in found] == [tokenizer.encode(text) for text in texts]
        assert all(ids.dtype == tokenizer.dtype == np.uint16 for ids in found)


def test_names_of_special_tokens_in_documents_are_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.special == {name: tokenizer.id(name) for name in SPECIALS}
    assert (tokenizer.end_of_text, tokenizer.pad, tokenizer.mask) == tuple(tokenizer.special.values())
    text = "one<|endoftext|>two<|mask|>"
    plain = tokenizer.encode(text)
    assert not set(plain) & set(tokenizer.special.values())
    assert [ids.tolist() for ids in tokenizer.encode_bulk([text])] == [plain]
    marked = tokenizer.encode(text, allow_special=True)
    assert [id for id in marked if id in tokenizer.special.values()] == [tokenizer.end_of_text, tokenizer.mask]
    assert tokenizer.decode(marked) == text
    assert tokenizer.decode(marked, skip_special=True) == "onetwo"


@pytest.mark.parametrize("text", ["a\ud800b", "\udcff", "x\ud83d"])
def test_half_characters_are_refused_in_one_sentence(tokenizer: Tokenizer, text: str) -> None:
    for action in (tokenizer.encode, tokenizer.explain, lambda t: tokenizer.encode_bulk(["fine", t])):
        with pytest.raises(InputError, match=r"lone surrogate U\+D[0-9A-F]{3} at character \d"):
            action(text)
    with pytest.raises(InputError, match="text 1 of 2 holds"):
        tokenizer.encode_bulk(["fine", text])


def test_what_is_not_text_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="must be a string, but bytes was given"):
        tokenizer.encode(b"bytes")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="text 1 of 2 must be a string, but int"):
        tokenizer.encode_bulk(["a", 3])  # pyright: ignore[reportArgumentType]


def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer) -> None:
    for ids in ([-1], [0, tokenizer.vocab_size]):
        for action in (tokenizer.decode, tokenizer.decode_bytes, lambda bad: tokenizer.token_bytes(bad[-1])):
            with pytest.raises(InputError, match=f"0 … {tokenizer.vocab_size - 1}"):
                action(ids)


def test_every_token_can_be_read_and_found(tokenizer: Tokenizer) -> None:
    for id in range(tokenizer.vocab_size):
        assert tokenizer.token(id).isprintable()
        data = tokenizer.token_bytes(id)
        assert data
        try:
            text = data.decode()
        except UnicodeDecodeError:
            continue
        assert tokenizer.token_bytes(tokenizer.id(text)) == data
    assert sorted(
        {tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)} & {bytes([b]) for b in range(256)}
    ) == [bytes([b]) for b in range(256)]


def test_a_text_that_is_not_one_token_is_named_with_its_tokens(trained: dict[str, Tokenizer]) -> None:
    with pytest.raises(InputError, match=r"'中国人' is not one token .* but \d+: '"):
        trained["char"].id("中国人")


def test_saving_and_loading_change_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        loaded = load_tokenizer(path)
        assert (loaded.fingerprint, loaded.kind, loaded.vocab_size) == (
            tokenizer.fingerprint,
            tokenizer.kind,
            tokenizer.vocab_size,
        )
        assert loaded.special == tokenizer.special
        assert loaded.end_of_text == tokenizer.end_of_text
        assert loaded.encode("Saving 中文") == tokenizer.encode("Saving 中文")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_tokenizer(kind: str, texts: list[str], trained: dict[str, Tokenizer]) -> None:
    assert trained[kind].kind == kind
    assert train_tokenizer(iter(texts), kind, 1500).fingerprint == trained[kind].fingerprint


def test_digits_go_in_groups_of_three_and_words_keep_their_space(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["bpe"]
    starts = [e.span[0] for e in tokenizer.explain("1234567") if e.word != 0]
    assert starts[0] == 3
    assert tokenizer.token_bytes(tokenizer.encode("the object")[-1]).startswith(b" ")


def test_compression_counts_bytes_words_and_tokens(trained: dict[str, Tokenizer]) -> None:
    found = compression(trained["char"], ["two words", "中文"])
    assert (found.bytes, found.words, found.tokens) == (9 + 6, 2 + 2, len(trained["char"].encode("two words中文")))
    assert compression(trained["bpe"], ["The value of the object is the object."]).fertility < 2.5


def test_neither_torch_nor_the_readers_are_imported() -> None:
    code = (
        "import sys, cutaway.tokenizers as t; t.train_tokenizer(['abc']); "
        "print({'torch', 'cutaway.text.readers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("length", [LONG - 1, LONG, LONG + 1, 3 * LONG])
def test_long_texts_are_cut_as_short_ones_are(tokenizer: Tokenizer, length: int) -> None:
    text = ("The quick brown fox, 12345 times over the lazy dog.\n" * length)[:length]
    ids = tokenizer.encode(text)
    assert ids == tokenizer._plain.encode(text, add_special_tokens=False).ids
    with pytest.raises(InputError, match=r"surrogate|half"):
        tokenizer.encode(text + "\ud800")


def test_other_threads_go_on_while_a_long_text_is_encoded(trained: dict[str, Tokenizer]) -> None:
    """Else one long prompt would hold up all of a server for seconds."""
    tokenizer, moments = trained["bpe"], 0
    thread = threading.Thread(target=lambda: tokenizer.encode("a quick brown fox " * 60_000))
    thread.start()
    while thread.is_alive():
        moments += 1
        time.sleep(0.001)
    assert moments > 20
