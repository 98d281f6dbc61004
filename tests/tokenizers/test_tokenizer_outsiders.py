"""Against others: transformers reads what we save, tokie gives our ids, and what others save we read."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

from cutaway.errors import DamagedFile, InputError
from cutaway.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from cutaway.tokenizers.bulk import Bulk, choose_bulk, doubtful, probe_texts

MIX = st.lists(
    st.one_of(
        st.sampled_from(
            ["the", "'s", "'LL", " ", "\n", "\t", "\r", "12", "中", "。", "é", "\u0301", "😀", "〇", "Ⅷ", "Ⓐ"]
        ),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=30,
).map("".join)


@pytest.fixture(scope="module")
def published(trained: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory):
    """kind -> what transformers makes of the saved folder."""
    transformers = pytest.importorskip("transformers")
    found = {}
    for kind, tokenizer in trained.items():
        folder = tmp_path_factory.mktemp(kind)
        tokenizer.save(folder)
        found[kind] = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return found


@settings(deadline=None, max_examples=60)
@given(text=MIX)
def test_transformers_gives_the_same_ids_and_text(trained: dict[str, Tokenizer], published, text: str) -> None:
    for kind, tokenizer in trained.items():
        ids = published[kind](text)["input_ids"]
        assert ids == tokenizer.encode(text)
        assert published[kind].decode(ids, clean_up_tokenization_spaces=False) == text


def test_transformers_knows_the_special_tokens(trained: dict[str, Tokenizer], published) -> None:
    for kind, tokenizer in trained.items():
        other = published[kind]
        assert (other.eos_token_id, other.pad_token_id, other.mask_token_id) == (
            tokenizer.end_of_text,
            tokenizer.pad,
            tokenizer.mask,
        )
        assert len(other) == tokenizer.vocab_size


def test_tokie_encodes_byte_pairs_and_characters(trained: dict[str, Tokenizer]) -> None:
    for kind in ("bpe", "char"):
        assert trained[kind].bulk.name == "tokie", str(trained[kind].bulk)
        assert "probe texts" in str(trained[kind].bulk)
    assert trained["unigram"].bulk.name == "tokenizers"
    assert "other ids, for instance for 'The quick" in trained["unigram"].bulk.reason


@settings(deadline=None, max_examples=300)
@given(texts=st.lists(MIX, max_size=6))
def test_tokie_agrees_on_what_it_is_given(trained: dict[str, Tokenizer], texts: list[str]) -> None:
    for kind in ("bpe", "char"):
        found = trained[kind].encode_bulk(texts)
        assert [ids.tolist() for ids in found] == [trained[kind].encode(text) for text in texts]


def test_a_pattern_that_tokie_guesses_wrong_is_found_out() -> None:
    library = Library(models.BPE())
    pattern = r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2's, shortened
    library.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(["It's 1234567 of them, don't you see? " * 30], trainer)
    assert choose_bulk(library.to_str(), library).name == "tokenizers"


def test_there_are_probes_enough() -> None:
    probes = probe_texts(["hello", " wor\xa0ld", "\n \n"])
    assert len(probes) > 800
    assert not any(map(doubtful, probes))
    assert any("中" in probe for probe in probes)
    assert "hello" in probes
    assert probes == probe_texts(["hello", " wor\xa0ld", "\n \n"])


def test_tokie_cuts_every_neighbourhood_as_tokenizers_does() -> None:
    """A tokenizer that has learned every pair whole shows each cut between two characters, so no difference hides."""
    signs = [
        "a",
        "B",
        "s",
        "'",
        "ll",
        "é",
        "中",
        "あ",
        "ſ",
        "1",
        "²",
        "٣",
        ".",
        "_",
        "(",
        "。",
        "…",
        "$",
        "\u0301",
        "\u093f",
    ]
    signs += [
        "\u200d",
        "\ufeff",
        "\x00",
        "\x1c",
        "😀",
        " ",
        "\t",
        "\n",
        "\r",
        "\v",
        "\f",
        "\x85",
        "\xa0",
        "\u2003",
        "\u3000",
    ]
    signs += ["〇", "Ⅷ", "Ⓐ", "①"]
    pairs = ["".join(pair) for pair in product(signs, repeat=2)]
    tokenizer = train_tokenizer(
        pairs + [f"{one}{two}" for one in signs for two in pairs[::7]], "bpe", 20_000, min_frequency=1
    )
    assert tokenizer.bulk.name == "tokie"
    draw = random.Random(0)
    texts = pairs + ["".join(draw.choices(signs, k=draw.randint(3, 8))) for _ in range(20_000)]
    slow = Bulk("tokenizers", "", tokenizer.bulk._slow).encode(texts, tokenizer.dtype)
    found = tokenizer.encode_bulk(texts)
    wrong = [text for text, got, right in zip(texts, found, slow, strict=True) if got.tolist() != right.tolist()]
    assert not wrong, ascii(wrong[:20])
    assert 2_000 < sum(map(doubtful, texts)) < 18_000


def test_endless_words_and_white_space_get_the_ids_of_tokenizers_too() -> None:
    tokenizer = train_tokenizer(["the end of it, and so on\n\n\n    x = 1\n" * 50], "bpe", 600, min_frequency=1)
    assert tokenizer.bulk.name == "tokie"
    draw = random.Random(0)
    runs = ["x" * 5000, " " * 5000, "\n" * 5000, "-" * 5000, "中" * 2000, "the end of it, " * 300, "    x = 1\n" * 300]
    texts = ["".join(draw.choices([*runs, "the", " ", "\n"], k=6)) for _ in range(150)]
    for text, ids in zip(texts, tokenizer.encode_bulk(texts), strict=True):
        assert ids.tolist() == tokenizer.encode(text)
    assert not doubtful(runs[-1] * 5)


@pytest.mark.slow
def test_tokie_agrees_on_every_character_of_unicode() -> None:
    """Every code point where its class decides about the cut; the doubtful ones are those that bulk.py lists."""
    sample = "it's I'll I've 123 456 1234 we're don't a\n\n\n b    c .... ,,,, he'd 'm I'm "
    tokenizer = train_tokenizer([sample * 50], "bpe", 400, min_frequency=1)
    assert tokenizer.bulk.name == "tokie"
    for first in range(0, 0x110000, 20_000):
        letters = [chr(c) for c in range(first, min(first + 20_000, 0x110000)) if not 0xD800 <= c < 0xE000]
        around = ("a{}'s", "{}123", " {}'ll", "{}...", "  {}  {}\n\n\n", "'{}", "{}ve b '{}e")
        texts = [shape.replace("{}", letter) for letter in letters for shape in around]
        slow = Bulk("tokenizers", "", tokenizer.bulk._slow).encode(texts, tokenizer.dtype)
        wrong = [
            text
            for text, got, right in zip(texts, tokenizer.encode_bulk(texts), slow, strict=True)
            if got.tolist() != right.tolist()
        ]
        assert not wrong, ascii(wrong[:20])


# what others save


def gpt2_like(folder: Path, **config: object) -> Path:
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    library.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(["the text of the model " * 20], trainer)
    library.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def test_special_tokens_come_from_the_files_beside_it(tmp_path: Path) -> None:
    folder = gpt2_like(tmp_path, eos_token={"content": "</s>", "special": True}, pad_token="<pad>", bos_token=None)
    (folder / "special_tokens_map.json").write_text('{"bos_token": "<s>", "eos_token": "<pad>"}')
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.begin_of_text, tokenizer.end_of_text, tokenizer.pad, tokenizer.mask) == (0, 1, 2, None)
    assert tokenizer.exact
    tokenizer.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert (again.fingerprint, again.end_of_text, again.pad) == (tokenizer.fingerprint, 1, 2)


def test_a_tokenizer_that_adds_a_space_is_not_exact(tmp_path: Path) -> None:
    spec = json.loads((gpt2_like(tmp_path) / "tokenizer.json").read_text("utf-8"))
    spec["pre_tokenizer"]["add_prefix_space"] = True
    tokenizer = Tokenizer(json.dumps(spec))
    assert tokenizer.decode(tokenizer.encode("the text")) == " the text"
    assert not tokenizer.exact


def test_without_them_nothing_is_guessed(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(gpt2_like(tmp_path))
    assert (tokenizer.end_of_text, tokenizer.pad) == (None, None)


def test_a_special_token_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"'<end>' as eos_token, but the vocabulary"):
        load_tokenizer(gpt2_like(tmp_path, eos_token="<end>"))


def test_truncation_and_padding_in_the_file_do_not_cut_texts(tmp_path: Path) -> None:
    spec = json.loads((gpt2_like(tmp_path) / "tokenizer.json").read_text("utf-8"))
    spec["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("the text of the model")) == "the text of the model"
    assert tokenizer.decode(tokenizer.encode("the text<s>", allow_special=True)) == "the text<s>"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[]", "no tokenizer"),
        (b"{}", "no tokenizer"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"model": {"vocab": 3}}', "cannot read|can read"),
        (b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}', "can read"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}', "can read"),
        (b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "empty vocabulary"),
        (b'{"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}}', "can read"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}}', "4,294,967,295"),
    ],
)
def test_damaged_tokenizers_are_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=said) as caught:
        load_tokenizer(tmp_path)
    assert "tokenizer.json" in str(caught.value)


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        load_tokenizer(tmp_path)
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(2**28)
    with pytest.raises(DamagedFile, match="268,435,456 bytes"):
        load_tokenizer(tmp_path)
