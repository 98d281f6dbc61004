"""Interchange interventions: does a part of an activation carry a variable of a causal model?

Shapes: N pairs, C channels, k directions of a subspace, V what the model chooses among.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Inputs, forward, inputs_of
from cutaway.interp.probes.controls import untrained_copy
from cutaway.interp.probes.fit import interval
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Edit, started
from cutaway.interp.results import Cell, Panel, Table
from cutaway.interp.target import at_position, choice_of
from cutaway.models import ActiveTap, Model, match_names
from cutaway.progress import OnProgress, Progress

DAS_WARNING = (
    "A searched subspace can be made to fit what the model does not compute: compare it with the arbitrary labels and "
    "the untrained model below, and believe it only as far as it beats both on held-out pairs."
)


@dataclass(frozen=True)
class Interchanged(Panel):
    """What `interchange` found.

    Attributes:
        subspace: (C, k) orthonormal columns, the directions that were exchanged.
        said: (N,) what the model said after each exchange.
    """

    subspace: Float[Tensor, "C k"] = field(kw_only=True, repr=False, compare=False)
    said: Int[Tensor, " N"] = field(kw_only=True, repr=False, compare=False)


def interchange(
    model: Model,
    texts: Sequence[Any],
    donors: Sequence[Any],
    expected: Sequence[str | int],
    name: str,
    *,
    source: Sequence[str] | Tensor | None = None,
    donor_source: Sequence[str] | Tensor | None = None,
    position: int = -1,
    at: int = -1,
    subspace: Float[Tensor, "C k"] | int | None = None,
    train: float = 0.0,
    steps: int = 200,
    random: int = 10,
    untrained: bool = True,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Interchanged:
    """Put part of another text's activation in, and see whether the answer becomes what a causal model says.

    The interchange intervention accuracy (Geiger et al. 2021, "Causal Abstractions of Neural Networks") is the share of
    pairs in which the model then gives the `expected` answer: that of a causal model whose variable was set to its
    value in the donor. It stands beside its controls: no exchange, the whole activation, random subspaces of the same
    size, expected answers in arbitrary order, and the same network untrained.

    Args:
        model: a decoder, encoder, encoder–decoder or recurrent model with tokens or labels to choose among.
        texts: what the model reads, one for each pair.
        donors: what the activation is taken from.
        expected: for each pair the token or label that the causal model gives.
        name: one activation.
        source: what an encoder–decoder reads with each text.
        donor_source: what it reads with each donor; None takes `source`.
        position: of the token whose activation is exchanged, in text and donor.
        at: after which token the answer stands.
        subspace: (C, k) directions to exchange; a number k searches that many directions on part of the pairs
            (distributed alignment search, Geiger et al. 2023); None exchanges everything.
        train: with a search, the share of pairs that it learns from (0.5 where 0 is given); the others score it.
        steps: of the search.
        random: how many random subspaces to compare with.
        untrained: whether to do the same in an untrained copy; a search searches there anew.
        seed: of the search and the controls.
        progress: told of the work.

    Raises:
        InputError: not as many donors and answers as texts, an answer that the model cannot give, a position outside a
            text, or fewer than two pairs.
        ConfigError: a name that selects not exactly one activation, directions that do not fit it, or a head without
            answers to choose among.
    """
    pairs = _Pairs.of(model, texts, donors, expected, name, source, donor_source, position, at)
    clock = Clock(
        model, "interchange", list(texts), donors=list(donors), expected=list(expected), name=name, source=source,
        donor_source=donor_source, position=position, at=at, subspace=subspace, seed=seed,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    searching = isinstance(subspace, int)
    learns = torch.zeros(len(pairs), dtype=torch.bool)
    if searching:
        if not 1 <= subspace <= pairs.channels:
            raise ConfigError(f"subspace must be 1 … {pairs.channels} directions, but {subspace} was given")
        share = train or 0.5
        learns[torch.randperm(len(pairs), generator=generator)[: max(1, round(share * len(pairs)))]] = True
        if learns.all():
            raise InputError("no pairs are left to score the search on; give more pairs, or a smaller train")
        basis = _search(pairs, subspace, learns, steps, generator, progress)
    elif subspace is None:
        basis = torch.eye(pairs.channels, dtype=pairs.dtype)
    else:
        if subspace.ndim != 2 or len(subspace) != pairs.channels or subspace.shape[1] > pairs.channels:
            given = " x ".join(map(str, subspace.shape))
            raise ConfigError(f"{name} has {pairs.channels} channels; directions are its columns, but {given} came")
        basis = torch.linalg.qr(subspace.to(pairs.dtype)).Q
    scored = ~learns
    k = basis.shape[1]
    said, difference = pairs.answers(basis)
    accuracy = pairs.share(said, scored)
    order = torch.randperm(len(pairs), generator=generator)
    rows: list[tuple[str, float, float | None]] = [("this subspace", accuracy, None)]
    rows.append(("nothing exchanged", pairs.share(pairs.answers(basis[:, :0])[0], scored), None))
    if k < pairs.channels:
        rows.append(
            ("the whole activation", pairs.share(pairs.answers(torch.eye(len(basis)).to(basis))[0], scored), None)
        )
        drawn = []
        for _ in range(random):
            chosen = torch.linalg.qr(torch.randn(len(basis), k, generator=generator, dtype=basis.dtype)).Q
            drawn.append(pairs.share(pairs.answers(chosen)[0], scored))
        if drawn:
            shares = torch.tensor(drawn, dtype=torch.float64)
            rows.append((f"{random} random subspaces", float(shares.mean()), float(shares.std(correction=0))))
    arbitrary = pairs.with_expected(pairs.expected[order])
    if searching:
        found = _search(arbitrary, k, learns, steps, generator, None)
        fitted, _ = arbitrary.answers(found)
        rows.append(("arbitrary answers, searched anew", arbitrary.share(fitted, scored), None))
        rows.append(("arbitrary answers, on the pairs it learned from", arbitrary.share(fitted, learns), None))
    else:
        rows.append(("arbitrary answers", arbitrary.share(said, scored), None))
    if untrained:
        fresh = pairs.with_model(untrained_copy(model, seed=seed).network.to(pairs.dtype), model)
        other = _search(fresh, k, learns, steps, generator, None) if searching else basis
        rows.append(("the untrained model", fresh.share(fresh.answers(other)[0], scored), None))
    low, high = interval(accuracy, int(scored.sum()))
    cells: list[list[Cell]] = [[what, share, spread] for what, share, spread in rows]
    receipt = clock.receipt(
        seed=seed, difference=difference, bytes=2 * pairs.moved.numel() * pairs.moved.element_size()
    )
    table = Table(
        "Share of pairs with the expected answer", ["exchanged", "share", "standard deviation"], cells, receipt=receipt
    )
    notes = [
        f"{int(scored.sum())} pairs; the 95 % interval of this subspace's share is {low:.2f} … {high:.2f}.",
        "1.0 says that the part of the activation acts as the causal model's variable does; the controls say what "
        "share would come about without that.",
        *([DAS_WARNING] if searching else []),
    ]
    figures = {"accuracy": accuracy, "low": low, "high": high, "directions": float(k)}
    title = f"Interchange at {name}, {k} of {pairs.channels} directions"
    return Interchanged(title, {"numbers": table}, notes, figures, subspace=basis, said=said, receipt=receipt)


@dataclass(frozen=True)
class _Pairs:
    """Pairs of texts with the activations to exchange."""

    model: Model
    inputs: Inputs
    donors: Inputs
    expected: Tensor  # (N,) ids or labels
    name: str
    position: int
    at: int | None
    moved: Tensor  # (N, C), the donors' activations
    channels: int

    @staticmethod
    def of(
        model: Model,
        texts: Sequence[Any],
        donors: Sequence[Any],
        expected: Sequence[str | int],
        name: str,
        source: Sequence[str] | Tensor | None,
        donor_source: Sequence[str] | Tensor | None,
        position: int,
        at: int,
    ) -> _Pairs:
        if isinstance(texts, str) or not len(texts) == len(donors) == len(expected) or len(texts) < 2:
            raise InputError("give at least two texts, with as many donors and as many expected answers")
        names = match_names(name, model.network.tap_names())
        if len(names) != 1:
            raise ConfigError(unknown("activation (an interchange takes exactly one)", name, names))
        if names[0].rpartition(".")[2] in ("scores", "pattern", "q", "k", "v", "z"):
            raise ConfigError(f"{name} belongs to heads; exchange a stream, an output, or what an MLP computes")
        head = getattr(model.config, "head", "causal_lm")
        if head in ("none", "embedding", "span_extraction", "replaced_token"):
            raise ConfigError(f"a model with a head for {head} gives no answers to compare; it needs tokens or labels")
        inputs = inputs_of(model, list(texts), source)
        given = source if donor_source is None else donor_source
        other = inputs_of(model, list(donors), given)
        chosen = torch.tensor([choice_of(model, answer, head)[0] for answer in expected])
        place = None if head == "sequence_classification" else at
        if place is not None:
            inputs.places(place)
        empty = torch.empty(0)
        pairs = _Pairs(model, inputs, other, chosen, names[0], position, place, empty, 0)
        return pairs.with_model(model.network, model)

    def __len__(self) -> int:
        return len(self.expected)

    @property
    def dtype(self) -> torch.dtype:
        return self.moved.dtype

    def with_expected(self, expected: Tensor) -> _Pairs:
        """The same pairs with other answers."""
        return _Pairs(**{**self.__dict__, "expected": expected})

    def with_model(self, network: Any, like: Model) -> _Pairs:
        """The same pairs in another network, whose activations are recorded."""
        model = Model(network, like.tokenizer, like.source, mel=like.mel)
        seen: dict[str, Tensor] = {}
        with torch.no_grad():
            forward(model, self.donors, ActiveTap([self.name], sink=seen.__setitem__))
        where = _side(self.donors, self.name)
        value = at_position(seen[self.name], where, self.position) if seen[self.name].ndim > 2 else seen[self.name]
        return _Pairs(**{**self.__dict__, "model": model, "moved": value, "channels": value.shape[-1]})

    def logits(self, basis: Tensor, rows: slice) -> Float[Tensor, "N V"]:
        """The output where the answer stands, after the exchange; gradients pass to the basis."""
        inputs, moved = self.inputs.rows(rows.start, rows.stop), self.moved[rows]
        basis = basis.to(moved.device)
        where = _side(inputs, self.name)

        def exchange(x: Tensor) -> Tensor:
            own = at_position(x, where, self.position) if x.ndim > 2 else x
            changed = own + ((moved - own) @ basis) @ basis.T
            if x.ndim == 2:
                return changed
            places = where.places(self.position).to(x.device)
            return x.index_put((torch.arange(len(x), device=x.device), places), changed)

        edits: dict[str, Edit] = {self.name: exchange}
        edits = started(self.model, edits) if basis.requires_grad else edits
        output = forward(self.model, inputs, ActiveTap((), edits))
        return output if self.at is None else at_position(output, inputs, self.at)

    @torch.no_grad()
    def answers(self, basis: Tensor, batch: int = 64) -> tuple[Int[Tensor, " N"], float]:
        """What the model says after each exchange, and the largest difference of its output from a plain run's."""
        said, difference = [], 0.0
        for start in range(0, len(self), batch):
            rows = slice(start, min(start + batch, len(self)))
            output, plain = self.logits(basis, rows), self.logits(basis[:, :0], rows)
            said.append(output.argmax(-1).cpu())
            difference = max(difference, float((output - plain).abs().max()))
        return torch.cat(said), difference

    def share(self, said: Tensor, rows: Tensor) -> float:
        """Of some pairs, how many gave the expected answer."""
        return float((said == self.expected)[rows].double().mean())


