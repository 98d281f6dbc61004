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
from jaxtyping import Int64

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.files import write_atomic, write_json
from cutaway.tokenizers.bulk import Bulk, choose_bulk
from cutaway.tokenizers.spec import (
    END_OF_TEXT,
    MASK,
    PAD,
    Spec,
    build_of_spec,
    build_tokenizer,
    checked,
    continuing_prefix,
    damage,
    hidden,
    is_byte_level,
    is_exact,
    parse,
    parts,
    reader,
    reraise_unless_rust,
    with_hidden_special,
    without_special,
)
from cutaway.tokenizers.words import WordTable, word_table

if TYPE_CHECKING:
    from cutaway.tokenizers.explain import TokenExplanation

TOKENIZER_JSON, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
ROLES = {"begin_of_text": "bos_token", "end_of_text": "eos_token", "pad": "pad_token", "mask": "mask_token"}
CHAT_TEMPLATE = "chat_template.jinja"
ChatTemplate = str | dict[str, str] | None  # one, or several by name; a text of jinja2 (see chat.py)
MOST_TOKENS = 2**24  # the largest published vocabularies have a sixtieth of it
LONG = 4096  # characters of a text, from which on other threads go on while it is encoded
SPARE = 2**16  # ids that a vocabulary may leave out, beside three quarters of them: tables by id hold them too
ONE_CHARACTER = r"[\s\S]"  # the pattern that makes a tokenizer one of characters


