"""A text as a model reads it, and what it wrote: each token with its id, its bytes and how likely it was.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.generation.request import Generation, Token
from cutaway.interp.inputs import Inputs, Text, inputs_of
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import TokenScores
from cutaway.interp.text.exam import names_tokens
from cutaway.interp.text.predictions import predictions
from cutaway.models import Encoder, Model, Seq2Seq
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress
from cutaway.tokenizers import Tokenizer

ROWS = 64  # positions that are looked at together: in float64 those of a whole text would take gigabytes


@dataclass(frozen=True, kw_only=True)
class Tokens(TokenScores):
    """A text cut into tokens; the scores are bits of surprise, None of what was not predicted.

    Attributes:
        spelled: the bytes of each token, in hex.
        special: which of them stand for no text, such as the one that begins it.
        ranks: how many tokens the model thought at least as likely, 1: it was the likeliest; None as in the scores.
        entropies: bits of surprise that were to be expected there; None as in the scores.
        source: what an encoder–decoder reads beside it, to be read; empty of others.
        bytes: of the tokens that stand for text.
        perplexity: 2 to the mean of the bits; None where there are none.
        bits_per_byte: of the tokens that were predicted: comparable between models that cut a text differently.
    """

    spelled: list[str]
    special: list[bool]
    ranks: list[int | None]
    entropies: list[float | None]
    source: list[str]
    bytes: int
    perplexity: float | None
    bits_per_byte: float | None


@dataclass(frozen=True)
class Likely:
    """A token and its probability."""

    id: int
    token: str
    share: float


@dataclass(frozen=True)
class Wrote:
    """A token that a model has just written.

    Attributes:
        id, token, spelled: as in `Tokens`.
        text: what it adds; empty while a character is not complete.
        share: its probability under the model, before temperature and the like.
        bits: its surprise.
        likely: the likeliest in its place.
    """

    id: int
    token: str
    spelled: str
    text: str
    share: float
    bits: float
    likely: list[Likely]


def tokens_of(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | None = None,
    masked: bool = False,
    progress: OnProgress | None = None,
) -> Tokens:
    """A text as the model reads it: each token with its id, its bytes, its surprisal and its rank.

    Args:
        model: any model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.
        masked: of an encoder that fills gaps: hide each token in turn, so that it has a surprisal (see `surprisal`).
            Without it an encoder's tokens have none, nor have those of a model that names no tokens.
        progress: told how many tokens were looked at.

    Raises:
        ConfigError: masked, and the model is no encoder that fills gaps.
        InputError: empty text, or more tokens than the context.
        NonFinite: the model computes a NaN or an infinity.
    """
    run = model.model if isinstance(model, Recording) else model
    given = model if isinstance(model, Recording) else text
    clock = Clock(run, "tokens_of", given, source=source, masked=masked or None)
    if masked:
        found = predictions(model, text, source=source, masked=True, purpose="surprisal")
        own = found.logprobs.gather(1, found.ids[found.at, None])
        ranks = (found.logprobs > own).sum(-1) + 1
        receipt = clock.receipt(difference=found.difference, bytes=found.bytes)
        bits, places, entropy = (found.spread(values) for values in (found.bits, ranks, found.entropy))
        whole = [None if place is None else int(place) for place in places]
        return _tokens(run, found.ids.tolist(), bits, whole, entropy, receipt=receipt)
    if isinstance(run.network, Encoder) or not _speaks(run):
        inputs = (model.inputs if isinstance(model, Recording) else inputs_of(run, text, source)).rows(0, 1)
        ids = _real(inputs)
        none = [None] * len(ids)
        return _tokens(run, ids.tolist(), none, none, none, receipt=clock.receipt())
    recording = recording_of(model, text, ["logits"], source=source, first=True)
    ids = recording.ids[0]
    bits, ranks, entropy = _predicted(recording.logits[0], ids, progress)
    receipt = clock.receipt(difference=recording.receipt.difference, bytes=recording.receipt.bytes)
    read = [] if recording.inputs.source is None else recording.source_tokens
    return _tokens(run, ids.tolist(), [None, *bits], [None, *ranks], [None, *entropy], read, receipt=receipt)


def wrote(model: Model, token: Token) -> Wrote:
    """A token as it was written, to be shown."""
    tokenizer = model.tokenizer.target or model.tokenizer
    likely = [Likely(id, tokenizer.token(id), math.exp(logprob)) for id, logprob in token.top]
    bits = -token.logprob / math.log(2)
    spelled = spelling(tokenizer, token.id)
    return Wrote(token.id, tokenizer.token(token.id), spelled, token.text, math.exp(token.logprob), bits, likely)


def written(model: Model, made: Generation, *, seconds: float = 0.0, **options: Any) -> Tokens:
    """What a model wrote, with the surprise that each token was to it.

    Under temperature 1 and no other option the bits are on average the entropy of what it might have written; a low
    temperature or a small top-k keeps them below it.

    Args:
        model: what wrote.
        made: what `model.generate` gave.
        seconds: how long that took, for the receipt.
        options: those that were given to `model.generate` beside the prompt and the seed, for the receipt's code.
    """
    clock = Clock(model, "written")
    given = {"max_new_tokens": len(made.ids), **options}
    said = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
    code = (
        f"import cutaway\nfrom cutaway.interp import written\n\nmodel = cutaway.load_model({model.source!r})\n"
        f"made = model.generate({made.prompt!r}, seed={made.seed}{said})\nresult = written(model, made)\n"
    )
    bits: list[float | None] = [-logprob / math.log(2) for logprob in made.logprobs]
    none = [None] * len(bits)
    receipt = replace(clock.receipt(seed=made.seed), code=code, milliseconds=1000 * seconds)
    return _tokens(model, made.ids, bits, none, none, receipt=receipt)


def text_of(model: Model, ids: Sequence[int]) -> str:
    """The text that a model reads or writes as these ids, without what stands for no text.

    The model may cut it into other tokens than these: they are not always those that its tokenizer would choose.

    Raises:
        InputError: an id outside the vocabulary.
    """
    tokenizer = model.tokenizer.target or model.tokenizer
    if isinstance(model.network, Seq2Seq) and ids and ids[0] == model.network.config.start_id:
        ids = ids[1:]
    return tokenizer.decode(ids, skip_special=True)


def spelling(tokenizer: Tokenizer, id: int) -> str:
    """The bytes of a token in hex; empty where the vocabulary has no such token (an output may be padded)."""
    return tokenizer.token_bytes(id).hex(" ") if id < tokenizer.vocab_size else ""


def _speaks(model: Model) -> bool:
    try:
        names_tokens(model, "surprisal")
    except ConfigError:
        return False
    return True


def _real(inputs: Inputs) -> Int[Tensor, " T"]:
    return inputs.ids[0] if inputs.mask is None else inputs.ids[0, inputs.mask[0]]


def _predicted(
    logits: Float[Tensor, "T V"], ids: Int[Tensor, " T"], progress: OnProgress | None
) -> tuple[list[float], list[int], list[float]]:
    """Of each token but the first its bits, its rank, and the bits that were to be expected."""
    bits, ranks, entropies = [], [], []
    last = len(ids) - 1
    for start in range(0, last, ROWS):
        stop = min(start + ROWS, last)
        logprobs = logits[start:stop].double().log_softmax(-1)
        own = logprobs.gather(1, ids[start + 1 : stop + 1, None])
        ranks += ((logprobs > own).sum(-1) + 1).tolist()
        bits += (-own[:, 0] / math.log(2)).tolist()
        entropies += (torch.special.entr(logprobs.exp()).sum(-1) / math.log(2)).tolist()
        if progress is not None:
            progress(Progress("tokens", stop, last, "tokens"))
    return bits, ranks, entropies


def _tokens(
    model: Model,
    ids: list[int],
    bits: Sequence[float | None],
    ranks: Sequence[int | None],
    entropies: Sequence[float | None],
    source: list[str] | None = None,
    *,
    receipt: Any,
) -> Tokens:
    tokenizer = model.tokenizer.target or model.tokenizer
    special = set(tokenizer.special.values())
    if isinstance(model.network, Seq2Seq):
        special.add(model.network.config.start_id)
    sizes = [0 if id in special or id >= tokenizer.vocab_size else len(tokenizer.token_bytes(id)) for id in ids]
    known = [(value, size) for value, size in zip(bits, sizes, strict=True) if value is not None]
    total, size = math.fsum(value for value, _ in known), sum(size for _, size in known)
    return Tokens(
        "surprisal",
        "bits",
        [tokenizer.token(id) for id in ids],
        ids,
        list(bits),
        spelled=[spelling(tokenizer, id) for id in ids],
        special=[id in special for id in ids],
        ranks=list(ranks),
        entropies=list(entropies),
        source=source or [],
        bytes=sum(sizes),
        perplexity=2 ** (total / len(known)) if known else None,
        bits_per_byte=total / size if size else None,
        receipt=receipt,
    )
