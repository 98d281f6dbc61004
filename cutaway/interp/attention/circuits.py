"""What a head's matrices do, whatever the text: which tokens look at which (QK), and what reading one says (OV).

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". Both take the path from the token embedding
straight to the head and from there straight to the output; what other layers add is left out. So they hold exactly in
the first layer, and below it as far as the stream still is the embedding.

Positions: learned and sinusoidal ones, and T5's biases, are left out. Rotary ones are turned by a distance that is an
argument. Norms: `norms="applied"` norms each token's embedding as the layer would; "folded" takes the norm's scale
alone, which keeps all linear; "left out" is the bare matrices. The last norm is folded, or left out: its divisor
depends on all the rest of the stream.

Shapes: N tokens, C channels, H query heads, D head dim, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Complex128, Float64, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.attention.parts import Heads, heads_of
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock, plain
from cutaway.interp.results import Matrix
from cutaway.models import Decoder, Encoder, Model, Seq2Seq

WHOLE = 512  # tokens of a vocabulary that is shown whole
NORMS = ("applied", "folded", "left out")
THROUGH = ("embeddings", "stream")
Side: TypeAlias = Literal["query", "key"]


@dataclass(frozen=True)
class HeadCircuit(Matrix):
    """A circuit of one head, by tokens.

    Attributes:
        score: Σλ / Σ|λ| over the eigenvalues, -1 … 1. Of an OV circuit near 1: what is read is what is said (copying).
            Of a QK circuit near 1: tokens look at themselves. NaN where there are none.
        eigenvalues: (D,) of the linear circuit through the whole vocabulary, largest first; all others are 0.
    """

    score: float = float("nan")
    eigenvalues: Complex128[Tensor, " D"] = field(
        default_factory=lambda: torch.zeros(0, dtype=torch.complex128), repr=False
    )

    def to_json(self) -> dict[str, Any]:
        values = torch.view_as_real(self.eigenvalues).tolist()
        return plain({name: value for name, value in vars(self).items() if name != "eigenvalues"}) | {
            "eigenvalues": values
        }


@torch.no_grad()
def qk_circuit(
    model: Model,
    text: Text = "",
    *,
    layer: int = 0,
    head: int = 0,
    part: str | None = None,
    distance: int = 0,
    norms: str = "applied",
) -> HeadCircuit:
    """How much each token wants to look at each other one: the score before the softmax, from embeddings alone.

    Args:
        model: a model with attention.
        text: whose tokens to show, each once; "": the whole vocabulary, where it has at most 512.
        layer: from 0.
        head: from 0.
        part: "decoder", "encoder" or "cross", as in `attention`.
        distance: of rotary positions: by how many tokens the key stands before the query.
        norms: "applied", "folded" or "left out"; see this module. Norms over queries and keys are only "applied".

    Returns:
        Rows are queries, columns keys. In the first layer of a decoder with rotary positions or none these are its
        scores, before a cap on them.

    Raises:
        ConfigError: a model without attention or that part, an unknown `norms`, or a distance without rotary positions.
        InputError: a layer or head that is not there, or a vocabulary too large to be shown whole.
    """
    heads = _checked(model, part, layer, head, norms)
    if distance and not _rotary(heads):
        raise ConfigError("a distance is for rotary positions, which this attention has not; leave it out")
    options = {"layer": layer, "head": head, "part": part, "distance": distance, "norms": norms}
    clock = Clock(model, "qk_circuit", text, **options)
    ids = _tokens(model, text)
    scale = heads.attention(layer).scale if not isinstance(heads.network, Encoder) else heads.shape[3] ** -0.5
    q, k = (_seen(heads, layer, head, ids, which, norms) for which in ("q", "k"))
    if _rotary(heads):
        q, k = _turned(heads, layer, q, distance), _turned(heads, layer, k, 0)
    names = [model.tokenizer.token(i) for i in ids.tolist()]
    folded = norms != "left out"
    reads = [heads.reading(layer, which, folded=folded)[head] for which in ("q", "k")]  # (D, C) twice
    if _rotary(heads):
        reads = [_turned(heads, layer, read.T, by).T for read, by in zip(reads, (distance, 0), strict=True)]
    # W_E W_Qᵀ W_K W_Eᵀ has the eigenvalues of W_K W_Eᵀ W_E W_Qᵀ, which is small
    sides: tuple[Side, Side] = ("query", "key")
    queries, keys = (_projected(heads, model, side, read) for side, read in zip(sides, reads, strict=True))
    eigenvalues, score = _eigenvalues(keys.T @ queries * scale)
    values = q @ k.T * scale
    what = f"QK circuit of layer {layer} head {head}"
    return HeadCircuit(
        what,
        "score",
        names,
        names,
        values,
        "query",
        "key",
        score=score,
        eigenvalues=eigenvalues,
        receipt=clock.receipt(),
    )


@torch.no_grad()
def ov_circuit(
    model: Model,
    text: Text = "",
    *,
    layer: int = 0,
    head: int = 0,
    part: str | None = None,
    norms: str = "applied",
) -> HeadCircuit:
    """What reading each token adds to each token's logit, if the head looks at it fully.

    Args:
        model: a model with attention that predicts tokens.
        text: whose tokens to show, each once; "": the whole vocabulary, where it has at most 512.
        layer: from 0.
        head: from 0.
        part: "decoder" or "cross" of an encoder–decoder; else None.
        norms: of what is read, as in `qk_circuit`. The last norm is folded into what is said, or left out with them.

    Returns:
        Rows are the tokens read, columns those whose logit moves; biases are left out.

    Raises:
        ConfigError: a model without attention, without that part or without a matrix that reads tokens from the
            stream; an unknown `norms`.
        InputError: a layer or head that is not there, or a vocabulary too large to be shown whole.
    """
    heads = _checked(model, part, layer, head, norms)
    clock = Clock(model, "ov_circuit", text, layer=layer, head=head, part=part, norms=norms)
    ids = _tokens(model, text)
    folded = norms != "left out"
    out = _unembedding(heads, folded)  # (V, C)
    writes = heads.writing(layer, folded=folded)[head]  # (C, D)
    values = _seen(heads, layer, head, ids, "v", norms) @ (out[ids] @ writes).T
    names = [model.tokenizer.token(i) for i in ids.tolist()]
    eigenvalues, score = _eigenvalues(
        _small(heads.reading(layer, "v", folded=folded)[head], writes, _said(heads, model, folded))
    )
    return HeadCircuit(
        f"OV circuit of layer {layer} head {head}",
        "logit",
        names,
        names,
        values,
        "read token",
        "said token",
        score=score,
        eigenvalues=eigenvalues,
        receipt=clock.receipt(),
    )


@torch.no_grad()
def copying_scores(
    model: Model, *, part: str | None = None, through: str = "embeddings", norms: str = "folded"
) -> Matrix:
    """For each head, how much of its OV circuit copies: Σλ / Σ|λ| over its eigenvalues, -1 … 1.

    A head of random matrices has about 0. What is positive moves tokens' own logits up where they are read.

    Args:
        model: a model with attention.
        part: "decoder", "encoder" or "cross", as in `attention`.
        through: "embeddings": of W_U W_O W_V W_E, does the head say what it reads? "stream": of W_O W_V, does it write
            what it reads?
        norms: "folded" (scales alone) or "left out".

    Raises:
        ConfigError: as in `ov_circuit`, or an unknown `through`; "applied" norms, which are not linear.
    """
    if through not in THROUGH:
        raise ConfigError(unknown("way", str(through), THROUGH))
    if norms not in NORMS[1:]:
        raise ConfigError(unknown("way to take norms in a linear circuit", str(norms), NORMS[1:]))
    heads = heads_of(model, part)
    clock = Clock(model, "copying_scores", part=part, through=through, norms=norms)
    L, H = heads.shape[:2]
    folded = norms == "folded"
    between = _said(heads, model, folded) if through == "embeddings" else None
    scores = torch.zeros(L, H, dtype=torch.float64)
    for layer in range(L):
        reads, writes = heads.reading(layer, "v", folded=folded), heads.writing(layer, folded=folded)
        for head in range(H):
            scores[layer, head] = _eigenvalues(_small(reads[head], writes[head], between))[1]
    rows, columns = [f"layer {i}" for i in range(L)], [f"head {i}" for i in range(H)]
    return Matrix(
        f"copying: Σλ / Σ|λ| of OV circuits through the {through}",
        "score",
        rows,
        columns,
        scores,
        "layer",
        "head",
        receipt=clock.receipt(),
    )


def _checked(model: Model, part: str | None, layer: int, head: int, norms: str) -> Heads:
    if norms not in NORMS:
        raise ConfigError(unknown("way to take norms", str(norms), NORMS))
    heads = heads_of(model, part)
    heads.check(layer, head)
    return heads


def _tokens(model: Model, text: Text) -> Int[Tensor, " N"]:
    """The ids to show."""
    if not isinstance(text, str) or text:
        ids = (model.tokenizer.target or model.tokenizer).encode(text) if isinstance(text, str) else text
        return torch.tensor(list(dict.fromkeys(model.ids(ids).flatten().tolist())))  # pyright: ignore[reportArgumentType]
    if model.config.vocab_size > WHOLE:
        raise InputError(
            f"a vocabulary of {model.config.vocab_size:,} tokens is too large to be shown whole (at most {WHOLE}); "
            "give a text whose tokens to show"
        )
    return torch.arange(min(model.config.vocab_size, model.tokenizer.vocab_size))


def _seen(
    heads: Heads, layer: int, head: int, ids: Int[Tensor, " N"], which: Literal["q", "k", "v"], norms: str
) -> Float64[Tensor, "N D"]:
    """Queries, keys or values of tokens alone, not turned by positions."""
    side: Side = "query" if which == "q" else "key"
    x = heads.alone(ids, side)
    if norms != "applied":
        return x @ heads.reading(layer, which, folded=norms == "folded")[head].T
    attention, (_, H, K, D) = heads.attention(layer), heads.shape
    weight = attention.q_proj.weight
    norm = heads.norm(layer, side)
    x = x if norm is None else norm(x.to(weight))
    made = getattr(attention, f"{which}_proj")(x.to(weight))  # (N, H · D) or (N, K · D)
    config = heads.network.config
    scaled = which != "v" and isinstance(heads.network, Decoder) and config.qk_norm  # pyright: ignore[reportAttributeAccessIssue]
    if scaled and config.qk_norm_joint:  # pyright: ignore[reportAttributeAccessIssue]
        made = getattr(attention, f"{which}_norm")(made)
    made = made.view(len(ids), -1, D)[:, head if which == "q" else head // (H // K)]
    if scaled and not config.qk_norm_joint:  # pyright: ignore[reportAttributeAccessIssue]
        made = getattr(attention, f"{which}_norm")(made)
    return made.double()


def _rotary(heads: Heads) -> bool:
    return not isinstance(heads.network, Seq2Seq) and heads.network.config.position == "rotary"


def _turned(heads: Heads, layer: int, q: Float64[Tensor, "N D"], distance: int) -> Float64[Tensor, "N D"]:
    """Queries turned as against keys that stand so many tokens before them."""
    network = heads.network
    assert not isinstance(network, Seq2Seq)
    local = network.rotary_local is not None and network.config.window(layer)
    rotary = network.rotary_local if local else network.rotary
    assert rotary is not None
    cos, sin = (x.double()[0, 0] for x in rotary(abs(distance), abs(distance) + 1))  # (D,), sines signed for swapping
    half = rotary.turned // 2
    swapped = torch.cat((q[:, half : 2 * half], q[:, :half], q[:, 2 * half :]), dim=1)
    return q * cos + swapped * sin * (1 if distance >= 0 else -1)


def _projected(heads: Heads, model: Model, side: Side, read: Float64[Tensor, "D C"]) -> Float64[Tensor, "V D"]:
    """The whole vocabulary as queries or keys of a linear circuit."""
    return heads.alone(torch.arange(model.config.vocab_size), side) @ read.T


def _unembedding(heads: Heads, folded: bool) -> Float64[Tensor, "V C"]:
    read = heads.unembedding()
    if folded:
        return read
    scale = getattr(heads.network.config, "output_scale", 1.0)
    return heads.network.lm_head.weight.detach().double() * scale  # pyright: ignore[reportAttributeAccessIssue]  # has one


def _said(heads: Heads, model: Model, folded: bool) -> Float64[Tensor, "C C"]:
    """W_Eᵀ W_U: from what is written to the stream to what would be read of it, through all tokens."""
    return heads.alone(torch.arange(model.config.vocab_size), "key").T @ _unembedding(heads, folded)


def _small(
    reads: Float64[Tensor, "D C"], writes: Float64[Tensor, "C D"], between: Float64[Tensor, "C C"] | None
) -> Float64[Tensor, "D D"]:
    """A matrix with the eigenvalues of the OV circuit: those of A B, where that is large, are those of B A."""
    return reads @ writes if between is None else reads @ between @ writes


def _eigenvalues(small: Float64[Tensor, "D D"]) -> tuple[Complex128[Tensor, " D"], float]:
    """Largest first, and Σλ / Σ|λ|."""
    values = torch.linalg.eigvals(small)
    values = values[values.abs().argsort(descending=True)]
    size = float(values.abs().sum())
    return values, float(values.real.sum()) / size if size else float("nan")
