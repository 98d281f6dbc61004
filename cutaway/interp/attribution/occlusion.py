"""Attribution by taking words away.

Shapes: B versions of a text, N places (source, then text), C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.attribution.baseline import BASELINES, Baseline, baseline_of
from cutaway.interp.attribution.question import Attribution, Question, answer, question_of
from cutaway.interp.attribution.spans import Grain
from cutaway.interp.inputs import Inputs, Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.target import Quantity
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

Replacement: TypeAlias = Literal["delete"] | Baseline
REPLACEMENTS = (*BASELINES, "delete")


@dataclass(frozen=True)
class Removal:
    """How tokens are taken away, and which cannot be.

    Attributes:
        question: whose number changes.
        replace: what stands in their place: a baseline's vector; or "delete": nothing, the text is shorter.
        players: groups of places that can be taken away.
        start: (N, C) the baseline's vectors; None where tokens are deleted.
    """

    question: Question
    replace: Replacement | str
    players: list[list[int]]
    start: Float[Tensor, "N C"] | None = None

    def scores(self, found: list[float], grain: Grain | str) -> list[float]:
        """A score for each of the question's players: 0 for what cannot be deleted."""
        known = {tuple(player): score for player, score in zip(self.players, found, strict=True)}
        return [known.get(tuple(player), 0.0) for player in self.question.players(grain)]

    def __call__(self, kept: Bool[Tensor, "B P"], progress: OnProgress | None = None) -> Float[Tensor, " B"]:
        """The number with some of the players kept and the others taken away, (B, P) -> (B,)."""
        stays = torch.ones(len(kept), len(self.question.real), dtype=torch.bool)  # (B, N)
        for player, places in enumerate(self.players):
            stays[:, places] = kept[:, player, None]
        if self.start is None:
            return self._shorter(stays, progress)
        device = self.question.vectors.device
        found = []
        for some in stays.to(device).split(self.question.at_once):
            with torch.no_grad():
                found.append(self.question(torch.where(some[..., None], self.question.vectors, self.start)))
            _tell(progress, sum(map(len, found)), len(stays))
        return self.question.finite(torch.cat(found))

    def _shorter(self, stays: Tensor, progress: OnProgress | None) -> Tensor:
        """The number of the texts that are left, padded to the longest."""
        question, order = self.question, stays.sum(dim=1).argsort()
        found, done = torch.zeros(len(stays), dtype=question.vectors.dtype), 0
        for rows in order.split(question.at_once):
            inputs, places = _left(question, stays[rows])
            with torch.no_grad():
                found[rows] = answer(question.model, inputs, question.target, {}, places).cpu()
            done += len(rows)
            _tell(progress, done, len(stays))
        return question.finite(found)


