"""What stands on top of an encoder, a decoder or a recurrent network: states to logits, or to one vector for each text.

Shapes: B batch, T tokens, C channels, E channels of the embedding, L labels, V vocabulary.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cutaway.errors import ConfigError
from cutaway.models.config import DecoderConfig, EncoderConfig, RecurrentConfig
from cutaway.models.config_parts import HEADS, LABELLED, POOLED
from cutaway.models.layers import ACTIVATIONS
from cutaway.models.products import Linear
from cutaway.models.tap import Tap

READ_APART = 4  # vectors that a head reads of two texts (see `compared`)
HeadedConfig = EncoderConfig | DecoderConfig | RecurrentConfig


def pool(states: Float[Tensor, "B T C"], mask: Bool[Tensor, "B T"] | None, how: str) -> Float[Tensor, "B C"]:
    """One vector for each text.

    Args:
        states: (B, T, C).
        mask: (B, T) bool, False where a token is padding; None: all are real.
        how: "cls" takes the first real token and "last" the last, wherever the padding stands; "mean" and "max" all
            real tokens.
    """
    if how in ("cls", "last"):
        if mask is None:
            return states[:, 0 if how == "cls" else -1]
        place = mask.int().argmax(dim=1) if how == "cls" else mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)
        return states[torch.arange(len(states), device=states.device), place]
    real = torch.ones_like(states[..., :1], dtype=torch.bool) if mask is None else mask[..., None]  # (B, T, 1)
    if how == "max":
        return states.masked_fill(~real, -torch.inf).amax(dim=1)
    # padding may hold anything: it is left out, not multiplied by zero
    return states.masked_fill(~real, 0).sum(dim=1) / real.sum(dim=1).clamp(min=1)


def probabilities(logits: Float[Tensor, "*B L"], config: HeadedConfig) -> Float[Tensor, "*B L"]:
    """The probability of each label, of logits that a head for labels made.

    Where one label holds of a text they sum to one; where several may, or there is but one label, each is by itself.

    Args:
        logits: (…, L).
        config: of the network.

    Raises:
        ConfigError: a head that has no labels, or whose outputs are numbers.
    """
    if config.head not in LABELLED or config.labelling == "number":
        made = "numbers" if config.labelling == "number" else HEADS[config.head]
        raise ConfigError(f"this network makes {made}, no probabilities of labels")
    if config.labelling == "several" or len(config.labels) == 1:
        return logits.sigmoid()
    return logits.softmax(-1)


def compared(first: Float[Tensor, "B C"], second: Float[Tensor, "B C"]) -> Float[Tensor, "B D"]:
    """What a head reads of two texts: both vectors, how far apart they are, and their product, (B, 4·C).

    After InferSent (Conneau et al. 2017) and Sentence-BERT (Reimers & Gurevych 2019); here the vectors have the same
    length, the square root of C, so that the sum of the products says their cosine.
    """
    length = first.shape[-1] ** 0.5
    u, v = (F.normalize(x, dim=-1) * length for x in (first, second))
    return torch.cat((u, v, (u - v).abs(), u * v), dim=-1)


def width_of(config: HeadedConfig) -> int:
    """Numbers that a head reads of each token, and of which a vector of a whole text is made."""
    return config.states if isinstance(config, RecurrentConfig) else config.width


class Head(nn.Module):
    """A dense layer with an activation and a norm, where the config has them, then one matrix.

    The matrix of a language model is the network's own `lm_head`, as it may be the embedding.
    """

    def __init__(self, config: HeadedConfig) -> None:
        super().__init__()
        self.config = config
        apart, width = getattr(config, "apart", False), width_of(config)
        self.dropout = config.dropout if isinstance(config, RecurrentConfig) else 0.0
        outputs = {
            "sequence_classification": len(config.labels),
            "token_classification": len(config.labels),
            "span_extraction": 2,
            "replaced_token": 1,
        }.get(config.head)
        if config.head_activation != "none":
            inner = config.embed_width if config.head == "masked_lm" else config.width  # what the embedding can read
            self.dense = Linear((READ_APART if apart else 1) * width, inner, bias=config.head_dense_bias)
            self.activation = {**ACTIVATIONS, "tanh": torch.tanh}[config.head_activation]
            if config.head_norm:
                self.norm = nn.LayerNorm(inner, eps=config.norm_eps, bias=config.norm_bias)
        if outputs is not None:
            reads = READ_APART * width if apart and config.head_activation == "none" else width
            self.out = Linear(reads, outputs, bias=config.head_bias)

    def forward(
        self,
        states: Float[Tensor, "B T C"],
        mask: Bool[Tensor, "B T"] | None,
        tap: Tap,
        texts: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B *L"]:
        """(B, T, C) to the shape that `HEADS` states; of a masked language model (B, T, E), for `lm_head` to read.

        `pooled` is the vector of a whole text, or of two that are read apart both, (B, 2·C), of which `compared` is
        made; `pre` goes into the activation, `post` into the last matrix. `texts` says which text a token is of.
        """
        if texts is not None:
            own = [texts == number if mask is None else mask & (texts == number) for number in (0, 1)]
            both = torch.cat([pool(states, real, self.config.pooling) for real in own], dim=-1)
            x = tap("compared", compared(*tap("pooled", both).chunk(2, dim=-1)))
        else:
            x = tap("pooled", pool(states, mask, self.config.pooling)) if self.config.head in POOLED else states
        if self.config.head_activation != "none":
            x = self.activation(tap("pre", self.dense(x)))
            x = self.norm(x) if self.config.head_norm else x
            x = tap("post", x)
        if self.config.head == "embedding":
            return F.normalize(x, dim=-1) if self.config.normalize else x
        if self.config.head == "masked_lm":
            return x
        if self.config.head in POOLED:
            x = F.dropout(x, self.dropout, self.training)
        out = self.out(x)
        return out.squeeze(-1) if self.config.head == "replaced_token" else out

    def tap_names(self) -> list[str]:
        """Every activation name, in the order of computation."""
        between = ["pre", "post"] if self.config.head_activation != "none" else []
        apart = ["compared"] * getattr(self.config, "apart", False)
        return ["pooled"] * (self.config.head in POOLED) + apart + between
