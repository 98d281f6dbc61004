"""tokenizer.json: Hugging Face's file format, read, written, and the bytes that its tokens stand for.

Byte-level tokenizers (Radford et al. 2019, GPT-2) write each of the 256 bytes as one printable letter, so that every
text is spelled with 256 letters and nothing is ever unknown: " the" is stored as "Ġthe", "中" as "ä¸Ń". Tokenizers in
the manner of SentencePiece (Kudo & Richardson 2018) write a space as "▁" and a lone byte as "<0xE4>". WordPiece marks
what continues a word with a prefix.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import tokenizers

from cutaway.errors import DamagedFile

END_OF_TEXT, PAD, MASK = "<|endoftext|>", "<|pad|>", "<|mask|>"
CONTINUES = (
    "…"  # our prefix of a piece that continues a word: no byte is spelled so, hence it is never ambiguous as "##" is
)
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")

Spec = dict[str, Any]


def byte_letters() -> list[str]:
    """The letter of each byte 0 … 255: printable Latin-1 stands for itself, the other 68 for Ā, ā, Ă … in order."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    other = iter(range(0x100, 0x100 + 68))
    return [chr(byte) if byte in plain else chr(next(other)) for byte in range(256)]


def parse(text: str, where: str) -> Spec:
    """The content of a tokenizer.json, its outline checked.

    Raises:
        DamagedFile: not JSON, or no tokenizer.
    """
    try:
        spec = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DamagedFile(f"{where} is not valid JSON ({error}); restore it or make it again") from error
    model = spec.get("model") if isinstance(spec, dict) else None
    if not isinstance(model, dict) or "vocab" not in model:
        raise DamagedFile(f"{where} is JSON but no tokenizer: it has no model with a vocabulary")
    if "type" not in model:  # files from before 2020 leave it out
        model["type"] = "BPE" if "merges" in model else "Unigram" if isinstance(model["vocab"], list) else "WordPiece"
    return spec


def build_tokenizer(text: str, where: str) -> tokenizers.Tokenizer:
    """The library's tokenizer of a JSON text; its truncation and padding off.

    Raises:
        DamagedFile: the library cannot read it.
    """
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except BaseException as error:
        reraise_unless_rust(error)
        raise DamagedFile(f"{where} is not a tokenizer that the tokenizers library can read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def reraise_unless_rust(error: BaseException) -> None:
    """Let everything through but what a library written in Rust raises: plain Exception, and panics (BaseException)."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def make(model: dict[str, Any], pattern: str) -> str:
    """The tokenizer.json of a byte-level tokenizer: `model`, words cut by `pattern`, Cutaway's special tokens last.

    The special tokens are not in the model's vocabulary, so no document can spell them.
    """
    first = len(model["vocab"])
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    decoder: dict[str, Any] = letters
    if prefix := model.get("continuing_subword_prefix"):
        strip = {"type": "Replace", "pattern": {"String": prefix}, "content": ""}
        decoder = {"type": "Sequence", "decoders": [strip, letters]}
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special_token(first + n, name) for n, name in enumerate((END_OF_TEXT, PAD, MASK))],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, letters]},
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }
    return json.dumps(spec, ensure_ascii=False, indent=1) + "\n"


def special_token(id: int, name: str) -> dict[str, Any]:
    """A special token as tokenizer.json lists it."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": id, "content": name, **flags}


def without_special(spec: Spec, special: set[str]) -> str:
    """The JSON of the same tokenizer, blind to its special tokens: their names in a text are text."""
    spec = dict(spec, post_processor=None, truncation=None, padding=None)
    spec["added_tokens"] = [token for token in spec.get("added_tokens") or [] if token["content"] not in special]
    if spec["model"]["type"] == "Unigram":  # its vocabulary would match the names; give them one that no text has
        vocab = [
            [f"\U0010ffff{piece}" if piece in special else piece, score] for piece, score in spec["model"]["vocab"]
        ]
        spec["model"] = dict(spec["model"], vocab=vocab)
    return json.dumps(spec, ensure_ascii=False)


def parts(spec: Spec, section: str) -> list[dict[str, Any]]:
    """The normalisers, pre-tokenizers, decoders … in order, sequences laid open."""
    found, stack = [], [spec.get(section)]
    while stack:
        part = stack.pop()
        if not isinstance(part, dict):
            continue
        if part.get("type") == "Sequence":
            keys = ("normalizers", "pretokenizers", "decoders", "processors")
            stack.extend(reversed(next((part[key] for key in keys if key in part), [])))
        else:
            found.append(part)
    return found


def is_byte_level(spec: Spec) -> bool:
    """Whether tokens are spelled in byte letters, so that the text of a sequence is its tokens' bytes joined."""
    return any(part.get("type") == "ByteLevel" for part in parts(spec, "decoder"))


def is_exact(spec: Spec) -> bool:
    """Whether every text comes back as it was: all bytes have tokens, and no step changes, adds or drops anything."""
    steps = [*parts(spec, "normalizer"), *parts(spec, "pre_tokenizer")]
    harmless = all(
        (step["type"] == "ByteLevel" and not step.get("add_prefix_space", True))
        or (step["type"] == "Split" and step.get("behavior") != "Removed")
        or step["type"] == "Digits"
        for step in steps
    )
    vocab = spec["model"]["vocab"]
    known = {entry[0] for entry in vocab} if isinstance(vocab, list) else vocab
    return is_byte_level(spec) and bool(steps) and harmless and all(letter in known for letter in byte_letters())


def continuing_prefix(spec: Spec) -> str:
    """The prefix of pieces that continue a word ("" where there is none)."""
    return spec["model"].get("continuing_subword_prefix") or ""


def reader(spec: Spec) -> Callable[[str], bytes]:
    """A function from a vocabulary entry of this tokenizer.json to the bytes that it stands for."""
    prefix = continuing_prefix(spec)
    byte_level, byte_tokens = is_byte_level(spec), bool(spec["model"].get("byte_fallback"))
    values = {letter: byte for byte, letter in enumerate(byte_letters())}
    spaces = any(
        part.get("replacement", part.get("pattern", {}).get("String")) == "▁"
        for part in parts(spec, "decoder")
        if part.get("type") in ("Metaspace", "Replace")
    )

    def read(token: str) -> bytes:
        token = token.removeprefix(prefix) if token != prefix else token
        if byte_level and all(letter in values for letter in token):
            return bytes(values[letter] for letter in token)
        if byte_tokens and (match := _BYTE_TOKEN.match(token)):
            return bytes([int(match[1], 16)])
        return (token.replace("▁", " ") if spaces else token).encode()

    return read
