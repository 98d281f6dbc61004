"""Record what a network computes, with gradients if they are wanted, or replace it.

Shapes: B batch, T tokens, S source tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import InputError, NonFinite, unknown
from cutaway.interp.inputs import Inputs, Side, Text, forward, inputs_of
from cutaway.interp.memory import predicted_bytes
from cutaway.interp.receipt import Clock, Receipt
from cutaway.interp.spill import Spill
from cutaway.interp.target import Target, target_of
from cutaway.models import ActiveTap, Model, match_names
from cutaway.models.model import Source
from cutaway.training.memory import keep_freed_memory

if TYPE_CHECKING:
    from cutaway.interp.ledger.ledger import Ledger

Edit: TypeAlias = Callable[[Tensor], Tensor]  # from what is there to what to use
Edits: TypeAlias = Mapping[str, Edit]  # by activation name
LIMIT = 4 * 2**30  # bytes that a recording may take in memory unless told otherwise


class Recording(Mapping[str, Tensor]):
    """Activations by name, in the order of computation.

    Attributes:
        model: what was recorded.
        inputs: what it read: ids, and where there are any mask and source.
        logits: (B, T, V) float32 of this run; with another head what that makes.
        receipt: what the recording can be checked by.
        edits: what was replaced, by name.
        gradients: of the target with respect to each activation, of the same shape; None where they were not wanted.
        target: what the gradients are of.
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs,
        logits: Float[Tensor, "B ..."],
        values: Mapping[str, Tensor],
        receipt: Receipt,
        edits: Edits,
        gradients: Mapping[str, Tensor] | None = None,
        target: Target | None = None,
    ) -> None:
        self.model, self.inputs, self.logits, self.receipt, self.edits = model, inputs, logits, receipt, edits
        self.gradients, self.target, self._values = gradients, target, values

    @property
    def ids(self) -> Int[Tensor, "B T"]:
        """What was read; of an encoder–decoder the target."""
        return self.inputs.ids

    @property
    def source(self) -> Tensor | None:
        """What an encoder–decoder has read, (B, S) int64 or (B, M, F) spectrograms; None of other networks."""
        return self.inputs.source

    @property
    def tokens(self) -> list[str]:
        """The tokens of the first text, to be read."""
        tokenizer = self.model.tokenizer.target or self.model.tokenizer
        return [tokenizer.token(i) for i in self.ids[0].tolist()]

    @property
    def source_tokens(self) -> list[str]:
        """What an encoder–decoder has read, of the first text, to be read: tokens, or the numbers of frames."""
        if self.source is None:
            return []
        if self.source.ndim == 3:
            return [f"frame {i}" for i in range((self.source.shape[-1] + 1) // 2)]
        return [self.model.tokenizer.token(i) for i in self.source[0].tolist()]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._values:
            raise KeyError(unknown("recorded activation", name, self._values))
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values  # without computing it

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Recording({len(self)} activations of {self.ids.shape[1]} tokens, {self.receipt.bytes:,} bytes)"

    def ledger(self, what: str = "logits", **options: Any) -> Ledger:
        """Open one number of this run, with its edits, into the terms that sum to it.

        Args:
            what: the name of an activation; "logits" is the model's output, whatever its head makes.
            options: as in `cutaway.interp.ledger`: position, token, minus, head, index …

        Raises:
            InputError: as in `cutaway.interp.ledger`.
        """
        from cutaway.interp.ledger.numbers import ledger  # it builds on recordings

        return ledger(self, what=what, **options)


def recording_of(
    model: Recording | Model,
    text: Text,
    names: Iterable[str],
    *,
    source: Source | Sequence[str] | None = None,
    first: bool = False,
) -> Recording:
    """A recording of `names`: this one if it holds them, else the same run (with its edits) recorded once more.

    Args:
        model: a recording, or a model to run.
        text: what the model reads; of a recording it is not asked for.
        names: activation names or patterns.
        source: what an encoder–decoder reads.
        first: of several texts, whether only the first one is wanted where a model has to run.
    """
    run = model.model if isinstance(model, Recording) else model
    chosen = match_names(names, run.network.tap_names())
    if isinstance(model, Recording):
        return model if all(name in model for name in chosen) else _run(run, model.inputs, chosen, model.edits)
    inputs = inputs_of(run, text, source)
    return _run(run, inputs.rows(0, 1) if first else inputs, chosen, {})


def record(
    model: Model,
    text: Text,
    names: str | Iterable[str] = "*",
    *,
    source: Source | Sequence[str] | None = None,
    gradients: bool | Target = False,
    pad: Side = "right",
    limit: int = LIMIT,
    spill: str | Path | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Recording:
    """Run the model once and keep the activations that `names` select. Changes no logit by a single bit.

    Args:
        model: what to run.
        text: text, ids, (B, T) ids, or several texts, which are padded to the longest.
        names: activation names or patterns such as "layers.*.attn.pattern"; "*" is all of them.
        source: what an encoder–decoder reads; the text is its target.
        gradients: of what gradients are wanted; True: of the likeliest answer's logit at the last position. Kernels
            then form what is recorded on their own path, which may move logits by rounding; the receipt says how far.
        pad: on which side shorter texts are padded.
        limit: bytes in memory. A larger recording becomes memory-mapped files.
        spill: a new folder for these files, to be kept; None: a temporary one, which goes with the recording.
        on_note: told how much memory the recording takes, before the run.

    Raises:
        ConfigError: a name that selects nothing; near matches are named.
        InputError: empty text, more tokens than the context, no room on the disk for what is above the limit, or
            gradients above the limit, which must be in memory; says what to shrink.
        NonFinite: the model computes a NaN or an infinity; names the activation in which it first appears.
    """
    inputs = inputs_of(model, text, source, pad=pad)
    return _run(model, inputs, names, {}, gradients, limit, spill, on_note, Clock(model, "record", text, names=names))


def replace(
    model: Model,
    text: Text,
    edits: Mapping[str, Edit | Tensor],
    names: str | Iterable[str] = (),
    *,
    source: Source | Sequence[str] | None = None,
    gradients: bool | Target = False,
    pad: Side = "right",
    limit: int = LIMIT,
    spill: str | Path | None = None,
) -> Recording:
    """Run the model with activations replaced.

    Args:
        model: what to run.
        text: as in `record`.
        edits: name or pattern -> a function from the activation there to the one to use instead, or a tensor to use.
        names: what to record, after the edits; by default what was edited.
        source: what an encoder–decoder reads; the text is its target.
        gradients: as in `record`, of the edited run.
        pad: on which side shorter texts are padded.
        limit: bytes in memory, as in `record`.
        spill: as in `record`.

    Returns:
        The edited run; `receipt.difference` is how far its logits are from the plain run's.

    Raises:
        ConfigError: a name that selects nothing, or an edit that changes a shape.
        InputError: as in `record`.
    """
    chosen = edits_of(model, edits)
    inputs = inputs_of(model, text, source, pad=pad)
    return _run(model, inputs, names or list(chosen), chosen, gradients, limit, spill)


def edits_of(model: Model, edits: Mapping[str, Edit | Tensor]) -> dict[str, Edit]:
    """Edits by activation name, patterns resolved and tensors made functions.

    Raises:
        ConfigError: a name that selects nothing.
    """
    known = model.network.tap_names()
    chosen: dict[str, Edit] = {}
    for pattern, edit in edits.items():
        for name in match_names(pattern, known):
            chosen[name] = _constant(edit) if isinstance(edit, Tensor) else edit
    return chosen


def _constant(value: Tensor) -> Edit:
    return lambda x: value.to(x).expand_as(x)


def _run(
    model: Model,
    inputs: Inputs,
    names: str | Iterable[str],
    edits: Edits,
    gradients: bool | Target = False,
    limit: int = LIMIT,
    spill: str | Path | None = None,
    on_note: Callable[[str], None] | None = None,
    clock: Clock | None = None,
) -> Recording:
    clock = clock or Clock(model, "replace", inputs)
    keep_freed_memory()  # a recording is many megabytes, and the next one needs as many
    chosen = match_names(names, model.network.tap_names())
    weight = next(model.network.parameters())
    read = 0 if inputs.source is None else inputs.source.shape[-1]
    rows, tokens = inputs.ids.shape
    predicted = predicted_bytes(model.config, chosen, rows, tokens, weight.element_size(), source=read)
    said = f"{len(chosen)} activations of {rows} × {tokens} tokens take {predicted / 2**20:,.1f} MB"
    if gradients is not False and 2 * predicted > limit:
        raise InputError(
            f"{said}, and their gradients as much, above the limit of {limit / 2**20:,.0f} MB; gradients must be in "
            "memory: shorten the text, name fewer activations, or raise the limit"
        )
    above = predicted > limit
    if on_note is not None:
        on_note(said + (", above the limit: they go to memory-mapped files" if above else ""))
    files = Spill(None if spill is None else Path(spill), predicted) if above or spill is not None else None
    kept: dict[str, Tensor] = {}
    sink = kept.__setitem__ if files is None else files.add
    slopes = target = None
    if gradients is not False:
        logits, seen, slopes, target = _with_gradients(model, inputs, chosen, edits, gradients)
        for name in chosen:
            sink(name, seen[name])
    else:
        with torch.no_grad():
            logits = forward(model, inputs, ActiveTap(chosen, edits, sink))
    if not logits.sum().isfinite() and not logits.isfinite().all():  # the sum is one pass, and shows nearly all of them
        raise NonFinite(_first_broken(model, inputs, edits))
    difference = 0.0
    if edits or gradients is not False:
        with torch.no_grad():
            difference = float((logits - forward(model, inputs)).abs().max())
    values: Mapping[str, Tensor] = kept if files is None else files
    if files is not None:
        files.close(inputs.ids, model.source)
    size = sum(value.numel() * value.element_size() for value in values.values())
    receipt = clock.receipt(difference=difference, bytes=size)
    values = values if files is not None else {name: values[name] for name in chosen}
    return Recording(model, inputs, logits.float(), values, receipt, edits, slopes, target)


def _with_gradients(
    model: Model, inputs: Inputs, chosen: list[str], edits: Edits, wanted: bool | Target
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor], Target]:
    """Output, activations and their gradients."""
    target = target_of(model, inputs) if isinstance(wanted, bool) else wanted
    kept: dict[str, Tensor] = {}
    # gradients need a beginning; weights may be kept quantised, and have none
    with torch.enable_grad():
        tap = ActiveTap(chosen, started(model, edits), kept.__setitem__, formed=True)
        output = forward(model, inputs, tap)
        values = list(kept.values())
        slopes = torch.autograd.grad(target(output, inputs).sum(), values, allow_unused=True)
    filled = (torch.zeros_like(v) if slope is None else slope for v, slope in zip(values, slopes, strict=True))
    gradients = dict(zip(kept, filled, strict=True))
    detached = {name: value.detach() for name, value in kept.items()}
    return output.detach(), detached, {name: gradients[name] for name in chosen}, target


def started(model: Model, edits: Edits) -> dict[str, Edit]:
    """Edits, with which gradients begin at the embeddings."""

    def begin(edit: Edit | None) -> Edit:
        def start(x: Tensor) -> Tensor:
            x = x if edit is None else edit(x)
            return x if x.requires_grad else x.detach().requires_grad_()

        return start

    names = [name for name in model.network.tap_names() if name.split(".")[-1] == "embed"]
    return {**edits, **{name: begin(edits.get(name)) for name in names}}


def first_broken(model: Model, inputs: Inputs, edits: Edits) -> str | None:
    """The first activation that is not finite; None if all are."""
    broken: list[str] = []

    def look(name: str, value: Tensor) -> None:
        # masked scores are minus infinity, and meant to be
        fine = ~value.isnan() if name.endswith("scores") else value.isfinite()
        if not fine.all():
            broken.append(name)

    with torch.no_grad():
        forward(model, inputs, ActiveTap(model.network.tap_names(), edits, look))
    return broken[0] if broken else None


def _first_broken(model: Model, inputs: Inputs, edits: Edits) -> str:
    cause = "the edits" if edits else "its weights: train again from the last good checkpoint"
    return f"{first_broken(model, inputs, edits)} holds a NaN or an infinity, and so do the logits; look at {cause}"