class Tokenizer:
    """Text <-> ids.

    Attributes:
        kind: "bpe", "unigram", "wordpiece", "word" or "char".
        vocab_size: one more than the largest id; what the embedding needs.
        begin_of_text, end_of_text, pad, mask: the ids of these special tokens, or None where the tokenizer has none.
            Those that `train_tokenizer` makes have the last three.
        special: every special token's text -> id.
        around: the steps of tokenizer.json that put special tokens around a text (see `cutaway.tokenizers.frame`).
        joins: whether the text of a sequence is the bytes of its tokens, joined (else words or spaces come between).
        exact: whether `decode(encode(text)) == text` for every text; true of every kind that `train_tokenizer` makes.
        dtype: the smallest of uint16 and uint32 that holds every id.
        fingerprint: SHA-256 of tokenizer.json.
        target: the tokenizer of target texts, where an encoder–decoder has one for them alone (Marian); else None.
        chat_template: how a conversation is written as one text (see `cutaway.tokenizers.chat`), or None.
    """

    def __init__(
        self,
        text: str | Spec,
        *,
        roles: dict[str, str] | None = None,
        where: str = TOKENIZER_JSON,
        chat_template: ChatTemplate = None,
    ) -> None:
        """Make a tokenizer from the text of a tokenizer.json (see `load_tokenizer` and `train_tokenizer`).

        Args:
            text: the JSON; or of one of BPE its content, which is quicker: the text is then written, and what finds
                special tokens built, when they are first asked for.
            roles: which special token plays "end_of_text", "pad", "mask", "begin_of_text"; by default Cutaway's names.
            where: what to call the source in a message.
            chat_template: jinja2's text of it, or several by name. It is kept; nothing in it is run here.

        Raises:
            DamagedFile: not the JSON of a tokenizer.
        """
        self.chat_template = chat_template
        self.target: Tokenizer | None = None
        self._where = where
        if isinstance(text, str):
            spec = parse(text, where)  # not kept, as it takes several times the memory of the text
            self.text = text
            self._marked = build_tokenizer(text, where)
            added = self._marked.get_added_tokens_decoder()
            self._vocab = self._marked.get_vocab(with_added_tokens=True)
            self._added = {token.content for token in added.values()}
            self.special = {token.content: id for id, token in sorted(added.items()) if token.special}
        else:
            self._given = spec = checked(text, where)
            added = {token["content"]: token["id"] for token in spec["added_tokens"]}
            self._vocab = spec["model"]["vocab"] | added
            self._added = set(added)
            self.special = {token["content"]: token["id"] for token in spec["added_tokens"] if token["special"]}
            self._plain = build_of_spec(without_special(spec, set(self.special)), where)
        self.vocab_size = max(self._vocab.values(), default=-1) + 1
        most = min(MOST_TOKENS, 4 * len(self._vocab) + SPARE)
        if not 0 < self.vocab_size <= most:
            size = f"the id {self.vocab_size - 1:,}" if self.vocab_size else "an empty vocabulary"
            raise DamagedFile(f"{where} has {size}; the ids of {len(self._vocab):,} tokens must lie below {most:,}")
        self._read = reader(spec)
        known = {"end_of_text": END_OF_TEXT, "pad": PAD, "mask": MASK} if roles is None else roles
        for name in ROLES:
            setattr(self, name, self._vocab.get(known.get(name, "")))
        self._kind = _kind(spec)
        self.around = parts(spec, "post_processor")
        self.joins = is_byte_level(spec)
        self.exact = is_exact(spec)
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 65536 else np.uint32)

    special: dict[str, int]
    begin_of_text: int | None
    end_of_text: int | None
    pad: int | None
    mask: int | None

    @cached_property
    def text(self) -> str:
        """The text of tokenizer.json."""
        return json.dumps(self._given, ensure_ascii=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def spec(self) -> Spec:
        """What tokenizer.json says; not to be changed."""
        return parse(self.text, TOKENIZER_JSON)

    @property
    def kind(self) -> str:
        """Which of the KINDS it is."""
        return self._kind

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
            DamagedFile: the tokenizer, of another make, knows no token for something in it.
        """
        try:
            return _ids(self._marked if allow_special else self._plain, text)
        except BaseException as error:
            reraise_unless_rust(error)
            check_text(text)
            raise DamagedFile(f"{self} cannot encode every text: {error}") from error

    def encode_guarded(self, text: str) -> list[int]:
        """As `encode`, but a special token is where its name stands after U+10FFFF, and nowhere else (see chat.py).

        Raises:
            ConfigError: the tokenizer's special tokens cannot be told from its ordinary ones.
        """
        return _ids(self._guarded, text)

    def encode_bulk(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of many texts on every core: a uint16 or uint32 array each. See `bulk` for what does the work.

        Raises:
            InputError: as in `encode`; says which text.
        """
        texts = list(texts)
        try:
            return self.bulk.encode(texts, self.dtype)
        except BaseException as error:
            reraise_unless_rust(error)
            for number, text in enumerate(texts):
                check_text(text, f"text {number} of {len(texts)}")
            raise DamagedFile(f"{self} cannot encode every text: {error}") from error

    def encode_with_places(
        self, texts: Sequence[str]
    ) -> list[tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, "T 2"]]]:
        """Of each text the ids, and where each token begins and ends in it, in characters.

        Raises:
            InputError: as in `encode`; says which text.
        """
        texts = list(texts)
        try:
            made = self._plain.encode_batch(texts, add_special_tokens=False)
        except BaseException as error:
            reraise_unless_rust(error)
            for number, text in enumerate(texts):
                check_text(text, f"text {number} of {len(texts)}")
            raise DamagedFile(f"{self} cannot encode every text: {error}") from error
        return [(np.array(one.ids, np.int64), np.array(one.offsets, np.int64).reshape(-1, 2)) for one in made]

    @cached_property
    def bulk(self) -> Bulk:
        """What encodes in bulk, and why: `.name` and `.reason`. Chosen when first asked for."""
        text = json.dumps(without_special(parse(self.text, TOKENIZER_JSON), set(self.special)), ensure_ascii=False)
        return choose_bulk(text, self._plain, [data.decode("utf-8", "ignore") for data in self._table])

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
        if self.joins:
            return self._join(ids).decode("utf-8", "replace")
        with damage(f"{self} cannot decode every text"):
            return self._marked.decode(ids, skip_special_tokens=False)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids' tokens, joined."""
        return self._join(self._checked(ids))

    def stream(self) -> TextStream:
        """A decoder for ids that come one at a time: `.add(id)` gives the text now complete, `.finish()` the rest."""
        return TextStream(self)

    # one token

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for; of a special token the bytes of its name.

        Raises:
            InputError: an id outside the vocabulary.
        """
        return self._bytes_of(self._spellings[self._checked([id])[0]])

    def token(self, id: int) -> str:
        r"""A token to be read: its text, with \n, \x00 and bytes that are no whole character escaped.

        A model's output may be padded with rows for which there is no token: these are shown by number, "<151700>".
        """
        return printable(self.token_bytes(id)) if id < self.vocab_size else f"<{id}>"

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
        self.encode(text)  # for its errors
        with damage(f"{self} cannot encode every text"):
            encoding = self._plain.encode(text, add_special_tokens=False)
            text = self._plain.normalizer.normalize_str(text) if self._plain.normalizer else text
            cutter = self._plain.pre_tokenizer
            return encoding, [word for word, _ in cutter.pre_tokenize_str(text)] if cutter else [text] * bool(text)

    @cached_property
    def words(self) -> WordTable:
        """Which ids are special, and at which words begin and end."""
        return word_table(self)

    def show(self, piece: str) -> str:
        """A piece as tokenizer.json spells it, to be read."""
        return printable(self._read(piece))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, and the special tokens' roles to tokenizer_config.json, as transformers reads them.

        A chat template stands in chat_template.jinja, several of them in tokenizer_config.json: their names are not
        names of files.

        Raises:
            InputError: the disk is full or the place cannot be written.
        """
        self._save_vocabulary(Path(folder))
        config = self._saved_config()
        if isinstance(self.chat_template, str):
            write_atomic(Path(folder) / CHAT_TEMPLATE, self.chat_template)
        elif self.chat_template:
            config["chat_template"] = [{"name": k, "template": v} for k, v in self.chat_template.items()]
        write_json(Path(folder) / TOKENIZER_CONFIG, config)

    # inside: what is only needed by some is made when it is first asked for

    @cached_property
    def _marked(self) -> tokenizers.Tokenizer:
        """The library's tokenizer, which finds special tokens by their names."""
        return build_tokenizer(self.text, self._where)

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The library's tokenizer, blind to special tokens."""
        return build_of_spec(without_special(parse(self.text, TOKENIZER_JSON), set(self.special)), TOKENIZER_JSON)

    def _save_vocabulary(self, folder: Path) -> None:
        write_atomic(folder / TOKENIZER_JSON, self.text)

    def _saved_config(self) -> dict[str, Any]:
        """What tokenizer_config.json says, but for the chat template."""
        names = {id: name for name, id in self._vocab.items()}
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        roles = {key: names[getattr(self, role)] for role, key in ROLES.items() if getattr(self, role) is not None}
        return config | roles

    @cached_property
    def _guarded(self) -> tokenizers.Tokenizer:
        made = build_of_spec(with_hidden_special(self.spec, set(self.special)), str(self))
        if any(made.token_to_id(hidden(name)) != id for name, id in self.special.items()):
            raise ConfigError(f"the special tokens of {self} cannot be told from its ordinary ones")
        return made

    @cached_property
    def _spellings(self) -> list[str]:
        """id -> spelling in tokenizer.json, special tokens too. An id that the file leaves out has none."""
        spellings = [""] * self.vocab_size
        for token, id in self._vocab.items():
            spellings[id] = token
        return spellings

    @cached_property
    def _table(self) -> list[bytes]:
        """id -> bytes. An id that the file leaves out stands for nothing."""
        return [self._bytes_of(token) for token in self._spellings]

    def _bytes_of(self, token: str) -> bytes:
        return token.encode() if token in self._added else self._read(token)

    @cached_property
    def _ids_of_bytes(self) -> dict[bytes, int]:
        """bytes -> id; a piece that begins a word comes before one that continues it."""
        prefix = continuing_prefix(self.spec)
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
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        # Where tokens cannot simply be joined: the ids since some that have been shown, and how many of them those are.
        self._ids: list[int] = []
        self._shown = 0

    def add(self, id: int) -> str:
        """Take one more id and return the text that can be shown now (perhaps "")."""
        if self._tokenizer.joins:
            return self._utf8.decode(self._tokenizer.token_bytes(id))
        self._ids.append(int(id))
        new = self._new()
        if not new or new.endswith("�"):
            return ""
        self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return new

    def finish(self) -> str:
        """What is left: a character that was never completed shows as "�"."""
        return self._utf8.decode(b"", final=True) if self._tokenizer.joins else self._new()

    def _new(self) -> str:
        """The text that the ids not yet shown add to those before them, whose company decides about spaces."""
        before = self._tokenizer.decode(self._ids[: self._shown])
        return self._tokenizer.decode(self._ids)[len(before) :]


def _ids(what: tokenizers.Tokenizer, text: str) -> list[int]:
    """The library's `encode` of one text holds up all threads until it is done, for seconds; that of a list not."""
    if isinstance(text, str) and len(text) > LONG:
        return what.encode_batch_fast([text], add_special_tokens=False)[0].ids
    return what.encode(text, add_special_tokens=False).ids


def _kind(spec: Spec) -> str:
    model = spec["model"]
    if model["type"] != "BPE" or model["merges"]:
        return {"BPE": "bpe", "Unigram": "unigram", "WordPiece": "wordpiece"}.get(model["type"], "word")
    patterns = [p.get("pattern", {}).get("Regex") for p in parts(spec, "pre_tokenizer") if p["type"] == "Split"]
    return "char" if patterns == [ONE_CHARACTER] else "word"


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
            f"{name} holds the lone surrogate {code} at character {error.start}: half a character, which UTF-8 "
            "cannot hold. Remove it, or read the file again with errors='replace'"
        ) from None
