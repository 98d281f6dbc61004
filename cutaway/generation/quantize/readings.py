"""What each matrix reads, in terms of what a tap shows: a place, perhaps a norm on it, and which matrices read that.

Where a norm's scale, or the rows of another matrix, stand before the matrices and nothing else reads them, a channel of
what they read can be made smaller there and their columns larger, exactly: `Fold` says where.

Shapes: B batch, T tokens, C channels, H heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cutaway.models import Decoder, Encoder, Network, Recurrent, Seq2Seq
from cutaway.models import decoder as decoders
from cutaway.models import encoder as encoders
from cutaway.models import seq2seq_layers as seq2seqs
from cutaway.models.experts import Experts

Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Fold:
    """Where a channel can be divided by a number, so that what is read is.

    Attributes:
        norm: name of the norm whose scale is divided; "" where it is a matrix.
        matrix: name of the matrix whose rows are.
        shared: so many neighbouring channels of D each are one row (grouped heads), and have one factor.
        head_dim: D, where channels are shared.
    """

    norm: str = ""
    matrix: str = ""
    shared: int = 1
    head_dim: int = 0


@dataclass(frozen=True)
class Reading:
    """Some matrices that read the same.

    Attributes:
        matrices: their names.
        place: what a tap calls it.
        rows: from what the tap shows to what is read, (…, C).
        fold: where channels can be made smaller, if anywhere.
    """

    matrices: tuple[str, ...]
    place: str
    rows: Rows
    fold: Fold | None = None


def _heads(z: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H · D)"""
    return z.transpose(1, 2).flatten(2)


def _same(x: Tensor) -> Tensor:
    return x


def readings(network: Network) -> list[list[Reading]]:
    """Of each layer in the order of computation, and of what stands on top, what its matrices read.

    Matrices of experts, of the embedding and of heads other than a language model's are not among them.
    """
    match network:
        case Decoder():
            layers = [_decoder_layer(block, i) for i, block in enumerate(network.blocks)]
            return [*layers, _output(network, "final_norm" if network.config.head == "causal_lm" else "")]
        case Encoder():
            layers = [_encoder_layer(block, i) for i, block in enumerate(network.blocks)]
            config, place = network.config, ""
            if config.head == "masked_lm":
                last = "final_norm" if config.norm_place == "before" else f"layers.{config.layers - 1}.resid_post"
                place = last if config.head_activation == "none" else ("" if config.head_norm else "head.post")
            return [*layers, _output(network, place)]
        case Seq2Seq():
            final = "encoder.final_norm" if network.config.norm_place == "before" else ""
            final = final or f"encoder.layers.{network.config.encoder_layers - 1}.resid_post"
            stacks = (("encoder.", "encoder.", network.encoder), ("decoder.", "", network.decoder))
            layers = [
                _seq2seq_layer(block, f"{home}layers.{i}", f"{place}layers.{i}", final)
                for home, place, stack in stacks
                for i, block in enumerate(stack.blocks)
            ]
            last = "final_norm" if network.config.norm_place == "before" else ""
            return [*layers, _output(network, last or f"layers.{network.config.layers - 1}.resid_post")]
        case Recurrent():
            config = network.config
            last = f"layers.{config.layers - 1}.hidden" if config.head == "causal_lm" else ""
            layers = [_recurrent_layer(i, network.states, config.bidirectional) for i in range(config.layers)]
            return [*layers, _output(network, last)]


def _output(network: Network, place: str) -> list[Reading]:
    if not place or getattr(network.config, "tied", False):  # a tied matrix is looked up too
        return []
    return [Reading(("lm_head.weight",), place, _same)]


def _own(norm: nn.Module | None) -> Rows:
    return norm if isinstance(norm, nn.Module) else _same


def _scaled(norm: nn.Module | None, name: str) -> Fold | None:
    """Where the scale of a norm can be divided."""
    return Fold(norm=name) if getattr(norm, "weight", None) is not None else None


def _mlp(home: str, tap: str, mlp: nn.Module, place: str, norm: nn.Module | None, fold: Fold | None) -> list[Reading]:
    if isinstance(mlp, Experts):
        return []
    gated = getattr(mlp, "gated", False)
    first = [f"{home}.mlp.gate_proj.weight"] * gated + [f"{home}.mlp.up_proj.weight"]
    inner = Fold(matrix=f"{home}.mlp.up_proj.weight") if gated else None  # an activation stands between otherwise
    return [
        Reading(tuple(first), place, _own(norm), fold),
        Reading((f"{home}.mlp.down_proj.weight",), f"{tap}.mlp.post", _same, inner),
    ]


