"""Text that must have a form: a JSON Schema, a regular expression, a grammar, one of some choices.

llguidance (the extra `constrain`) says before each token which tokens may come; what is drawn is drawn among those. Its
parser works on bytes, so a character may be written in any number of tokens. A form comes from whoever asks, maybe a
stranger: its size, depth and references are limited before it is read, it is compiled where it is asked for and never
in the engine's loop, first in a process of its own, within limits of work, time and memory, and a step's work has a
limit too.

Shapes: G guesses, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from cutaway.errors import ConfigError, need
from cutaway.models import Model
from cutaway.tokenizers import Tokenizer
from cutaway.tokenizers.chat import worker

LONGEST = 256 * 1024  # characters of a form
DEEPEST = 64  # levels of a schema
REFERENCES = 256  # in a schema
CHOICES = 10_000
SECONDS = 10.0  # of compiling, the start of the process that tries it among them; the limits of work end it sooner
TRIES, TRYING = Path(__file__).with_name("constrain_worker.py"), "tries forms out"
WORK = {
    "initial_lexer_fuel": 1_000_000,  # compiling: some 20 ms
    "step_lexer_fuel": 200_000,  # a step: some 15 ms
    "step_max_items": 50_000,  # a step: some 3 ms
    "max_lexer_states": 30_000,  # some 2 kB each
    "max_grammar_size": 200_000,  # symbols
}
# a blank, or a new line and its indentation: a model that may write blanks without end sometimes does
BLANKS = r"[ ]|\n[ ]{0,32}"
START = "\x02"  # a character that no tokenizer joins with what follows
NAMES = {"schema": "JSON Schema", "regex": "regular expression", "grammar": "grammar", "choices": "choices"}


@dataclass(frozen=True)
class Form:
    """What a text must be; made by `form`.

    Attributes:
        kind: what `text` is.
        text: JSON of a schema, a regular expression as Rust's regex crate reads it (no look-around), or a grammar in
            llguidance's dialect of Lark's.
    """

    kind: Literal["schema", "regex", "grammar", "choices"]
    text: str


def form(
    *,
    schema: Mapping[str, Any] | str | None = None,
    regex: str | None = None,
    grammar: str | None = None,
    choices: Sequence[str] | None = None,
) -> Form | None:
    """What a text must be, of at most one argument; None: anything.

    Args:
        schema: a JSON Schema, plain data or its JSON: the text is JSON that it allows.
        regex: the whole text matches it.
        grammar: in Lark's syntax, beginning with the rule `start`.
        choices: the text is one of these.

    Raises:
        ConfigError: several are given, or one is no such thing or beyond the limits.
    """
    given = {"schema": schema, "regex": regex, "grammar": grammar, "choices": choices}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ConfigError(f"a text can be held to one form, but {' and '.join(given)} were given")
    if schema is not None:
        return Form("schema", schema_text(schema))
    if choices is not None:
        return Form("choices", _choices(choices))
    for kind in ("regex", "grammar"):
        if kind in given:
            _check_length(NAMES[kind], given[kind])
            return Form(kind, given[kind])
    return None


def _check_length(name: str, text: Any) -> None:
    if not isinstance(text, str) or not text:
        raise ConfigError(f"a {name} must be text that is not empty, but {type(text).__name__} {text!r:.40} was given")
    if len(text) > LONGEST:
        raise ConfigError(f"the {name} has {len(text):,} characters; it may have at most {LONGEST:,}")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ConfigError(f"the {name} holds half a character (a lone surrogate)")


def schema_text(schema: Any) -> str:
    """A JSON Schema, plain data or its JSON, as JSON.

    Raises:
        ConfigError: it is none, or beyond the limits.
    """
    if isinstance(schema, str):
        _check_length("JSON Schema", schema)
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the JSON Schema is not JSON: {error or 'it is nested too deeply'}") from None
    if not isinstance(schema, Mapping):
        raise ConfigError(f"a JSON Schema must be an object, but {type(schema).__name__} was given")
    level, depth, references = [schema], 0, 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ConfigError(f"the JSON Schema is nested more than {DEEPEST} levels deep")
        references += sum("$ref" in value for value in level if isinstance(value, Mapping))
        inner = [value.values() if isinstance(value, Mapping) else value for value in level]
        level = [value for values in inner if not isinstance(values, bool) for value in values]
        level = [value for value in level if isinstance(value, Mapping | list | tuple)]
    if references > REFERENCES:
        raise ConfigError(f"the JSON Schema has {references:,} references; it may have at most {REFERENCES}")
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a JSON Schema must be plain data as JSON has it ({error})") from None
    _check_length("JSON Schema", text)
    return text


def _choices(choices: Any) -> str:
    """As a regular expression, in which everything but letters is escaped."""
    if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
        raise ConfigError(f"choices must be several texts, but {choices!r:.60} was given")
    if not all(isinstance(choice, str) and choice for choice in choices):
        raise ConfigError("each choice must be text that is not empty")
    if len(choices) > CHOICES:
        raise ConfigError(f"there are {len(choices):,} choices; there may be at most {CHOICES:,}")
    text = "|".join("".join(c if c.isalnum() else f"\\x{{{ord(c):x}}}" for c in choice) for choice in choices)
    _check_length("list of choices", text)
    return text


class Constrainer:
    """A compiled form, for one model. `start` begins a text that is held to it."""

    def __init__(self, model: Model, form: Form) -> None:
        """Compile a form; compiled ones are kept and found again.

        Args:
            model: whose tokens will spell the text.
            form: what it must be.

        Raises:
            ConfigError: the form is invalid, or too much work; or the tokens of the model do not spell texts byte by
                byte.
            MissingExtra: llguidance is not installed.
        """
        tokenizer = model.tokenizer.target or model.tokenizer
        ends = model.generation.eos_token_id or (tokenizer.end_of_text,)
        size = model.config.vocab_size
        self._tokens = _tokens(tokenizer, size, tuple(id for id in ends if id is not None and id < size))
        self._matcher, self._size = _compiled(self._tokens, form), size

    def start(self) -> Constrained:
        """A text that begins."""
        return Constrained(self._matcher.deep_copy(), self._tokens, self._size)


class Constrained:
    """One text that is held to a form, as it grows."""

    def __init__(self, matcher: Any, tokens: _Tokens, size: int) -> None:
        self._matcher, self._tokens, self._size = matcher, tokens, size

    def copy(self) -> Constrained:
        """One that goes its own way."""
        return Constrained(self._matcher.deep_copy(), self._tokens, self._size)

    def allowed(self, guesses: Sequence[int] = ()) -> Bool[np.ndarray, "G1 V"]:
        """The tokens that may come next, and after each guess: (1 + G, V).

        Behind a guess that may not come, the rows are False.

        Raises:
            ConfigError: no token can come, or finding out which is too much work.
        """
        from llguidance.numpy import fill_next_token_bitmask

        words = np.zeros((1 + len(guesses), (self._tokens.size + 31) // 32), np.int32)
        taken = 0
        for number, row in enumerate(words):
            fill_next_token_bitmask(self._matcher, words, number)
            if taken == len(guesses) or not _bit(row, guesses[taken]) or guesses[taken] in self._tokens.ends:
                break
            self._check(self._matcher.consume_token(guesses[taken]))
            taken += 1
        self._check(self._matcher.rollback(taken) if taken else True)
        if not words[0].any():
            raise ConfigError("what the form asks for next cannot be written with the tokens of this model")
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=self._size, bitorder="little")
        return bits.view(np.bool_)

    def valid(self, guesses: Sequence[int]) -> int:
        """How many of these tokens may come, one behind the other."""
        return self._matcher.validate_tokens(list(guesses))

    def accept(self, ids: Sequence[int]) -> Literal["end"] | None:
        """Take in chosen tokens; "end" where the text is complete and nothing can follow.

        Raises:
            ConfigError: a token that may not come.
        """
        for id in ids:
            if id in self._tokens.ends and self._matcher.is_accepting():
                return "end"
            self._check(self._matcher.consume_token(id))
        return "end" if self._matcher.is_stopped() else None

    def forced(self) -> list[int]:
        """The tokens that must come next, where there is no choice of text."""
        return self._matcher.compute_ff_tokens()

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return self._matcher.is_accepting()

    def _check(self, good: bool) -> None:
        if not good:
            raise ConfigError(f"the text could not be held to its form: {_plainly(self._matcher.get_error())}")


def _bit(words: np.ndarray, id: int) -> bool:
    return bool(words[id >> 5] >> (id & 31) & 1)


class _Tokens:
    """What llguidance knows of a vocabulary: the bytes of each token, and which ones are no text."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, size: int, ends: tuple[int, ...]) -> None:
        probe = "one two, three"
        if tokenizer.decode_bytes(tokenizer.encode(probe)).strip() != probe.encode():
            raise ConfigError(
                f"the tokens of {tokenizer} do not spell a text byte by byte, so its texts cannot be held to a form"
            )
        llguidance = need("llguidance", "constrain", "holding a text to a form")
        self._encode, self._before = tokenizer.encode, "" if tokenizer.joins else START
        self._skip = len(tokenizer.encode(self._before))
        known = min(size, tokenizer.vocab_size)
        self.tokens = [tokenizer.token_bytes(id) for id in range(known)] + [b""] * (size - known)
        self.special_token_ids = sorted(id for id in tokenizer.special.values() if id < size)
        if not ends:  # it needs one: a token that no model has
            self.tokens.append(b"<end>")
            self.special_token_ids.append(size)
            ends = (size,)
        self.ends, self.size, self.eos_token_id = frozenset(ends), len(self.tokens), ends[0]
        self.made = llguidance.LLTokenizer(llguidance.TokenizerWrapper(self), n_vocab=self.size, eos_token=list(ends))

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens of a text that stands inside a text: without the blank that some tokenizers put before one.

        Where only one text can follow, it may come in these tokens alone, as a model learned to write it.
        """
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._encode(self._before + text)[self._skip :]


@lru_cache(maxsize=4)
def _tokens(tokenizer: Tokenizer, size: int, ends: tuple[int, ...]) -> _Tokens:
    return _Tokens(tokenizer, size, ends)


@lru_cache(maxsize=32)
def _compiled(tokens: _Tokens, form: Form) -> Any:
    """A matcher at the beginning of a text; the form was first tried out in a process of its own."""
    llguidance = need("llguidance", "constrain", "holding a text to a form")
    kinds, name = llguidance.LLMatcher, NAMES[form.kind]
    try:
        if form.kind == "schema":
            grammar = kinds.grammar_from_json_schema(form.text, overrides={"whitespace_pattern": BLANKS})
        elif form.kind == "grammar":
            grammar = kinds.grammar_from_lark(form.text)
        else:
            grammar = kinds.grammar_from_regex(form.text)
    except ValueError as error:
        raise ConfigError(f"the {name} is not one: {_plainly(str(error))}") from None
    tried = worker(TRIES, TRYING, SECONDS).ask({"grammar": grammar, "limits": WORK})
    if TRYING in (error := tried["error"]):
        raise ConfigError(
            f"the {name} cannot be compiled: it takes more than {SECONDS:g} s or too much memory, or breaks llguidance"
        )
    limits = llguidance.LLParserLimits(verbose_errors=False, **WORK)
    matcher: Any = None if error else kinds(tokens.made, grammar, log_level=0, limits=limits)
    if error := error or matcher.get_error():
        raise ConfigError(f"the {name} is not one: {_plainly(error)}")
    return matcher


def let_go() -> None:
    """Forget what was compiled, which keeps the tokenizers of models that are no longer used."""
    _compiled.cache_clear()
    _tokens.cache_clear()


def _plainly(error: str) -> str:
    """The library's message as one line; of one that broke, nothing that is about its inside."""
    return "llguidance breaks on it" if error.startswith("panic") else " ".join(error.split())[:300]
