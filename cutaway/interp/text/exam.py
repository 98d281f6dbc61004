"""Which tokens a model is asked to name, and how well it does.

Shapes: B texts, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, NonFinite
from cutaway.interp.inputs import Inputs, forward
from cutaway.interp.record import first_broken
from cutaway.models import OFF, Encoder, Model, Seq2Seq, Tap


@dataclass(frozen=True)
class Exam:
    """What a model is asked: which token, after or at which place.

    Attributes:
        inputs: what it reads.
        targets: (B, T) int64, the token that it should name at each place of its output.
        asked: (B, T) bool, at which places it is asked.
    """

    inputs: Inputs
    targets: Int[Tensor, "B T"]
    asked: Bool[Tensor, "B T"]

    def losses(self, model: Model, tap: Tap = OFF) -> Float[Tensor, "B T"]:
        """Nats at every place, asked or not, without gradients.

        Raises:
            NonFinite: the model computes a NaN or an infinity.
        """
        with torch.no_grad():
            output = forward(model, self.inputs, tap)
        if not output.isfinite().all():
            raise NonFinite(f"{first_broken(model, self.inputs, {})} holds a NaN or an infinity, and so do the logits")
        nats = torch.nn.functional.cross_entropy(output.flatten(0, 1).float(), self.targets.flatten(), reduction="none")
        return nats.view(self.targets.shape)


def real_tokens(inputs: Inputs) -> Bool[Tensor, "B T"]:
    """All tokens but padding and the first of each text, which nothing comes before."""
    real = torch.ones_like(inputs.ids, dtype=torch.bool) if inputs.mask is None else inputs.mask.clone()
    real[torch.arange(len(real)), real.int().argmax(1)] = False
    return real


def names_tokens(model: Model, purpose: str) -> None:
    """Refuse a model that names no tokens.

    Args:
        model: what is asked.
        purpose: what that is needed for, as the beginning of a sentence.

    Raises:
        ConfigError: a head for something else, or one that fills gaps without a token for a gap.
    """
    if isinstance(model.network, Seq2Seq):
        return
    if not isinstance(model.network, Encoder):
        model.speaker(purpose)
    head = getattr(model.config, "head", "causal_lm")
    if head not in ("causal_lm", "masked_lm"):
        name = model.source or "this"
        raise ConfigError(f"{purpose} needs a model that names tokens, but {name} has a head for {head}")
    if head == "masked_lm" and model.tokenizer.mask is None:
        raise ConfigError(f"{purpose} hides tokens from a model that fills gaps, but its tokenizer has no mask token")


def exam_of(model: Model, inputs: Inputs, tokens: Bool[Tensor, "B T"], seed: int = 0) -> Exam:
    """To name some tokens of texts: after what comes before them, or, of a model that fills gaps, out of all others.

    Args:
        model: what is asked.
        inputs: the texts.
        tokens: (B, T) which tokens. A model that fills gaps is asked for one in three of them, which become gaps; the
            seed chooses.
        seed: see there.
    """
    ids = inputs.ids
    if not isinstance(model.network, Encoder):
        shifted = torch.cat((tokens[:, 1:], torch.zeros_like(tokens[:, :1])), dim=1)
        return Exam(inputs, ids.roll(-1, dims=1), shifted)
    draw = torch.Generator().manual_seed(seed)
    gaps = tokens & (torch.rand(ids.shape, generator=draw) < 1 / 3).to(ids.device)
    gaps = gaps if gaps.any() else tokens
    hidden = ids.masked_fill(gaps, model.tokenizer.mask or 0)
    return Exam(replace(inputs, ids=hidden), ids, gaps)
