"""Tokenizers without tokenizer.json, against transformers' own reading of the same files."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers, trainers
from varied_texts import prose, varied

from cutaway.errors import ConfigError, CutawayError, DamagedFile, InputError
from cutaway.tokenizers import Tokenizer, load_tokenizer
from cutaway.tokenizers.frame import frame

FLAGS = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write(folder: Path, **files: Any) -> Path:
    """Files of a folder: name -> text, or what becomes JSON. `__` in a name stands for its dot."""
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        (folder / name.replace("__", ".")).write_text(text, "utf-8", newline="")
    return folder


@pytest.fixture(scope="module")
def pieces() -> list[str]:
    """A WordPiece vocabulary, lower case and not."""
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)  # pyright: ignore
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=BERT, show_progress=False)
    library.train_from_iterator([*prose(), *[text.lower() for text in prose()]], trainer)
    vocab = library.get_vocab()
    return sorted(vocab, key=vocab.__getitem__)


@pytest.fixture(scope="module")
def byte_pairs() -> tuple[dict[str, int], list[str]]:
    """A byte-level vocabulary after four special tokens, and its merges."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(prose(), trainer)
    model = json.loads(library.to_str())["model"]
    return model["vocab"], [" ".join(pair) for pair in model["merges"]]


def agree(ours: Tokenizer, theirs: Any, texts: list[str], tmp_path: Path) -> None:
    """The same ids, framed and plain, and the same text; saved too, and opened by transformers and by us."""
    ours.save(tmp_path / "saved")
    again = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    reopened = load_tokenizer(tmp_path / "saved")
    assert reopened.fingerprint == ours.fingerprint
    assert len(texts) > 1000
    for text in texts:
        ids = ours.encode(text, allow_special=True)
        assert ids == theirs(text, add_special_tokens=False)["input_ids"], ascii(text)
        framed = frame(ours, ids)[0]
        assert framed == theirs(text)["input_ids"] == again(text)["input_ids"], ascii(text)
        decoded = theirs.decode(ids, clean_up_tokenization_spaces=False)
        assert ours.decode(ids) == decoded == reopened.decode(ids), ascii(text)
    theirs.save_pretrained(tmp_path / "theirs")  # as tokenizer.json
    assert (tmp_path / "theirs" / "tokenizer.json").is_file()
    saved = load_tokenizer(tmp_path / "theirs")
    for text in texts[:300]:
        assert saved.encode(text) == ours.encode(text)
        assert frame(saved, saved.encode(text, allow_special=True))[0] == theirs(text)["input_ids"]
    assert (saved.end_of_text, saved.pad, saved.mask) == (ours.end_of_text, ours.pad, ours.mask)
    first, second = texts[0], texts[-3]
    pair = theirs(first, second)
    ours_pair = frame(ours, *(ours.encode(text, allow_special=True) for text in (first, second)))
    assert ours_pair[0] == pair["input_ids"]
    for role in ("pad", "mask"):
        assert getattr(ours, role) == getattr(theirs, f"{role}_token_id")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Bert", {}),
        ("Bert", {"do_lower_case": False}),
        ("Bert", {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}),
        ("Bert", {"do_lower_case": True, "strip_accents": False}),
        ("DistilBert", {"do_lower_case": True}),
        ("Electra", {"do_lower_case": True}),
    ],
)
def test_wordpiece_is_transformers(name: str, config: dict, pieces: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    write(
        folder,
        vocab__txt="\n".join(pieces) + "\n",
        tokenizer_config__json=config | {"tokenizer_class": f"{name}Tokenizer"},
    )
    theirs = getattr(transformers, f"{name}Tokenizer").from_pretrained(folder)
    ours = load_tokenizer(folder)
    assert (ours.kind, ours.mask, ours.end_of_text) == ("wordpiece", pieces.index("[MASK]"), None)
    agree(ours, theirs, varied(1500), tmp_path)


WHISPER = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>"]
WHISPER += ["<|startoflm|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>"]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("GPT2", {}),
        ("GPT2", {"add_prefix_space": True, "pad_token": "<pad>"}),
        ("Roberta", {}),
        ("Roberta", {"mask_token": FLAGS | {"content": "<mask>", "lstrip": True, "__type": "AddedToken"}}),
        ("Bart", {}),
        ("Qwen2", {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}),
        ("Whisper", {}),
        ("Whisper", {"predict_timestamps": True}),
    ],
)  # fmt: skip
def test_byte_pairs_are_transformers(name: str, config: dict, byte_pairs, tmp_path: Path) -> None:
    vocab, merges = dict(byte_pairs[0]), byte_pairs[1]
    folder = tmp_path / "published"
    folder.mkdir()
    if name in ("Roberta", "Bart"):
        vocab["<mask>"] = len(vocab)
    elif name in ("GPT2", "Qwen2"):
        vocab["<|endoftext|>"] = len(vocab)
    elif name == "Whisper":
        special = {text: len(vocab) + i for i, text in enumerate(WHISPER)}
        times = {f"<|{i / 50:.2f}|>": len(vocab) + len(special) + i for i in range(20)}
        write(folder, added_tokens__json=special | times)
        config = config | {"additional_special_tokens": WHISPER}
    write(folder, vocab__json=vocab, merges__txt="#version: 0.2\n" + "\n".join(merges) + "\n")
    write(folder, tokenizer_config__json=config | {"tokenizer_class": f"{name}Tokenizer"})
    theirs = getattr(transformers, f"{name}Tokenizer").from_pretrained(folder)
    ours = load_tokenizer(folder)
    assert ours.end_of_text == theirs.eos_token_id
    agree(ours, theirs, varied(1500), tmp_path)


