"""Questions to a lens beyond its table: a token's way through the layers, where two runs part, how well a lens reads.

Shapes: L places, T tokens, P pairs of tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Text, inputs_of
from cutaway.interp.lenses.jacobian import fit_jacobian_lens
from cutaway.interp.lenses.stream import layer_names, one_text, places, reader
from cutaway.interp.lenses.translators import LensDistance, Translators, lens_distance, load_lens
from cutaway.interp.lenses.tuned import train_tuned_lens
from cutaway.interp.patching.pairs import partners_of
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.results import Curve, Matrix, Panel, Result
from cutaway.interp.target import choice_of
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.models.quantised import dequantised_once
from cutaway.progress import OnProgress, Progress

KINDS = ("tuned", "jacobian")


def _lens(model: Model, lens: Translators | str | Path | None) -> Translators | None:
    """A lens of this model; None is the logit lens, which changes nothing."""
    if lens is None:
        return None
    made = lens if isinstance(lens, Translators) else load_lens(lens)
    made.check(model)
    return made


def _moved(recording: Recording, lens: Translators | None, place: int, at: Sequence[int]) -> Float[Tensor, "1 P C"]:
    """The stream at one place, at some tokens, as that of the last layer."""
    x = recording[places(recording.model)[place]][:1, list(at)]
    return x if lens is None else lens(x, place)


def _logits(recording: Recording, lens: Translators | None, place: int, at: Sequence[int]) -> Float[Tensor, "P V"]:
    """What a lens says at one place, after some tokens; the last place is the model's own output."""
    run = recording.model
    if place == len(places(run)) - 1:
        return recording.logits[0, list(at)].float()
    return reader(run, "a lens").read_out(_moved(recording, lens, place, at))[0].float()


@torch.no_grad()
def lens_ranks(
    model: Recording | Model,
    text: Text = "",
    lens: Translators | str | Path | None = None,
    *,
    tokens: Sequence[str | int] = (),
    position: int = -1,
    source: Source | None = None,
) -> Panel:
    """Follow tokens through the layers: the rank and the probability of each, as a lens reads them after one token.

    Args:
        model: what is read, with a text, or a recording of one.
        text: of several texts the first.
        lens: a lens or its file; None: the logit lens.
        tokens: as text or ids; none: the model's own likeliest.
        position: after which token (of an encoder: at which).
        source: what an encoder–decoder reads.

    Returns:
        Two curves over the places of the stream, "rank" (1 is the likeliest) and "probability".

    Raises:
        ConfigError, InputError, DamagedFile: as in `read_lens`; or a token or position that is not there.
    """
    run = model.model if isinstance(model, Recording) else model
    shown = model if isinstance(model, Recording) else text
    clock = Clock(run, "lens_ranks", shown, lens=lens, tokens=list(tokens), position=position, source=source)
    recording = one_text(model, text, source, 1, "a lens")
    used, count = _lens(run, lens), len(places(run))
    at = int(recording.inputs.places(position)[0])
    head = getattr(run.config, "head", "causal_lm")
    given = list(tokens) or [int(recording.logits[0, at].argmax())]
    chosen = [choice_of(run, token, head)[0] for token in given]
    # all places at once, as reading the output matrix is what takes the time
    streams = torch.cat([_moved(recording, used, place, [at]) for place in range(count - 1)], dim=1)
    said = torch.cat((reader(run, "a lens").read_out(streams)[0].float(), recording.logits[0, at : at + 1].float()))
    ranks = torch.stack([1 + (said > said[:, i : i + 1]).sum(-1) for i in chosen], dim=1).tolist()  # (L, tokens)
    chances = said.softmax(-1)[:, chosen].tolist()
    tokenizer = run.tokenizer.target or run.tokenizer
    names = [tokenizer.token(i) for i in chosen]
    after = f"after “{recording.tokens[at]}” (position {at})"
    receipt = clock.receipt(bytes=recording.receipt.bytes)

    def curve(y: str, rows: Sequence[Sequence[float]]) -> Curve:
        lines: dict[str, list[float | None]] = {name: [float(row[k]) for row in rows] for k, name in enumerate(names)}
        x = "place (0: the embedding, then after each layer)"
        return Curve(f"{y} {after}", x, y, [float(i) for i in range(count)], lines, receipt=receipt)

    parts: dict[str, Result] = {"rank": curve("rank", ranks), "probability": curve("probability", chances)}
    return Panel(f"Tokens through the layers, {after}", parts, receipt=receipt)