def _tell(progress: OnProgress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(Progress("taking away", done, total, "texts"))


def removal(question: Question, replace: Replacement | str, grain: Grain | str) -> Removal:
    """What can be taken away of a question's text, and how.

    Raises:
        ConfigError: an unknown way or grain, or one that this model or run does not allow.
        InputError: nothing can be taken away.
    """
    if replace not in REPLACEMENTS:
        raise ConfigError(unknown("replacement", str(replace), REPLACEMENTS))
    players = question.players(grain)
    if replace != "delete":
        return Removal(question, replace, players, baseline_of(question, replace))
    if question.edits:
        raise ConfigError("tokens cannot be deleted from an edited run, whose edits are of its length; replace them")
    if any(question.ids(side) is None for side in question.sides):
        raise ConfigError("frames of sound cannot be deleted; replace them by their mean or by zero")
    if (place := question.target.position) is not None and not _predicts_next(question.model):
        at = int(question.inputs.places(place)[0]) + sum(question.counts[:-1])
        players = [player for player in players if at not in player]
        if not players:
            raise InputError("the answer is read at the only token there is, which cannot be deleted")
    return Removal(question, replace, players)


def _predicts_next(model: Model) -> bool:
    """Whether the answer at a place is of the next token, so that it is there without the token itself."""
    return getattr(model.config, "head", "causal_lm") == "causal_lm"


def _left(question: Question, stays: Tensor) -> tuple[Inputs, Tensor | None]:
    """What is left of each text, (B, N) bool, as inputs; and where it is asked, (B,)."""
    made, places, types = {}, None, question.inputs.token_types
    for side, kept in zip(question.sides, stays.split(question.counts, dim=1), strict=True):
        ids = question.ids(side)
        assert ids is not None
        real = {"source": question.inputs.source_mask, "text": question.inputs.mask}[side]
        kept = kept.to(ids.device) if real is None else kept.to(ids.device) & real[0]
        if side == "text" and question.target.position is not None:
            at = int(question.inputs.places(question.target.position)[0])
            places = kept[:, : at + 1].sum(dim=1) - 1
        lengths = kept.sum(dim=1)
        if int(lengths.min()) == 0 or (places is not None and int(places.min()) < 0):
            raise InputError("nothing would be left of the text; replace tokens by mean or zero instead of deleting")
        longest = int(lengths.max())
        packed = ids.new_full((len(kept), longest), question.model.tokenizer.pad or 0)
        mask = torch.arange(longest, device=ids.device) < lengths[:, None]
        packed[mask] = ids.expand_as(kept)[kept]
        if side == "text" and types is not None:
            kinds = torch.zeros_like(packed)
            kinds[mask] = types.expand_as(kept)[kept]
            types = kinds
        made[side] = packed, (None if bool(mask.all()) else mask)
    ids, mask = made["text"]
    return Inputs(ids, mask, *made.get("source", (None, None)), token_types=types), places


def occlusion(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    grain: Grain | str = "token",
    replace: Replacement | str = "mean",
    window: int = 1,
    progress: OnProgress | None = None,
) -> Attribution:
    """What a number loses when a part of the text is taken away (Zeiler & Fergus 2014; leave-one-out, Li et al. 2016).

    Args:
        model: any model with a text, or a recording, whose run (with its edits) is explained.
        text: of several texts the first.
        source: what an encoder–decoder reads; its tokens (or frames) are taken away too.
        token: which output is explained, as in `target_of`; None takes the likeliest.
        minus: another output, which is subtracted: why the one rather than the other.
        position: after or at which token.
        quantity: "logit", "logprob" or "prob".
        grain: what is taken away at a time: a "token", a "word" or a "sentence". Special tokens stay, and score 0.
        replace: what stands in its place: the vector "mean", "zero", or the "pad" or "mask" token's; or "delete", with
            which the text becomes shorter.
        window: how many neighbours are taken away together; each scores the mean over the windows that it is in.
        progress: told how many texts with something taken away were read.

    Raises:
        ConfigError: an unknown option, or tokens to delete where that cannot be done (sound, an edited run).
        InputError: as in `target_of`; a window outside 1 … the number of parts; or nothing would be left.
        NonFinite: the model computes a NaN or an infinity.
    """
    given = {"source": source, "token": token, "minus": minus, "position": position, "quantity": quantity}
    run = model.model if isinstance(model, Recording) else model
    clock = Clock(
        run,
        "occlusion",
        model if isinstance(model, Recording) else text,
        **given,
        grain=grain,
        replace=replace,
        window=window,
    )
    question = question_of(model, text, **given)
    remove = removal(question, replace, grain)
    count = len(remove.players)
    if not 1 <= window <= count:
        raise InputError(f"window must lie in 1 … {count}, the parts of the text, but {window} was given")
    starts = torch.arange(count - window + 1)[:, None]
    gone = (torch.arange(count) >= starts) & (torch.arange(count) < starts + window)  # (B, P)
    numbers = remove(torch.cat((torch.ones(1, count, dtype=torch.bool), ~gone)), progress).double().cpu()
    lost = numbers[0] - numbers[1:]  # (B,)
    scores = (lost @ gone.double()) / gone.sum(dim=0)
    return question.result(
        "occlusion", remove.scores(scores.tolist(), grain), grain, clock.receipt(), value=float(numbers[0])
    )
