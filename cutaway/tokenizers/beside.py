"""What stands beside a vocabulary: tokenizer_config.json, special_tokens_map.json, added_tokens.json, chat templates.

They say which class of tokenizer it is, which tokens are special and what they are for. A class is a name in a closed
table: nothing is imported or run for it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutaway.errors import ConfigError, DamagedFile
from cutaway.files import holds, inside, read_json
from cutaway.tokenizers.spec import Spec
from cutaway.tokenizers.tokenizer import CHAT_TEMPLATE, MOST_TOKENS, ROLES, TOKENIZER_CONFIG, ChatTemplate

LARGEST = 128 * 2**20  # bytes; the largest published tokenizer.json has some 35 MB
LARGEST_TEMPLATE = 2**20  # bytes; published ones have at most some 30 kB
TEMPLATES = "additional_chat_templates"
TEMPLATE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")  # classes that say nothing
TOKEN_KEYS = (*ROLES.values(), "unk_token", "cls_token", "sep_token")
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}  # how an added token is found

# model_type of config.json -> the tokenizer's class, for folders that do not name it
CLASSES = {
    "bart": "Bart",
    "bert": "Bert",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "gemma2": "Gemma",
    "gemma3_text": "Gemma",
    "gpt2": "GPT2",
    "llama": "Llama",
    "marian": "Marian",
    "mistral": "Llama",
    "mixtral": "Llama",
    "mt5": "MT5",
    "phi3": "Llama",
    "qwen2": "Qwen2",
    "qwen3": "Qwen2",
    "qwen3_moe": "Qwen2",
    "roberta": "Roberta",
    "t5": "T5",
    "whisper": "Whisper",
    "xlm-roberta": "XLMRoberta",
}


@dataclass(frozen=True)
class Beside:
    """The files beside a vocabulary.

    Attributes:
        folder: where.
        config: tokenizer_config.json, over special_tokens_map.json.
        added: added_tokens.json: content -> id.
    """

    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    added: Mapping[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The tokenizer's class without "Tokenizer" and "Fast"; "" where nothing says."""
        named = self.config.get("tokenizer_class")
        if isinstance(named, str) and named.removesuffix("Fast") not in GENERIC:
            return named.removesuffix("Fast").removesuffix("Tokenizer")
        values = _object(self.folder, "config.json")
        return CLASSES.get(str(values.get("model_type")), "")

    def flag(self, key: str, default: bool) -> bool:
        """A setting that is true or false.

        Raises:
            ConfigError: it is neither.
        """
        value = self.config.get(key)
        if value is not None and not isinstance(value, bool):
            raise ConfigError(f"{key} in {self.folder / TOKENIZER_CONFIG} must be true or false, not {value!r}")
        return default if value is None else value

    def token(self, key: str, default: str | None = None) -> str | None:
        """A special token's text by its role, such as "eos_token"."""
        return content(self.config[key]) if self.config.get(key) is not None else default

    def roles(self, defaults: Mapping[str, str]) -> dict[str, str]:
        """Role -> special token's text, as a Tokenizer takes them; `defaults` are the class's, by key."""
        found = {role: self.token(key, defaults.get(key)) for role, key in ROLES.items()}
        return {role: token for role, token in found.items() if token is not None}

    def add(self, spec: Spec, defaults: Mapping[str, str], users: Iterable[str] = ()) -> None:
        """Put the added tokens into a tokenizer.json, each with the id that a file or the vocabulary gives it.

        Args:
            spec: changed in place.
            defaults: key -> text of the class's special tokens; those count that the vocabulary holds.
            users: tokens that are found in any text (no special ones).

        Raises:
            DamagedFile: an id twice, or one that leaves a gap.
        """
        vocab = spec["model"]["vocab"]
        known = {entry[0]: i for i, entry in enumerate(vocab)} if isinstance(vocab, list) else vocab
        entries: dict[str, dict[str, Any]] = {token["content"]: token for token in spec["added_tokens"]}
        special = {self.token(key, defaults.get(key)) for key in (*TOKEN_KEYS, *defaults)} - {None}
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = self.config.get(key) or []
            special |= {content(token) for token in (more.values() if isinstance(more, dict) else more)}
        for text in (*sorted(map(str, special)), *users):
            if text in known:
                entries[text] = {"id": known[text], "content": text, "special": text in special} | PLAIN
        for text, id in self.added.items():
            entries[text] = {"id": id, "content": text, "special": text in special} | PLAIN
        for key, given in self._listed():
            entries[key] = given
        for key in (*TOKEN_KEYS, *defaults):  # how <mask> is found, for instance
            given = self.config.get(key)
            if isinstance(given, dict) and (text := content(given)) in entries:
                entries[text] = entries[text] | {name: bool(given[name]) for name in PLAIN if name in given}
        taken = {id: text for text, id in known.items()}
        for entry in sorted(entries.values(), key=lambda entry: entry["id"]):
            text, id = entry["content"], entry["id"]
            if taken.setdefault(id, text) != text or known.get(text, id) != id:
                raise DamagedFile(f"{self.folder} gives the token {text!r} the id {id}, which is another's or another")
            if text not in known and isinstance(vocab, list):
                if id != len(vocab):
                    raise DamagedFile(f"{self.folder} gives the token {text!r} the id {id}, but {len(vocab)} is next")
                vocab.append([text, 0.0])
            elif text not in known:
                vocab[text] = id
        spec["added_tokens"] = sorted(entries.values(), key=lambda entry: entry["id"])

    def _listed(self) -> Iterable[tuple[str, dict[str, Any]]]:
        """The tokens of added_tokens_decoder."""
        listed = self.config.get("added_tokens_decoder") or {}
        if not isinstance(listed, dict):
            raise DamagedFile(f"added_tokens_decoder in {self.folder / TOKENIZER_CONFIG} is no JSON object")
        for id, token in listed.items():
            if not (isinstance(token, dict) and isinstance(id, str) and id.isascii() and id.isdigit() and len(id) < 9):
                raise DamagedFile(f"added_tokens_decoder in {self.folder / TOKENIZER_CONFIG} has the entry {id!r}")
            text = content(token)
            flags = {name: bool(token.get(name, value)) for name, value in PLAIN.items()}
            yield text, {"id": _id(int(id), text), "content": text, "special": bool(token.get("special"))} | flags

    def chat_template(self) -> ChatTemplate:
        """The template of a conversation: its text, texts by name, or None.

        Raises:
            DamagedFile: no text, too large, or under a name that is none.
        """
        found: dict[str, str] = {}
        given = self.config.get("chat_template")
        if isinstance(given, str):
            found["default"] = given
        elif isinstance(given, list):
            for entry in given:
                if not isinstance(entry, dict) or not {"name", "template"} <= entry.keys():
                    raise DamagedFile(f"chat_template in {self.folder / TOKENIZER_CONFIG} has an entry without a name")
                found[str(entry["name"])] = entry["template"]
        elif given is not None:
            raise DamagedFile(f"chat_template in {self.folder / TOKENIZER_CONFIG} is no text")
        files = {"default": CHAT_TEMPLATE}
        more = self.folder / TEMPLATES
        if more.is_dir():
            files |= {path.stem: f"{TEMPLATES}/{path.name}" for path in sorted(more.glob("*.jinja"))}
        for name, file in files.items():
            if holds(self.folder, file):
                path = inside(self.folder, file)
                check_size(path, LARGEST_TEMPLATE)
                found[name] = read_text(path)
        for name, text in found.items():
            if not TEMPLATE_NAME.fullmatch(name) or not isinstance(text, str) or len(text) > LARGEST_TEMPLATE:
                raise DamagedFile(f"{self.folder} has a chat template {name[:64]!r} that is no text, or too long")
        return found["default"] if list(found) == ["default"] else found or None


