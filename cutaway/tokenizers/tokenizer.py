"""The tokenizer: text to ids and back, without loss, around the `tokenizers` library and its file format.

A tokenizer is its tokenizer.json: that text is kept, saved and fingerprinted byte for byte, so two tokenizers with the
same fingerprint give the same ids. Special tokens are never read out of a document: text that happens to contain
"<|endoftext|>" is spelled with ordinary tokens, unless the caller says `allow_special=True`.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers

from cutaway.errors import DamagedFile, InputError
from cutaway.files import write_atomic, write_json
from cutaway.tokenizers.alphabet import bytes_of, continuing_prefix, is_byte_level, parts
from cutaway.tokenizers.bulk import Bulk, choose_bulk

if TYPE_CHECKING:
    from cutaway.tokenizers.explain import TokenExplanation

TOKENIZER_JSON, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
END_OF_TEXT, PAD, MASK = "<|endoftext|>", "<|pad|>", "<|mask|>"
ROLES = {"begin_of_text": "bos_token", "end_of_text": "eos_token", "pad": "pad_token", "mask": "mask_token"}
ONE_CHARACTER = r"[\s\S]"  # the pattern that makes a tokenizer one of characters


class Tokenizer:
    """Text <-> ids.

    Attributes:
        kind: "bpe", "unigram", "wordpiece", "word" or "char".
        vocab_size: one more than the largest id; what the embedding needs.
        begin_of_text, end_of_text, pad, mask: the ids of these special tokens, or None where the tokenizer has none.
            Those that `train_tokenizer` makes have the last three.
        special: every special token's text -> id.
        exact: whether `decode(encode(text)) == text` for every text; true of every kind that `train_tokenizer` makes.
        dtype: the smallest of uint16 and uint32 that holds every id.
        fingerprint: SHA-256 of tokenizer.json.
    """

    def __init__(self, text: str, *, roles: dict[str, str] | None = None, where: str = TOKENIZER_JSON) -> None:
        """Make a tokenizer from the text of a tokenizer.json (see `load_tokenizer` and `train_tokenizer`).

        Args:
            text: the JSON.
            roles: which special token plays "end_of_text", "pad", "mask", "begin_of_text"; by default Cutaway's names.
            where: what to call the source in a message.

        Raises:
            DamagedFile: not the JSON of a tokenizer.
        """
        self.text = text
        self._spec = _parse(text, where)
        self._marked = _build(text, where)
        added = self._marked.get_added_tokens_decoder()
        self.special: dict[str, int] = {token.content: id for id, token in sorted(added.items()) if token.special}
        self._vocab: dict[str, int] = self._marked.get_vocab(with_added_tokens=True)
        self.vocab_size = max(self._vocab.values(), default=-1) + 1
        if not self.vocab_size:
            raise DamagedFile(f"{where} has an empty vocabulary")
        self.plain_text = json.dumps(_without_special(self._spec, set(self.special)), ensure_ascii=False)
        self._plain = _build(self.plain_text, where)
        known = {"end_of_text": END_OF_TEXT, "pad": PAD, "mask": MASK} if roles is None else roles
        for name in ROLES:
            setattr(self, name, self._vocab.get(known.get(name, "")))
        self.exact = is_byte_level(self._spec) and not parts(self._spec, "normalizer")
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 65536 else np.uint32)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    begin_of_text: int | None
    end_of_text: int | None
    pad: int | None
    mask: int | None

    @property
    def spec(self) -> dict[str, Any]:
        """The content of tokenizer.json; not to be changed."""
        return self._spec

    @property
    def kind(self) -> str:
        """Which of the KINDS it is."""
        model = self._spec["model"]
        if model["type"] != "BPE" or model["merges"]:
            return {"BPE": "bpe", "Unigram": "unigram", "WordPiece": "wordpiece"}.get(model["type"], "word")
        patterns = [
            p.get("pattern", {}).get("Regex") for p in parts(self._spec, "pre_tokenizer") if p["type"] == "Split"
        ]
        return "char" if patterns == [ONE_CHARACTER] else "word"

    def __repr__(self) -> str:
        return f"Tokenizer({self.kind}, {self.vocab_size:,} tokens, {self.fingerprint[:8]})"

    # text -> ids

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of a text; nothing is added before or after it.

        Args:
            text: any Unicode text.
            allow_special: read the names of special tokens in the text as those tokens. Never for text from others.

        Raises:
            InputError: not a string, or it holds a lone surrogate, which no UTF-8 file can hold.
        """
        try:
            return (self._marked if allow_special else self._plain).encode(text, add_special_tokens=False).ids
        except TypeError:
            check_text(text)
            raise

    def encode_bulk(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of many texts on every core: a uint16 or uint32 array each. See `bulk` for what does the work.

        Raises:
            InputError: as in `encode`; says which text.
        """
        texts = list(texts)
        try:
            return self.bulk.encode(texts, self.dtype)
        except (TypeError, UnicodeEncodeError):
            for number, text in enumerate(texts):
                check_text(text, f"text {number} of {len(texts)}")
            raise

    @cached_property
    def bulk(self) -> Bulk:
        """What encodes in bulk, and why: `.name` and `.reason`. Chosen when first asked for."""
        return choose_bulk(self.plain_text, self._plain)

    # ids -> text

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of ids. Bytes that are no whole character become "�".

        Raises:
            InputError: an id outside the vocabulary.
        """
        ids = self._checked(ids)
        if skip_special:
            hidden = set(self.special.values())
            ids = [id for id in ids if id not in hidden]
        if is_byte_level(self._spec):
            return self._join(ids).decode("utf-8", "replace")
        return self._marked.decode(ids, skip_special_tokens=False)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids' tokens, joined."""
        return self._join(self._checked(ids))

    def stream(self) -> TextStream:
        """A decoder for ids that come one at a time: `.add(id)` returns the text that is complete, `.finish()` the rest."""
        return TextStream(self)

    # one token

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for; of a special token the bytes of its name.

        Raises:
            InputError: an id outside the vocabulary.
        """
        return self._table[self._checked([id])[0]]

    def token(self, id: int) -> str:
        r"""A token to be read: its text, with \n, \x00 and bytes that are no whole character escaped."""
        return printable(self.token_bytes(id))

    def id(self, token: str) -> int:
        """The id of the one token with this text, a special token's name, or a spelling from tokenizer.json.

        Raises:
            InputError: it is not one token; says which tokens spell it.
        """
        found = self.special.get(token)
        if found is None:
            found = self._ids_of_bytes.get(token.encode("utf-8", "surrogatepass"))
        if found is None:
            found = self._vocab.get(token)
        if found is None:
            spelled = self.encode(token)
            tokens = ", ".join(repr(self.token(id)) for id in spelled[:8]) + (", …" if len(spelled) > 8 else "")
            raise InputError(
                f"{token!r} is not one token of this tokenizer but {len(spelled)}: {tokens}. Choose one of them"
            )
        return found

    # look inside, keep

    def explain(self, text: str) -> list[TokenExplanation]:
        """Why each token of `text` is what it is: see `cutaway.tokenizers.explain`."""
        from cutaway.tokenizers.explain import explain  # it needs this class

        return explain(self, text)

    def cut(self, text: str) -> tuple[tokenizers.Encoding, list[str]]:
        """The library's encoding of a text, and the words that its model was given, spelled as in tokenizer.json."""
        check_text(text)
        encoding = self._plain.encode(text, add_special_tokens=False)
        text = self._plain.normalizer.normalize_str(text) if self._plain.normalizer else text
        cutter = self._plain.pre_tokenizer
        return encoding, [word for word, _ in cutter.pre_tokenize_str(text)] if cutter else [text] * bool(text)

    def show(self, piece: str) -> str:
        """A piece as tokenizer.json spells it, to be read."""
        return printable(bytes_of(piece, self._spec))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, and tokenizer_config.json with the roles of the special tokens, as transformers reads them.

        Raises:
            InputError: the disk is full or the place cannot be written.
        """
        names = {id: name for name, id in self._vocab.items()}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        config |= {key: names[getattr(self, role)] for role, key in ROLES.items() if getattr(self, role) is not None}
        write_atomic(Path(folder) / TOKENIZER_JSON, self.text)
        write_json(Path(folder) / TOKENIZER_CONFIG, config)

    # inside

    @cached_property
    def _table(self) -> list[bytes]:
        """id -> bytes. An id that the file leaves out stands for nothing."""
        table = [b""] * self.vocab_size
        added = {token.content for token in self._marked.get_added_tokens_decoder().values()}
        for token, id in self._vocab.items():
            table[id] = token.encode() if token in added else bytes_of(token, self._spec)
        return table

    @cached_property
    def _ids_of_bytes(self) -> dict[bytes, int]:
        """bytes -> id; a piece that begins a word comes before one that continues it."""
        prefix = continuing_prefix(self._spec)
        order = sorted(self._vocab.items(), key=lambda item: (bool(prefix) and item[0].startswith(prefix), item[1]))
        return {self._table[id]: id for _, id in reversed(order)}

    def _join(self, ids: list[int]) -> bytes:
        return b"".join(map(self._table.__getitem__, ids))

    def _checked(self, ids: Iterable[int]) -> list[int]:
        ids = [int(id) for id in (ids.tolist() if hasattr(ids, "tolist") else ids)]  # pyright: ignore[reportAttributeAccessIssue]
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise InputError(f"token ids must lie in 0 … {self.vocab_size - 1}, but {min(ids)} … {max(ids)} was given")
        return ids


class TextStream:
    """Text out of ids that come one at a time; never half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._joins = is_byte_level(tokenizer.spec)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._sent = ""

    def add(self, id: int) -> str:
        """Take one more id and return the text that can be shown now (perhaps "")."""
        if self._joins:
            return self._utf8.decode(self._tokenizer.token_bytes(id))
        self._ids.append(int(id))
        return self._send(self._tokenizer.decode(self._ids).rstrip("�"))

    def finish(self) -> str:
        """What is left: a character that was never completed shows as "�"."""
        if self._joins:
            return self._utf8.decode(b"", final=True)
        return self._send(self._tokenizer.decode(self._ids))

    def _send(self, text: str) -> str:
        new = text.removeprefix(self._sent) if text.startswith(self._sent) else ""
        self._sent = text if new else self._sent
        return new


def printable(data: bytes) -> str:
    """Bytes as text, with escapes for what is no character or cannot be seen."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_text(text: object, name: str = "the text") -> None:
    """Refuse what is not text, or holds half a character.

    Raises:
        InputError: not a string, or a lone surrogate.
    """
    if not isinstance(text, str):
        raise InputError(f"{name} must be a string, but {type(text).__name__} was given")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise InputError(
            f"{name} holds the lone surrogate {code} at character {error.start}: half a character, which UTF-8 cannot hold. "
            "Remove it, or read the file again with errors='replace'"
        ) from None


def make_spec(model: dict[str, Any], pattern: str) -> str:
    """The tokenizer.json of a byte-level tokenizer: `model`, words cut by `pattern`, Cutaway's special tokens last.

    The special tokens are not in the model's vocabulary, so no document can spell them.
    """
    first = len(model["vocab"])
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
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
        "added_tokens": [{"id": first + n, "content": name} | added for n, name in enumerate((END_OF_TEXT, PAD, MASK))],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, letters]},
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }
    return json.dumps(spec, ensure_ascii=False, indent=1) + "\n"


def _parse(text: str, where: str) -> dict[str, Any]:
    """The JSON of a tokenizer, its outline checked."""
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


def _build(text: str, where: str) -> tokenizers.Tokenizer:
    """The library's tokenizer of a JSON text; its truncation and padding off."""
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise DamagedFile(f"{where} is not a tokenizer that the tokenizers library can read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _without_special(spec: dict[str, Any], special: set[str]) -> dict[str, Any]:
    """The same tokenizer blind to its special tokens: their names in a text are text."""
    spec = dict(spec, post_processor=None, truncation=None, padding=None)
    spec["added_tokens"] = [token for token in spec.get("added_tokens") or [] if token["content"] not in special]
    if spec["model"]["type"] == "Unigram":  # its vocabulary would match the names; give them one that no text has
        vocab = [
            [f"\U0010ffff{piece}" if piece in special else piece, score] for piece, score in spec["model"]["vocab"]
        ]
        spec["model"] = dict(spec["model"], vocab=vocab)
    return spec
