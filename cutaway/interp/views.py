"""The first analyses: how surprising each token is, where heads look, and what the model would say at each layer.

Shapes: T tokens, L layers, H heads, V vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.record import Recording, Text, record
from cutaway.models import Decoder, Model


@dataclass(frozen=True)
class TokenScores:
    """One number per token.

    Attributes:
        what: what the number is, with its unit.
        tokens: to be read.
        ids: in the vocabulary.
        scores: one per token; None where there is none.
    """

    what: str
    tokens: list[str]
    ids: list[int]
    scores: list[float | None]

    @property
    def mean(self) -> float:
        """Of the scores there are."""
        known = [score for score in self.scores if score is not None]
        return sum(known) / len(known) if known else math.nan

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"what": self.what, "tokens": self.tokens, "ids": self.ids, "scores": self.scores, "mean": self.mean}


@dataclass(frozen=True)
class Attention:
    """Where each head of each layer looks.

    Attributes:
        tokens: to be read; rows are queries, columns are keys.
        patterns: (L, H, T, T) float32, each row sums to 1.
    """

    tokens: list[str]
    patterns: Tensor

    def sharpest(self) -> tuple[int, int]:
        """The (layer, head) that looks most pointedly at other tokens than the first and itself."""
        T = len(self.tokens)
        if T < 3:
            return 0, 0
        weights = self.patterns[:, :, 2:, 1:].clone()
        weights.masked_fill_(torch.eye(T)[2:, 1:].bool(), 0)
        best = int(weights.amax(-1).mean(-1).argmax())
        return best // self.patterns.shape[1], best % self.patterns.shape[1]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"tokens": self.tokens, "patterns": self.patterns.tolist()}


@dataclass(frozen=True)
class LensCell:
    """What one layer would say after one token: the likeliest next tokens with their probabilities."""

    top: list[tuple[str, float]]
    entropy: float  # bits


@dataclass(frozen=True)
class Lens:
    """The logit lens.

    Attributes:
        tokens: to be read, columns.
        layers: names of the rows: the stream before the first layer, then after each.
        cells: by row, then by column.
    """

    tokens: list[str]
    layers: list[str]
    cells: list[list[LensCell]]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        rows = [[{"top": cell.top, "entropy": cell.entropy} for cell in row] for row in self.cells]
        return {"tokens": self.tokens, "layers": self.layers, "cells": rows}


def surprisal(model: Model, text: Text) -> TokenScores:
    """Bits of surprise at each token: -log2 of the probability that the model gave it. The first has none.

    Raises:
        InputError: empty text, or more tokens than the context.
    """
    ids = model.ids(text)[:1]
    logprobs = model.logits(ids)[0, :-1].double().log_softmax(-1)  # (T - 1, V)
    bits = -logprobs.gather(1, ids[0, 1:, None])[:, 0] / math.log(2)
    tokens = [model.tokenizer.token(int(i)) for i in ids[0]]
    return TokenScores("surprisal in bits", tokens, ids[0].tolist(), [None, *bits.tolist()])


def attention(source: Recording | Model, text: Text = "") -> Attention:
    """Every head's pattern, from a recording that has them or from a model and a text.

    Raises:
        ConfigError: a model without attention.
    """
    model = source.model if isinstance(source, Recording) else source
    if not isinstance(model.network, Decoder):
        raise ConfigError("a recurrent model has no attention: look at its gates (layers.*.update) instead")
    if not isinstance(source, Recording):
        source = record(model, text, "layers.*.attn.pattern")
    patterns = [source[f"layers.{i}.attn.pattern"][0] for i in range(model.network.config.layers)]
    return Attention(source.tokens, torch.stack(patterns).float())


@torch.no_grad()
def logit_lens(model: Model, text: Text, *, top: int = 5) -> Lens:
    """Read the residual stream of every layer as if it were the last (nostalgebraist 2020, "interpreting GPT").

    The last row is the model's own output, bit for bit.

    Args:
        model: a decoder.
        text: text or ids.
        top: how many tokens of each cell to name.

    Raises:
        ConfigError: a recurrent model, which has no residual stream.
        InputError: top below 1.
    """
    network = model.network
    if not isinstance(network, Decoder):
        raise ConfigError("the logit lens reads a residual stream, which a recurrent model does not have")
    if top < 1:
        raise InputError(f"top must be at least 1, but {top} was given")
    count = network.config.layers
    places = ["layers.0.resid_pre", *(f"layers.{i}.resid_post" for i in range(count))]
    recording = record(model, model.ids(text)[:1], places)
    rows = []
    for place in places:
        logits = network.lm_head(network.norm(recording[place]))[0].float()  # (T, V)
        probabilities = logits.softmax(-1)
        entropy = -(probabilities * logits.log_softmax(-1)).sum(-1) / math.log(2)
        values, ids = probabilities.topk(min(top, probabilities.shape[-1]))
        rows.append(
            [
                LensCell([(model.tokenizer.token(i), p) for i, p in zip(ids_, values_, strict=True)], bits)
                for ids_, values_, bits in zip(ids.tolist(), values.tolist(), entropy.tolist(), strict=True)
            ]
        )
    return Lens(recording.tokens, ["embedding", *(f"layer {i}" for i in range(count))], rows)
