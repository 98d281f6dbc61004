"""Record what a network computes, or replace it.

Shapes: B batch, T tokens, C channels, H query heads, K key/value heads, D head dim, M channels inside the MLP,
V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from cutaway.errors import InputError, unknown
from cutaway.models import ActiveTap, DecoderConfig, Model, match_names
from cutaway.models.config import NetworkConfig

if TYPE_CHECKING:
    from cutaway.interp.ledger import Ledger

Text: TypeAlias = str | Sequence[int] | Tensor
LIMIT = 4 * 2**30  # bytes that a recording may take unless told otherwise


@dataclass(frozen=True)
class Receipt:
    """What a result can be checked by.

    Attributes:
        difference: largest difference of the logits from a plain run; 0.0 where nothing was replaced.
        milliseconds: of the recorded run.
        bytes: of what was recorded.
        dtype: of the computation.
        source: the model.
    """

    difference: float
    milliseconds: float
    bytes: int
    dtype: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Recording(Mapping[str, Tensor]):
    """Activations by name, in the order of computation.

    Attributes:
        model: what was recorded.
        ids: (B, T) int64.
        logits: (B, T, V) float32 of this run.
        receipt: what the recording can be checked by.
    """

    def __init__(self, model: Model, ids: Tensor, logits: Tensor, values: dict[str, Tensor], receipt: Receipt) -> None:
        self.model, self.ids, self.logits, self.receipt = model, ids, logits, receipt
        self._values = values

    @property
    def tokens(self) -> list[str]:
        """The tokens of the first text, to be read."""
        return [self.model.tokenizer.token(int(i)) for i in self.ids[0]]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._values:
            raise KeyError(unknown("recorded activation", name, self._values))
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Recording({len(self)} activations of {self.ids.shape[1]} tokens, {self.receipt.bytes:,} bytes)"

    def ledger(
        self,
        what: str = "logits",
        *,
        position: int = -1,
        token: str | int | None = None,
        minus: str | int | None = None,
    ) -> Ledger:
        """Open one logit into the terms that sum to it; see `cutaway.interp.ledger`."""
        from cutaway.interp.ledger import ledger  # it builds on recordings

        if what != "logits":
            raise InputError(unknown("ledger", what, ["logits"]))
        return ledger(self.model, self.ids, position=position, token=token, minus=minus)


def predicted_bytes(config: NetworkConfig, names: Iterable[str], batch: int, tokens: int, itemsize: int = 4) -> int:
    """What recording these names will take, from the shapes alone."""
    return sum(batch * tokens * _width(config, name, tokens) for name in names) * itemsize


def _width(config: NetworkConfig, name: str, tokens: int) -> int:
    """Numbers per token at a place."""
    place = name.partition(".")[2].partition(".")[2] if name.startswith("layers.") else name
    if place == "logits":
        return config.vocab_size
    if not isinstance(config, DecoderConfig):
        return config.width if place == "embed" else config.hidden
    return {
        "attn.q": config.heads * config.head_dim,
        "attn.k": config.kv_heads * config.head_dim,
        "attn.v": config.kv_heads * config.head_dim,
        "attn.z": config.heads * config.head_dim,
        "attn.scores": config.heads * tokens,
        "attn.pattern": config.heads * tokens,
        "mlp.pre": config.mlp_width,
        "mlp.post": config.mlp_width,
    }.get(place, config.width)


def record(model: Model, text: Text, names: str | Iterable[str] = "*", *, limit: int = LIMIT) -> Recording:
    """Run the model once and keep the activations that `names` select. Changes no logit by a single bit.

    Args:
        model: what to run.
        text: text, ids, or (B, T) ids.
        names: activation names or patterns such as "layers.*.attn.pattern"; "*" is all of them.
        limit: largest recording in bytes.

    Raises:
        ConfigError: a name that selects nothing; near matches are named.
        InputError: empty text, more tokens than the context, or a recording above the limit; says what to shrink.
    """
    return _run(model, text, names, {}, limit)


def replace(
    model: Model,
    text: Text,
    edits: Mapping[str, Callable[[Tensor], Tensor] | Tensor],
    names: str | Iterable[str] = (),
    *,
    limit: int = LIMIT,
) -> Recording:
    """Run the model with activations replaced.

    Args:
        model: what to run.
        text: text, ids, or (B, T) ids.
        edits: name or pattern -> a function from the activation there to the one to use instead, or a tensor to use.
        names: what to record, after the edits; by default what was edited.
        limit: largest recording in bytes.

    Returns:
        The edited run; `receipt.difference` is how far its logits are from the plain run's.

    Raises:
        ConfigError: a name that selects nothing, or an edit that changes a shape.
        InputError: as in `record`.
    """
    known = model.network.tap_names()
    chosen: dict[str, Callable[[Tensor], Tensor]] = {}
    for pattern, edit in edits.items():
        for name in match_names(pattern, known):
            chosen[name] = _constant(edit) if isinstance(edit, Tensor) else edit
    return _run(model, text, names or list(chosen), chosen, limit)


def _constant(value: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: value.to(x).expand_as(x)


@torch.no_grad()
def _run(
    model: Model,
    text: Text,
    names: str | Iterable[str],
    edits: dict[str, Callable[[Tensor], Tensor]],
    limit: int,
) -> Recording:
    ids = model.ids(text)
    chosen = match_names(names, model.network.tap_names())
    weight = next(model.network.parameters())
    predicted = predicted_bytes(model.config, chosen, ids.shape[0], ids.shape[1], weight.element_size())
    if predicted > limit:
        raise InputError(
            f"recording {len(chosen)} activations of {ids.shape[1]} tokens takes {predicted / 2**20:,.0f} MB, above "
            f"the limit of {limit / 2**20:,.0f} MB; shorten the text, name fewer activations, or raise the limit"
        )
    values: dict[str, Tensor] = {}
    training = model.network.training
    model.network.eval()
    try:
        start = time.perf_counter()
        logits = model.network(ids, tap=ActiveTap(chosen, edits, values.__setitem__))
        milliseconds = 1000 * (time.perf_counter() - start)
        difference = float((logits - model.network(ids)).abs().max()) if edits else 0.0
    finally:
        model.network.train(training)
    size = sum(value.numel() * value.element_size() for value in values.values())
    receipt = Receipt(difference, milliseconds, size, str(weight.dtype).removeprefix("torch."), model.source)
    return Recording(model, ids, logits.float(), {name: values[name] for name in chosen}, receipt)
