"""The tokenizer that a GGUF file's metadata describes, as a tokenizer.json.

Byte-level BPE ("gpt2") is what GGUF files of Llama 3, Qwen, SmolLM and GPT-2 hold: tokens, merges, and the name of how
a text is cut into words before merging. The patterns are those of the models' own tokenizer.json files.
"""

import json
from collections.abc import Mapping
from typing import Any

from cutaway.errors import ConfigError, DamagedFile, unknown
from cutaway.tokenizers.tokenizer import Tokenizer

CONTROL, USER_DEFINED = 3, 4  # kinds of token
ADDED = ("single_word", "lstrip", "rstrip", "normalized")  # how a special token is found: plainly
ROLE_KEYS = {"begin_of_text": "bos", "end_of_text": "eos", "pad": "padding", "mask": "mask"}


def _byte_level(*, regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_WORDS = QWEN2_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# name -> how a text is cut, whether a whole word that is a token stays one, and how it is normalised before
WORDS: dict[str, tuple[list[dict[str, Any]], bool, dict[str, Any] | None]] = {
    "gpt-2": ([_byte_level(regex=True)], False, None),
    "smollm": ([{"type": "Digits", "individual_digits": True}, _byte_level(regex=True)], False, None),
    "llama-bpe": ([_split(LLAMA3_WORDS), _byte_level(regex=False)], True, None),
    "qwen2": ([_split(QWEN2_WORDS), _byte_level(regex=False)], False, {"type": "NFC"}),
}


def tokenizer_from_gguf(metadata: Mapping[str, Any], where: str = "the GGUF file") -> Tokenizer:
    """Make the tokenizer.

    Args:
        metadata: of the file.
        where: what to call it in messages.

    Raises:
        ConfigError: a kind of tokenizer, or a way to cut words, that is not supported, named.
        DamagedFile: tokens and their kinds or merges do not fit each other.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise ConfigError(unknown(f"tokenizer.ggml.model in {where}", str(model), ["gpt2"]))
    cut = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if not isinstance(cut, str) or cut not in WORDS:
        raise ConfigError(unknown(f"tokenizer.ggml.pre in {where}", str(cut), WORDS))
    tokens = _texts(metadata, "tokens", where)
    kinds = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if not isinstance(kinds, list):
        raise DamagedFile(f"{where} has no list of kinds tokenizer.ggml.token_type, but {type(kinds).__name__}")
    if len(kinds) != len(tokens) or len(set(tokens)) != len(tokens):
        raise DamagedFile(f"{where} lists {len(tokens)} tokens ({len(set(tokens))} different), and {len(kinds)} kinds")
    merges = [merge.split(" ", 1) for merge in _texts(metadata, "merges", where)]
    if any(len(merge) != 2 for merge in merges):
        raise DamagedFile(f"{where} lists a merge that is not of two pieces")
    cutters, whole_words, normalizer = WORDS[cut]
    added = [
        {"id": i, "content": token, "special": kind == CONTROL} | dict.fromkeys(ADDED, False)
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cutters},
        "post_processor": None,
        "decoder": _byte_level(regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": whole_words,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    roles = {}
    for role, key in ROLE_KEYS.items():
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            roles[role] = tokens[number]
    return Tokenizer(json.dumps(spec, ensure_ascii=False), roles=roles, where=where)


def _texts(metadata: Mapping[str, Any], name: str, where: str) -> list[str]:
    found = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise DamagedFile(f"{where} has no list of texts tokenizer.ggml.{name}")
    return found
