"""Which tokens each query sees: those before it, within its layer's window, and no padding.

Shapes: B batch, T new tokens, S tokens attended to (cached and new).
"""

from copy import copy

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Sight:
    """What one forward pass may look at; each kind of layer's mask is made once, when first asked for.

    Args:
        start: cached tokens before the new ones.
        new: T.
        device: of the masks.
        real: (B, S) bool, False where a token is padding; None: all are real.
        causal: whether queries see only what is before them, and themselves.
    """

    def __init__(
        self,
        start: int,
        new: int,
        device: torch.device,
        real: Bool[Tensor, "B S"] | None = None,
        *,
        causal: bool = True,
    ) -> None:
        self.start, self.new, self.seen = start, new, start + new
        self.device, self.real, self.causal = device, real, causal
        # of the new tokens, (B, T): padding takes none. None: start … start + T - 1
        self.positions = None if real is None else (real.cumsum(1) - 1).clamp(min=0)[:, start:]
        self.wanted: slice | None = None  # of the new tokens, the queries that are asked for; None: all
        self._masks: dict[int, Tensor | None] = {}

    def only(self, query: int) -> "Sight":
        """The same of one query, by its place among the new tokens: keys and values stay those of all."""
        made = copy(self)
        made.wanted, made._masks = slice(query, query + 1), {}
        return made

    def plain(self, window: int) -> bool:
        """Whether only the order of the tokens hides anything, so that kernels for that may be used."""
        return self.real is None and not 0 < window < self.seen and self.wanted is None

    def mask(self, window: int = 0) -> Bool[Tensor, "*B T S"] | None:
        """(T, S) or (B, 1, T, S) bool, True where a query sees a key; None where every query sees every key.

        Args:
            window: tokens that a query sees, itself included, before it (and as many after it if not causal); 0: all.
        """
        if window not in self._masks:
            made = self._make(window)
            self._masks[window] = made if made is None or self.wanted is None else made[..., self.wanted, :]
        return self._masks[window]

    def distances(self) -> Int[Tensor, "T S"]:
        """(T, S) int64, how many tokens each key stands after each query; before it: below zero."""
        places = torch.arange(self.seen, device=self.device)
        return places - places[self.start :, None]

    def _make(self, window: int) -> Tensor | None:
        windowed = 0 < window < self.seen
        if self.real is None and not windowed and (not self.causal or self.new == 1):
            return None
        query = torch.arange(self.start, self.seen, device=self.device)[:, None]
        key = torch.arange(self.seen, device=self.device)
        seen = key <= query if self.causal else torch.ones_like(key <= query)
        if windowed:
            seen &= query - key < window
            if not self.causal:
                seen &= key - query < window
        if self.real is None:
            return seen
        # a token sees itself even if it is padding: a row with nothing in it would be undefined
        return (seen & self.real[:, None, None, :]) | (query == key)
