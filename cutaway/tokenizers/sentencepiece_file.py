"""SentencePiece's model files (spiece.model, tokenizer.model …), read without a protobuf library.

A protocol buffer is a row of (field number and wire type, value): enough of it is read to know the pieces and what is
done to a text; everything else is skipped. Every length is checked against the file before anything is made of it.
The numbers of the fields are those of sentencepiece_model.proto.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.tokenizers.sentencepiece import NORMAL, SpmRules, bpe_spec, unigram_spec
from cutaway.tokenizers.spec import Spec

LARGEST = 32 * 2**20  # bytes; the largest published ones have some 5 MB
MOST_PIECES = 2**19  # twice the largest published vocabulary
UNIGRAM, BPE = 1, 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class SentencePieceModel:
    """A model file.

    Attributes:
        kind: UNIGRAM or BPE.
        pieces, scores, types: by id.
        rules: around the pieces.
        unk, bos, eos, pad: ids; -1 where there is none.
    """

    kind: int
    pieces: list[str]
    scores: list[float]
    types: list[int]
    rules: SpmRules
    unk: int
    bos: int
    eos: int
    pad: int

    def spec(self, where: str) -> Spec:
        """Its tokenizer.json, with its own ids.

        Raises:
            DamagedFile: pieces twice, or no unknown piece.
        """
        build = unigram_spec if self.kind == UNIGRAM else bpe_spec
        return build(self.pieces, self.scores, self.types, self.rules, unk=self.unk, where=where)


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a model file.

    Raises:
        InputError: no such file.
        DamagedFile: too large, or not what SentencePiece writes.
        ConfigError: a kind or setting that is not supported, named.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.stat().st_size > LARGEST:
        raise DamagedFile(f"{path} has {path.stat().st_size:,} bytes; a SentencePiece model has at most {LARGEST:,}")
    return parse_sentencepiece(path.read_bytes(), str(path))


def parse_sentencepiece(data: bytes, where: str) -> SentencePieceModel:
    """The same, of a file's bytes."""
    pieces: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    seen: set[str] = set()
    settings: dict[int, dict[int, int | bytes]] = {2: {}, 3: {}, 5: {}}  # trainer, normaliser, denormaliser
    try:
        for number, value in _fields(data):
            if number == 1 and isinstance(value, bytes):
                entry = dict(_fields(value))
                pieces.append(_bytes(entry.get(1, b"")).decode())
                scores.append(struct.unpack("<f", _bytes(entry.get(2, bytes(4))))[0])
                types.append(_int(entry.get(3, NORMAL)))
                seen.add(pieces[-1])
                if len(seen) < len(pieces) or len(pieces) > MOST_PIECES:  # at once: a file of repeats is no work
                    raise DamagedFile(f"{where} has the piece {pieces[-1][:40]!r} twice, or over {MOST_PIECES:,}")
            elif number in settings and isinstance(value, bytes):
                settings[number].update(_fields(value))
        trainer, normaliser, denormaliser = settings.values()
        kind = _int(trainer.get(3, UNIGRAM))
        ids = [_int(trainer.get(number, default)) for number, default in ((40, 0), (41, 1), (42, 2), (43, -1))]
        rules = SpmRules(
            charsmap=_bytes(normaliser.get(2, b"")),
            dummy_prefix=bool(normaliser.get(3, 1)),
            remove_extra_whitespaces=bool(normaliser.get(4, 1)),
            byte_fallback=bool(trainer.get(35, 0)),
        )
        suffix, escape = trainer.get(24, 0), normaliser.get(5, 1)
        denormalise = denormaliser.get(2)
    except (ValueError, struct.error) as error:  # UnicodeDecodeError is one too
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"{where} is no SentencePiece model ({error}); copy or download it again") from error
    if kind not in (UNIGRAM, BPE):
        names = {3: "word", 4: "char"}
        raise ConfigError(f"{where} is a SentencePiece model of kind {names.get(kind, kind)}; unigram and bpe open")
    for name, there in (
        ("treat_whitespace_as_suffix", suffix),
        ("escape_whitespaces=false", not escape),
        ("a denormaliser", denormalise),
    ):
        if there:
            raise ConfigError(f"{where} is a SentencePiece model with {name}, which is not supported")
    _check_charsmap(rules.charsmap, where)
    return SentencePieceModel(kind, pieces, scores, types, rules, *ids)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number and value (a whole number, or bytes)."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == BYTES:
            size, at = _varint(data, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if size > end - at:
            raise ValueError(f"a field of {size:,} bytes at byte {at} goes over the end")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of 7 bits, the lowest first, and where it ends."""
    value = 0
    for place in range(10):
        if at >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number of more than ten bytes before byte {at}")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number stands where text was expected")
    return value


def _int(value: int | bytes) -> int:
    """A signed number of 32 bits; a negative one is stored as one of 64."""
    if not isinstance(value, int):
        raise ValueError("text stands where a number was expected")
    value = value - 2**64 if value >= 2**63 else value
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"the number {value} is out of range")
    return value


def _check_charsmap(table: bytes, where: str) -> None:
    """Its outline: the size of a double array (4 bytes), the array, and texts that end in a zero byte."""
    if not table:
        return
    size = int.from_bytes(table[:4], "little")
    if len(table) < 4 or size % 4 or size > len(table) - 4:
        raise DamagedFile(f"{where} has a table of characters whose sizes do not fit each other")
    try:
        table[4 + size :].decode()
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{where} has a table of characters that is not UTF-8 ({error})") from error
