"""The targets of many sources side by side: what an encoder–decoder has to remember to write them in one batch.

The keys and values of a target's tokens lie anywhere in one store; a sequence is the list of their places. So the
hypotheses of a beam search share what they have in common, and a fork copies a list of numbers. Sources are read one by
one, and padded to each other only when a step needs others than the last.

Shapes: B sequences, T new tokens, S tokens of the longest sequence, U sources, L tokens of the longest source,
H heads, D head dim, P places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cutaway.generation.backend import Rows
from cutaway.models import Seq2Seq, Tap
from cutaway.models.cache import CrossCache, KVCache

FIRST = 1024  # places that there are at first


class Crowd:
    """What there is of all sequences.

    Args:
        network: what writes.
    """

    def __init__(self, network: Seq2Seq) -> None:
        self.network, like = network, next(network.parameters())
        config = network.config
        empty = torch.empty(0, config.heads, config.head_dim, dtype=like.dtype, device=like.device)
        self.keys, self.values = [empty] * config.layers, [empty] * config.layers
        self.device, self.free, self.uses = like.device, list[int](), list[int]()
        self.paths: dict[int, list[int]] = {}
        self.sources: dict[
            int, list[Any]
        ] = {}  # sequence -> of each layer the keys and values of its source, (1, H, L, D)
        self._stacked: tuple[tuple[int, ...], list[Any]] = (), []  # of which sources, and what they are side by side

    def open(self, sequence: int, source: Tensor, tap: Tap) -> None:
        """Begin a sequence."""
        self.sources[sequence] = self.network.new_cache(source, capacity=1, tap=tap).sources
        self.paths[sequence] = []

    def fork(self, sequence: int, new: int) -> None:
        """Begin a sequence with the tokens of another."""
        self.sources[new], self.paths[new] = self.sources[sequence], list(self.paths[sequence])
        for place in self.paths[new]:
            self.uses[place] += 1

    def close(self, sequence: int) -> None:
        """Forget a sequence."""
        self.sources.pop(sequence, None)
        self._release(self.paths.pop(sequence, []))

    def cache(self, batch: Sequence[Rows]) -> CrossCache:
        """A cache of these sequences, each of which takes as many new tokens as the others."""
        paths = []
        for rows in batch:
            path = self.paths[rows.sequence]
            self._release(path[rows.start :])
            del path[rows.start :]
            path += self._places(len(rows.ids))
            paths.append(path)
        return CrossCache(_Beside(self, paths, len(batch[0].ids)), self._sources([r.sequence for r in batch]))

    def _places(self, count: int) -> list[int]:
        if count > len(self.free):
            before = len(self.uses)
            more = max(FIRST, before, count)
            for held in (self.keys, self.values):
                for layer, old in enumerate(held):
                    held[layer] = torch.cat([old, old.new_zeros(more, *old.shape[1:])])
            self.uses += [0] * more
            self.free += range(before, before + more)
        taken = [self.free.pop() for _ in range(count)]
        for place in taken:
            self.uses[place] = 1
        return taken

    def _release(self, places: Sequence[int]) -> None:
        for place in places:
            self.uses[place] -= 1
            if not self.uses[place]:
                self.free.append(place)

    def _sources(self, sequences: Sequence[int]) -> list[Any]:
        """Of each layer keys and values (B, H, L, D) and which of them are real."""
        each = [self.sources[sequence] for sequence in sequences]
        found = {id(one): one for one in each}
        if self._stacked[0] != tuple(found):
            self._stacked = tuple(found), _side_by_side(list(found.values()))
        if len(found) == len(each):
            return self._stacked[1]
        order = {key: number for number, key in enumerate(found)}
        rows = torch.tensor([order[id(one)] for one in each], device=self.device)
        return [(k[rows], v[rows], None if real is None else real[rows]) for k, v, real in self._stacked[1]]


def _side_by_side(sources: Sequence[list[Any]]) -> list[Any]:
    """Sources (1, H, ., D) of each layer as one, (U, H, L, D), with which of them are real, (U, 1, 1, L)."""
    lengths = [one[0][0].shape[2] for one in sources]
    most, real = max(lengths), None
    if min(lengths) < most:
        places = torch.arange(most, device=sources[0][0][0].device)
        real = (places < torch.tensor(lengths, device=places.device)[:, None])[:, None, None]
    made = []
    for layer in range(len(sources[0])):
        both = []
        for part in (0, 1):
            first = sources[0][layer][part]
            whole = first.new_zeros(len(sources), first.shape[1], most, first.shape[3])
            for row, one, length in zip(whole, sources, lengths, strict=True):
                row[:, :length] = one[layer][part][0]
            both.append(whole)
        made.append((*both, real))
    return made


class _Beside(KVCache):
    """Keys and values of several sequences, all ending at the same place of a batch.

    Args:
        crowd: where they lie.
        paths: the places of their tokens, the new ones among them.
        new: tokens of each that are computed now.
    """

    def __init__(self, crowd: Crowd, paths: Sequence[list[int]], new: int) -> None:
        most = max(map(len, paths))
        self.crowd, self.length, self.capacity, self.count = crowd, most - new, most, new
        # what stands before a shorter one is nobody's, and hidden; it must be a number all the same
        index = [[path[0]] * (most - len(path)) + path for path in paths]
        self.index = torch.tensor(index, device=crowd.device)  # (B, S)
        self.real: Tensor | None = None
        if min(map(len, paths)) < most:
            lengths = torch.tensor([len(path) for path in paths], device=crowd.device)
            self.real = torch.arange(most, device=crowd.device) >= most - lengths[:, None]  # (B, S)

    def extend_mask(self, mask: Tensor | None, tokens: int) -> Tensor | None:
        """(B, S) bool, False where a shorter sequence has no token."""
        return self.real

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put (B, H, T, D) into their places; gives all (B, H, S, D) so far."""
        made = []
        for held, given in ((self.crowd.keys[layer], key), (self.crowd.values[layer], value)):
            held[self.index[:, -self.count :]] = given.transpose(1, 2)
            made.append(held[self.index].transpose(1, 2))
        return made[0], made[1]
