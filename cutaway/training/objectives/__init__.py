"""What a network learns from raw text, as pure functions: what it is shown, and how far off it was."""

from cutaway.training.objectives.masked import Masked, mask_tokens, masked_loss
from cutaway.training.objectives.replaced import Replaced, replace_tokens, replaced_loss, replaced_token_loss

__all__ = [
    "Masked",
    "Replaced",
    "mask_tokens",
    "masked_loss",
    "replace_tokens",
    "replaced_loss",
    "replaced_token_loss",
]
