"""What may come next, and what temperature, top-k, top-p and min-p leave of it.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, NonFinite
from cutaway.generation.largest import largest
from cutaway.generation.options import Sampling
from cutaway.generation.sampling import keep
from cutaway.interp.inputs import Text, forward, inputs_of
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, first_broken, recording_of
from cutaway.interp.results import Result
from cutaway.interp.text.exam import names_tokens
from cutaway.interp.text.tokens import spelling
from cutaway.models import ActiveTap, Encoder, Model
from cutaway.models.model import Source

STEPS = ("temperature", "top_k", "top_p", "min_p")  # in the order in which they apply
MOST = 500  # candidates that are told


@dataclass(frozen=True)
class Candidate:
    """A token that may come.

    Attributes:
        id, token, spelled: the token, to be read, and its bytes in hex.
        rank: 1 is the likeliest.
        logit: of the model.
        share: its probability under the model.
        left: its probability after temperature and all steps; 0 of one that was dropped.
        dropped: the step that drops it: "temperature" (at 0 only the likeliest is left), "top_k", "top_p" or "min_p".
    """

    id: int
    token: str
    spelled: str
    rank: int
    logit: float
    share: float
    left: float
    dropped: str | None


@dataclass(frozen=True)
class Step:
    """One step of how the next token is chosen.

    Attributes:
        name: "temperature", "top_k", "top_p" or "min_p".
        value: what it is set to; None: it is off.
        kept: tokens that can still come after it.
        share: how likely these were before all steps, together.
    """

    name: str
    value: float | None
    kept: int
    share: float


@dataclass(frozen=True)
class Chances(Result):
    """What may come after a token, or in the place of a hidden one.

    Attributes:
        what: is shown.
        tokens, ids: what the model read; a hidden token is the mask.
        position: after which of them, or in place of which.
        masked: whether it is in place of it.
        candidates: likeliest first.
        others: of all that are not told, their probability.
        others_left: and what is left of it.
        came: what the text has there, where it has anything.
        steps: from temperature to min-p.
        entropy, entropy_left: bits of surprise that are to be expected, of the model, and after all steps.
        logits: (V,) float32; not sent.
        model: whose they are; not sent.
        asked: the arguments of `chances` that say where; not sent.
    """

    picture = "chances"
    what: str
    tokens: list[str]
    ids: list[int]
    position: int
    masked: bool
    candidates: list[Candidate]
    others: float
    others_left: float
    came: Candidate | None
    steps: list[Step]
    entropy: float
    entropy_left: float
    logits: Float[Tensor, " V"] = field(repr=False, compare=False, kw_only=True)
    model: Model = field(repr=False, compare=False, kw_only=True)
    asked: dict[str, Any] = field(repr=False, compare=False, kw_only=True)

    def under(
        self,
        *,
        shown: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
    ) -> Chances:
        """The same place under other options of `chances`; the model does not run.

        Raises:
            ConfigError: an option out of its range.
        """
        how = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        count = len(self.candidates) if shown is None else shown
        options = {"shown": count, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        code = Clock(self.model, "chances", **self.asked, **options).receipt().code
        came = None if self.came is None else self.came.id
        drawn = _drawn(self.model, self.logits, how, _shown(count), came)
        return replace(self, **drawn, receipt=replace(self.receipt, code=code))


def chances(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | None = None,
    position: int = -1,
    masked: bool = False,
    shown: int = 20,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Chances:
    """What a model thinks may come next, and what the options of drawing leave of it.

    Args:
        model: a model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.
        position: after which token; -1 is the last.
        masked: of an encoder that fills gaps: what may stand at that position, which is hidden from it.
        shown: candidates that are told.
        temperature: divides the logits; 0 leaves the likeliest token alone.
        top_k: keep the k likeliest.
        top_p: of these the likeliest that together reach p, their probabilities taken after the temperature (Holtzman
            et al. 2020, "The Curious Case of Neural Text Degeneration").
        min_p: of these those at least this share as likely as the likeliest (Nguyen et al. 2024, "Turning Up the Heat:
            Min-p Sampling").

    Raises:
        ConfigError: an encoder without `masked`, another model with it, a head that names no tokens, an option out of
            its range.
        InputError: empty text, more tokens than the context, a position outside the text.
        NonFinite: the model computes a NaN or an infinity.
    """
    run = model.model if isinstance(model, Recording) else model
    names_tokens(run, "a chance of the next token")
    if masked != isinstance(run.network, Encoder):
        raise ConfigError(
            "masked is for encoders that fill gaps; this model says what comes after a token: leave it out"
            if masked
            else "an encoder sees the text on both sides, so nothing comes next; masked=True asks what may stand at a "
            "position that is hidden from it"
        )
    count = _shown(shown)
    how = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    options = {"shown": shown, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    given = model if isinstance(model, Recording) else text
    asked = {"text": given, "source": source, "position": position, "masked": masked or None}
    clock = Clock(run, "chances", **asked, **options)
    ids, place, logits, difference, size = _row(model, text, source, position, masked)
    tokenizer = run.tokenizer.target or run.tokenizer
    came = int(ids[place]) if masked else int(ids[place + 1]) if place + 1 < len(ids) else None
    if masked:
        ids = ids.clone()
        ids[place] = run.tokenizer.mask or 0
    tokens = [tokenizer.token(id) for id in ids.tolist()]
    what = f"what may {'stand at' if masked else 'come after'} “{tokens[place]}” (position {place})"
    receipt = clock.receipt(difference=difference, bytes=size)
    drawn = _drawn(run, logits, how, count, came)
    hidden = {"logits": logits, "model": run, "asked": asked}
    return Chances(what, tokens, ids.tolist(), place, masked, **drawn, **hidden, receipt=receipt)


def _shown(count: int) -> int:
    if not 1 <= count <= MOST:
        raise ConfigError(f"shown must lie in 1 … {MOST} candidates, but {count} was given")
    return count


@torch.no_grad()
def _row(
    model: Recording | Model, text: Text, source: Source | None, position: int, masked: bool
) -> tuple[Tensor, int, Tensor, float, int]:
    """The ids, the place among them, its logits; how far the run is from a plain one, and its bytes."""
    if not masked:
        recording = recording_of(model, text, ["logits"], source=source, first=True)
        inputs = recording.inputs.rows(0, 1)
        place = int(inputs.places(position)[0])
        receipt = recording.receipt
        logits = recording.logits[0, place].detach().float().cpu().clone()
        return inputs.ids[0], place, logits, receipt.difference, receipt.bytes
    run = model.model if isinstance(model, Recording) else model
    inputs = (model.inputs if isinstance(model, Recording) else inputs_of(run, text, source)).rows(0, 1)
    edits = model.edits if isinstance(model, Recording) else {}
    place = int(inputs.places(position)[0])
    hidden = inputs.ids.clone()
    hidden[0, place] = run.tokenizer.mask or 0
    output = forward(run, replace(inputs, ids=hidden), ActiveTap(edits=edits))[0, place]
    if not output.isfinite().all():
        raise NonFinite(f"{first_broken(run, inputs, edits)} holds a NaN or an infinity, and so do the logits")
    return inputs.ids[0], place, output.float().cpu(), 0.0, 0


def _drawn(model: Model, logits: Tensor, how: Sampling, shown: int, came: int | None) -> dict[str, Any]:
    """All that depends on the options."""
    row, V = logits.numpy(), len(logits)
    shares = logits.double().softmax(-1).numpy()
    steps: list[Step] = []
    alive, dropped = np.ones(V, bool), np.full(V, -1)
    kept = keep(row, Sampling(temperature=how.temperature))
    count, share = V, 1.0
    for number, name in enumerate(STEPS):
        value = getattr(how, name)
        if number and value is not None:
            kept = keep(row, Sampling(**{one: getattr(how, one) for one in STEPS[: number + 1]}))
        if kept.ids is not None and len(kept.ids) < count:
            after = np.zeros(V, bool)
            after[kept.ids] = True
            dropped[alive & ~after] = number
            alive, count, share = after, len(kept.ids), float(shares[kept.ids].sum())
        steps.append(Step(name, value, count, share))
    left = kept.dense(V)
    tokenizer = model.tokenizer.target or model.tokenizer
    places = largest(row, min(shown, V))
    told = places[np.argsort(-row[places], kind="stable")][:shown]

    def candidate(id: int, rank: int) -> Candidate:
        step = None if dropped[id] < 0 else STEPS[dropped[id]]
        token = tokenizer.token(id), spelling(tokenizer, id)
        return Candidate(id, *token, rank, float(row[id]), float(shares[id]), float(left[id]), step)

    return {
        "candidates": [candidate(id, rank + 1) for rank, id in enumerate(told.tolist())],
        "others": max(0.0, 1 - float(shares[told].sum())),
        "others_left": max(0.0, 1 - float(left[told].sum())),
        "came": None if came is None else candidate(came, int((row > row[came]).sum()) + 1),
        "steps": steps,
        "entropy": _bits(shares),
        "entropy_left": _bits(left),
    }


def _bits(shares: np.ndarray) -> float:
    some = shares[shares > 0]
    return max(0.0, float(-(some * np.log(some)).sum() / math.log(2)))
