"""Open a saved tokenizer: Cutaway's, or one that stands beside a published checkpoint. Nothing in it is run."""

from pathlib import Path

from cutaway.errors import DamagedFile, InputError
from cutaway.files import holds, inside
from cutaway.tokenizers.beside import Beside, read_beside, read_text
from cutaway.tokenizers.sentencepiece_classes import FILES, SOURCE, TARGET, from_sentencepiece, marian
from cutaway.tokenizers.tokenizer import ROLES, TOKENIZER_JSON, Tokenizer
from cutaway.tokenizers.vocab_files import MERGES, VOCAB_JSON, VOCAB_TXT, byte_level, wordpiece


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Open a tokenizer.json, or a folder that holds one or another kind of vocabulary (a model, a token store …).

    A folder without tokenizer.json opens by its vocab.txt (WordPiece), vocab.json and merges.txt (byte-level BPE),
    spiece.model, sentencepiece.bpe.model or tokenizer.model (SentencePiece); one with source.spm, target.spm and
    vocab.json is Marian's. Which special token ends a text, pads or masks is read from the tokenizer_config.json or
    special_tokens_map.json beside it; without either, Cutaway's own names count, or those of the tokenizer's class.

    Raises:
        InputError: no such file.
        DamagedFile: not JSON, not a tokenizer, too large, or a special token that the vocabulary does not hold.
        ConfigError: a class of tokenizer, or a setting, that is not supported, named.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; {_GIVE}")
    return _tokenizer_json(path, read_beside(path.parent))


_GIVE = f"give a {TOKENIZER_JSON} or the folder of a model, token store or tokenizer"


def _open_folder(folder: Path) -> Tokenizer:
    def has(*names: str) -> bool:
        return all(holds(folder, name) for name in names)

    beside = read_beside(folder)
    if has(SOURCE, TARGET, VOCAB_JSON):
        found = marian(beside)
    elif has(TOKENIZER_JSON):
        return _tokenizer_json(inside(folder, TOKENIZER_JSON), beside)
    elif has(VOCAB_JSON, MERGES):
        found = byte_level(beside)
    elif has(VOCAB_TXT):
        found = wordpiece(beside)
    else:
        file = next(filter(has, FILES), None)
        if file is None:
            raise InputError(f"{folder} holds no {TOKENIZER_JSON}, nor another vocabulary that Cutaway knows; {_GIVE}")
        found = from_sentencepiece(beside, file)
    _check_roles(found, beside, str(folder))
    return found


def _tokenizer_json(file: Path, beside: Beside) -> Tokenizer:
    given = beside.roles({}) or None  # without any, Cutaway's own names
    template = beside.chat_template()
    tokenizer = Tokenizer(read_text(file), roles=given, where=str(file), chat_template=template)
    _check_roles(tokenizer, beside, f"the vocabulary of {file.name}")
    return tokenizer


def _check_roles(tokenizer: Tokenizer, beside: Beside, where: str) -> None:
    for role, name in beside.roles({}).items():
        if getattr(tokenizer, role) is None:
            raise DamagedFile(f"{beside.folder} names {name!r} as {ROLES[role]}, but {where} has no such token")
