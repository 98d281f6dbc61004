"""Replaced-token detection (Clark et al. 2020, ELECTRA): a generator fills gaps, a discriminator finds what it filled.

It learns from every position instead of the hidden 15 %. The generator learns to fill gaps as in masked language
modelling, not to deceive: no gradient passes through what it drew. The discriminator is what is kept.

Shapes: B batch, T tokens, K places that are asked about, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cutaway.errors import ConfigError
from cutaway.models import Encoder, EncoderConfig
from cutaway.models.assemble import Network, build_network
from cutaway.tokenizers import Tokenizer
from cutaway.training.losses import IGNORE, cross_entropy
from cutaway.training.objectives.base import Data, Piece, Score, Split, need_head
from cutaway.training.objectives.masked import Hiding

if TYPE_CHECKING:
    from cutaway.training.config import TrainConfig

SHARED = ("embed_tokens", "embed_positions", "embed_types")


@torch.no_grad()
def replace_tokens(
    ids: Int[Tensor, "B T"],
    places: Int[Tensor, "B K"],
    asked: Bool[Tensor, "B K"],
    logits: Float[Tensor, "B K V"],
    draws: Float[Tensor, "B K"],
) -> Int[Tensor, "B T"]:
    """Fill places with what a generator draws from its chances; (B, T) int64.

    Args:
        ids: (B, T) int64, as they were.
        places: (B, K) int64, none twice in a row.
        asked: (B, K) bool, which of them to fill.
        logits: (B, K, V), its answer.
        draws: (B, K) random numbers in [0, 1).
    """
    edges = logits.double().softmax(-1).cumsum(-1)
    # the first id up to which the chances add up to more than the draw; the last sum may be a little below 1
    drawn = torch.searchsorted(edges, draws.double()[..., None], right=True)[..., 0]
    filled = torch.where(asked, drawn.clamp(max=logits.shape[-1] - 1), ids.gather(1, places))
    return ids.scatter(1, places, filled)


def replaced_loss(
    logits: Float[Tensor, "B T"], replaced: Bool[Tensor, "B T"], real: Bool[Tensor, "B T"] | None = None
) -> Float[Tensor, ""]:
    """Sum of the binary cross-entropy over all tokens but padding, in nats.

    Args:
        logits: (B, T) of having been replaced.
        replaced: (B, T) bool, what is true.
        real: (B, T) bool, False where a token is padding; None: all are real.
    """
    losses = F.binary_cross_entropy_with_logits(logits.float(), replaced.float(), reduction="none")
    return losses.sum() if real is None else losses[real].sum()


class ReplacedPair(nn.Module):
    """A generator and a discriminator that share their embeddings.

    Args:
        generator: an encoder with a head for masked_lm, a quarter to half as wide; its embeddings become shared.
        discriminator: an encoder with a head for replaced_token and embeddings of the same shapes.
    """

    def __init__(self, generator: Encoder, discriminator: Encoder) -> None:
        super().__init__()
        for name in SHARED:
            if hasattr(generator, name):
                setattr(discriminator, name, getattr(generator, name))
        self.generator, self.discriminator = generator, discriminator

    @property
    def config(self) -> EncoderConfig:
        """The discriminator's."""
        return self.discriminator.config

    def forward(
        self,
        hidden: Int[Tensor, "B T"],
        ids: Int[Tensor, "B T"],
        places: Int[Tensor, "B K"],
        asked: Bool[Tensor, "B K"],
        draws: Float[Tensor, "B K"],
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B K V"], Int[Tensor, "B T"], Float[Tensor, "B T"]]:
        """What both networks say.

        Args:
            hidden: (B, T) int64, what the generator is shown.
            ids: (B, T) int64, as they were.
            places: (B, K) int64, what it is asked about.
            asked: (B, K) bool, which of them count; rows have different numbers of them.
            draws: (B, K) random numbers in [0, 1), one for each token it fills in.
            mask: (B, T) bool, False where a token is padding; None: all are real.

        Returns:
            The generator's logits (B, K, V); what the discriminator was shown (B, T); and its logits (B, T).
        """
        guesses = self.generator(hidden, places=places, mask=mask)
        shown = replace_tokens(ids, places, asked, guesses, draws)
        return guesses, shown, self.discriminator(shown, mask=mask)


@dataclass(frozen=True)
class ReplacedTokens(Hiding):
    """Find the tokens that a smaller network, trained beside it, has put in."""

    hidden: float = 1.0
    random: float = 0.0
    weight: float = 50.0  # of the discriminator's loss, as in the paper: it is far smaller than the generator's
    generator: float = 0.5  # heads and channels of the generator, as a share of the discriminator's

    name: ClassVar[str] = "replaced"
    unit: ClassVar[str] = "nats, both networks'"
    shown: ClassVar[tuple[str, ...]] = ("accuracy", "recall", "precision")
    whole: ClassVar[bool] = False
    tables: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.generator <= 1 or not self.weight > 0:
            raise ConfigError(
                f"generator must lie in (0, 1] and weight above 0, but {self.generator} and {self.weight} were given"
            )

    def features(self, store: Data, context: int) -> dict[str, Any]:
        return {"head": "replaced_token", "head_norm": False, "head_dense_bias": True}

    def fit(self, network: Any) -> None:
        super().fit(network)
        need_head(self.name, network, "replaced_token")

    def learner(self, network: Network, store: Data) -> nn.Module:
        assert isinstance(network, Encoder)  # `fit` has seen to it
        generator = build_network(self.generator_config(network.config))
        assert isinstance(generator, Encoder)
        return ReplacedPair(generator, network)

    def generator_config(self, config: EncoderConfig) -> EncoderConfig:
        """A narrower encoder on the same embeddings."""
        heads = max(1, round(self.generator * config.heads))
        return replace(
            config, heads=heads, width=heads * config.head_dim, mlp_width=0, head="masked_lm", head_activation="gelu",
            head_norm=True, head_bias=True, tied=True, pooler=False, next_sentence=False,
        )  # fmt: skip

    def helpers(self, learner: nn.Module) -> dict[str, Network]:
        assert isinstance(learner, ReplacedPair)
        return {"generator": learner.generator}

    def nominal(self, tokens: int) -> float:
        return tokens

    def hide(self, ids: Tensor, tokenizer: Tokenizer, numbers: Tensor, real: Tensor | None = None) -> Piece:
        piece = super().hide(ids, tokenizer, numbers, real)
        hidden, places = piece.pop("ids"), piece["places"]
        return {**piece, "hidden": hidden, "ids": ids, "draws": numbers[3].gather(1, places)}

    def loss(self, forward: Callable[..., Any], piece: Piece, config: TrainConfig) -> tuple[Tensor, int]:
        """Both losses for each token: the generator answers for a share of them, hence the division by it."""
        ids, targets = piece["ids"], piece["targets"]
        guesses, shown, judged = forward(piece["hidden"], ids, piece["places"], targets != IGNORE, piece["draws"])
        how = {"label_smoothing": config.label_smoothing, "z_loss": config.z_loss}
        first = cross_entropy(guesses, targets, **how, reduction="sum") / self.rate
        return first + self.weight * replaced_loss(judged, shown != ids), ids.numel()

    def measure(self, learner: nn.Module, piece: Piece) -> list[float]:
        ids, targets, real = piece["ids"], piece["targets"], piece.get("mask")
        guesses, shown, judged = learner(piece["hidden"], ids, piece["places"], targets != IGNORE, piece["draws"], real)
        replaced, found = shown != ids, judged > 0
        counted = torch.ones_like(replaced) if real is None else real
        sums = (counted, replaced & counted, found & counted, found & replaced & counted, (found == replaced) & counted)
        asked = int((targets != IGNORE).sum())
        losses = cross_entropy(guesses, targets, reduction="sum"), replaced_loss(judged, replaced, real)
        return [*(int(table.sum()) for table in sums), asked, *map(float, losses)]

    def score(self, sums: Sequence[float], split: Split) -> Score:
        counted, replaced, found, both, right, asked, generator, discriminator = sums
        losses = {"generator_loss": generator / asked, "discriminator_loss": discriminator / counted}
        figures = {
            "accuracy": right / counted,
            "replaced": replaced / counted,  # what never finding any gets wrong
            "recall": both / max(1, replaced),
            "precision": both / max(1, found),
        }
        loss = losses["generator_loss"] + self.weight * losses["discriminator_loss"]
        return Score(loss, int(counted), {**losses, **figures})