def test_added_tokens_of_tokenizer_config_get_their_ids(byte_pairs, tmp_path: Path) -> None:
    vocab, merges = dict(byte_pairs[0]), byte_pairs[1]
    vocab["<|endoftext|>"] = end = len(vocab)
    added = {
        str(end): {"content": "<|endoftext|>", "special": True} | FLAGS,
        str(end + 1): {"content": "<|im_start|>", "special": True} | FLAGS,
        str(end + 2): {"content": "<think>", "special": False} | FLAGS,
    }
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": "<|im_start|>"}
    write(tmp_path, vocab__json=vocab, merges__txt="\n".join(merges), tokenizer_config__json=config)
    theirs = transformers.Qwen2Tokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    text = "<|im_start|>user\n<think> a</think><|endoftext|>"
    assert ours.encode(text, allow_special=True) == theirs(text)["input_ids"]
    assert end + 2 in ours.encode(text)  # no special token: it is found in any text
    assert end + 1 not in ours.encode(text)
    assert ours.special == {"<|endoftext|>": end, "<|im_start|>": end + 1}
    assert (ours.end_of_text, ours.vocab_size) == (end + 1, end + 3)


def test_the_class_is_found_in_config_json_and_a_text_never_spells_a_special_token(pieces, tmp_path: Path) -> None:
    write(tmp_path, vocab__txt="\n".join(pieces), config__json={"model_type": "electra"})
    ours = load_tokenizer(tmp_path)
    assert ours.encode("[MASK]", allow_special=True) == [ours.mask]
    assert ours.mask not in ours.encode("a [MASK] and [CLS]")


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({"vocab__txt": "a\nb\n"}, DamagedFile, "unknown token '\\[UNK\\]'"),
        (
            {"vocab__txt": "[UNK]\na", "tokenizer_config__json": {"tokenizer_class": "BarthezTokenizer"}},
            ConfigError,
            "Barthez",
        ),
        ({"vocab__txt": "[UNK]\na", "tokenizer_config__json": {"do_lower_case": "yes"}}, ConfigError, "do_lower_case"),
        ({"vocab__txt": "[UNK]\na", "tokenizer_config__json": []}, DamagedFile, "JSON object"),
        (
            {"vocab__txt": "[UNK]\na", "tokenizer_config__json": {"mask_token": "[MASK]"}},
            DamagedFile,
            "'\\[MASK\\]' as mask_token",
        ),
        ({"vocab__txt": "[UNK]\na", "tokenizer_config__json": {"mask_token": 5}}, DamagedFile, "must have a text"),
        ({"vocab__json": {"a": 0, "b": 0}, "merges__txt": ""}, DamagedFile, "an id of its own"),
        ({"vocab__json": {"a": 0}, "merges__txt": "a b c"}, DamagedFile, "line 1"),
        ({"vocab__json": {"a": 0}, "merges__txt": "a b"}, DamagedFile, "cannot be read|can read"),
        ({"vocab__json": {"a": 2**30}, "merges__txt": ""}, DamagedFile, "an id of its own"),
        ({"vocab__json": {"a": 0}, "merges__txt": "", "added_tokens__json": {"b": 0}}, DamagedFile, "'b' the id 0"),
        ({"vocab__json": {"a": 0}, "merges__txt": "", "added_tokens__json": {"b": True}}, DamagedFile, "ids lie in"),
        (
            {
                "vocab__json": {"a": 0},
                "merges__txt": "",
                "tokenizer_config__json": {"added_tokens_decoder": {"-1": {}}},
            },
            DamagedFile,
            "entry '-1'",
        ),
        ({"vocab__json": {"a": 0}}, InputError, "nor another vocabulary"),
        ({"vocab__json": "[" * 100_000, "merges__txt": ""}, DamagedFile, "not valid JSON"),
        ({"vocab__json": '{"a": ' + "1" * 10_000 + "}", "merges__txt": ""}, DamagedFile, "not valid JSON"),
    ],
)
def test_damaged_vocabularies_are_refused(files: dict, error: type, words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        load_tokenizer(write(tmp_path, **files))


INSERTED = [b"null", b"1e999", b"-1", b"99999999999", b"[[[[", b'"\\ud800"', b"\r\n"]


def test_mutated_folders_give_a_tokenizer_or_one_of_our_errors(pieces, byte_pairs, tmp_path: Path) -> None:
    """CUTAWAY_FUZZ says how many; make fuzz runs the full number. Each that opens encodes and decodes."""
    vocab = dict(list(byte_pairs[0].items())[:300])
    merges = [m for m in byte_pairs[1] if all(part in vocab for part in (*m.split(" "), m.replace(" ", "")))]
    mask = FLAGS | {"content": "<mask>", "lstrip": True}
    template = [{"name": "default", "template": "a"}]
    config = {"tokenizer_class": "RobertaTokenizer", "mask_token": mask, "chat_template": template}
    decoder = {"300": FLAGS | {"content": "<mask>", "special": True}, "301": FLAGS | {"content": "<t>"}}
    beside = {
        "tokenizer_config.json": json.dumps(config | {"added_tokens_decoder": decoder}),
        "special_tokens_map.json": json.dumps({"eos_token": "</s>", "additional_special_tokens": ["<t>"]}),
    }
    kinds = [
        beside | {"vocab.json": json.dumps(vocab), "merges.txt": "\n".join(merges)},
        {"vocab.txt": "\n".join(pieces[:200]), "added_tokens.json": json.dumps({"<new>": 200, "<newer>": 201})},
    ]
    draw, opens = random.Random(0), 0
    for number in range(int(os.environ.get("CUTAWAY_FUZZ", "300"))):
        folder = tmp_path / str(number % 2)
        folder.mkdir(exist_ok=True)
        files = dict(kinds[number % 2])
        name = draw.choice(sorted(files))
        data = bytearray(files[name].encode())
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(data)) if data else 0
            match draw.randrange(5):
                case 0:
                    data[place : place + 1] = bytes([draw.choice(b'"{}[]:,0129-e \n\\x\xff\x00')])
                case 1:
                    data[place:place] = draw.choice(INSERTED)
                case 2:
                    del data[place : place + draw.randrange(1, 40)]
                case 3:
                    data[place:place] = data[: draw.randrange(100)]
                case _:
                    number_at = [m.start() for m in re.finditer(rb"\d+", data)]
                    if number_at:
                        at = draw.choice(number_at)
                        data[at : at + 1] = draw.choice([b"true", b"4294967296", b"-7", b'"x"', b"0.5", b"3"])
        for path, text in files.items():
            (folder / path).write_bytes(bytes(data) if path == name else text.encode())
        try:
            tokenizer = load_tokenizer(folder)
            tokenizer.decode(tokenizer.encode("the text 12 \n 中文 <mask>", allow_special=True))
            frame(tokenizer, [0])
            opens += 1
        except CutawayError:
            pass
    assert opens > 10
