"""Open a saved tokenizer: Cutaway's, or any that Hugging Face's tokenizers library can read. Nothing in it is run."""

from pathlib import Path
from typing import Any

from cutaway.errors import DamagedFile, InputError
from cutaway.files import holds, inside, read_json
from cutaway.tokenizers.tokenizer import ROLES, TOKENIZER_CONFIG, TOKENIZER_JSON, Tokenizer

LARGEST = 128 * 2**20  # bytes; the largest published tokenizer.json has some 35 MB


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Open a tokenizer.json, or a folder that holds one (a model, a token store, a download from a hub).

    Which special token ends a text, pads or masks is read from the tokenizer_config.json or special_tokens_map.json
    beside it; without either, Cutaway's own names count.

    Raises:
        InputError: no such file.
        DamagedFile: not JSON, not a tokenizer, too large, or a special token that the vocabulary does not hold.
    """
    path = Path(path)
    file = path / TOKENIZER_JSON if path.is_dir() else path
    if not file.is_file():
        hint = f"{path} holds no {TOKENIZER_JSON}" if path.is_dir() else f"{path} does not exist"
        raise InputError(f"{hint}; give a {TOKENIZER_JSON} or the folder of a model, token store or tokenizer")
    if path.is_dir():
        file = inside(path, TOKENIZER_JSON)
    _check_size(file)
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{file} is not UTF-8 text ({error}); restore it or make it again") from error
    roles = _roles(file.parent)
    tokenizer = Tokenizer(text, roles=roles, where=str(file))
    for role, name in (roles or {}).items():
        if getattr(tokenizer, role) is None:
            raise DamagedFile(
                f"{file.parent} names {name!r} as {ROLES[role]}, but the vocabulary of {file.name} has no such token"
            )
    return tokenizer


def _roles(folder: Path) -> dict[str, str] | None:
    """Role -> special token's text, or None where no file beside the tokenizer says."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", TOKENIZER_CONFIG):
        file = folder / name
        if not holds(folder, name):
            continue
        config: Any = read_json(inside(folder, name))
        if not isinstance(config, dict):
            raise DamagedFile(f"{file} must hold a JSON object, but holds {type(config).__name__}")
        for role, key in ROLES.items():
            token = config.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found[role] = token
    return found or None


def _check_size(file: Path) -> None:
    if file.stat().st_size > LARGEST:
        raise DamagedFile(f"{file} has {file.stat().st_size:,} bytes; a tokenizer has at most {LARGEST:,}")
