"""What a network remembers between calls, so that each new token costs one token's work.

Shapes: B batch, H key/value heads, T tokens, D head dim.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cutaway.errors import InputError


class KVCache:
    """Keys and values of every layer for the tokens seen so far, in buffers made once.

    Args:
        layers: number of layers.
        shape: (B, H, capacity, D) of each buffer.
        dtype: of the keys and values.
        device: where they live.
    """

    def __init__(
        self, layers: int, shape: tuple[int, int, int, int], *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.capacity = shape[2]
        self.real: Tensor | None = None  # (B, capacity) bool: False where a token is padding; None: all are real
        self.length = 0  # tokens already held; the network moves it on once per forward

    def extend(
        self, layer: int, key: Float[Tensor, "B H T D"], value: Float[Tensor, "B H T D"]
    ) -> tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H S D"]]:
        """Append (B, H, T, D) keys and values to one layer; returns all (B, H, length + T, D) so far."""
        end = self._end(key.shape[2])
        self.keys[layer][:, :, self.length : end] = key
        self.values[layer][:, :, self.length : end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def extend_mask(self, mask: Bool[Tensor, "B T"] | None, tokens: int) -> Bool[Tensor, "B S"] | None:
        """Append (B, T) bool, False for padding, or None where all are real; returns it for all tokens so far."""
        if self.real is None:
            if mask is None:
                return None
            self.real = torch.ones(mask.shape[0], self.capacity, dtype=torch.bool, device=mask.device)
        end = self._end(tokens)
        if mask is not None:
            self.real[:, self.length : end] = mask
        return self.real[:, :end]

    def _end(self, tokens: int) -> int:
        end = self.length + tokens
        if end > self.capacity:
            raise InputError(f"{end} tokens do not fit a cache of {self.capacity}; make it larger or shorten the text")
        return end

    def advance(self, tokens: int) -> None:
        """Count `tokens` more as held, after every layer has appended them."""
        self.length += tokens

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """Keep or repeat rows of the batch, (B',) int64: finished sequences leave, branches fork."""
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]
        self.real = None if self.real is None else self.real[rows]


class Prefix(KVCache):
    """The keys and values of one text's first tokens, seen by every row of a batch that goes on behind them.

    Args:
        keys: of every layer, (1, H, P, D).
        values: likewise.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        self.keys, self.values = keys, values
        self.length, self.capacity, self.real = keys[0].shape[2], keys[0].shape[2], None

    def extend(
        self, layer: int, key: Float[Tensor, "B H T D"], value: Float[Tensor, "B H T D"]
    ) -> tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H S D"]]:
        """These keys and values behind the known ones; nothing is kept."""
        known = ((self.keys[layer], key), (self.values[layer], value))
        first, second = (torch.cat((before.expand(len(new), -1, -1, -1), new), dim=2) for before, new in known)
        return first, second


class CrossCache:
    """What an encoder–decoder remembers: the keys and values of its target so far, and those of the source.

    Args:
        own: of the target.
        sources: for each layer the keys and values of the source, (B, H, S, D), and (B, 1, 1, S) bool of which are
            real; None: all are.
    """

    def __init__(self, own: KVCache, sources: list[tuple[Tensor, Tensor, Tensor | None]]) -> None:
        self.own, self.sources = own, sources

    @property
    def length(self) -> int:
        """Tokens of the target already held."""
        return self.own.length

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """Keep or repeat rows of the batch, (B',) int64: finished sequences leave, branches fork."""
        self.own.select(rows)
        self.sources = [(k[rows], v[rows], None if real is None else real[rows]) for k, v, real in self.sources]