@dataclass(frozen=True)
class LensDifference(Matrix):
    """Where two runs part; `values` hold the Jensen–Shannon divergence of what both say, in bits: 0 the same, 1 apart.

    Attributes:
        first: (L, P) int32 the likeliest token of the first run.
        second: (L, P) int32 of the second.
        words: those tokens, to be read, by id.
        pairs: of each column its position in the first and in the second text.
        other: the tokens of the second text at the columns; `columns` are those of the first.
        parted: the share of cells whose likeliest tokens differ.
    """

    first: Int[Tensor, "L P"] = field(kw_only=True)
    second: Int[Tensor, "L P"] = field(kw_only=True)
    words: dict[int, str] = field(kw_only=True)
    pairs: list[tuple[int, int]] = field(kw_only=True)
    other: list[str] = field(kw_only=True)
    parted: float = field(kw_only=True)


@torch.no_grad()
def lens_difference(
    model: Recording | Model,
    text: Text = "",
    other: Recording | Model | None = None,
    other_text: Text | None = None,
    *,
    lens: Translators | str | Path | None = None,
    other_lens: Translators | str | Path | None = None,
    source: Source | None = None,
    other_source: Source | None = None,
    progress: OnProgress | None = None,
) -> LensDifference:
    """Read two runs with a lens each, and say where and how far they part: two texts, two models, or two steps of one.

    Tokens are paired place by place where the texts are equally long, else by their common beginning and common end.

    Args:
        model: the first, with a text, or a recording.
        text: what it reads.
        other: the second; None: the same model.
        other_text: what it reads; None: the same text.
        lens: of the first; None: the logit lens.
        other_lens: of the second; None: the first's where both are one model, else the logit lens.
        source: what an encoder–decoder reads.
        other_source: what the second reads; None: the same.
        progress: told after each row.

    Raises:
        ConfigError: models of unequal depth or with other vocabularies, or as in `read_lens`.
        InputError: texts that share neither beginning nor end, or as in `read_lens`.
    """
    run = model.model if isinstance(model, Recording) else model
    peer = run if other is None else other.model if isinstance(other, Recording) else other
    given = other if isinstance(other, Recording) else other_text
    heard = other.inputs.said_source if isinstance(other, Recording) else other_source
    clock = Clock(
        run, "lens_difference", model if isinstance(model, Recording) else text, other=None if peer is run else peer,
        other_text=given, lens=lens, other_lens=None if other_lens is lens else other_lens, source=source,
        other_source=heard,
    )  # fmt: skip
    names, theirs = layer_names(run), layer_names(peer)
    if len(names) != len(theirs):
        raise ConfigError(
            f"{run.source or 'the first model'} has {len(names) - 1} layers and {peer.source or 'the other'} "
            f"{len(theirs) - 1}, so no row of one stands for a row of the other; compare models of one depth"
        )
    mine = one_text(model, text, source, 1, "a lens")
    if isinstance(other, Recording):
        second = one_text(other, "", None, 1, "a lens")
    else:
        given = (text if not isinstance(model, Recording) else mine.inputs) if other_text is None else other_text
        second = one_text(peer, given, source if other_source is None else other_source, 1, "a lens")
    if mine.logits.shape[-1] != second.logits.shape[-1]:
        raise ConfigError(
            f"the models choose among {mine.logits.shape[-1]:,} and {second.logits.shape[-1]:,} tokens, so what they "
            "say cannot be compared; compare models with one vocabulary"
        )
    a, b = mine.ids[0].tolist(), second.ids[0].tolist()
    pairs = [(i, i) for i in range(len(a))] if len(a) == len(b) else [(i, j) for j, i in partners_of(a, b)]
    if not pairs:
        raise InputError(
            "the two texts have neither a common beginning nor a common end, so no token stands for another"
        )
    used = _lens(run, lens)
    beside = used if other_lens is None and peer is run else _lens(peer, other_lens)
    values, tops = [], []
    with dequantised_once(run.network), dequantised_once(peer.network):
        for place in range(len(names)):
            one = _logits(mine, used, place, [i for i, _ in pairs])
            two = _logits(second, beside, place, [j for _, j in pairs])
            values.append(divergence(one, two))
            tops.append(torch.stack((one.argmax(-1), two.argmax(-1))))
            if progress is not None:
                progress(Progress("comparing layers", place + 1, len(names), "rows"))
    top = torch.stack(tops, dim=1).cpu()  # (2, L, P)
    tokenizer = run.tokenizer.target or run.tokenizer
    theirs_too = peer.tokenizer.target or peer.tokenizer
    words = {i: tokenizer.token(i) for i in top.unique().tolist()}
    if any(theirs_too.token(i) != word for i, word in words.items()):
        raise ConfigError("the models name their tokens differently; compare models with one tokenizer")
    return LensDifference(
        "how far apart two runs are",
        "bits (Jensen–Shannon)",
        names,
        [mine.tokens[i] for i, _ in pairs],
        torch.stack(values).cpu(),
        "layer",
        "after",
        signed=False,
        first=top[0].int(),
        second=top[1].int(),
        words=words,
        pairs=pairs,
        other=[second.tokens[j] for _, j in pairs],
        parted=float((top[0] != top[1]).double().mean()),
        receipt=clock.receipt(bytes=mine.receipt.bytes + second.receipt.bytes),
    )


