"""What a forward pass reads: one text or several, padded where they differ in length.

Shapes: B texts, T tokens, S source tokens, M mel bins, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias, cast

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.models import OFF, Model, Recurrent, Seq2Seq, Tap
from cutaway.models.model import Source
from cutaway.tokenizers.frame import frame_pair

Side = Literal["right", "left"]


@dataclass(frozen=True)
class Inputs:
    """What a network is given.

    Attributes:
        ids: (B, T) int64; of an encoder–decoder the targets.
        mask: (B, T) bool, False where a token is padding; None: all are real.
        source: what an encoder–decoder reads, (B, S) int64 or (B, M, F) spectrograms; None of other networks.
        source_mask: (B, S) bool, likewise.
        token_types: (B, T) int64, of a network that knows kinds of tokens which each is, such as of which of two texts;
            None: all are of the first.
        said: the text, where it was one and not ids, for the code of receipts.
        said_source: likewise the source.
    """

    ids: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"] | None = None
    source: Shaped[Tensor, "B ..."] | None = None
    source_mask: Bool[Tensor, "B S"] | None = None
    token_types: Int[Tensor, "B T"] | None = None
    said: str | None = field(default=None, compare=False)
    said_source: str | None = field(default=None, compare=False)

    def __len__(self) -> int:
        """Texts."""
        return self.ids.shape[0]

    def repeat(self, times: int) -> Inputs:
        """Every row so many times, each behind itself: (B · times, T)."""
        return self._each(lambda x: x.repeat_interleave(times, dim=0))

    def rows(self, start: int, stop: int) -> Inputs:
        """Some of the texts."""
        return self._each(lambda x: x[start:stop])

    def picked(self, rows: Int[Tensor, " R"]) -> Inputs:
        """The texts of these numbers."""
        return self._each(lambda x: x[rows.to(x.device)])

    def _each(self, change: Any) -> Inputs:
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        changed = {name: change(part) for name, part in parts.items() if isinstance(part, Tensor)}
        return replace(self, **changed, said=None, said_source=None)

    def places(self, position: int) -> Int[Tensor, " B"]:
        """Where a position of each text stands: from 0 of its first real token on, below 0 from behind its last.

        Raises:
            InputError: outside one of the texts.
        """
        if self.mask is None:
            first, lengths = torch.zeros(len(self), dtype=torch.int64), torch.full((len(self),), self.ids.shape[1])
        else:
            first, lengths = self.mask.int().argmax(dim=1).cpu(), self.mask.sum(dim=1).cpu()
        shortest = int(lengths.min())
        if not -shortest <= position < shortest:
            raise InputError(
                f"position {position} is outside the text of {shortest} tokens (-{shortest} … {shortest - 1})"
            )
        return (first + (position if position >= 0 else lengths + position)).to(self.ids.device)


Text: TypeAlias = str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]] | Tensor | Inputs


def inputs_of(model: Model, text: Text, source: Source | Sequence[str] | None = None, *, pad: Side = "right") -> Inputs:
    """What the model is given for a text, ids, (B, T) ids, or several texts.

    Args:
        model: what reads.
        text: of an encoder–decoder the target; several texts are padded to the longest.
        source: what an encoder–decoder reads.
        pad: the side on which padding stands.

    Raises:
        ConfigError: a source for a network that reads none, none for one that does, or padding before the texts of a
            recurrent network, whose state would take it in.
        InputError: an empty text or list, an id outside the vocabulary, or as many sources as texts are needed.
    """
    if isinstance(text, Inputs):
        return text
    needs = isinstance(model.network, Seq2Seq)
    if needs != (source is not None):
        name = model.source or "this"
        raise ConfigError(
            f"{name} is an encoder–decoder: give source=, what it reads; the text is its target"
            if needs
            else f"a source is for an encoder–decoder, but {name} is another network; leave it out"
        )
    ids, mask = _padded(model, [model.ids(t)[0] for t in cast(Sequence[str], text)] if _several(text) else None, pad)
    if ids is None:
        ids = model.ids(cast("str | Sequence[int] | Tensor", text))
    said = text if isinstance(text, str) else None
    if source is None:
        return Inputs(ids, mask, said=said)
    read, read_mask = _padded(model, [model.source_ids(s)[0] for s in source] if _several(source) else None, "right")  # pyright: ignore[reportGeneralTypeIssues, reportOptionalIterable]
    if read is None:
        read = model.source_ids(cast(Source, source))
    if len(read) != len(ids):
        if len(read) != 1:
            raise InputError(f"{len(ids)} texts with {len(read)} sources were given; give one source for each text")
        read = read.expand(len(ids), *read.shape[1:])
    return Inputs(ids, mask, read, read_mask, said=said, said_source=source if isinstance(source, str) else None)


def pair_of(model: Model, first: str, second: str) -> Inputs:
    """Two texts as one input, as a network that reads pairs was trained to read them: framed, with token types.

    Args:
        model: an encoder.
        first: a text.
        second: the one beside it.

    Raises:
        InputError: more tokens than the model sees at once; the longer text is cut where it can be.
    """
    apart = getattr(model.config, "apart", False)
    both = [model.tokenizer.encode(text) for text in (first, second)]
    ids, types = frame_pair(model.tokenizer, *both, longest=model.config.context, apart=apart)
    made = torch.tensor([ids], device=model.device)
    known = apart or getattr(model.config, "token_types", 0)
    kinds = torch.tensor([types], device=model.device) if known else None
    return Inputs(made, token_types=kinds)


def _several(text: Any) -> bool:
    return isinstance(text, list | tuple) and bool(text) and isinstance(text[0], str | list | tuple)


def _padded(model: Model, rows: list[Tensor] | None, side: Side) -> tuple[Tensor | None, Tensor | None]:
    """Rows of ids as one tensor, and which of them are real; None where nothing is padded."""
    if rows is None:
        return None, None
    lengths = [len(row) for row in rows]
    longest = max(lengths)
    if min(lengths) == longest:
        return torch.stack(rows), None
    if side == "left" and isinstance(model.network, Recurrent):
        raise ConfigError("padding before a text would enter a recurrent model's state; leave pad at 'right'")
    ids = rows[0].new_full((len(rows), longest), model.tokenizer.pad or 0)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[i, place], mask[i, place] = row, True
    return ids, mask


@contextmanager
def evaluating(model: Model) -> Any:
    """Without dropout, and as before afterwards."""
    if not model.network.training:
        yield
        return
    model.network.eval()
    try:
        yield
    finally:
        model.network.train()


def forward(model: Model, inputs: Inputs, tap: Tap = OFF) -> Tensor:
    """The network's output for these inputs, in the dtype of its weights; gradients pass where they are enabled."""
    given: dict[str, Any] = {}
    if inputs.mask is not None:
        given["mask"] = inputs.mask
    if inputs.token_types is not None:
        given["token_types"] = inputs.token_types
    if inputs.source is not None:
        given["source"] = inputs.source
        if inputs.source_mask is not None:
            given["source_mask"] = inputs.source_mask
    with evaluating(model):
        return model.network(inputs.ids, **given, tap=tap)
