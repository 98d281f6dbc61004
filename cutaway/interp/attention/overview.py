"""Every head at a glance, and any one of them whole: patterns of a long text without holding all of them.

All patterns of 1,000 tokens of a model with 270 heads are 1 GB. Here each layer's are seen once: what is kept of a head
is a small picture, how much it looks where which kind of head would, and how pointedly. A head that is asked for is
formed again from its layer's stream (`recall`), which takes the time of one layer.

Shapes: L layers, H heads, T queries, S keys, R and C of a small picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.attention.detectors import head_scores, uniform_pattern
from cutaway.interp.attention.parts import Heads, heads_of
from cutaway.interp.attention.weighted import BY, fetched, shared
from cutaway.interp.claims import Claims
from cutaway.interp.inputs import Text
from cutaway.interp.recall import recall
from cutaway.interp.receipt import Clock, plain
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Attention, Result, sharpness
from cutaway.interp.suggest import of_attention
from cutaway.interp.target import target_of
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

SHOWN_BY = ("weight", *BY, "score")
SIDE = 40  # rows and columns of a small picture, at the most


@dataclass(frozen=True)
class AttentionOverview(Result):
    """Every head of a part of a network, small.

    Attributes:
        part: "decoder", "encoder" or "cross".
        name: of its patterns among the activations, with * for the layer.
        causal: whether each token sees only itself and what is before it.
        tokens: queries, to be read.
        keys: what is looked at, of attention to a source; None: the tokens themselves.
        small: (L, H, R, C) uint8, 255 · √weight, each cell the strongest of what it covers.
        scores: kind of head -> (L, H), the share of the pattern that lies where such a head looks in this text; NaN
            where the text has no such place.
        uniform: kind of head -> the share that attention to everything alike would have.
        sharp: (L, H) how pointedly each looks; see `sharpness`.
    """

    picture = "heads"
    part: str
    name: str
    causal: bool
    tokens: list[str]
    keys: list[str] | None
    small: UInt8[Tensor, "L H R C"]
    scores: Mapping[str, Float[Tensor, "L H"]]
    uniform: Mapping[str, float]
    sharp: Float[Tensor, "L H"]
    form: Callable[[int, str], Tensor] = field(repr=False, compare=False)

    @property
    def shown(self) -> tuple[int, int]:
        """The (layer, head) to begin with: the sharpest."""
        best, heads = int(self.sharp.argmax()), self.sharp.shape[1]
        return best // heads, best % heads

    def kinds(self) -> list[list[tuple[str, float]]]:
        """Per layer and head the kind that its pattern is most like in this text: (kind, share)."""
        names = list(self.scores)
        stacked = torch.stack(list(self.scores.values()), dim=-1).nan_to_num(-1.0)
        return [[(names[int(s.argmax())], max(0.0, float(s.max()))) for s in layer] for layer in stacked]

    @torch.no_grad()
    def head(self, layer: int, head: int, by: str = "weight") -> Float[Tensor, "T S"]:
        """One head whole; rows are queries. The model runs again from its layer on, as far as its attention.

        Args:
            layer: from 0.
            head: of it, from 0.
            by: "weight": the pattern. "output", "value": the pattern times the length of what is fetched, rows made to
                sum to 1 (see `value_weighted`). "score": before the softmax, NaN where the query does not see the key.

        Raises:
            InputError: no such layer or head.
            ConfigError: unknown `by`.
        """
        L, H = self.sharp.shape
        if not (0 <= layer < L and 0 <= head < H):
            raise InputError(f"layer {layer} head {head} is not there: the {self.part} has {L} layers × {H} heads")
        if by not in SHOWN_BY:
            raise ConfigError(unknown("way to show a head", str(by), SHOWN_BY))
        return self.form(layer, by)[head]

    def row(self, layer: int, head: int, query: int) -> dict[str, Float[Tensor, " S"]]:
        """One query's numbers for every key: its "weight", its "output" (by what is fetched), its "score"; see `head`.

        Raises:
            InputError: no such layer, head or query.
        """
        if not 0 <= query < len(self.tokens):
            raise InputError(f"query {query} is not there: the text has the tokens 0 … {len(self.tokens) - 1}")
        return {by: self.head(layer, head, by)[query] for by in ("weight", "output", "score")}

    @torch.no_grad()
    def strongest(self, layer: int, head: int | None = None, each: int = 4) -> dict[str, Tensor]:
        """Where every query looks most: what lines between two columns of tokens are drawn of.

        Args:
            layer: from 0.
            head: of it, from 0; None: every head.
            each: keys of each query, at the most.

        Returns:
            "key": (H, T, K) int32, the strongest first; "weight": (H, T, K), of them. H is 1 of one head.

        Raises:
            InputError: no such layer or head, or less than one key.
        """
        L, H = self.sharp.shape
        if not (0 <= layer < L and (head is None or 0 <= head < H)):
            raise InputError(f"layer {layer} head {head} is not there: the {self.part} has {L} layers × {H} heads")
        if each < 1:
            raise InputError(f"give at least 1 key for each query, not {each}")
        pattern = self.form(layer, "weight")
        found = (pattern if head is None else pattern[head : head + 1]).topk(min(each, pattern.shape[-1]), dim=-1)
        return {"key": found.indices.int(), "weight": found.values}

    def data(self) -> dict[str, Any]:
        return super().data() | {"shown": self.shown, "kinds": self.kinds()}

    def to_json(self) -> dict[str, Any]:
        return plain(self.data() | {"checkable": None}) | {"receipt": self.receipt.to_json()}

    def page_data(self) -> dict[str, Any]:
        """As that of `attention`: every head, of a long text where its last tokens look."""
        from cutaway.interp.pictures.page import last_kept

        (L, H), T, S = self.sharp.shape, len(self.tokens), len(self.keys or self.tokens)
        rows, columns = last_kept(L, H, T, S, causal=self.causal)
        kept = [self.form(layer, "weight")[:, T - rows :, S - columns :].cpu() for layer in range(L)]
        keys = self.tokens if rows < T and self.keys is None and not self.causal else self.keys
        made = Attention(
            self.tokens[T - rows :],
            torch.stack(kept).float(),
            keys=keys,
            causal=self.causal,
            chosen=self.shown,
            first=T - rows,
            receipt=self.receipt,
        )
        return made.page_data() | {"habits": self.kinds()}


@torch.no_grad()
def attention_overview(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | None = None,
    part: str | None = None,
    side: int = SIDE,
    progress: OnProgress | None = None,
) -> AttentionOverview:
    """Every head at a glance, with what kind of head it is like; any of them can then be asked for whole.

    Memory: the streams, a picture of each head, and the activations that `recall` lets stay; never all patterns.

    Args:
        model: a model with a text, or a recording.
        text: of several texts the first.
        source: what an encoder–decoder reads; the text is its target.
        part: "decoder", "encoder" or "cross", as in `attention`.
        side: rows and columns of a small picture, at the most.
        progress: told after each layer.

    Raises:
        ConfigError: a model without attention, or without that part; a side below 1.
        InputError: empty text, more tokens than the context, or patterns too large for memory.
    """
    run = model.model if isinstance(model, Recording) else model
    heads = heads_of(run, part)
    if side < 1:
        raise ConfigError(f"a picture has a side of at least 1, but {side} was given")
    given = model if isinstance(model, Recording) else text
    clock = Clock(run, "attention_overview", given, source=source, part=part, side=side)
    if isinstance(model, Recording):
        recording = recording_of(model, "", [heads.name("*", "pattern"), heads.name("*", "v")])
    else:
        recording = recall(run, text, source=source)
    queries, keys = _ids(heads, recording)
    small, scores, sharp = [], [], []
    uniform: Mapping[str, Tensor] = {}
    layers = range(heads.shape[0])
    for layer in layers:
        pattern = recording[heads.name(layer, "pattern")][0].float()  # (H, T, S)
        small.append(_small(pattern, side))
        scores.append(head_scores([pattern[None]], queries, keys, part=heads.part))
        sharp.append(sharpness(pattern, own=heads.part != "cross"))
        if layer == 0:
            uniform = head_scores([uniform_pattern(pattern[None])], queries, keys, part=heads.part)
        if progress is not None:
            progress(Progress("heads", layer + 1, len(layers), "layers"))
    named, looked = heads.queries(recording), heads.keys(recording)

    def claims() -> Claims:
        names = [heads.name(layer, "pattern") for layer in layers]
        target = target_of(run, recording.inputs, output=recording.logits)
        return of_attention(recording, target, names, looked or named, whole=heads.part == "encoder")

    return AttentionOverview(
        heads.part,
        heads.name("*", "pattern"),
        heads.causal,
        named,
        looked,
        torch.stack(small),
        {kind: torch.cat([one[kind] for one in scores]).float().cpu() for kind in scores[0]},
        {kind: float(share.flatten()[0]) for kind, share in uniform.items() if not share.isnan().any()},
        torch.stack(sharp).cpu(),
        lambda layer, by: _formed(heads, recording, layer, by),
        receipt=clock.receipt(difference=recording.receipt.difference, bytes=recording.receipt.bytes),
        claims=claims,
    )


def _small(pattern: Float[Tensor, "H T S"], side: int) -> UInt8[Tensor, "H R C"]:
    T, S = pattern.shape[1:]
    strongest = adaptive_max_pool2d(pattern, (min(side, T), min(side, S)))
    return (255 * strongest.sqrt()).round().to(torch.uint8).cpu()


def _ids(heads: Heads, recording: Recording) -> tuple[Tensor, Tensor | None]:
    """Tokens that look and that are looked at, (1, T) and (1, S); frames of sound are all different."""
    reads = recording.source
    if reads is not None and reads.ndim == 3:
        reads = -1 - torch.arange(len(recording.source_tokens), device=reads.device)[None]
    queries = reads if heads.name(0, "q").startswith("encoder.") else recording.ids
    assert queries is not None
    keys = reads if heads.part == "cross" else None
    return queries[:1], None if keys is None else keys[:1]


def _formed(heads: Heads, recording: Recording, layer: int, by: str) -> Float[Tensor, "H T S"]:
    """All heads of a layer."""
    if by == "score":
        scores = recording[heads.name(layer, "scores")][0].float()
        return scores.masked_fill(scores.isinf(), torch.nan)
    pattern = recording[heads.name(layer, "pattern")][0].float()
    if by == "weight":
        return pattern
    return shared(pattern * fetched(heads, recording, layer, by).float()[:, None])