def _side(inputs: Inputs, name: str) -> Inputs:
    """What a position counts in: of an encoder's activations, the source."""
    if not name.startswith("encoder.") or inputs.source is None:
        return inputs
    ids = inputs.source if inputs.source.ndim == 2 else inputs.source[:, 0, ::2].long()
    return Inputs(ids, inputs.source_mask)


def _search(
    pairs: _Pairs, k: int, learns: Tensor, steps: int, generator: torch.Generator, progress: OnProgress | None
) -> Float[Tensor, "C k"]:
    """Distributed alignment search: the subspace whose exchange makes the expected answers likeliest."""
    rows = learns.nonzero().flatten()
    own = _Pairs(
        **{
            **pairs.__dict__,
            "inputs": pairs.inputs.picked(rows),
            "donors": pairs.donors.picked(rows),
            "expected": pairs.expected[rows],
            "moved": pairs.moved[rows],
        }
    )
    raw = torch.randn(pairs.channels, k, generator=generator, dtype=pairs.dtype).requires_grad_()
    search = torch.optim.Adam([raw], lr=0.05)
    with torch.enable_grad():
        for step in range(steps):
            start = (step * 64) % len(own)
            chosen = slice(start, min(start + 64, len(own)))
            logits = own.logits(torch.linalg.qr(raw).Q, chosen)
            loss = F.cross_entropy(logits.float(), own.expected[chosen].to(logits.device))
            (raw.grad,) = torch.autograd.grad(loss, raw)
            search.step()
            if progress is not None and step % 20 == 0:
                progress(Progress("searching", step, steps, "steps", {"loss": f"{float(loss):.3f}"}))
    return torch.linalg.qr(raw.detach()).Q
