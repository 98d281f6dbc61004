"""The outsider in full precision, and checkpoints made with it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Float64(TorchFunctionMode):
    """Keeps transformers in float64 where it rounds to float32 on purpose: norms, softmaxes, rotary angles.

    Casts to float32 become casts to float64; those of whole numbers only if `whole`.
    """

    def __init__(self, *, whole: bool = True) -> None:
        super().__init__()
        self.whole = whole

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.float and (self.whole or args[0].is_floating_point()):
            return args[0].double()
        if kwargs.get("dtype") is torch.float32:
            kwargs["dtype"] = torch.float64
        args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        return func(*args, **kwargs)


def shake(network: torch.nn.Module, seed: int = 1) -> None:
    """Move every weight, so that none is at a value (such as one or zero) that would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def write_checkpoint(make: Callable[[], Any], folder: Path) -> Any:
    """A reference model with random weights, saved by itself into a folder; returned in evaluation mode."""
    torch.manual_seed(0)
    peer = make().eval()
    shake(peer)
    peer.save_pretrained(folder)
    return peer


def token_ids(vocab_size: int, batch: int, length: int) -> Tensor:
    """(B, T) random ids."""
    return torch.randint(0, vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))


def masks(batch: int, length: int) -> dict[str, Tensor | None]:
    """No padding, and padding on either side, of another length in each row: (B, T) bool."""
    place = torch.arange(length)
    padding = torch.arange(batch)[:, None] * 3 % length
    return {"none": None, "left": place >= padding, "right": place < length - padding}