def read_beside(folder: Path) -> Beside:
    """Read what there is.

    Raises:
        DamagedFile: a file that is no JSON object, or too large.
    """
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", TOKENIZER_CONFIG):
        config |= {key: value for key, value in _object(folder, name).items() if value is not None}
    added = _object(folder, "added_tokens.json")
    return Beside(folder, config, {str(text): _id(id, text) for text, id in added.items()})


def content(token: Any) -> str:
    """The text of a token, given as that or as an object.

    Raises:
        DamagedFile: neither.
    """
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str) or not text:
        raise DamagedFile(f"a special token must have a text, but {str(token)[:80]!r} was given")
    return text


def read_text(file: Path) -> str:
    """A file of UTF-8 text.

    Raises:
        DamagedFile: it is none, or larger than any of its kind.
    """
    check_size(file)
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{file} is not UTF-8 text ({error}); restore it or make it again") from error


def check_size(file: Path, most: int = LARGEST) -> None:
    """Refuse a file that is larger than any of its kind.

    Raises:
        DamagedFile: it is.
    """
    if file.stat().st_size > most:
        raise DamagedFile(f"{file} has {file.stat().st_size:,} bytes; there should be at most {most:,}")


def _id(id: Any, text: str) -> int:
    if isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < MOST_TOKENS:
        raise DamagedFile(f"the added token {text!r} has the id {id!r}; ids lie in 0 … {MOST_TOKENS - 1}")
    return id


def _object(folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file, or an empty one where there is no such file."""
    if not holds(folder, name):
        return {}
    file = inside(folder, name)
    found = read_json(file)
    if not isinstance(found, dict):
        raise DamagedFile(f"{file} must hold a JSON object, but holds {type(found).__name__}")
    return found
