"""What the engine asks of whatever computes: one step over the new tokens of many sequences.

A sequence's keys and values lie in pages of a fixed number of tokens; the engine says which pages are a sequence's (its
table), shares full pages between sequences, and copies a page before two sequences write to it. A backend without pages
(recurrent networks, encoder–decoders) keeps a state for each sequence instead.

Shapes: W wanted rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from cutaway.generation.request import Score
from cutaway.models import OFF, Network, Tap


@dataclass
class Rows:
    """The new tokens of one sequence in one step: some of its prompt, one that was drawn, or some that were guessed.

    Attributes:
        sequence: a number of its own for as long as it lives.
        ids: of the new tokens, one or more.
        start: tokens that the backend already holds of it; a step may start earlier than the last one ended, which
            forgets what stood behind (guesses that were wrong).
        pages: its table, pages enough for `start + len(ids)` tokens; empty for a backend without pages.
        wanted: of how many of the last rows the logits are needed.
        guesses: of the last rows, how many may be forgotten by the next step.
        scored: tokens that stand behind the rows before the wanted ones, whose log-probabilities are asked for: of the
            row before the first wanted one the last, …
        top: how many of the likeliest to tell beside each of these.
        adapter: the number of the one that is computed beside the weights; 0: none.
        tap: reads or replaces activations of these rows.
    """

    sequence: int
    ids: list[int]
    start: int = 0
    pages: list[int] = field(default_factory=list)
    wanted: int = 1
    guesses: int = 0
    scored: list[int] = field(default_factory=list)
    top: int = 0
    tap: Tap = OFF
    adapter: int = 0


@dataclass(frozen=True)
class Logits:
    """What a step gives: of each wanted row, in the order of the sequences.

    Attributes:
        values: (W, V) float32 logits of the next token on the CPU, the caller's until the next step.
        best: (W,) int64 the likeliest token of each, the lowest id of several.
        log_sum: (W,) float32 log of the sum of exp(values): values - log_sum are log-probabilities. It is NaN or
            infinite where a logit is.
        scores: of each of the batch that asked for them, by its number in it. One that is NaN or infinite says that
            a logit is.
    """

    values: Tensor
    best: Tensor
    log_sum: Tensor
    scores: dict[int, list[Score]] = field(default_factory=dict)


class Backend(Protocol):
    """Computes steps.

    Attributes:
        name: what computes, such as "native avx512-vnni" or "torch".
        reason: why it was chosen, in a sentence.
        page: tokens in a page; 0: this one has no pages.
        page_bytes: of one page, over all layers.
        chunk: pieces of prompts end at multiples of it, so that each is always the same product; 0: a row's numbers do
            not depend on which rows are computed beside it.
        apart: whether each sequence is computed by itself, so that others make no guess dearer.
    """

    name: str
    reason: str
    page: int
    page_bytes: int
    chunk: int
    apart: bool

    def adapt(self, number: int, network: Network | None) -> bool:
        """Compute rows of this number with an adapter from now on, or no more.

        Args:
            number: of the adapter, from 1 on.
            network: the backend's own with the adapter beside its weights, all of which it shares; None: forget it.

        Returns:
            Whether it can be computed beside others.
        """
        ...

    def reserve(self, pages: int) -> None:
        """Make room for this many pages, numbered from 0; keeps what the pages hold. Called again to grow."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Copy one page."""
        ...

    def open(self, sequence: int, source: Any = None, tap: Tap = OFF) -> None:
        """Begin a sequence; an encoder–decoder reads its source here, shown to the tap."""
        ...

    def fork(self, sequence: int, new: int) -> None:
        """Begin a sequence with the state of another (pages are the engine's to share)."""
        ...

    def close(self, sequence: int) -> None:
        """Forget a sequence."""
        ...

    def work_bytes(self, rows: int, wanted: int) -> int:
        """Bytes that a step of so many rows may take, of which so many are wanted."""
        ...

    def packed_bytes(self) -> int:
        """Bytes of weights that are held beside the network's own."""
        ...

    def end(self) -> None:
        """Give memory and threads back at once; it is of no more use."""
        ...

    def step(self, batch: Sequence[Rows]) -> Logits:
        """Compute all rows. Of a row with a logit that is not finite `log_sum` is not finite; nothing is raised."""
        ...
