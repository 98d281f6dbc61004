"""Bytes as letters: how a token in tokenizer.json spells the bytes that it stands for.

Byte-level tokenizers (Radford et al. 2019, GPT-2) write each of the 256 bytes as one printable letter, so that every
text is spelled with 256 letters and nothing is ever unknown: " the" is stored as "Ġthe", "中" as "ä¸Ń". Tokenizers in
the manner of SentencePiece (Kudo & Richardson 2018) write a space as "▁" and a lone byte as "<0xE4>". WordPiece marks
what continues a word with a prefix.
"""

import re
from typing import Any

CONTINUES = (
    "…"  # our prefix of a piece that continues a word: no byte is spelled so, hence nothing is ambiguous ("##" is)
)
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


def byte_letters() -> list[str]:
    """The letter of each byte 0 … 255: printable Latin-1 stands for itself, the other 68 for Ā, ā, Ă … in order."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    other = iter(range(0x100, 0x100 + 68))
    return [chr(byte) if byte in plain else chr(next(other)) for byte in range(256)]


def spell(data: bytes) -> str:
    """Bytes in byte letters: `spell(" é".encode())` is "ĠÃ©"."""
    letters = byte_letters()
    return "".join(letters[byte] for byte in data)


def parts(spec: dict[str, Any], section: str) -> list[dict[str, Any]]:
    """The normalisers, pre-tokenizers, decoders … of a tokenizer.json in order, sequences laid open."""
    found, stack = [], [spec.get(section)]
    while stack:
        part = stack.pop()
        if not isinstance(part, dict):
            continue
        if part.get("type") == "Sequence":
            inner = next(
                (part[key] for key in ("normalizers", "pretokenizers", "decoders", "processors") if key in part), []
            )
            stack.extend(reversed(inner))
        else:
            found.append(part)
    return found


def is_byte_level(spec: dict[str, Any]) -> bool:
    """Whether tokens are spelled in byte letters, so that the text of a sequence is its tokens' bytes joined."""
    return any(part.get("type") == "ByteLevel" for part in parts(spec, "decoder"))


def continuing_prefix(spec: dict[str, Any]) -> str:
    """The prefix of pieces that continue a word ("" where there is none)."""
    return spec["model"].get("continuing_subword_prefix") or ""


def bytes_of(token: str, spec: dict[str, Any]) -> bytes:
    """The bytes that a vocabulary entry of this tokenizer.json stands for (for special tokens see Tokenizer.token_bytes)."""
    prefix = continuing_prefix(spec)
    token = token.removeprefix(prefix) if prefix and token != prefix else token
    if is_byte_level(spec):
        values = {letter: byte for byte, letter in enumerate(byte_letters())}
        if all(letter in values for letter in token):
            return bytes(values[letter] for letter in token)
        return token.encode()
    if spec["model"].get("byte_fallback") and (match := BYTE_TOKEN.match(token)):
        return bytes([int(match[1], 16)])
    spaces = {part.get("replacement") for part in parts(spec, "decoder") if part.get("type") == "Metaspace"}
    replaced = {
        part.get("pattern", {}).get("String") for part in parts(spec, "decoder") if part.get("type") == "Replace"
    }
    return (token.replace("▁", " ") if "▁" in spaces | replaced else token).encode()
