"""How well a tokenizer fits texts: fewer tokens for the same text mean less to compute and a longer view."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cutaway.tokenizers.tokenizer import Tokenizer

_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]|[^\s\u3400-\u9fff\u3040-\u30ff]+")


@dataclass(frozen=True)
class Compression:
    """Counts over some texts.

    Attributes:
        bytes: of UTF-8.
        words: runs without white space; a Chinese character or a kana is a word of its own.
        tokens: what the tokenizer makes of them.
    """

    bytes: int
    words: int
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        """More is better."""
        return self.bytes / self.tokens

    @property
    def fertility(self) -> float:
        """Tokens per word (Rust et al. 2021); 1 means that no word is cut."""
        return self.tokens / self.words


def compression(tokenizer: Tokenizer, texts: Iterable[str]) -> Compression:
    """Count bytes, words and tokens of the texts."""
    bytes_, words, tokens = 0, 0, 0
    for text in texts:
        bytes_ += len(text.encode())
        words += len(_WORD.findall(text))
        tokens += len(tokenizer.encode(text))
    return Compression(bytes_, words, tokens)
