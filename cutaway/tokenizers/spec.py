"""tokenizer.json: Hugging Face's file format, read, written, and the bytes that its tokens stand for.

Byte-level tokenizers (Radford et al. 2019, GPT-2) write each of the 256 bytes as one printable letter, so that every
text is spelled with 256 letters and nothing is ever unknown: " the" is stored as "Ġthe", "中" as "ä¸Ń". Tokenizers in
the manner of SentencePiece (Kudo & Richardson 2018) write a space as "▁" and a lone byte as "<0xE4>". WordPiece marks
what continues a word with a prefix.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tokenizers

from cutaway.errors import DamagedFile
from cutaway.files import parse_json

END_OF_TEXT, PAD, MASK = "<|endoftext|>", "<|pad|>", "<|mask|>"
CONTINUES = (
    "…"  # our prefix of a piece that continues a word: no byte is spelled so, hence it is never ambiguous as "##" is
)
BPE_OPTIONS = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)
SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
MOST_GROWTH = 64.0
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")

LONGEST_PIECE = 1024  # characters; published ones have at most some 100

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
    return checked(parse_json(text, where), where)


def checked(spec: Any, where: str) -> Spec:
    """The content of a tokenizer.json, its outline checked.

    Raises:
        DamagedFile: it is no tokenizer.
    """
    model = spec.get("model") if isinstance(spec, dict) else None
    if not isinstance(model, dict) or "vocab" not in model:
        raise DamagedFile(f"{where} is JSON but no tokenizer: it has no model with a vocabulary")
    if "type" not in model:  # files from before 2020 leave it out
        model["type"] = "BPE" if "merges" in model else "Unigram" if isinstance(model["vocab"], list) else "WordPiece"
    for section in SECTIONS:
        if odd := [part for part in parts(spec, section) if not isinstance(part.get("type"), str)]:
            raise DamagedFile(f"a step of the {section} in {where} has no type, but {', '.join(odd[0]) or 'nothing'}")
    _check_pieces(spec, where)
    for part in parts(spec, "normalizer"):
        if part.get("type") == "Precompiled":
            _check_charsmap(part.get("precompiled_charsmap"), where)
    for section in ("normalizer", "pre_tokenizer", "decoder"):
        if (growth := _growth(spec, section)) > MOST_GROWTH:
            raise DamagedFile(f"the {section} in {where} can make a text {growth:,.0f} times longer, not what one does")
    return spec


def _check_pieces(spec: Spec, where: str) -> None:
    """Refuse pieces without end where the library keeps them letter by letter, in hundreds of bytes each."""
    vocab, added = spec["model"]["vocab"], spec.get("added_tokens")
    kept = [entry[0] for entry in vocab if isinstance(entry, list) and entry] if isinstance(vocab, list) else []
    kept += [token.get("content") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    longest = max((len(piece) for piece in kept if isinstance(piece, str)), default=0)
    if longest > LONGEST_PIECE:
        raise DamagedFile(f"{where} has a piece of {longest:,} characters; the longest may have {LONGEST_PIECE:,}")


def _check_charsmap(value: Any, where: str) -> None:
    """Refuse a table of SentencePiece's that speaks of more bytes than it has, before the library makes room for them.

    It is a length in four bytes, so many bytes of a trie, and texts.
    """
    try:
        data = base64.b64decode(value or "")
    except (TypeError, ValueError) as error:
        raise DamagedFile(f"the precompiled_charsmap in {where} is not base64: {error}") from error
    if data and (len(data) < 4 or int.from_bytes(data[:4], "little") > len(data) - 4):
        raise DamagedFile(f"the precompiled_charsmap in {where} speaks of more bytes than its {len(data):,}")


def _growth(spec: Spec, section: str) -> float:
    """How many times longer the steps of a section can make a text, and what they put before it, multiplied.

    A step that makes two letters of one, sixty times over, makes 2 ** 60 of it.
    """
    growth = 1.0
    for part in parts(spec, section):
        kind, pattern = part.get("type"), part.get("pattern")
        if kind == "Replace":
            found = pattern.get("String") if isinstance(pattern, dict) else pattern
            least = (
                len(found.encode("utf-8", "replace")) if isinstance(found, str) else 1
            )  # an expression finds a letter
            growth *= max(1.0, len(str(part.get("content")).encode("utf-8", "replace")) / max(1, least))
        elif kind == "Prepend":
            growth *= max(1.0, len(str(part.get("prepend"))) / 16)
        elif kind == "ByteLevel" and section != "decoder":
            growth *= 2
        elif kind in ("NFD", "NFKD", "NFC", "NFKC", "Nmt", "Precompiled", "BertNormalizer"):
            growth *= 1.2  # once they have been applied, they change little
    return growth


def build_tokenizer(text: str, where: str) -> tokenizers.Tokenizer:
    """The library's tokenizer of a JSON text; its truncation and padding off.

    Raises:
        DamagedFile: the library cannot read it.
    """
    with damage(f"{where} is not a tokenizer that the tokenizers library can read"):
        tokenizer = tokenizers.Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def build_of_spec(spec: Spec, where: str) -> tokenizers.Tokenizer:
    """As `build_tokenizer`, of the content. BPE's vocabulary and merges are handed over as they are, without JSON.

    Raises:
        DamagedFile: the library cannot read it.
    """
    model = spec["model"]
    if model["type"] != "BPE" or not isinstance(model["vocab"], dict) or "merges" not in model:
        return build_tokenizer(json.dumps(spec, ensure_ascii=False), where)
    hollow = {**spec, "added_tokens": [], "post_processor": None, "model": {**model, "vocab": {}, "merges": []}}
    hollow["model"]["unk_token"] = None
    made = build_tokenizer(json.dumps(hollow, ensure_ascii=False), where)
    with damage(f"{where} is not a tokenizer that the tokenizers library can read"):
        merges = [tuple(pair.split(" ", 1) if isinstance(pair, str) else pair) for pair in model["merges"]]
        given = {key: model[key] for key in BPE_OPTIONS if model.get(key) is not None}
        made.model = tokenizers.models.BPE(vocab=model["vocab"], merges=merges, **given)
        for token in spec.get("added_tokens") or []:
            flags = {key: value for key, value in token.items() if key not in ("id", "content")}
            made.add_tokens([tokenizers.AddedToken(token["content"], **flags)])
    return made


@contextmanager
def damage(what: str) -> Iterator[None]:
    """What the library's own code raises on a tokenizer that cannot work, as DamagedFile.

    Args:
        what: the beginning of the sentence.
    """
    try:
        yield
    except BaseException as error:
        reraise_unless_rust(error)
        raise DamagedFile(f"{what}: {error}") from error


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


Named = tuple[str, int]  # a special token's text and id


def template(before: list[Named], after: list[Named], middle: list[Named] | None = None) -> dict[str, Any]:
    """A post-processor that puts special tokens before a text and after it, and between two; `middle` None: `after`."""
    middle = after if middle is None else middle
    first, second = ([{"Sequence": {"id": which, "type_id": 0}}] for which in "AB")
    one, two, three = ([{"SpecialToken": {"id": name, "type_id": 0}} for name, _ in t] for t in (before, middle, after))
    return {
        "type": "TemplateProcessing",
        "single": [*one, *first, *three],
        "pair": [*one, *first, *two, *second, *three],
        "special_tokens": {
            name: {"id": name, "ids": [id], "tokens": [name]} for name, id in [*before, *middle, *after]
        },
    }


def special_token(id: int, name: str) -> dict[str, Any]:
    """A special token as tokenizer.json lists it."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": id, "content": name, **flags}


