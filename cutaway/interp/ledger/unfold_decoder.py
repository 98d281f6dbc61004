"""A decoder's logit as the sum of what each part wrote into the residual stream.

The last residual stream is a sum: the embedding, what each head wrote, what each MLP wrote, and biases. The final norm
is taken at its actual scale, so that a logit reads each of them with one vector.

Shapes: T tokens, C channels, H query heads, K key/value heads, D head dim, M channels inside the MLP.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from cutaway.interp.ledger.ledger import Ledger, Openers, Term
from cutaway.interp.record import Recording
from cutaway.models import Decoder
from cutaway.models.experts import Experts
from cutaway.models.layers import RMSNorm

# what has to be recorded
NAMES = (
    "embed",
    "layers.*.resid_*",
    "layers.*.attn.pattern",
    "layers.*.attn.v",
    "layers.*.attn.z",
    "layers.*.attn_out",
    "layers.*.mlp.[pr]o*",
    "layers.*.mlp_out",
    "final_norm",
)


def unfold(
    network: Decoder, recording: Recording, position: int, direction: Float64[Tensor, " C"], total: float
) -> tuple[list[Term], Openers]:
    """The terms of a logit, or of a difference of two.

    Args:
        network: the decoder.
        recording: of NAMES and the logits.
        position: after which token.
        direction: (C,) float64, what the output matrix reads the final norm with.
        total: the logit.
    """
    config = network.config
    at = {name: value[0, position].double() for name, value in recording.items() if _is_stream(name)}  # each (C,)
    final = at[f"layers.{config.layers - 1}.resid_post"]
    read, bias = _through(network.norm, final, direction)
    openers: Openers = {}
    terms: list[Term] = []

    def add(name: str, value: Tensor, label: str = "") -> None:
        terms.append(Term(name, float(value), label, name in openers))

    def edited(name: str, computed: Tensor, reader: Tensor = read) -> Tensor:
        """What was used at a place; an edit there is a term of its own."""
        if name in recording.edits:
            add(f"{name}.edit", (at[name] - computed) @ reader, "edited")
        return at[name]

    stream = network.embed_tokens.weight[recording.ids[0, position]].double() * config.embed_scale
    add("embed", stream @ read, recording.tokens[position])
    if config.position in ("learned", "sinusoidal"):
        learned = config.position == "learned"
        table = network.embed_positions.weight if learned else network.positions(position + 1)
        place = table[position].double()
        add("position", place @ read, str(position))
        stream = stream + place
    stream = edited("embed", stream)
    for i, block in enumerate(network.blocks):
        layer = f"layers.{i}"
        stream = edited(f"{layer}.resid_pre", stream)
        output = block.self_attn.o_proj
        z = recording[f"{layer}.attn.z"][0, :, position].double()  # (H, D)
        written, reader, biases = _written(output, z.flatten(), block.norms[1], read)
        by_head = (reader @ output.weight.double()).view(config.heads, config.head_dim)  # (H, D)
        for head, value in enumerate((z * by_head).sum(-1)):
            name = f"{layer}.head.{head}"
            openers[name] = partial(_sources, recording, i, head, position, by_head[head], float(value))
            add(name, value)
        for name, value in biases.items():
            add(f"{layer}.attn.{name}", value)
        written = edited(f"{layer}.attn_out", written)
        stream = edited(f"{layer}.resid_mid", stream + written)
        if not config.mlp:
            stream = edited(f"{layer}.resid_post", stream)
            continue
        if isinstance(block.mlp, Experts):
            # what each expert wrote is not recorded: the layer's term is what was used, edits and all
            add(f"{layer}.mlp", at[f"{layer}.mlp_out"] @ read)
            stream = edited(f"{layer}.resid_post", stream + at[f"{layer}.mlp_out"])
            continue
        down = block.mlp.down_proj
        post = recording[f"{layer}.mlp.post"][0, position].double()  # (M,)
        written, reader, biases = _written(down, post, block.norms[3], read)
        neurons = post * (reader @ down.weight.double())
        openers[f"{layer}.mlp"] = partial(_neurons, recording, i, neurons)
        add(f"{layer}.mlp", neurons.sum())
        for name, value in biases.items():
            add(f"{layer}.mlp.{name}", value)
        written = edited(f"{layer}.mlp_out", written)
        stream = edited(f"{layer}.resid_post", stream + written)
    if config.norm == "layernorm":
        add("final_norm.bias", bias)
    edited("final_norm", network.norm(final.to(network.lm_head.weight)).double(), direction)
    if config.logit_cap or "logits" in recording.edits:
        name, label = ("logits.edit", "edited") if "logits" in recording.edits else ("logit_cap", "")
        add(name, total - direction @ at["final_norm"], label)
    return terms, openers


def _written(
    matrix: nn.Linear, inside: Float64[Tensor, " M"], norm: nn.Module | None, read: Float64[Tensor, " C"]
) -> tuple[Float64[Tensor, " C"], Float64[Tensor, " C"], dict[str, Tensor]]:
    """What a matrix, and a norm after it, wrote into the stream.

    Args:
        matrix: the last one of an attention or an MLP.
        inside: what it read, (M,).
        norm: through which it writes, if any.
        read: what reads the stream.

    Returns:
        What was written (C,); what reads the matrix's own output (C,); and the biases' part of the logit, by name.
    """
    own, reader = matrix.weight.double() @ inside, read
    if matrix.bias is not None:
        own = own + matrix.bias.double()
    written, biases = own, {}
    if norm is not None:
        reader, bias = _through(norm, own, read)
        written = norm(own.to(matrix.weight)).double()
        if isinstance(norm, nn.LayerNorm):
            biases["norm.bias"] = bias
    if matrix.bias is not None:
        biases["bias"] = matrix.bias.double() @ reader
    return written, reader, biases


def _is_stream(name: str) -> bool:
    return name in ("embed", "final_norm") or name.endswith(("resid_pre", "resid_mid", "resid_post", "_out"))


def _through(
    norm: nn.Module, final: Float64[Tensor, " C"], direction: Float64[Tensor, " C"]
) -> tuple[Float64[Tensor, " C"], Float64[Tensor, ""]]:
    """What reads the residual stream (C,), once the norm's scale is held at what it was; and the norm's bias, read."""
    if isinstance(norm, nn.Identity):
        return direction, direction.new_zeros(())
    assert isinstance(norm, RMSNorm | nn.LayerNorm)
    if isinstance(norm, nn.LayerNorm):
        read = direction * norm.weight.double()
        read = read / (final.var(correction=0) + norm.eps).sqrt()
        # centring the stream is the same as centring what reads it
        return read - read.mean(), direction @ norm.bias.double()
    return direction * norm.scale.double() / (final.square().mean() + norm.eps).sqrt(), direction.new_zeros(())


def _sources(
    recording: Recording, layer: int, head: int, position: int, reader: Float64[Tensor, " D"], total: float
) -> Ledger:
    """A head's term by the token that it read: pattern x value, through the output matrix."""
    pattern = recording[f"layers.{layer}.attn.pattern"][0, head, position].double()  # (T,)
    values = recording[f"layers.{layer}.attn.v"][0]  # (K, T, D)
    group = recording[f"layers.{layer}.attn.z"].shape[1] // values.shape[0]
    amounts = pattern * (values[head // group].double() @ reader)
    terms = [Term(f"source.{s}", float(amounts[s]), recording.tokens[s]) for s in range(position + 1)]
    if f"layers.{layer}.attn.z" in recording.edits:
        terms.append(Term("edit", total - float(amounts.sum()), "edited"))
    return Ledger(f"layer {layer} head {head}, by the token it read", tuple(terms), total, receipt=recording.receipt)


def _neurons(recording: Recording, layer: int, amounts: Float64[Tensor, " M"]) -> Ledger:
    """An MLP's term by the neuron that wrote it, (M,)."""
    terms = tuple(Term(f"neuron.{i}", value) for i, value in enumerate(amounts.tolist()))
    return Ledger(f"layer {layer} mlp, by neuron", terms, float(torch.sum(amounts)), receipt=recording.receipt)
