"""The token store: what goes in comes out, in an order that (seed, step) alone decide, and damage is seen."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.files import MANIFEST, seal
from cutaway.tokenizers import StoreWriter, Tokenizer, TokenSplit, TokenStore
from cutaway.tokenizers.order import keys, permute


@pytest.fixture(scope="module")
def char(trained: dict[str, Tokenizer]) -> Tokenizer:
    return trained["char"]


def documents(count: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, draw.integers(0, 60)).astype(np.uint16) for _ in range(count)]


def write(folder: Path, tokenizer: Tokenizer, docs: list[np.ndarray], **options: Any) -> TokenStore:
    with StoreWriter(folder, tokenizer, **options) as writer:
        for number, ids in enumerate(docs):
            writer.add("train", ids, source=f"texts/ä {number}.txt", text_bytes=len(ids))
    return TokenStore.open(folder)


def whole(docs: list[np.ndarray], end: int) -> np.ndarray:
    return np.concatenate([np.append(ids, end) for ids in docs]).astype(np.int64)


@pytest.fixture(scope="module")
def split(char: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenSplit:
    """100 documents in shards of 97 tokens."""
    return write(tmp_path_factory.mktemp("store") / "s", char, documents(100), shard_tokens=97)["train"]


@pytest.fixture(scope="module")
def stream(char: Tokenizer) -> np.ndarray:
    assert char.end_of_text is not None
    return whole(documents(100), char.end_of_text)


def test_what_goes_in_comes_out(split: TokenSplit, stream: np.ndarray) -> None:
    assert (split.tokens, split.documents, split.bytes) == (len(stream), 100, sum(map(len, documents(100))))
    assert np.array_equal(split.window(0, split.tokens), stream)
    for start, length in ((0, 1), (96, 2), (90, 300), (len(stream) - 3, 8), (5, 0), (3, 2 * len(stream))):
        found = split.window(start, length)
        assert found.dtype == np.int64
        assert np.array_equal(found, np.resize(np.roll(stream, -start), length))


@pytest.mark.parametrize("shard_tokens", [1, 7, 10**6])
def test_shards_of_any_length_hold_the_same(char: Tokenizer, tmp_path: Path, shard_tokens: int) -> None:
    docs = documents(12, seed=3)
    split = write(tmp_path / "s", char, docs, shard_tokens=shard_tokens)["train"]
    assert np.array_equal(split.window(0, split.tokens), whole(docs, char.end_of_text or 0))
    assert len(list((tmp_path / "s").glob("train-*.tokens"))) == -(-split.tokens // shard_tokens)


def test_text_goes_in_and_comes_out(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = {"train": ["one 中文", "", "<|endoftext|> is text"], "valid": ["three"]}
    store = TokenStore.from_texts(texts, tokenizer, tmp_path / "s")
    assert store.tokenizer.fingerprint == tokenizer.fingerprint
    assert list(store.splits) == ["train", "valid"]
    for name, expected in texts.items():
        split = store[name]
        assert split.bytes == sum(len(text.encode()) for text in expected)
        ids = split.window(0, split.tokens)
        parts = np.split(ids, np.flatnonzero(ids == tokenizer.end_of_text) + 1)
        assert [tokenizer.decode(part[:-1]) for part in parts if len(part)] == expected
    with pytest.raises(ConfigError, match="did you mean train"):
        store["trian"]


# the order


@settings(deadline=None, max_examples=80)
@given(size=st.integers(1, 3000), seed=st.integers(-(2**70), 2**70), epoch=st.integers(0, 2**40))
def test_an_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    key = keys(seed, np.full(size, epoch, np.uint64))
    found = permute(np.arange(size, dtype=np.uint64), size, key)
    assert np.array_equal(np.sort(found), np.arange(size))


def test_permutations_are_far_from_the_identity_and_from_one_another() -> None:
    size = 20_000
    index = np.arange(size, dtype=np.uint64)
    orders = [permute(index, size, keys(seed, np.full(size, epoch, np.uint64))) for seed in (0, 1) for epoch in (0, 1)]
    for number, one in enumerate(orders):
        for other in [index, *orders[:number]]:
            assert (one == other).sum() < 12  # one is expected
            assert abs(np.corrcoef(one.astype(float), other.astype(float))[0, 1]) < 0.05
        steps = np.diff(one.astype(float))
        assert abs(np.corrcoef(steps[:-1], steps[1:])[0, 1] + 0.5) < 0.05  # as of independent numbers
        # the places of each hundredth of the index are spread evenly: chi-squared with 99 degrees of freedom
        counts = np.bincount((one[: size // 10] * np.uint64(100) // np.uint64(size)).astype(int), minlength=100)
        assert ((counts - 20) ** 2 / 20).sum() < 180


def test_permutations_of_huge_splits_need_no_memory() -> None:
    size = 10**15 + 7
    index = np.arange(size - 1000, size, dtype=np.uint64)
    found = permute(index, size, keys(0, np.zeros(1000, np.uint64)))
    assert len(set(found.tolist())) == 1000
    assert found.max() < size


def test_a_batch_is_a_function_of_seed_and_step(split: TokenSplit, stream: np.ndarray) -> None:
    shape = {"batch": 6, "context": 16}
    ids, targets, starts = split.batch(41, seed=7, **shape)
    assert ids.shape == targets.shape == (6, 16)
    assert ids.dtype == targets.dtype == np.int64
    assert ids.flags.c_contiguous
    assert targets.flags.c_contiguous
    for row, start in enumerate(starts):
        expected = np.resize(np.roll(stream, -int(start)), 17)
        assert np.array_equal(ids[row], expected[:-1])
        assert np.array_equal(targets[row], expected[1:])
    again = TokenStore.open(split.folder)["train"].batch(41, seed=7, **shape)
    assert all(np.array_equal(one, other) for one, other in zip((ids, targets, starts), again, strict=True))
    for other in (split.batch(42, seed=7, **shape), split.batch(41, seed=8, **shape)):
        assert not np.array_equal(other[2], starts)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_the_rows_of_several_processes_make_up_the_batch(split: TokenSplit, world: int) -> None:
    for step in (0, 3, 500):
        expected = split.batch(step, seed=1, batch=12, context=8)
        shares = [split.batch(step, seed=1, batch=12, context=8, rank=rank, world=world) for rank in range(world)]
        for number in range(3):
            assert np.array_equal(np.concatenate([share[number] for share in shares]), expected[number])


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_an_epoch_sees_every_window_once_and_the_next_cuts_elsewhere(split: TokenSplit, batch: int) -> None:
    context = 16
    windows = split.tokens // context
    steps = -(-3 * windows // batch)
    starts = np.concatenate([split.batch(step, seed=5, batch=batch, context=context)[2] for step in range(steps)])
    shifts = set()
    for epoch in range(3):
        found = np.sort(starts[epoch * windows : (epoch + 1) * windows])
        seen = Counter((int(start) + offset) % split.tokens for start in found for offset in range(context))
        assert max(seen.values()) == 1
        assert len(seen) == windows * context
        shifts.add(int(found[0]))
    assert len(shifts) > 1


def test_the_batch_size_changes_the_grouping_and_not_the_order(split: TokenSplit) -> None:
    small = np.concatenate([split.batch(step, seed=2, batch=4, context=8)[2] for step in range(6)])
    large = np.concatenate([split.batch(step, seed=2, batch=12, context=8)[2] for step in range(2)])
    assert np.array_equal(small, large)


def test_batches_that_cannot_be_are_refused(split: TokenSplit) -> None:
    with pytest.raises(ConfigError, match="6 rows cannot be shared by 4 processes; choose a multiple of 4"):
        split.batch(0, seed=0, batch=6, context=8, world=4)
    for wrong in ({"batch": 0}, {"rank": 1}, {"rank": -1}, {"world": 0}):
        with pytest.raises(ConfigError):
            split.batch(0, seed=0, **{"batch": 6, "context": 8} | wrong)
    with pytest.raises(ConfigError):
        split.batch(-1, seed=0, batch=1, context=8)
    with pytest.raises(ConfigError, match="context must be"):
        split.batch(0, seed=0, batch=1, context=0)


def test_a_split_shorter_than_a_window_is_refused_with_both_numbers(char: Tokenizer, tmp_path: Path) -> None:
    split = write(tmp_path / "s", char, [np.arange(9)])["train"]
    assert split.batch(0, seed=0, batch=2, context=9)[0].shape == (2, 9)
    with pytest.raises(InputError, match=r"has 10 tokens, but a window is 11 .* context of at most 9"):
        split.batch(0, seed=0, batch=2, context=10)


@pytest.mark.parametrize(("batch", "context"), [(1, 1), (4, 16), (3, 7), (5, 10_000), (1000, 8)])
def test_in_order_every_token_is_a_target_once(split: TokenSplit, stream: np.ndarray, batch: int, context: int) -> None:
    ids, targets = [], []
    for x, y in split.in_order(batch, context):
        assert x.shape == y.shape
        assert x.shape[0] <= batch
        assert x.shape[1] == context
        ids.append(x.ravel())
        targets.append(y.ravel())
    ids, targets = np.concatenate(ids), np.concatenate(targets)
    counted = targets != -100
    assert np.array_equal(targets[counted], stream)
    assert np.array_equal(ids[counted], np.roll(stream, 1))
    assert counted[: len(stream)].all()
    assert len(targets) - len(stream) < context


def test_the_documents_of_a_batch_are_named(split: TokenSplit, stream: np.ndarray) -> None:
    end = split.window(split.tokens - 1, 1)[0]
    number = np.concatenate([[0], np.cumsum(stream == end)[:-1]])  # of each token's document
    for start, context in ((0, 1), (0, 200), (5, 40), (split.tokens - 2, 10), (split.tokens - 1, 1)):
        expected = dict.fromkeys(np.resize(np.roll(number, -start), context).tolist())
        assert split.documents_at([start], context) == [f"texts/ä {n}.txt" for n in expected]
    assert split.documents_at(np.array([0, 0, 1]), 1) == ["texts/ä 0.txt"]
    assert split.source(99) == "texts/ä 99.txt"


# writing


def test_a_store_is_replaced_whole_or_not_at_all(char: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    write(folder, char, [np.arange(5)])
    with pytest.raises(RuntimeError), StoreWriter(folder, char) as writer:  # noqa: PT012
        writer.add("train", np.arange(9), source="", text_bytes=9)
        raise RuntimeError
    assert TokenStore.open(folder)["train"].tokens == 6
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    write(folder, char, [np.arange(9)])
    assert TokenStore.open(folder)["train"].tokens == 10
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_full_disk_leaves_the_old_store(char: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "s"
    write(folder, char, [np.arange(5)])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="disk is full"):
            write(folder, char, [np.arange(9)])
    assert TokenStore.open(folder)["train"].tokens == 6
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_while_documents_are_added_is_one_sentence(
    char: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def open_full(path: Path, *args: object):
        return real(Path("/dev/full") if path.suffix == ".tokens" else path, *args)  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(InputError, match="disk is full"), StoreWriter(tmp_path / "s", char) as writer:  # noqa: PT012
        for _ in range(100):
            writer.add("train", np.zeros(1000, np.uint16), source="", text_bytes=0)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_refused(char: Tokenizer, trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", char) as writer:
        for ids in ([char.vocab_size], [-1]):
            with pytest.raises(ConfigError, match=rf"a\.txt: ids must lie in 0 … {char.vocab_size - 1}"):
                writer.add("train", np.array(ids), source="a.txt", text_bytes=1)
        for name in ("", "../evil", "a/b", "a.b"):
            with pytest.raises(ConfigError, match="split's name"):
                writer.add(name, np.arange(3), source="", text_bytes=1)
    assert TokenStore.open(tmp_path / "s").splits["train"].tokens == 0
    with pytest.raises(InputError, match=r"'train' .* has 0 tokens"):
        TokenStore.open(tmp_path / "s")["train"].batch(0, seed=0, batch=1, context=8)
    with pytest.raises(InputError, match="empty"):
        list(TokenStore.open(tmp_path / "s")["train"].in_order(1, 8))
    with pytest.raises(ConfigError, match="shard_tokens"):
        StoreWriter(tmp_path / "t", char, shard_tokens=0)
    endless = Tokenizer(char.text, roles={})
    with pytest.raises(ConfigError, match="no token that ends a text"):
        StoreWriter(tmp_path / "t", endless)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


# damage


@pytest.fixture
def folder(char: Tokenizer, tmp_path: Path) -> Path:
    write(tmp_path / "s", char, documents(10), shard_tokens=50)
    return tmp_path / "s"


@pytest.mark.parametrize(
    "name",
    ["train-00000.tokens", "train-00003.tokens", "train.documents", "train.sources", "tokenizer.json", "store.json"],
)
def test_a_flipped_byte_is_refused_by_name(folder: Path, name: str) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=name):
        TokenStore.open(folder)


@pytest.mark.parametrize("name", ["train-00001.tokens", "train.documents", "tokenizer.json"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_file_cut_short_or_gone_is_refused_by_name(folder: Path, name: str, verify: bool) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DamagedFile, match=name):
        TokenStore.open(folder, verify=verify)
    path.unlink()
    with pytest.raises((DamagedFile, InputError), match=name):
        TokenStore.open(folder, verify=verify)


def test_without_its_manifest_a_store_is_not_finished(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(DamagedFile, match="not finished"):
        TokenStore.open(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": 3}', '{"files": {"store.json": 3}}', "{"])
def test_a_damaged_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    with pytest.raises(DamagedFile, match=r"manifest\.json|store\.json"):
        TokenStore.open(folder)


def change(folder: Path, **values: object) -> None:
    """Another store.json, properly sealed."""
    info = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(info | values))
    seal(folder)


def test_a_store_of_another_version_is_refused_in_one_sentence(folder: Path) -> None:
    change(folder, format=2, shape="new")
    with pytest.raises(ConfigError, match=r"made by another version of Cutaway .*prepare the texts again"):
        TokenStore.open(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"dtype": "object"},
        {"dtype": "uint32"},
        {"shard_tokens": 0},
        {"shard_tokens": 49},
        {"fingerprint": "0" * 64},
        {"splits": {"../train": {"tokens": 0, "documents": 0, "text_bytes": 0, "shards": 0}}},
        {"splits": {"train": {"tokens": 10**15, "documents": 0, "text_bytes": 0, "shards": 1}}},
        {"splits": {"train": {"tokens": -5, "documents": -1, "text_bytes": 0, "shards": 1}}},
    ],
)
def test_a_description_that_does_not_fit_the_files_is_refused(folder: Path, values: dict[str, object]) -> None:
    change(folder, **values)
    with pytest.raises(DamagedFile):
        TokenStore.open(folder)


def test_a_folder_without_a_store_says_how_to_make_one(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="cutaway prepare"):
            TokenStore.open(place)


def test_a_large_vocabulary_is_stored_in_four_bytes(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    spec = json.loads(trained["bpe"].text)
    spec["added_tokens"] = []
    vocab = spec["model"]["vocab"]
    vocab |= {f"word{n}": n for n in range(len(vocab), 70_000)}
    spec["added_tokens"] = [{"id": 70_000, "content": "</s>", "special": True} | dict.fromkeys(FLAGS, False)]
    tokenizer = Tokenizer(json.dumps(spec), roles={"end_of_text": "</s>"})
    assert tokenizer.end_of_text == 70_000
    with StoreWriter(tmp_path / "s", tokenizer) as writer:
        writer.add("train", np.array([1, 69_999]), source="", text_bytes=1)
    assert TokenStore.open(tmp_path / "s")["train"].window(0, 3).tolist() == [1, 69_999, 70_000]


FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
