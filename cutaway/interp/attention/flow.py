"""How much of each token reaches a later layer if patterns are taken as pipes: rollout and flow.

Both (Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers") look at one graph. Its nodes are tokens, once
for each layer; a token's share of what it reads is the mean (or largest) pattern of a layer's heads, beside its own
residual. Rollout multiplies the layers; flow asks how much fits through all paths at once. Neither looks at values,
MLPs or norms: they are about what could be mixed, not about what was used.

Shapes: L layers, H heads, T tokens, S source tokens, N nodes of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.attention.parts import Heads, heads_of
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Matrix
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

HEADS: dict[str, Callable[[Tensor], Tensor]] = {  # (H, T, S) to (T, S) float64
    "mean": lambda p: mean_of(p),
    "max": lambda p: p.amax(0).double(),
    "min": lambda p: p.amin(0).double(),
}
MOST = 1_000_000  # pipes of a flow, each of which takes a hundred bytes and a moment of Python
BLOCK = 128  # rows of a product that are computed together


def mean_of(patterns: Float[Tensor, "H T S"]) -> Float64[Tensor, "T S"]:
    """The mean over heads; a reduction to float64 takes four times as long as to add head by head."""
    total = patterns[0].to(torch.float64, copy=True)
    for one in patterns[1:]:
        total.add_(one)
    return total.div_(len(patterns))


@dataclass(frozen=True)
class Rollout(Matrix):
    """Which tokens a token has read of, through all layers.

    Attributes:
        by_layer: (L, T, N) float64, the same after each layer; the last is `values`.
    """

    by_layer: Float64[Tensor, "L T N"] = field(default_factory=lambda: torch.zeros(0, 0, 0).double(), repr=False)

    def to_json(self) -> dict[str, object]:
        return {name: value for name, value in super().to_json().items() if name != "by_layer"}


def rollout(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | None = None,
    part: str | None = None,
    residual: float = 0.5,
    heads: str = "mean",
    progress: OnProgress | None = None,
) -> Rollout:
    """Which tokens each token has read of, if all layers are multiplied.

    Args:
        model: a model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.
        part: "decoder", "encoder" or "cross", as in `attention`. With "cross" the columns are the source's tokens, read
            through the whole encoder, and then the target's.
        residual: the share of a token that stays as it is in each attention.
        heads: what a layer's heads are taken together by: "mean", "max" or "min"; rows are then made to sum to 1.
        progress: told after each attention.

    Returns:
        Rows are the tokens after the last layer, columns those before the first; each row sums to 1, and the receipt's
        gap says how nearly.

    Raises:
        ConfigError: a model without attention or that part, an unknown way to take heads together, or a residual
            outside 0 … 1.
        InputError: empty text, or more tokens than the context.
    """
    run = model.model if isinstance(model, Recording) else model
    given = model if isinstance(model, Recording) else text
    clock = Clock(run, "rollout", given, source=source, part=part, residual=residual, heads=heads)
    which, recording = _recorded(model, run, text, source, part)
    rows, columns = _names(which, recording)
    count, steps = _steps(which, recording, residual, heads)
    first, size = len(columns) - len(rows), len(columns)
    by_layer = torch.empty(count, len(rows), size, dtype=torch.float64)
    mixed, causal = torch.eye(size, dtype=torch.float64), which.causal and not recording.edits
    for layer, step in enumerate(steps):
        mixed = product(step, mixed, causal=causal)
        by_layer[layer] = mixed[first:]
        if progress is not None:
            progress(Progress("layers", layer + 1, count, "layers"))
    values = by_layer[-1]
    receipt = clock.receipt(
        difference=recording.receipt.difference,
        bytes=recording.receipt.bytes,
        gap=float((values.sum(-1) - 1).abs().max()),
    )
    return Rollout(
        "attention rollout",
        "share",
        rows,
        columns,
        values,
        "token",
        "read token",
        signed=False,
        by_layer=by_layer,
        receipt=receipt,
    )


def attention_flow(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | None = None,
    part: str | None = None,
    position: int | None = -1,
    residual: float = 0.5,
    heads: str = "mean",
    progress: OnProgress | None = None,
) -> Matrix:
    """How much can flow from each token to a token of the last layer, if every pattern's weight is the width of a pipe.

    Each column is a maximum flow of its own, so that rows do not sum to 1: tokens of many paths have more.

    Args:
        model: a model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.
        part: as in `rollout`.
        position: to which token; -1 is the last; None: to each, which takes as many times as long as there are tokens.
        residual: as in `rollout`.
        heads: as in `rollout`.
        progress: told after each flow, and while it is found.

    Returns:
        Rows are the tokens asked for, columns those before the first layer; the unit is what one token passes on.

    Raises:
        ConfigError: as in `rollout`.
        InputError: as in `rollout`, a position outside the text, or a text of too many tokens.
    """
    run = model.model if isinstance(model, Recording) else model
    options = {"source": source, "part": part, "position": position, "residual": residual, "heads": heads}
    clock = Clock(run, "attention_flow", model if isinstance(model, Recording) else text, **options)
    which, recording = _recorded(model, run, text, source, part)
    rows, columns = _names(which, recording)
    count, steps = _steps(which, recording, residual, heads)
    first, size = len(columns) - len(rows), len(columns)
    if (wide := count * size * (size + 1) // (2 if which.causal else 1)) > MOST:
        raise InputError(
            f"{size:,} tokens through {count} attentions are {wide:,} pipes, and flow follows at most {MOST:,}; "
            "shorten the text, or ask for rollout"
        )
    if position is not None and not -len(rows) <= position < len(rows):
        raise InputError(
            f"position {position} is outside the text of {len(rows)} tokens (-{len(rows)} … {len(rows) - 1})"
        )
    asked = range(len(rows)) if position is None else [position % len(rows)]
    net = Pipes(step.tolist() for step in steps)
    values = torch.zeros(len(asked), size, dtype=torch.float64)
    done = 0

    def tell() -> None:
        if progress is not None:
            progress(Progress("flow", done, values.numel(), "flows"))

    for i, row in enumerate(asked):
        for column in range(size):
            values[i, column] = net.flow(first + row, column, tell)
            done += 1
            tell()
    receipt = clock.receipt(difference=recording.receipt.difference, bytes=recording.receipt.bytes)
    named = [rows[row] for row in asked]
    return Matrix(
        "attention flow", "flow", named, columns, values, "token", "read token", signed=False, receipt=receipt
    )


def maximum_flow(steps: Sequence[Sequence[Sequence[float]]], start: int, end: int) -> float:
    """The largest flow from a node of the last layer to one of the first.

    Args:
        steps: for each layer, the width of the pipe from each of its nodes (rows) to each node of the layer before.
        start: a node after the last step.
        end: a node before the first.
    """
    return Pipes(steps).flow(start, end)


class Pipes:
    """A net of pipes, layer by layer.

    Dinic's way (1970): find how far each node is from the end, fill all shortest paths, and again, where a filled pipe
    may be taken backwards, until none is left. Each path empties one pipe exactly, so it ends with floating point too.

    Args:
        steps: as in `maximum_flow`.
    """

    def __init__(self, steps: Iterable[Sequence[Sequence[float]]]) -> None:
        self.to: list[int] = []  # pipe 2k goes one way, 2k + 1 back
        self.width: list[float] = []
        self.pipes: list[list[int]] = []
        for layer, step in enumerate(steps):
            size = len(step)
            self.pipes += [[] for _ in range(size * (2 if layer == 0 else 1))]
            for row, shares in enumerate(step):
                for column, share in enumerate(shares):
                    if share > 0:
                        one, other = (layer + 1) * size + row, layer * size + column
                        self.pipes[one].append(len(self.to))
                        self.pipes[other].append(len(self.to) + 1)
                        self.to += [other, one]
                        self.width += [share, 0.0]
            self.last = (layer + 1) * size

    def flow(self, start: int, end: int, alive: Callable[[], None] = lambda: None) -> float:
        """The largest flow from a node of the last layer to one of the first; `alive` is called now and then."""
        start, width, total = start + self.last, self.width.copy(), 0.0
        while (far := _distances(self.pipes, self.to, width, start, end)) is not None:
            alive()
            tried = [0] * len(self.pipes)
            while (path := _path(self.pipes, self.to, width, far, tried, start, end)) is not None:
                least = min(width[pipe] for pipe in path)
                for pipe in path:
                    width[pipe] -= least
                    width[pipe ^ 1] += least
                total += least
        return total


def _distances(pipes: list[list[int]], to: list[int], width: list[float], start: int, end: int) -> list[int] | None:
    """Pipes from the start to each node, -1 where there is no way; None where there is none to the end."""
    far = [-1] * len(pipes)
    far[start] = 0
    queue = [start]
    for node in queue:
        for pipe in pipes[node]:
            if width[pipe] > 0 and far[to[pipe]] < 0:
                far[to[pipe]] = far[node] + 1
                queue.append(to[pipe])
    return far if far[end] >= 0 else None


def _path(
    pipes: list[list[int]], to: list[int], width: list[float], far: list[int], tried: list[int], start: int, end: int
) -> list[int] | None:
    """The pipes of a shortest way that is still open; `tried` counts for each node those that led nowhere."""
    path: list[int] = []
    node = start
    while node != end:
        if tried[node] == len(pipes[node]):
            if not path:
                return None
            node = to[path.pop() ^ 1]
            tried[node] += 1
            continue
        pipe = pipes[node][tried[node]]
        if width[pipe] > 0 and far[to[pipe]] == far[node] + 1:
            path.append(pipe)
            node = to[pipe]
        else:
            tried[node] += 1
    return path


def _recorded(
    model: Recording | Model, run: Model, text: Text, source: Source | None, part: str | None
) -> tuple[Heads, Recording]:
    which = heads_of(run, part)
    parts = [which] if which.part != "cross" else [heads_of(run, each) for each in ("encoder", "decoder", "cross")]
    names = [each.name("*", "pattern") for each in parts]
    return which, recording_of(model, text, names, source=source, first=True)


def _names(which: Heads, recording: Recording) -> tuple[list[str], list[str]]:
    rows = which.queries(recording)
    return rows, [*recording.source_tokens, *rows] if which.part == "cross" else rows


def _steps(which: Heads, recording: Recording, residual: float, heads: str) -> tuple[int, Iterator[Tensor]]:
    """How many attentions there are, and each as shares of what its nodes read, (N, N) float64, whose rows sum to 1.

    Between source and target the nodes are the tokens of both, and each attention leaves those of the other as they
    are. They are made one at a time, as those of a long text are large.
    """
    if heads not in HEADS:
        raise ConfigError(unknown("way to take heads together", str(heads), HEADS))
    if not 0 <= residual <= 1:
        raise ConfigError(f"residual is a share, 0 … 1, but {residual} was given")

    def shares(one: Heads, layer: int) -> Tensor:
        """(T, S)"""
        together = HEADS[heads](recording[one.name(layer, "pattern")][0])
        return together.div_(together.sum(-1, keepdim=True))

    def alone() -> Iterator[Tensor]:
        for layer in range(which.shape[0]):
            step = shares(which, layer).mul_(1 - residual)
            step.diagonal().add_(residual)
            yield step

    if which.part != "cross":
        return which.shape[0], alone()
    reads, writes, crosses = (heads_of(recording.model, part) for part in ("encoder", "decoder", "cross"))
    S = len(recording.source_tokens)
    T = len(recording.tokens)
    source, target = slice(0, S), slice(S, S + T)

    def mixed(rows: slice, columns: slice, share: Tensor) -> Tensor:
        step = torch.eye(S + T, dtype=torch.float64)
        step[rows] *= residual
        step[rows, columns] += (1 - residual) * share
        return step

    def both() -> Iterator[Tensor]:
        for layer in range(reads.shape[0]):
            yield mixed(source, source, shares(reads, layer))
        for layer in range(writes.shape[0]):
            yield mixed(target, target, shares(writes, layer))
            yield mixed(target, source, shares(crosses, layer))

    return reads.shape[0] + 2 * writes.shape[0], both()


def product(step: Float64[Tensor, "N N"], mixed: Float64[Tensor, "N N"], *, causal: bool) -> Float64[Tensor, "N N"]:
    """Their product; of matrices without a number above the diagonal in a third of the time."""
    if not causal:
        return step @ mixed
    made = torch.zeros_like(mixed)
    for start in range(0, len(step), BLOCK):
        end = min(start + BLOCK, len(step))
        made[start:end, :end] = step[start:end, :end] @ mixed[:end, :end]
    return made
