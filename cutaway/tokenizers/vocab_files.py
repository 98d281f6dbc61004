"""Tokenizers whose vocabulary lies in plain files: vocab.txt (WordPiece), vocab.json and merges.txt (byte-level BPE).

What the files do not say, how a text is cut before and what is put around it, follows from the tokenizer's class, by
tables that hold what transformers' classes of these names do.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cutaway.errors import ConfigError, DamagedFile, unknown
from cutaway.files import inside, parse_json
from cutaway.tokenizers.beside import Beside, read_text
from cutaway.tokenizers.from_gguf import QWEN2_WORDS
from cutaway.tokenizers.spec import Spec, template
from cutaway.tokenizers.tokenizer import MOST_TOKENS, Tokenizer

VOCAB_TXT, VOCAB_JSON, MERGES = "vocab.txt", "vocab.json", "merges.txt"
BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
WORDPIECE = ("Bert", "DistilBert", "Electra")
END = "<|endoftext|>"
ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}


@dataclass(frozen=True)
class ByteLevel:
    """A class of byte-level BPE tokenizers.

    Attributes:
        special: key -> text of its special tokens, where no file says otherwise.
        pattern: what cuts a text into words; None: GPT-2's, which the library knows.
        normalizer: what is done to a text before.
        frame: "" or "roberta" or "whisper": what is put around a text.
    """

    special: Mapping[str, str]
    pattern: str | None = None
    normalizer: Mapping[str, str] | None = field(default=None)
    frame: str = ""


BYTE_LEVEL = {
    "GPT2": ByteLevel({"bos_token": END, "eos_token": END, "unk_token": END}),
    "Roberta": ByteLevel(ROBERTA, frame="roberta"),
    "Bart": ByteLevel(ROBERTA, frame="roberta"),
    "Whisper": ByteLevel({"bos_token": END, "eos_token": END, "unk_token": END}, frame="whisper"),
    "Qwen2": ByteLevel({"eos_token": END, "pad_token": END}, QWEN2_WORDS, {"type": "NFC"}),
}


def wordpiece(beside: Beside) -> Tokenizer:
    """The tokenizer of a vocab.txt (BERT's and its relatives').

    Raises:
        ConfigError: a class that is not known.
        DamagedFile: a vocabulary without the unknown token, or added tokens that do not fit it.
    """
    kind = beside.kind or "Bert"
    if kind not in WORDPIECE:
        raise ConfigError(unknown(f"tokenizer of a {VOCAB_TXT} in {beside.folder}", kind, WORDPIECE))
    lines = read_text(inside(beside.folder, VOCAB_TXT)).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    vocab = {token: id for id, token in enumerate(lines)}
    unk = beside.token("unk_token", BERT["unk_token"])
    if unk not in vocab:
        raise DamagedFile(f"{beside.folder / VOCAB_TXT} does not hold the unknown token {unk!r}")
    spec = _spec(
        {
            "type": "WordPiece",
            "unk_token": unk,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        }
    )
    spec["normalizer"] = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": beside.flag("tokenize_chinese_chars", True),
        "strip_accents": beside.flag("strip_accents", False)
        if beside.config.get("strip_accents") is not None
        else None,
        "lowercase": beside.flag("do_lower_case", True),
    }
    spec["pre_tokenizer"] = {"type": "BertPreTokenizer"}
    spec["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    beside.add(spec, BERT)
    begin, end = (beside.token(key, BERT[key]) for key in ("cls_token", "sep_token"))
    if begin in vocab and end in vocab:
        spec["post_processor"] = {"type": "BertProcessing", "sep": [end, vocab[end]], "cls": [begin, vocab[begin]]}
    return tokenizer(spec, beside, BERT)


def byte_level(beside: Beside) -> Tokenizer:
    """The tokenizer of a vocab.json and a merges.txt (GPT-2's and those that took after it).

    Raises:
        ConfigError: a class that is not known.
        DamagedFile: no vocabulary, merges of what it does not hold, or added tokens that do not fit it.
    """
    kind = beside.kind or "GPT2"
    if kind not in BYTE_LEVEL:
        raise ConfigError(unknown(f"tokenizer of a {VOCAB_JSON} in {beside.folder}", kind, BYTE_LEVEL))
    which = BYTE_LEVEL[kind]
    vocab = read_vocabulary(beside)
    merges = []
    for number, line in enumerate(read_text(inside(beside.folder, MERGES)).replace("\r\n", "\n").split("\n")):
        if line and not (number == 0 and line.startswith("#version")):
            pair = line.split(" ")
            if len(pair) != 2:
                raise DamagedFile(f"{beside.folder / MERGES} has {line[:40]!r} in line {number + 1}, no two pieces")
            merges.append(pair)
    spec = _spec(
        {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocab,
            "merges": merges,
        }
    )
    prefix = beside.flag("add_prefix_space", False)
    letters = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": not which.pattern}
    cut = {"type": "Split", "pattern": {"Regex": which.pattern}, "behavior": "Isolated", "invert": False}
    spec["normalizer"] = which.normalizer
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut, letters]} if which.pattern else letters
    spec["decoder"] = letters | {"use_regex": True}
    beside.add(spec, which.special)
    if which.frame == "roberta":
        begin, end = (_named(beside, key, which.special[key], vocab) for key in ("cls_token", "sep_token"))
        around = {"type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": prefix}
        spec["post_processor"] = around | {"cls": list(begin), "sep": list(end)}
    elif which.frame == "whisper":
        spec["post_processor"] = _whisper(beside, vocab)
    return tokenizer(spec, beside, which.special)


def read_vocabulary(beside: Beside) -> dict[str, int]:
    """The vocab.json of a folder.

    Raises:
        DamagedFile: it is no object of texts and ids.
    """
    file = inside(beside.folder, VOCAB_JSON)
    vocab = parse_json(read_text(file), str(file))
    ids = list(vocab.values()) if isinstance(vocab, dict) else [None]
    if not vocab or not all(type(id) is int and 0 <= id < MOST_TOKENS for id in ids) or len(set(ids)) != len(ids):
        raise DamagedFile(f"{file} must give each token an id of its own, from 0 up; it does not")
    return vocab


def tokenizer(spec: Spec, beside: Beside, special: Mapping[str, str]) -> Tokenizer:
    """The tokenizer of a spec, with the roles and the chat template that stand beside it.

    Raises:
        DamagedFile: the spec is none that the library can read.
    """
    text = json.dumps(spec, ensure_ascii=False)
    where = f"the tokenizer in {beside.folder}"
    vocab = spec["model"]["vocab"]
    known = {entry[0] for entry in vocab} if isinstance(vocab, list) else vocab
    given = {key: token for key, token in special.items() if token in known}
    return Tokenizer(text, roles=beside.roles(given), where=where, chat_template=beside.chat_template())


def _spec(model: dict[str, Any]) -> Spec:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }


def _named(beside: Beside, key: str, default: str, vocab: Mapping[str, int]) -> tuple[str, int]:
    """A special token that is put around texts, and its id."""
    name = beside.token(key, default)
    if name is None or name not in vocab:
        raise DamagedFile(f"{beside.folder} names {name!r} as {key}, but the vocabulary has no such token")
    return name, vocab[name]


def _whisper(beside: Beside, vocab: Mapping[str, int]) -> dict[str, Any]:
    """<|startoftranscript|>, the language and the task if they are set, whether times are wanted; <|endoftext|>."""
    before = ["<|startoftranscript|>"]
    language, task = beside.config.get("language"), beside.config.get("task")
    before += [f"<|{language}|>"] if language else []
    before += [f"<|{task}|>"] if task else []
    before += [] if beside.flag("predict_timestamps", False) else ["<|notimestamps|>"]
    end = beside.token("eos_token", END) or END
    if missing := [name for name in (*before, end) if name not in vocab]:
        raise ConfigError(
            f"{beside.folder} asks for {', '.join(missing)} around a text, which its vocabulary does not have; "
            "a language is given as its code (zh), a task as transcribe or translate"
        )
    return template([(name, vocab[name]) for name in before], [(end, vocab[end])], [])
