"""Record what a network computes, or replace it.

Shapes: B batch, T tokens, C channels, H query heads, K key/value heads, D head dim, M channels inside the MLP,
V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import InputError, NonFinite, unknown
from cutaway.interp.results import Receipt
from cutaway.models import (
    ActiveTap,
    DecoderConfig,
    EncoderConfig,
    Model,
    NetworkConfig,
    RecurrentConfig,
    Seq2SeqConfig,
    match_names,
)
from cutaway.models.config_parts import POOLED
from cutaway.models.model import Source

if TYPE_CHECKING:
    from cutaway.interp.ledger.ledger import Ledger

Text: TypeAlias = str | Sequence[int] | Tensor
Edits: TypeAlias = Mapping[str, Callable[[Tensor], Tensor]]  # activation name -> from what is there to what to use
LIMIT = 4 * 2**30  # bytes that a recording may take unless told otherwise


class Recording(Mapping[str, Tensor]):
    """Activations by name, in the order of computation.

    Attributes:
        model: what was recorded.
        ids: (B, T) int64.
        logits: (B, T, V) float32 of this run; with another head what that makes.
        receipt: what the recording can be checked by.
        edits: what was replaced, by name.
        source: what an encoder–decoder has read, (B, S) int64 or (B, M, F) spectrograms; None of other networks.
    """

    def __init__(
        self,
        model: Model,
        ids: Int[Tensor, "B T"],
        logits: Float[Tensor, "B ..."],
        values: dict[str, Tensor],
        receipt: Receipt,
        edits: Edits,
        source: Tensor | None = None,
    ) -> None:
        self.model, self.ids, self.logits, self.receipt, self.edits = model, ids, logits, receipt, edits
        self.source, self._values = source, values

    @property
    def tokens(self) -> list[str]:
        """The tokens of the first text, to be read."""
        return [self.model.tokenizer.token(i) for i in self.ids[0].tolist()]

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
        """Open one logit of this run, with its edits, into the terms that sum to it; see `cutaway.interp.ledger`.

        Raises:
            InputError: anything but "logits" is asked for, or as in `cutaway.interp.ledger`.
        """
        from cutaway.interp.ledger.unfold import ledger  # it builds on recordings

        if what != "logits":
            raise InputError(unknown("ledger", what, ["logits"]))
        return ledger(self, position=position, token=token, minus=minus)


def recording_of(source: Recording | Model, text: Text, names: Iterable[str]) -> Recording:
    """A recording of `names`: this one if it holds them, else the same run (with its edits) recorded once more.

    Args:
        source: a recording, or a model to run.
        text: what the model reads; of a recording, what it has read or the first row of that.
        names: activation names or patterns.
    """
    model = source.model if isinstance(source, Recording) else source
    chosen = match_names(names, model.network.tap_names())
    if isinstance(source, Recording):
        if all(name in source for name in chosen):
            return source
        return _run(model, source.ids, chosen, source.edits, LIMIT, source.source)
    return _run(model, text, chosen, {}, LIMIT)


def predicted_bytes(
    config: NetworkConfig, names: Iterable[str], batch: int, tokens: int, itemsize: int = 4, *, source: int = 0
) -> int:
    """What recording these names will take, from the shapes alone.

    `source` counts the tokens or frames that an encoder–decoder reads.
    """
    total = 0
    for name in names:
        if isinstance(config, Seq2SeqConfig):
            total += _of_seq2seq(config, name, tokens, config.source_length(source))
        else:
            total += _length(config, name, tokens) * _width(config, name, tokens)
    return batch * total * itemsize


def _of_seq2seq(config: Seq2SeqConfig, name: str, tokens: int, source: int) -> int:
    """Numbers of one text at a place of an encoder–decoder."""
    encodes, place = name.startswith("encoder."), name.removeprefix("encoder.")
    place = place.split(".", 2)[-1] if place.startswith("layers.") else place
    queries = source if encodes else tokens
    keys = source if place.startswith("cross_attn.") else queries
    heads = config.encoder_heads if encodes else config.heads
    inner = heads * (config.encoder_head_dim if encodes else config.head_dim)
    part, _, last = place.rpartition(".")
    if part in ("attn", "cross_attn"):
        each = {
            "scores": heads * keys * queries,
            "pattern": heads * keys * queries,
            "k": inner * keys,
            "v": inner * keys,
        }
        return each.get(last, inner * queries)
    if part == "mlp":
        return queries * (config.encoder_mlp_width if encodes else config.mlp_width)
    return queries * (config.vocab_size if place == "logits" else config.width)


def _length(config: NetworkConfig, name: str, tokens: int) -> int:
    """Tokens at a place: all, or one where a head has one vector for a whole text."""
    whole = isinstance(config, DecoderConfig | EncoderConfig) and config.head in POOLED
    return 1 if whole and name.startswith(("head.", "logits", "embedding")) else tokens


def _width(config: DecoderConfig | EncoderConfig | RecurrentConfig, name: str, tokens: int) -> int:
    """Numbers per token at a place."""
    place = name.partition(".")[2].partition(".")[2] if name.startswith("layers.") else name
    if isinstance(config, RecurrentConfig):
        own = {"embed": config.width, "logits": config.vocab_size}
        return own.get(place, config.hidden)
    if place == "logits":
        words = dict.fromkeys(("masked_lm", "causal_lm"), config.vocab_size)
        return ({"span_extraction": 2, "replaced_token": 1} | words).get(config.head, len(config.labels))
    if isinstance(config, EncoderConfig):
        inner = config.embed_width if config.head == "masked_lm" else config.width
        own = {"embed": config.embed_width, "head.pre": inner, "head.post": inner}
        if place in own:
            return own[place]
    kv_heads = config.heads if isinstance(config, EncoderConfig) else config.kv_heads
    return {
        "attn.q": config.heads * config.head_dim,
        "attn.k": kv_heads * config.head_dim,
        "attn.v": kv_heads * config.head_dim,
        "attn.z": config.heads * config.head_dim,
        "attn.scores": config.heads * tokens,
        "attn.pattern": config.heads * tokens,
        "mlp.router": 0 if isinstance(config, EncoderConfig) else config.experts,
        "mlp.pre": config.mlp_width,
        "mlp.post": config.mlp_width,
    }.get(place, config.width)


def record(
    model: Model,
    text: Text,
    names: str | Iterable[str] = "*",
    *,
    limit: int = LIMIT,
    source: Source | None = None,
) -> Recording:
    """Run the model once and keep the activations that `names` select. Changes no logit by a single bit.

    Args:
        model: what to run.
        text: text, ids, or (B, T) ids.
        names: activation names or patterns such as "layers.*.attn.pattern"; "*" is all of them.
        limit: largest recording in bytes.
        source: what an encoder–decoder reads; the text is its target.

    Raises:
        ConfigError: a name that selects nothing; near matches are named.
        InputError: empty text, more tokens than the context, or a recording above the limit; says what to shrink.
    """
    return _run(model, text, names, {}, limit, source)


def replace(
    model: Model,
    text: Text,
    edits: Mapping[str, Callable[[Tensor], Tensor] | Tensor],
    names: str | Iterable[str] = (),
    *,
    limit: int = LIMIT,
    source: Source | None = None,
) -> Recording:
    """Run the model with activations replaced.

    Args:
        model: what to run.
        text: text, ids, or (B, T) ids.
        edits: name or pattern -> a function from the activation there to the one to use instead, or a tensor to use.
        names: what to record, after the edits; by default what was edited.
        limit: largest recording in bytes.
        source: what an encoder–decoder reads; the text is its target.

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
    return _run(model, text, names or list(chosen), chosen, limit, source)


