"""What every attribution asks: how a number of the output depends on the vectors of the tokens that were read.

An attribution never looks at the model's own copy of its weights for gradients: it reads through `frozen`, the same
memory without gradients of weights. So none are computed, nothing of the user's model changes, and threads do not meet.

Shapes: B copies of one text, N places (the tokens or frames of the source, then those of the text), C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite, unknown
from cutaway.interp.attribution.spans import GRAINS, Grain, groups
from cutaway.interp.claims import Claims
from cutaway.interp.frozen import TOKENS_AT_ONCE, frozen
from cutaway.interp.inputs import Inputs, Text, forward, inputs_of
from cutaway.interp.receipt import Receipt
from cutaway.interp.record import Edit, Edits, Recording, first_broken, recording_of
from cutaway.interp.results import TokenScores
from cutaway.interp.suggest import of_saliency
from cutaway.interp.target import Quantity, Target, target_of
from cutaway.models import ActiveTap, Model, Recurrent, Seq2Seq
from cutaway.models.model import Source


@dataclass(frozen=True)
class Attribution(TokenScores):
    """How much each token, word or sentence of the input adds to a number of the output.

    Attributes:
        target: the number, in words.
        value: the number.
        position: place in the text where the number is read, from 0; None where there is one for the whole text.
        baseline: the number at the baseline, where there is one: the scores add up to the difference, but for the
            receipt's gap.
        parts: of each score "source" or "text".
        places: of each score the places of its tokens, source first.
        errors: the standard error of each score, where it is an estimate.
        by_token: (N,) float, the score of each token, whatever the grain; None where groups were taken away whole.
    """

    target: str = ""
    value: float = 0.0
    position: int | None = None
    baseline: float | None = None
    parts: list[str] = field(default_factory=list)
    places: list[list[int]] = field(default_factory=list)
    errors: list[float] | None = None
    by_token: Tensor | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Question:
    """One number of the output for one text, as a function of the vectors of its tokens.

    Attributes:
        model: with weights of which no gradients are taken.
        inputs: one text.
        target: the number.
        edits: of the run, where it is an edited one.
    """

    model: Model
    inputs: Inputs
    target: Target
    edits: Edits

    @cached_property
    def vectors(self) -> Float[Tensor, "N C"]:
        """The token vectors as the network reads them, without positions: source first, then text."""
        with torch.no_grad():
            return torch.cat([self.embedded(side) for side in self.sides])

    @property
    def sides(self) -> list[Literal["source", "text"]]:
        """What is read: of an encoder–decoder the source, and of all the text."""
        return ["source", "text"] if self.inputs.source is not None else ["text"]

    @cached_property
    def counts(self) -> list[int]:
        """How many places each side has."""
        return [len(self.embedded(side)) for side in self.sides]

    @cached_property
    def real(self) -> Bool[Tensor, " N"]:
        """Which places are no padding."""
        masks = {"source": self.inputs.source_mask, "text": self.inputs.mask}
        return torch.cat(
            [
                torch.ones(count, dtype=torch.bool) if (mask := masks[side]) is None else mask[0].cpu()
                for side, count in zip(self.sides, self.counts, strict=True)
            ]
        )

    @cached_property
    def free(self) -> Bool[Tensor, " N"]:
        """Which places may be taken away: the text itself, not padding and special tokens, which frame it."""
        special = torch.tensor(sorted(self.model.tokenizer.special.values()), dtype=torch.int64)
        kept = []
        for side, count in zip(self.sides, self.counts, strict=True):
            ids = self.ids(side)
            kept.append(torch.zeros(count, dtype=torch.bool) if ids is None else torch.isin(ids.cpu(), special))
        found = self.real & ~torch.cat(kept)
        if self.start is not None:
            found[self.start] = False
        return found

    @property
    def start(self) -> int | None:
        """The place of the token with which every target of an encoder–decoder begins; None of other networks."""
        if not isinstance(self.model.network, Seq2Seq):
            return None
        return self.counts[0] + int(self.real[self.counts[0] :].int().argmax())

    def ids(self, side: str) -> Tensor | None:
        """(N,) of one side; None of frames."""
        if side == "text":
            return self.inputs.ids[0]
        source = self.inputs.source
        return None if source is None or source.is_floating_point() else source[0]

    def __call__(self, vectors: Float[Tensor, "B N C"]) -> Float[Tensor, " B"]:
        """The number for each of B versions of the token vectors; gradients pass."""
        parts = dict(zip(self.sides, (vectors - self.vectors).split(self.counts, dim=1), strict=True))
        names = {"source": "encoder.embed", "text": "embed"}
        moves = {names[side]: _moved(parts[side], self.edits.get(names[side])) for side in self.sides}
        return answer(self.model, self.inputs.repeat(len(vectors)), self.target, {**self.edits, **moves})

    def many(self, vectors: Float[Tensor, "B N C"]) -> Float[Tensor, " B"]:
        """The same without gradients, some at a time.

        Raises:
            NonFinite: one of the numbers is not finite.
        """
        with torch.no_grad():
            found = torch.cat([self(some) for some in vectors.split(self.at_once)])
        return self.finite(found)

    @property
    def at_once(self) -> int:
        """How many copies of the text go through the network together."""
        return max(1, TOKENS_AT_ONCE // max(1, sum(self.counts)))

    def finite(self, numbers: Tensor) -> Tensor:
        """The numbers, if all of them are finite.

        Raises:
            NonFinite: names the activation in which a NaN or an infinity first appears in the plain run.
        """
        if not numbers.isfinite().all():
            where = first_broken(self.model, self.inputs, self.edits)
            named = f"{where} holds a NaN or an infinity" if where else "a replaced input makes a NaN or an infinity"
            raise NonFinite(f"{named}, and so does {self.target.what}; look at the weights")
        return numbers

    def embedded(self, side: str) -> Tensor:
        """The token vectors of one side, (N, C)."""
        ids = self.ids(side)
        if ids is None:
            network, source = self.model.network, self.inputs.source
            assert isinstance(network, Seq2Seq)
            assert source is not None
            return network.encoder.listen(source.to(network.embed_tokens.weight.dtype))[0].detach()
        return looked_up(self.model, ids)

    def units(self, grain: Grain | str) -> list[tuple[str, str, list[int]]]:
        """The real tokens grouped: of each group its side, its text and its places.

        Raises:
            ConfigError: an unknown grain.
        """
        if grain not in GRAINS:
            raise ConfigError(unknown("grain", str(grain), GRAINS))
        found, first = [], 0
        for side, count in zip(self.sides, self.counts, strict=True):
            places = [place for place in range(first, first + count) if self.real[place]]
            ids = self.ids(side)
            if ids is None:
                found += [(side, f"frame {place}", [place]) for place in places]
            else:
                tokenizer = self.model.tokenizer if side == "source" else self.model.tokenizer.target
                tokenizer = tokenizer or self.model.tokenizer
                if self.start in places:
                    found.append((side, tokenizer.token(int(ids[places[0] - first])), places[:1]))
                    places = places[1:]
                for own in self._by_text(places) if side == "text" else [places]:
                    made = groups(tokenizer, [int(ids[place - first]) for place in own], grain)
                    found += [(side, text, [own[i] for i in members]) for text, members in made]
            first += count
        return found

    def _by_text(self, places: list[int]) -> list[list[int]]:
        """Places of two texts beside each other apart: no word is of both."""
        types = self.inputs.token_types
        if types is None:
            return [places]
        kinds = types[0].tolist()
        return [list(own) for _, own in groupby(places, lambda place: kinds[place])]

    def players(self, grain: Grain | str) -> list[list[int]]:
        """The groups of places that can be taken away.

        Raises:
            ConfigError: an unknown grain.
            InputError: there are none.
        """
        free = [[place for place in places if self.free[place]] for _, _, places in self.units(grain)]
        free = [places for places in free if places]
        if not free:
            raise InputError("the text has nothing but special tokens, of which none can be taken away")
        return free

    def result(
        self,
        what: str,
        found: Float[Tensor, " N"] | list[float],
        grain: Grain | str,
        receipt: Receipt,
        *,
        value: float,
        baseline: float | None = None,
        errors: list[float] | None = None,
    ) -> Attribution:
        """Scores with their names.

        Args:
            what: the method.
            found: (N,) a score for each place, which are added up over each group; or a score for each of `players`.
            grain: of the result.
            receipt: of the analysis.
            value: the number that is explained.
            baseline: the number at the baseline.
            errors: the standard error for each of `players`.
        """
        units = self.units(grain)
        by_token = found.detach().cpu() if isinstance(found, Tensor) else None
        if isinstance(found, Tensor):
            scores = [float(found[places].double().sum()) for _, _, places in units]
        else:  # what cannot be taken away has no part in the number
            free = [any(bool(self.free[place]) for place in places) for _, _, places in units]
            each, each_error = iter(found), iter(errors or ())
            scores = [next(each) if is_free else 0.0 for is_free in free]
            errors = errors and [next(each_error) if is_free else 0.0 for is_free in free]
        ids = torch.cat(
            [
                torch.arange(count) if (own := self.ids(side)) is None else own.cpu()
                for side, count in zip(self.sides, self.counts, strict=True)
            ]
        )
        at = self.target.position
        return Attribution(
            what,
            UNITS[self.target.quantity],
            [text for _, text, _ in units],
            [int(ids[places[0]]) for _, _, places in units],
            list[float | None](scores),
            signed=True,
            receipt=receipt,
            target=self.target.what,
            value=value,
            position=at if at is None or at >= 0 else self.counts[-1] + at,
            baseline=baseline,
            parts=[side for side, _, _ in units],
            places=[places for _, _, places in units],
            errors=errors,
            by_token=by_token,
            claims=None if self.edits else lambda: self._claims(units, scores),
        )

    def _claims(self, units: list[tuple[str, str, list[int]]], scores: list[float]) -> Claims:
        """That without a part of the text the number falls by its score, for `check`."""
        parts = []
        for (side, label, places), score in zip(units, scores, strict=True):
            first = sum(self.counts[:-1]) if side == "text" else 0
            if self.ids(side) is not None and all(bool(self.free[place]) for place in places):
                at = [place - first for place in places]
                parts.append((label, "target" if side == "text" else side, at, score))
        return of_saliency(recording_of(self.model, self.inputs, ["embed"]), self.target, parts)


UNITS = {"logit": "logits", "logprob": "nats", "prob": "probability"}


def question_of(
    model: Recording | Model,
    text: Text,
    *,
    source: Source | Sequence[str] | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
) -> Question:
    """What is asked; the options are those of `target_of`, and of several texts the first is asked about.

    Raises:
        ConfigError, InputError: as in `inputs_of` and `target_of`.
    """
    run = model.model if isinstance(model, Recording) else model
    inputs = (model.inputs if isinstance(model, Recording) else inputs_of(run, text, source)).rows(0, 1)
    target = target_of(run, inputs, token=token, minus=minus, position=position, quantity=quantity)
    return Question(frozen(run), inputs, target, model.edits if isinstance(model, Recording) else {})


def answer(
    model: Model, inputs: Inputs, target: Target, edits: Edits, places: Int[Tensor, " B"] | None = None
) -> Float[Tensor, " B"]:
    """The number of each text, with no more of the output computed than it needs.

    Args:
        model: what computes it.
        inputs: B texts.
        target: the number.
        edits: of the run.
        places: (B,) where each text is asked; None: where the target says.
    """
    network = model.network
    if target.position is None:
        return target(forward(model, inputs, ActiveTap(edits=edits)), inputs)
    rows = torch.arange(len(inputs), device=inputs.ids.device)
    places = inputs.places(target.position) if places is None else places
    at_once = replace(target, position=None)
    late = {name for name in edits if name in ("final_norm", "logits") or name.startswith("head.")}
    if isinstance(network, Recurrent) or late:
        return at_once(forward(model, inputs, ActiveTap(edits=edits))[rows, places], inputs)
    names = ("mask", "source", "source_mask", "token_types")
    parts = {name: getattr(inputs, name) for name in names}
    given: dict[str, Any] = {name: value for name, value in parts.items() if value is not None}
    states = network.stream(inputs.ids, **given, tap=ActiveTap(edits=edits))
    return at_once(network.read_out(states[rows, places][:, None])[:, 0], inputs)


def _moved(difference: Tensor, edit: Edit | None) -> Edit:
    return lambda x: (edit(x) if edit is not None else x).detach() + difference


def looked_up(model: Model, ids: Int[Tensor, " N"]) -> Float[Tensor, "N C"]:
    """The vectors of ids as the network reads them, without positions."""
    return (model.network.embed_tokens(ids) * scale_of(model)).detach()


def scale_of(model: Model) -> float:
    """What the network multiplies its token vectors by."""
    return getattr(model.config, "embed_scale", 1.0)
