"""How well a model predicts a text: perplexity per token, and bits per byte, which models of other tokens have too.

Shapes: N pieces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cutaway.errors import ConfigError, InputError
from cutaway.evaluation.boundaries import prefix, windows
from cutaway.evaluation.likelihood import likelihoods, refuse
from cutaway.evaluation.significance import Figure, figure
from cutaway.generation import Engine
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress

WINDOW = 1024  # tokens at once of a network that could see any number
PIECE = 1000  # bytes of a text that are drawn together for intervals: the same for all models, whatever their tokens
REPORTED = 256  # tokens between reports


@dataclass(frozen=True)
class Perplexity:
    """Of some texts.

    Attributes:
        name: of them.
        texts: how many.
        tokens: that were predicted: all of them.
        bytes: of the texts in UTF-8.
        window: tokens seen at once.
        stride: tokens after which the next window begins.
        figures: "perplexity" of a token, and "bits_per_byte".
        pieces: (N, 3) float64 of every thousand bytes of each text: nats, tokens, bytes. Intervals are drawn over them.
        notes: what to know about the numbers.
    """

    name: str
    texts: int
    tokens: int
    bytes: int
    window: int
    stride: int
    figures: dict[str, Figure]
    pieces: np.ndarray
    notes: tuple[str, ...] = ()


def perplexity(
    engine: Engine,
    texts: Sequence[str],
    *,
    name: str = "text",
    window: int | None = None,
    stride: int | None = None,
    progress: OnProgress | None = None,
) -> Perplexity:
    """How well a model predicts texts.

    Each text stands for itself, behind the token that begins one (or ends the one before). A text longer than the
    window is read in windows that move on by `stride`; each of them scores the tokens that the one before did not see,
    so every token is predicted once, from at least `window - stride` tokens where there are so many. A smaller stride
    takes longer and gives lower numbers: only those of equal windows and strides can be compared.

    Args:
        engine: of a model that predicts the next token.
        texts: what to predict.
        name: what to call them.
        window: tokens seen at once; None: as many as the model sees.
        stride: tokens by which windows move on; None: half a window.
        progress: told of tokens.

    Raises:
        ConfigError: a window or stride that cannot be, or a model that does not predict the next token.
        InputError: no text, or a tokenizer without a token that begins or ends one.
    """
    model = engine.model
    refuse(model, "texts")
    if isinstance(texts, str):
        raise InputError("give a list of texts, even of one")
    most = model.config.context if model.config.kind == "decoder" else max(WINDOW, window or 0)
    window = min(most, WINDOW) if window is None and model.config.kind != "decoder" else window or most
    stride = window // 2 if stride is None else stride
    if not 2 <= window <= most or not 1 <= stride < window:
        raise ConfigError(
            f"a window must have 2 … {most} tokens of this model, and a stride at least one and fewer than the window; "
            f"{window} and {stride} were given"
        )
    texts = [text for text in texts if text]
    if not texts:
        raise InputError("there is no text to predict")
    begin = prefix(model)
    encoded = [ids.tolist() for ids in model.tokenizer.encode_bulk(texts)]
    tokens = sum(map(len, encoded))
    cuts = (part for ids in encoded for part in windows([begin, *ids], window, stride))
    found = (logprob for one in likelihoods(engine, cuts) for logprob in one.logprobs)
    made, done = [], 0
    for text, ids in zip(texts, encoded, strict=True):
        logprobs = []
        for _ in ids:
            logprobs.append(next(found))
            done += 1
            if progress is not None and done % REPORTED == 0:
                progress(Progress(name, done, tokens, "tokens"))
        made.append(_pieces(model, text, ids, logprobs))
    if progress is not None:
        progress(Progress(name, done, tokens, "tokens"))
    pieces = np.concatenate(made)
    notes = []
    if not model.tokenizer.exact:
        notes.append(
            f"the tokenizer does not keep every text as it is, so what {name} has lost of itself costs no bits: bits "
            "per byte are not comparable with those of an exact tokenizer"
        )
    figures = {
        "perplexity": figure(pieces, lambda sums: np.exp(sums[:, 0] / sums[:, 1])),
        "bits_per_byte": figure(pieces, bits_per_byte),
    }
    size = int(pieces[:, 2].sum())
    return Perplexity(name, len(texts), tokens, size, window, stride, figures, pieces, tuple(notes))


def bits_per_byte(sums: np.ndarray) -> np.ndarray:
    """Of sums of nats, tokens and bytes, (…, 3)."""
    return sums[..., 0] / (sums[..., 2] * math.log(2))


def _pieces(model: Model, text: str, ids: Sequence[int], logprobs: Sequence[float]) -> Float[np.ndarray, "N 3"]:
    """Nats, tokens and bytes of each PIECE of a text; a token counts where it begins."""
    size = len(text.encode())
    lengths = np.array([len(model.tokenizer.token_bytes(id)) for id in ids], float)
    begins = (lengths.cumsum() - lengths) * (size / max(1.0, lengths.sum()))  # of tokens that are not the text's bytes
    count = -(-size // PIECE)
    piece = np.minimum(begins // PIECE, count - 1).astype(int)
    nats = np.bincount(piece, -np.array(logprobs), count)
    bytes = np.full(count, PIECE)
    bytes[-1] = size - PIECE * (count - 1)
    return np.stack((nats, np.bincount(piece, minlength=count), bytes), axis=1)