def without_special(spec: Spec, special: set[str]) -> Spec:
    """The same tokenizer, blind to its special tokens: their names in a text are text."""
    added = [token for token in spec.get("added_tokens") or [] if token["content"] not in special]
    return _blind(spec, special, added)


def with_hidden_special(spec: Spec, special: set[str]) -> Spec:
    """The same tokenizer, whose special tokens have other names: theirs after U+10FFFF."""
    added = [
        token | {"content": hidden(token["content"])} if token["content"] in special else token
        for token in spec.get("added_tokens") or []
    ]
    return _blind(spec, special, added, always=True)


def _blind(spec: Spec, special: set[str], added: list[dict[str, Any]], *, always: bool = False) -> Spec:
    """A spec without the names of special tokens in its vocabulary, where that would be looked up by them."""
    spec = dict(spec, post_processor=None, truncation=None, padding=None, added_tokens=added)
    model = spec["model"]
    if model["type"] == "Unigram":  # its vocabulary would match the names; give them one that no text has
        vocab = [[hidden(piece) if piece in special else piece, score] for piece, score in model["vocab"]]
        spec["model"] = dict(model, vocab=vocab)
    elif always or model["type"] != "BPE" or model.get("ignore_merges"):  # so would one that looks up whole words
        merges = model.get("merges") or []
        merged = {part for pair in merges for part in (pair.split(" ", 1) if isinstance(pair, str) else pair)}
        named = {piece: hidden(piece) for piece in special - merged}
        vocab = {named.get(piece, piece): id for piece, id in model["vocab"].items()}
        unk = model.get("unk_token")
        spec["model"] = dict(model, vocab=vocab, unk_token=named.get(unk, unk))
    return spec


def hidden(piece: str) -> str:
    """Another name of a piece, one that no text has: U+10FFFF is no character."""
    return f"\U0010ffff{piece}"


def parts(spec: Spec, section: str) -> list[dict[str, Any]]:
    """The normalisers, pre-tokenizers, decoders … in order, sequences laid open."""
    found, stack = [], [spec.get(section)]
    while stack:
        part = stack.pop()
        if not isinstance(part, dict):
            continue
        if part.get("type") == "Sequence":
            keys = ("normalizers", "pretokenizers", "decoders", "processors")
            listed = next((part[key] for key in keys if key in part), [])
            stack.extend(reversed(listed if isinstance(listed, list) else []))
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
        if byte_tokens and (match := BYTE_TOKEN.match(token)):
            return bytes([int(match[1], 16)])
        return (token.replace("▁", " ") if spaces else token).encode()

    return read