def _qkv(home: str, part: str = "self_attn") -> tuple[str, ...]:
    return tuple(f"{home}.{part}.{name}_proj.weight" for name in "qkv")


def _decoder_layer(block: decoders.Block, i: int) -> list[Reading]:
    home, config = f"layers.{i}", block.config
    into_attention, _, into_mlp, _ = block.norms
    grouped = Fold(matrix=f"{home}.self_attn.v_proj.weight", shared=config.heads // config.kv_heads)
    grouped = Fold(matrix=grouped.matrix, shared=grouped.shared, head_dim=config.head_dim)
    mlp_norm = "pre_feedforward_layernorm" if config.norm_place == "both" else "post_attention_layernorm"
    found = [
        Reading(
            _qkv(home),
            f"{home}.resid_pre",
            _own(into_attention),
            _scaled(into_attention, f"{home}.input_layernorm"),
        ),
        Reading((f"{home}.self_attn.o_proj.weight",), f"{home}.attn.z", _heads, grouped),
    ]
    if config.mlp:
        place = f"{home}.resid_pre" if config.parallel else f"{home}.resid_mid"
        found += _mlp(home, home, block.mlp, place, into_mlp, _scaled(into_mlp, f"{home}.{mlp_norm}"))
    return found


def _encoder_layer(block: encoders.Block, i: int) -> list[Reading]:
    home, before = f"layers.{i}", block.config.norm_place == "before"
    into_mlp = block.post_attention_layernorm if before else None
    return [
        Reading(
            _qkv(home),
            f"{home}.resid_pre",
            _own(block.input_layernorm),
            _scaled(block.input_layernorm, f"{home}.input_layernorm"),
        ),
        Reading(
            (f"{home}.self_attn.o_proj.weight",),
            f"{home}.attn.z",
            _heads,
            Fold(matrix=f"{home}.self_attn.v_proj.weight"),
        ),
        *_mlp(
            home,
            home,
            block.mlp,
            f"{home}.resid_mid",
            into_mlp,
            _scaled(into_mlp, f"{home}.post_attention_layernorm"),
        ),
    ]


def _seq2seq_layer(block: seq2seqs.Block, home: str, tap: str, source: str) -> list[Reading]:
    before = block.config.norm_place == "before"
    names = {"attn": "post_attention_layernorm", "cross_attn": "post_cross_layernorm", "mlp": ""}
    if before:  # the norms stand one part later under these names
        following = ["input_layernorm", "post_attention_layernorm", *["post_cross_layernorm"] * block.decodes]
        names = dict(zip(block.norms, following, strict=True))

    def norm(part: str) -> tuple[nn.Module | None, Fold | None]:
        own = block.norms[part] if before else None
        return own, _scaled(own, f"{home}.{names[part]}")

    own, fold = norm("attn")
    found = [
        Reading(_qkv(home), f"{tap}.resid_pre", _own(own), fold),
        Reading(
            (f"{home}.self_attn.o_proj.weight",),
            f"{tap}.attn.z",
            _heads,
            Fold(matrix=f"{home}.self_attn.v_proj.weight"),
        ),
    ]
    if block.decodes:
        own, fold = norm("cross_attn")
        q, k, v = _qkv(home, "cross_attn")
        found += [
            Reading((q,), f"{tap}.resid_mid", _own(own), fold),
            Reading((k, v), source, _same),
            Reading((f"{home}.cross_attn.o_proj.weight",), f"{tap}.cross_attn.z", _heads, Fold(matrix=v)),
        ]
    own, fold = norm("mlp")
    return found + _mlp(home, tap, block.mlp, f"{tap}.resid_cross" if block.decodes else f"{tap}.resid_mid", own, fold)


def _recurrent_layer(i: int, states: str, both: bool) -> list[Reading]:
    def before(hidden: Tensor) -> Tensor:
        """(B, T, N) the state before each token: zeros before the first."""
        return torch.cat((torch.zeros_like(hidden[:, :1]), hidden[:, :-1]), dim=1)

    def behind(hidden: Tensor) -> Tensor:
        """(B, T, N) the state that has read all behind each token."""
        return torch.cat((hidden[:, 1:], torch.zeros_like(hidden[:, :1])), dim=1)

    inputs = [f"layers.{i}.weight_ih", *[f"back.{i}.weight_ih"] * both]
    found = [
        Reading(tuple(inputs), "embed" if i == 0 else f"layers.{i - 1}.{states}", _same),
        Reading((f"layers.{i}.weight_hh",), f"layers.{i}.hidden", before),
    ]
    return found + [Reading((f"back.{i}.weight_hh",), f"layers.{i}.back.hidden", behind)] * both