def _constant(value: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: value.to(x).expand_as(x)


@torch.no_grad()
def _run(
    model: Model,
    text: Text,
    names: str | Iterable[str],
    edits: Edits,
    limit: int,
    source: Source | None = None,
) -> Recording:
    ids = model.ids(text)
    given = {} if source is None else {"source": model.source_ids(source)}
    chosen = match_names(names, model.network.tap_names())
    weight = next(model.network.parameters())
    read = given["source"].shape[-1] if given else 0
    predicted = predicted_bytes(model.config, chosen, ids.shape[0], ids.shape[1], weight.element_size(), source=read)
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
        logits = model.network(ids, **given, tap=ActiveTap(chosen, edits, values.__setitem__))
        milliseconds = 1000 * (time.perf_counter() - start)
        if not logits.isfinite().all():
            raise NonFinite(_first_broken(model, ids, given, edits))
        difference = float((logits - model.network(ids, **given)).abs().max()) if edits else 0.0
    finally:
        model.network.train(training)
    size = sum(value.numel() * value.element_size() for value in values.values())
    receipt = Receipt(difference, milliseconds, size, str(weight.dtype).removeprefix("torch."), model.source)
    kept = {name: values[name] for name in chosen}
    return Recording(model, ids, logits.float(), kept, receipt, edits, given.get("source"))


def _first_broken(model: Model, ids: Tensor, given: Mapping[str, Tensor], edits: Edits) -> str:
    """The sentence that names the first activation which is not finite."""
    broken: list[str] = []

    def look(name: str, value: Tensor) -> None:
        # masked scores are minus infinity, and meant to be
        fine = ~value.isnan() if name.endswith("scores") else value.isfinite()
        if not fine.all():
            broken.append(name)

    model.network(ids, **given, tap=ActiveTap(model.network.tap_names(), edits, look))
    cause = "the edits" if edits else "its weights: train again from the last good checkpoint"
    return f"{broken[0]} holds a NaN or an infinity, and so do the logits; look at {cause}"
