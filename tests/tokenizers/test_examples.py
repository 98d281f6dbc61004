"""Examples: pairs and labels out of tables, into a store, and in batches."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.files import MANIFEST, seal
from cutaway.tokenizers import StoreWriter, TokenStore, prepare_examples, train_tokenizer
from cutaway.tokenizers.order import keys, uniform

ROWS = [(f"text number {i} {'x' * (i % 7)}", f"answer {i}", ["no", "yes", "maybe"][i % 3], i % 5) for i in range(200)]
HOW: dict[str, Any] = {"tokenizer": "char", "vocab_size": 300, "valid": 0.1}


def table(folder: Path, form: str) -> str:
    """The rows in a file of some format."""
    names = ("text", "answer", "class", "number")
    path = folder / f"rows.{form}"
    if form == "jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in ROWS))
    elif form == "parquet":
        import pyarrow
        import pyarrow.parquet

        columns = dict(zip(names, map(list, zip(*ROWS, strict=True)), strict=True))
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        mark = "\t" if form.startswith("tsv") else ","
        text = "\n".join([mark.join(names), *(mark.join(map(str, row)) for row in ROWS)])
        path.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
    return str(path)


@pytest.mark.parametrize("form", ["tsv", "csv", "tsv.gz", "jsonl", "parquet"])
def test_pairs_and_labels_of_every_format(tmp_path: Path, form: str):
    data = table(tmp_path, form)
    pairs = prepare_examples(data, tmp_path / "pairs", text="text", target="answer", **HOW).store
    assert (pairs.kind, pairs.labels) == ("pairs", ())
    found = set()
    for split in pairs.splits.values():
        for number in range(split.examples):
            ids = [split.document(2 * number + part) for part in (0, 1)]
            found.add(tuple(pairs.tokenizer.decode(part) for part in ids))
    assert found == {(text, answer) for text, answer, _, _ in ROWS}
    made = prepare_examples(data, tmp_path / "labels", text="text", label="class", **HOW)
    assert made.store.labels == ("maybe", "no", "yes")
    assert made.labels == {"no": 67, "yes": 67, "maybe": 66}
    numbers = prepare_examples(data, tmp_path / "numbers", text="text", label="number", **HOW)
    assert numbers.store.labels == ("0", "1", "2", "3", "4")  # 0 is a number, not nothing
    train = numbers.store["train"]
    texts = {text: str(number) for text, _, _, number in ROWS}
    given = [numbers.store.labels[i] for i in train.labels(np.arange(train.examples))]
    assert given == [texts[numbers.store.tokenizer.decode(train.document(i))] for i in range(train.examples)]
    assert numbers.splits["train"]["examples"] == train.examples == 200 - numbers.splits["valid"]["examples"]


def test_equal_texts_share_a_split_and_equal_examples_are_one(tmp_path: Path):
    lines = ["text\tlabel"] + [f"text {i % 50}\t{'ab'[i % 4 > 1]}" for i in range(200)] + ["lone\t", "\ta"]
    (tmp_path / "rows.tsv").write_text("\n".join(lines))
    made = prepare_examples(
        str(tmp_path / "rows.tsv"), tmp_path / "data", text="text", label="label", **{**HOW, "valid": 0.3}
    )
    assert made.dropped["the same example again"] == 100  # each text has both labels
    assert made.dropped["nothing in 'label'"] == 1
    texts = []
    for name in ("train", "valid"):
        split = made.store[name]
        texts.append({split.tokenizer.decode(split.document(i)) for i in range(split.examples)})
        assert split.examples == 2 * len(texts[-1])
    assert not texts[0] & texts[1]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"text": "txt", "label": "class"}, ConfigError, "did you mean text"),
        ({"text": "text", "label": "clas"}, ConfigError, "did you mean class"),
        ({"text": "text"}, ConfigError, "target for texts to make of it, or label"),
        ({"text": "text", "label": "class", "target": "answer"}, ConfigError, "or label"),
        ({"text": "text", "label": "class", "valid": 0.0001}, InputError, "none is left for valid"),
        ({"text": "text", "label": "class", "valid": 1.0}, ConfigError, "valid must be a share"),
    ],
)
def test_mistakes(tmp_path: Path, columns: dict, error: type[Exception], message: str):
    data = table(tmp_path, "tsv")
    with pytest.raises(error, match=message):
        prepare_examples(data, tmp_path / "data", **HOW | columns)
    assert not (tmp_path / "data").exists()


def test_nothing_to_learn_is_said(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"text {i}", "label": "same"}) for i in range(50)))
    with pytest.raises(InputError, match="all examples have the label 'same'"):
        prepare_examples(str(path), tmp_path / "data", text="text", label="label", **HOW)
    with pytest.raises(InputError, match=r"no row has both 'text' and 'lable' \(50 rows: nothing in 'lable'\)"):
        prepare_examples(str(path), tmp_path / "data", text="text", label="lable", **HOW)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return prepare_examples(table(tmp_path, "tsv"), tmp_path / "data", text="text", target="answer", **HOW).store


def test_a_batch_of_examples_depends_on_seed_and_step(store: TokenStore):
    train = store["train"]
    for step in (0, 5, 70, 1000):
        numbers, lengths = train.draw(step, seed=3, batch=8)
        parts = [[len(train.document(2 * n + part)) + 1 for part in (0, 1)] for n in numbers.tolist()]
        assert lengths.tolist() == [sum(part) for part in parts]
        shares = [train.draw(step, seed=3, batch=8, rank=rank, world=4) for rank in range(4)]
        assert np.concatenate([share for share, _ in shares]).tolist() == numbers.tolist()
        assert all((others == lengths).all() for _, others in shares)
        assert train.draw(step, seed=4, batch=8)[0].tolist() != numbers.tolist()


def test_an_epoch_has_every_example_once_and_little_padding(tmp_path: Path):
    tokenizer = train_tokenizer(["ab"], "char", 300)
    with StoreWriter(tmp_path / "data", tokenizer, kind="labels") as writer:
        for number in range(64 * 4):
            ids = np.full(1 + 7919 * number % 64, 97)
            writer.add("train", ids, source=str(number), text_bytes=len(ids), label=str(number % 2))
    train = TokenStore.open(tmp_path / "data")["train"]
    batches = [train.draw(step, seed=0, batch=4)[0] for step in range(64)]  # one pool is one epoch here
    assert sorted(np.concatenate(batches).tolist()) == list(range(256))
    spread = [np.ptp(train.lengths(numbers)) for numbers in batches]
    assert max(spread) <= 1  # there are four of each length
    order = [int(train.lengths(numbers).mean()) for numbers in batches]
    assert order != sorted(order)
    assert [b.tolist() for b in batches] != [train.draw(step, seed=0, batch=4)[0].tolist() for step in range(64, 128)]


def test_damage_and_misuse_are_named(store: TokenStore, tmp_path: Path):
    with pytest.raises(ConfigError, match="has no labels; prepare it with --label"):
        store["train"].labels(np.arange(2))
    made = prepare_examples(table(tmp_path, "tsv"), tmp_path / "labels", text="text", label="class", **HOW)
    labels = made.folder / "train.labels"
    content = labels.read_bytes()
    labels.write_bytes(b"\xff" + content[1:])
    with pytest.raises(DamagedFile, match=r"train\.labels is damaged"):
        TokenStore.open(made.folder)
    labels.write_bytes((99).to_bytes(4, "little") + content[4:])
    (made.folder / MANIFEST).unlink()
    seal(made.folder)
    with pytest.raises(DamagedFile, match="numbers of no label"):
        TokenStore.open(made.folder)
    tokenizer = store.tokenizer
    for kind, label in (("labels", None), ("texts", "a")):
        with pytest.raises(ConfigError, match="label"), StoreWriter(tmp_path / "x", tokenizer, kind=kind) as writer:  # pyright: ignore[reportArgumentType]
            writer.add("train", np.array([1]), source="a", text_bytes=1, label=label)
    with StoreWriter(tmp_path / "odd", tokenizer, kind="pairs") as writer:
        writer.add("train", np.array([1]), source="a", text_bytes=1)
    with pytest.raises(DamagedFile, match="the last source of train has no target"):
        TokenStore.open(tmp_path / "odd")


def test_draws_are_even_and_depend_on_their_row_alone():
    found = uniform(keys(7, np.arange(500)), 3, 400)
    assert found.shape == (3, 500, 400)
    assert (found == uniform(keys(7, np.arange(499, -1, -1)), 3, 400)[:, ::-1]).all()
    assert (uniform(keys(7, np.arange(3, 5)), 3, 400) == found[:, 3:5]).all()
    assert ((found >= 0) & (found < 1)).all()
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    assert abs(counts - found.size / 20).max() < 5 * np.sqrt(found.size / 20)
    for a, b in ((found[0], found[1]), (found[:, :-1], found[:, 1:]), (found[..., :-1], found[..., 1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)
    assert len(np.unique(found)) == found.size
