"""The fourth lesson: one layer. What it adds to the residual stream, its norm, and one neuron of its MLP.

Shapes: C channels, M neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError
from cutaway.interp.inputs import Text
from cutaway.interp.ledger.layout import layout
from cutaway.interp.ledger.parts import Neurons
from cutaway.interp.ledger.reading import normed
from cutaway.interp.lessons.worked import Opens, Shown, Worked, cells, chosen_in, model_of, place_in, recorded
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Curve
from cutaway.models import Model, Recurrent, Seq2Seq
from cutaway.models.model import Source

STREAM = (
    "resid_pre", "attn_out", "attn_sum", "resid_mid", "cross_attn_out", "cross_attn_sum", "resid_cross", "mlp_out",
    "mlp_sum", "resid_post",
)  # fmt: skip
REACH = 6.0  # of the curve of an activation, each way at least


@torch.no_grad()
def block_by_hand(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    layer: int = 0,
    position: int = -1,
    channel: int | None = None,
    neuron: int | None = None,
    shift: float = 0.0,
) -> Worked:
    """One layer at one token: what is added to one channel of the residual stream, the MLP's norm, and one neuron.

    Args:
        model: with a residual stream.
        text: what it reads.
        source: what an encoder–decoder reads; the layer is one of its decoder.
        layer: from 0.
        position: of the token.
        channel: of the stream; None: the largest behind the layer.
        neuron: of the MLP; None: the largest of what goes into its last matrix.
        shift: added to what goes into the neuron's activation; at 0 all numbers are the model's own.

    Returns:
        A row for each state of the channel ("resid_pre", "attn_out" … as they are recorded). Figures, where the layer
        has them: of the norm that the MLP reads through (or of one behind the sum, or on what the MLP writes, where
        norms stand there) the "mean", the "rms" (root mean square of what it divides), "gain", "bias", "norm in" and
        "norm out"; of the neuron "pre", "activation", "up" (what a gate multiplies), "post", "weight" (into the
        channel) and "write", what it adds there, before a norm on it. The curve is the activation. The receipt's gap
        is the largest difference from what was recorded.

    Raises:
        ConfigError: a recurrent model, whose layer is `gates_by_hand`.
        InputError: no such layer, position, channel or neuron.
    """
    run = model_of(model)
    network: Any = run.network
    if isinstance(network, Recurrent):
        raise ConfigError("a recurrent model has no residual stream: its layer is a cell (gates_by_hand)")
    if not 0 <= layer < run.config.layers:  # pyright: ignore[reportAttributeAccessIssue]
        raise InputError(f"layer {layer} is not there: there are 0 … {run.config.layers - 1}")  # pyright: ignore[reportAttributeAccessIssue]
    clock = Clock(run, "block_by_hand", model if isinstance(model, Recording) else text, source=source, layer=layer,
                  position=position, channel=channel, neuron=neuron, shift=shift or None)  # fmt: skip
    prefix = f"layers.{layer}."
    known = [name for name in STREAM if prefix + name in network.tap_names()]
    mlp = layout(network).parts.get(f"{prefix}mlp")
    inner = [f"{prefix}mlp.{one}" for one in ("pre", "post")] if isinstance(mlp, Neurons) else []
    recording = recording_of(model, text, [*(prefix + name for name in known), *inner], source=source, first=True)
    place = place_in(position, len(recording.tokens))
    vectors = {name: recorded(recording, prefix + name)[place] for name in known}
    number = chosen_in(channel, vectors["resid_post"], "channel")
    opens: list[Opens | None] = [{"what": prefix + name, "position": place, "index": number} for name in known]
    rows = cells(known, [float(vectors[name][number]) for name in known])
    facts = {"token": recording.tokens[place], "channel": str(number)}
    figures, gaps, curve = [], [0.0], None
    read = None
    if isinstance(mlp, Neurons):
        read = vectors[mlp.reads.rsplit(".", 1)[-1]] if mlp.reads.startswith(prefix) else None
    norm, given = (mlp.norm_in, read) if mlp is not None else (None, None)
    if norm is None and "attn_sum" in vectors:  # it stands behind the sum
        reads = isinstance(network, Seq2Seq)
        norm = network.decoder.blocks[layer].norms["attn"] if reads else network.blocks[layer].post_attention_layernorm
        given = vectors["attn_sum"]
        gaps.append(float((normed(norm, given) - vectors["resid_mid"]).abs().max()))
    if norm is None and isinstance(mlp, Neurons) and mlp.norm_out is not None:  # it stands on what the MLP writes
        down = mlp.module.down_proj
        bias = None if down.bias is None else down.bias.double()
        norm, given = mlp.norm_out, F.linear(recorded(recording, inner[1])[place], down.weight.double(), bias)
        gaps.append(float((normed(norm, given) - vectors["mlp_out"]).abs().max()))
    if norm is not None and given is not None and not isinstance(norm, nn.Identity):
        figures += _norm(norm, given, number)
    if isinstance(mlp, Neurons) and read is not None:
        more, facts["neuron"], curve, gap = _neuron(recording, mlp, prefix, place, number, neuron, shift, read)
        figures += more
        gaps.append(gap)
    return Worked(
        "one layer at one token", ["state", "value"], rows, figures, facts, {"value": opens}, curve,
        recording.tokens, list(range(len(recording.tokens))), place,
        receipt=clock.receipt(gap=max(gaps), bytes=recording.receipt.bytes),
    )  # fmt: skip


def _norm(norm: Any, given: Tensor, number: int) -> list[Shown]:
    """What a norm does to one channel."""
    centred = isinstance(norm, nn.LayerNorm)
    mean = float(given.mean()) if centred else 0.0
    rms = float(((given - mean).square().mean() + norm.eps).sqrt())
    gain = norm.weight if centred else norm.scale
    made = float(normed(norm, given)[number])
    figures = [Shown("norm in", float(given[number]))]
    figures += [Shown("mean", mean)] if centred else []
    figures += [Shown("rms", rms), Shown("gain", float(gain[number]))]
    figures += [Shown("bias", float(norm.bias[number]))] if centred and norm.bias is not None else []
    return [*figures, Shown("norm out", made)]


def _neuron(
    recording: Recording,
    mlp: Neurons,
    prefix: str,
    place: int,
    number: int,
    neuron: int | None,
    shift: float,
    read: Tensor,
) -> tuple[list[Shown], str, Curve, float]:
    """A neuron's numbers, its name, the curve of its activation, and the difference from what was recorded."""
    module = mlp.module
    pre, post = (recorded(recording, f"{prefix}mlp.{one}")[place] for one in ("pre", "post"))
    chosen = chosen_in(neuron, post, "neuron")
    into = float(pre[chosen]) + shift
    active = float(module.activation(torch.tensor(into, dtype=torch.float64)))
    at: Opens = {"what": f"{prefix}mlp.pre", "position": place, "index": chosen}
    figures = [Shown("pre", into, None if shift else at), Shown("activation", active)]
    made = active
    if module.gated:
        fed = read if mlp.norm_in is None else normed(mlp.norm_in, read)
        bias = 0.0 if module.up_proj.bias is None else float(module.up_proj.bias[chosen])
        up = float(_row(module.up_proj, chosen) @ fed) + bias
        made = active * up
        figures.append(Shown("up", up))
    weight = float(_column(module.down_proj, chosen)[number])
    of_post: Opens = {"what": f"{prefix}mlp.post", "position": place, "index": chosen}
    figures += [Shown("post", made, None if shift else of_post), Shown("weight", weight),
                Shown("write", made * weight)]  # fmt: skip
    reach = max(REACH, abs(float(pre[chosen])) + 2)
    xs = torch.linspace(-reach, reach, 97, dtype=torch.float64)
    curve = Curve("activation of a neuron", "into it", "out of it", xs.tolist(), {"f": module.activation(xs).tolist()},
                  receipt=recording.receipt)  # fmt: skip
    return figures, str(chosen), curve, 0.0 if shift else abs(made - float(post[chosen]))


def _row(matrix: Any, row: int) -> Tensor:
    """(C,) float64, of quantised matrices too."""
    return matrix.weight[row].double()


def _column(matrix: Any, column: int) -> Tensor:
    return matrix.weight[:, column].double()
