"""Steering: a direction in the residual stream, added while the model reads and writes.

Turner et al. 2023 (https://arxiv.org/abs/2308.10248); Rimsky et al. 2023 (https://arxiv.org/abs/2312.06681): the
difference between the mean activations of two sets of texts.

Shapes: B texts, T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cutaway.errors import ConfigError, DamagedFile, InputError, unknown
from cutaway.interp.inputs import Inputs, inputs_of
from cutaway.interp.record import Edit, record
from cutaway.models import ActiveTap, Model, Recurrent, Seq2Seq
from cutaway.models.assemble import write_tensors

TENSOR = "vector"


@dataclass(frozen=True)
class SteeringVector:
    """A direction, and where it is added.

    Attributes:
        name: of the activation it is added to, such as "layers.3.resid_post".
        vector: (C,) float32; strength 1 adds it as it is.
        what: what it points to, in words.
    """

    name: str
    vector: Float[Tensor, " C"]
    what: str = ""

    def edit(self, strength: float = 1.0) -> Edit:
        """The edit that adds it at every token, so many times over: `replace(model, text, {v.name: v.edit(2)})`."""
        return lambda x: x + strength * self.vector.to(x)

    def tap(self, strength: float = 1.0) -> ActiveTap:
        """A tap that adds it: `cutaway.generate(model, prompt, tap=v.tap(2))`."""
        return ActiveTap(edits={self.name: self.edit(strength)})

    def placebo(self, seed: int = 0) -> SteeringVector:
        """A random direction of the same length."""
        drawn = torch.randn(len(self.vector), generator=torch.Generator().manual_seed(seed))
        return SteeringVector(
            self.name, drawn * (self.vector.norm() / drawn.norm()), f"a random direction, seed {seed}"
        )

    def save(self, path: str | Path) -> Path:
        """Write it as a safetensors file.

        Raises:
            OSError: the disk is full, or the place cannot be written.
        """
        write_tensors({TENSOR: self.vector.contiguous()}, Path(path), {"activation": self.name, "what": self.what})
        return Path(path)


def load_steering_vector(path: str | Path) -> SteeringVector:
    """What `SteeringVector.save` wrote.

    Raises:
        InputError: there is no such file.
        DamagedFile: it is no safetensors file, or none of a steering vector.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a file that SteeringVector.save wrote")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if TENSOR not in file.keys() or "activation" not in about:  # noqa: SIM118 (it is no mapping)
                raise DamagedFile(
                    f"{path} holds no steering vector: it names no activation, or has no tensor {TENSOR!r}"
                )
            vector = file.get_tensor(TENSOR)
    except SafetensorError as error:
        raise DamagedFile(f"{path} cannot be read as safetensors: {error}") from error
    if vector.ndim != 1 or not vector.is_floating_point() or not vector.isfinite().all():
        raise DamagedFile(f"{path} holds {tuple(vector.shape)} {vector.dtype}, not one vector of finite numbers")
    return SteeringVector(about["activation"], vector.float(), about.get("what", ""))


@torch.no_grad()
def steering_vector(
    model: Model,
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    layer: int | None = None,
    tokens: Literal["mean", "last"] = "mean",
) -> SteeringVector:
    """The mean activation over some texts less that over others.

    Args:
        model: what reads them; of an encoder–decoder its encoder, whose states are then what is steered.
        positive: texts of the kind that the vector points to.
        negative: texts of the other kind; pairs that differ in that alone give the cleanest vector.
        layer: after which the stream is read and steered; None: the middle one.
        tokens: each text counts with the "mean" of its tokens, or its "last".

    Raises:
        ConfigError: a model that listens, or a way to count tokens that is not there.
        InputError: no texts on a side, an empty one, or a layer that is not there.
    """
    if tokens not in ("mean", "last"):
        raise ConfigError(unknown("way to count tokens", str(tokens), ["mean", "last"]))
    for side, texts in (("positive", positive), ("negative", negative)):
        if isinstance(texts, str) or not texts:
            raise InputError(f"{side} must be a list of one text or more, but {texts!r} was given")
    name = stream_after(model, layer)
    means = [
        torch.stack([_reading(model, text, name, tokens) for text in texts]).mean(0) for texts in (positive, negative)
    ]
    first, second = positive[0], negative[0]
    what = f"from {len(negative)} texts such as {second[:30]!r} to {len(positive)} such as {first[:30]!r}"
    return SteeringVector(name, (means[0] - means[1]).float().cpu(), what)


def stream_after(model: Model, layer: int | None) -> str:
    """The name of what a layer hands on.

    Raises:
        ConfigError: a model that listens: what it reads has no texts.
        InputError: a layer that is not there.
    """
    if model.mel is not None:
        raise ConfigError("a model that listens reads no texts, so there is no direction between two kinds of them")
    reads = isinstance(model.network, Seq2Seq)
    count: int = model.config.encoder_layers if reads else model.config.layers  # pyright: ignore[reportAttributeAccessIssue]
    layer = (count - 1) // 2 if layer is None else layer
    if not 0 <= layer < count:
        raise InputError(f"there are {count} layers (0 … {count - 1}), but layer {layer} was given")
    last = model.network.states if isinstance(model.network, Recurrent) else "resid_post"
    return f"{'encoder.' * reads}layers.{layer}.{last}"


def reading(model: Model, text: str | Sequence[int]) -> Inputs:
    """A text as what the model reads: of an encoder–decoder its source, before a target that has only begun."""
    if isinstance(model.network, Seq2Seq):
        return inputs_of(model, [model.network.config.start_id], text)
    return inputs_of(model, text)


def _reading(model: Model, text: str, name: str, tokens: str) -> Tensor:
    """(C,) float64 of one text."""
    value = record(model, reading(model, text), name)[name][0].double()  # (T, C)
    return value[-1] if tokens == "last" else value.mean(0)