def divergence(one: Float[Tensor, "P V"], other: Float[Tensor, "P V"]) -> Float[Tensor, " P"]:
    """The Jensen–Shannon divergence of two rows of logits, in bits: 0 where both say the same, at most 1."""
    p, q = one.softmax(-1), other.softmax(-1)
    middle = (p + q) / 2
    entropies = [torch.special.entr(x).sum(-1) for x in (middle, p, q)]
    return ((entropies[0] - (entropies[1] + entropies[2]) / 2) / math.log(2)).clamp(0, 1)


@dataclass(frozen=True)
class FittedLens(LensDistance):
    """A lens that was just fitted, and how far it is from the output on texts that it was not fitted to.

    Attributes:
        lens: it.
        kind: "tuned" or "jacobian".
    """

    lens: Translators = field(kw_only=True, repr=False, compare=False)
    kind: str = field(kw_only=True)


def fit_lens(
    model: Model,
    texts: Sequence[str],
    kind: Literal["tuned", "jacobian"] = "tuned",
    *,
    sources: Sequence[str] | None = None,
    steps: int = 60,
    batch: int = 16,
    probes: int | None = 32,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> FittedLens:
    """Fit a small lens to some texts, and try it on one in five of them, which it has not seen.

    Args:
        model: what is read.
        texts: at least two.
        kind: "tuned" (`train_tuned_lens`) or "jacobian" (`fit_jacobian_lens`).
        sources: what an encoder–decoder reads for each text.
        steps: of a tuned lens.
        batch: of a tuned lens, positions in a step.
        probes: of a Jacobian lens, random directions for each text; None: all of them.
        seed: of what is drawn.
        progress: told after each step, or text.

    Raises:
        ConfigError: an unknown kind, or as in the two functions.
        InputError: fewer than two texts, or as in the two functions.
    """
    if kind not in KINDS:
        raise ConfigError(unknown("kind of lens", str(kind), KINDS))
    if isinstance(texts, str) or len(texts) < 2:
        raise InputError("give two texts or more: one is kept, to try the lens on what it was not fitted to")
    if sources is not None and len(sources) != len(texts):
        raise InputError(f"{len(texts)} texts with {len(sources)} sources were given; give one source for each text")
    clock = Clock(
        model, "fit_lens", list(texts), kind=kind, sources=sources, steps=steps if kind == "tuned" else None,
        batch=batch if kind == "tuned" else None, probes=probes if kind == "jacobian" else None, seed=seed,
    )  # fmt: skip
    kept = max(1, len(texts) // 5)
    fitted, held = texts[:-kept], texts[-kept:]
    read, read_held = (None, None) if sources is None else (sources[:-kept], sources[-kept:])
    if kind == "tuned":
        lens = train_tuned_lens(model, fitted, sources=read, steps=steps, batch=batch, seed=seed, progress=progress)
    else:
        shortest = min(
            inputs_of(model, t, None if read is None else read[i]).ids.shape[1] for i, t in enumerate(fitted)
        )
        skip = min(4, shortest - 1)
        lens = fit_jacobian_lens(
            model, fitted, sources=read, targets="same", skip=skip, probes=probes, seed=seed, progress=progress
        )
    lens = replace(lens, spelled=f"cutaway.interp.{clock.code.rpartition('result = ')[2].strip()}.lens")
    tried = lens_distance(model, held, {kind: lens}, sources=read_held)
    return FittedLens(
        tried.what, tried.x, tried.y, tried.at, tried.lines, agreement=tried.agreement, loss=tried.loss,
        positions=tried.positions, lens=lens, kind=kind, receipt=clock.receipt(seed=seed),
    )  # fmt: skip
