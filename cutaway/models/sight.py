"""Which tokens each query sees: those before it, within its layer's window, and no padding.

Shapes: B batch, T new tokens, S tokens attended to (cached and new), H heads, D head dim, N real tokens of all texts.
"""

from copy import copy

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

MOST_SCORES = 1 << 26  # that are held at once for a gradient


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
        self.length = self.seen  # of the texts, with their padding: some networks' angles depend on it
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

    def attend(
        self, q: Float[Tensor, "B H T D"], k: Float[Tensor, "B H S D"], v: Float[Tensor, "B H S D"], window: int
    ) -> Float[Tensor, "B H T D"]:
        """Each query's mean of the values that it sees, weighted by softmax of queries times keys."""
        if q.dtype == torch.bfloat16 and q.requires_grad and q.device.type == "cpu":
            return _attend_in_bf16(q, k, v, self.mask(window))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(window))

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


def _attend_in_bf16(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """What torch's own attention computes, whose gradient in bfloat16 takes three to nine times as long on a CPU."""
    B, H, T, D = q.shape
    if B * H * T * k.shape[2] > MOST_SCORES:
        wide = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
        return wide.to(q.dtype)
    scores = (q * D**-0.5) @ k.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


def places_apart(
    texts: Int[Tensor, "B T"], real: Bool[Tensor, "B T"] | None = None
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B 2"]]:
    """Of two texts in a row, the position of each token in its own text, and how many tokens each has.

    Args:
        texts: (B, T), 0 and 1: which text a token is of.
        real: (B, T) bool, False where a token is padding.
    """
    own = torch.stack((texts == 0, texts == 1), dim=-1)  # (B, T, 2)
    own = own if real is None else own & real[..., None]
    counted = own.cumsum(1)
    places = (counted.gather(2, texts.long()[..., None])[..., 0] - 1).clamp(min=0)
    return places, counted[:, -1]


class Apart(Sight):
    """Two texts in a row, neither of which sees the other.

    Args:
        texts: (B, T), 0 and 1: which text a token is of.
        real: (B, T) bool, False where a token is padding; None: all are real.
    """

    def __init__(self, texts: Int[Tensor, "B T"], real: Bool[Tensor, "B T"] | None = None) -> None:
        super().__init__(0, texts.shape[1], texts.device, real, causal=False)
        self.texts = texts
        self.positions = places_apart(texts, real)[0]

    def _make(self, window: int) -> Tensor | None:
        same = self.texts[:, None, :, None] == self.texts[:, None, None, :]
        made = super()._make(window)
        return same if made is None else same & made


class Packed(Sight):
    """Several texts without their padding, behind each other in one row; each token sees those of its own text.

    Nothing is computed for padding but a few rows at the end, as a product has as many as fill a block: products of a
    new size have to be prepared first.

    Args:
        mask: (B, T) bool, False where a token is padding.
        texts: (B, T), of two texts in a row that do not see each other, which one a token is of: 0, then 1.
    """

    BLOCK = 32  # rows

    def __init__(self, mask: Bool[Tensor, "B T"], texts: Int[Tensor, "B T"] | None = None) -> None:
        count = int(mask.sum())
        super().__init__(0, -(-count // self.BLOCK) * self.BLOCK, mask.device, causal=False)
        self.text, self.count, self.length = mask, count, mask.shape[1]
        self.positions = torch.zeros(1, self.new, dtype=torch.int64, device=mask.device)
        places, lengths = (mask.cumsum(1) - 1, mask.sum(1)) if texts is None else places_apart(texts, mask)
        self.positions[0, :count] = places[mask]
        self.runs: list[tuple[int, int, int]] = []  # where texts of one length begin, how many these are, the length
        place = 0
        for length in lengths.flatten().tolist():
            if self.runs and self.runs[-1][2] == length:
                first, alike, _ = self.runs[-1]
                self.runs[-1] = first, alike + 1, length
            elif length:
                self.runs.append((place, 1, length))
            place += length

    def pack(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "1 N C"]:
        """The rows of real tokens (B, T, C), and zeros to fill the last block."""
        made = x.new_zeros(1, self.new, x.shape[2])
        made[0, : self.count] = x[self.text]
        return made

    def unpack(self, x: Float[Tensor, "1 N C"]) -> Float[Tensor, "B T C"]:
        """Rows (1, N, C) in the places of their tokens, with zeros in those of padding."""
        made = x.new_zeros(*self.text.shape, x.shape[2])
        made[self.text] = x[0, : self.count]
        return made

    def attend(
        self, q: Float[Tensor, "B H T D"], k: Float[Tensor, "B H S D"], v: Float[Tensor, "B H S D"], window: int
    ) -> Float[Tensor, "B H T D"]:
        """Texts of one length are computed together, and see no mask."""
        _, H, N, D = q.shape
        made = q.new_zeros(N, H, D)
        for first, texts, length in self.runs:
            rows = slice(first, first + texts * length)
            some = [x[0, :, rows].unflatten(1, (texts, length)).transpose(0, 1) for x in (q, k, v)]
            mask = Sight(0, length, q.device, causal=False).mask(window)
            mixed = F.scaled_dot_product_attention(*some, attn_mask=mask)  # (texts, H, length, D)
            made[rows].view(texts, length, H, D).copy_(mixed.transpose(1, 2))
        return made.transpose(0, 1)[None]
