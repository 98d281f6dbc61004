"""Tokens and their log-probabilities, as OpenAI's answers tell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cutaway.generation import Token
from cutaway.generation.request import Score
from cutaway.tokenizers import Tokenizer

LEAST = -9999.0  # what OpenAI's answers have for a token that cannot come; JSON has no infinity
FINISH = {"length": "length", "stop": "stop", "end": "stop", "cancelled": "stop"}


def spelled(tokenizer: Tokenizer, id: int) -> str:
    r"""A token as text; where its bytes are no whole characters, as OpenAI writes them: bytes:\xe7\x8c."""
    data = bytes_of(tokenizer, id)
    if data is None:
        return tokenizer.token(id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def bytes_of(tokenizer: Tokenizer, id: int) -> bytes | None:
    """What a token stands for; None: the model's output has a row for it, but there is no such token."""
    return tokenizer.token_bytes(id) if id < tokenizer.vocab_size else None


class Logprobs:
    """The log-probabilities of one choice of /v1/completions.

    Args:
        tokenizer: of its tokens.
        top: alternatives to tell.
    """

    def __init__(self, tokenizer: Tokenizer, top: int) -> None:
        self._tokenizer, self._top = tokenizer, top
        self._offset = 0  # characters that were told

    def of(self, tokens: Sequence[tuple[int, str, Score | None]]) -> dict[str, Any]:
        """Of more tokens, each with the text that it adds; None: of a first one, which nothing predicts."""
        offsets: list[int] = []
        for _, text, _ in tokens:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "text_offset": offsets,
            "token_logprobs": [None if score is None else max(score[0], LEAST) for _, _, score in tokens],
            "tokens": [spelled(self._tokenizer, id) for id, _, _ in tokens],
            "top_logprobs": [self._likeliest(id, score) for id, _, score in tokens] if self._top else None,
        }

    def _likeliest(self, id: int, score: Score | None) -> dict[str, float] | None:
        """Spelling -> log-probability of the likeliest and of the token itself; of two spelled alike the likelier."""
        if score is None:
            return None
        found: dict[str, float] = {}
        for other, logprob in (*score[1], (id, score[0])):
            found.setdefault(spelled(self._tokenizer, other), max(logprob, LEAST))
        return found


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Of tokens of an answer, as chat completions tell them."""

    def one(id: int, logprob: float) -> dict[str, Any]:
        data = bytes_of(tokenizer, id)
        told = None if data is None else list(data)
        return {"token": spelled(tokenizer, id), "logprob": max(logprob, LEAST), "bytes": told}

    return [
        {**one(token.id, token.logprob), "top_logprobs": [one(id, logprob) for id, logprob in token.top]}
        for token in tokens
    ]


def texts_of(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> list[str]:
    """What each token of a prompt adds to its text; a token that only begins it, and is not in it, adds nothing."""
    decoder, special = tokenizer.stream(), set(tokenizer.special.values())
    shown = [decoder.add(id) for id in ids]
    if shown and ids[0] in special and not text.startswith(shown[0]):
        shown[0] = ""
    return shown
