"""The backend that computes with torch: every network, every machine, every tap.

Each sequence is computed by itself, so that it gets the same numbers, bit for bit, whatever else is in the step.
`together` computes the sequences that take one token each as one batch instead, which is faster on a GPU or with many
sequences, and rounds differently; an encoder–decoder's lie in a `Crowd` then.

Shapes: T new tokens, S tokens seen (held and new), K key/value heads, D head dim, W wanted rows, V vocabulary,
B sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.generation.backend import Logits, Rows
from cutaway.generation.crowd import Crowd
from cutaway.generation.request import Score
from cutaway.generation.sampling import scored
from cutaway.models import OFF, ActiveTap, Decoder, Recurrent, Seq2Seq, Tap
from cutaway.models.cache import CrossCache, KVCache
from cutaway.models.gru import RecurrentState

PAGE = 64
READ = 64  # rows whose logits are computed at once where only scores are asked for
CHUNK = 256  # tokens: a piece of a prompt ends at a multiple of it, so that it always is the same product
CACHES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class TorchBackend:
    """Computes with the network itself.

    Args:
        network: what predicts.
        reason: why this backend was chosen.
        cache: how a decoder's keys and values are kept, one of CACHES; "auto": in the dtype of the weights.
        together: whether sequences are computed as a batch where they can be; None: on all devices but the CPU.

    Raises:
        ConfigError: another cache.
    """

    def __init__(
        self, network: Any, reason: str = "it was asked for", *, cache: str = "auto", together: bool | None = None
    ) -> None:
        if cache != "auto" and cache not in CACHES:
            raise ConfigError(f"the torch backend keeps keys and values as {', '.join(CACHES)}, not as {cache!r}")
        self.network, self.name, self.reason = network, "torch", reason
        self.page, self.page_bytes, self.chunk = 0, 0, 0
        like = next(network.parameters())
        self.together = like.device.type != "cpu" if together is None else together
        self.apart = not self.together
        self.store: Store | None = None
        self.states: dict[int, Any] = {}
        self.adapted: dict[int, Any] = {}  # networks with adapters, by number
        self.crowd = Crowd(network) if self.together and isinstance(network, Seq2Seq) else None
        if isinstance(network, Decoder):
            self.store = Store(network, like.dtype if cache == "auto" else CACHES[cache])
            self.page, self.page_bytes, self.chunk = PAGE, self.store.page_bytes, CHUNK

    def adapt(self, number: int, network: Any) -> bool:
        """Compute rows of this number with the network's adapter from now on; None: no more.

        Returns:
            Whether it can be: where sequences have states, an adapter needs a backend of its own.
        """
        if network is None:
            self.adapted.pop(number, None)
        elif self.store is not None:
            self.adapted[number] = network
        return self.store is not None

    def reserve(self, pages: int) -> None:
        """Make room for this many pages, keeping what they hold."""
        if self.store is not None:
            self.store.reserve(pages)

    def copy(self, source: int, target: int) -> None:
        """Copy one page."""
        assert self.store is not None
        self.store.copy(source, target)

    @torch.inference_mode()
    def open(self, sequence: int, source: Any = None, tap: Tap = OFF) -> None:
        """Begin a sequence; an encoder–decoder reads its source, shown to the tap.

        Raises:
            InputError: a longer source than the context holds, or of another form.
        """
        if self.crowd is not None:
            with evaluating(self.network):
                self.crowd.open(sequence, source, tap)
        elif isinstance(self.network, Seq2Seq):
            with evaluating(self.network):
                made = self.network.new_cache(source, capacity=1, tap=tap)
            self.states[sequence] = CrossCache(Growing(made.own), made.sources)
        elif isinstance(self.network, Recurrent):
            self.states[sequence] = {0: self.network.new_cache(1)}

    @torch.inference_mode()
    def fork(self, sequence: int, new: int) -> None:
        """Begin a sequence with the state of another."""
        if self.crowd is not None:
            self.crowd.fork(sequence, new)
        state = self.states.get(sequence)
        if isinstance(state, CrossCache):
            assert isinstance(state.own, Growing)
            state = CrossCache(state.own.clone(), state.sources)
        elif state is not None:
            state = dict(state)  # states themselves are never changed
        if state is not None:
            self.states[new] = state

    def close(self, sequence: int) -> None:
        """Forget a sequence."""
        self.states.pop(sequence, None)
        if self.crowd is not None:
            self.crowd.close(sequence)

    def work_bytes(self, rows: int, wanted: int) -> int:
        """Bytes that a step may take: activations of a layer with what is made of them, keys and values, logits."""
        config = self.network.config
        width, inner = config.width, getattr(config, "mlp_width", 0) or 4 * getattr(config, "hidden", config.width)
        return 4 * (rows * (16 * width + 6 * inner) + (2 * wanted + 2 * READ) * config.vocab_size)

    def packed_bytes(self) -> int:
        """None are held."""
        return 0

    def end(self) -> None:
        """Give keys and values back."""
        self.store, self.states, self.crowd = None, {}, None

    @torch.inference_mode()
    def step(self, batch: Sequence[Rows]) -> Logits:
        """Compute all rows; what is not finite in the logits is so in `log_sum`."""
        found: list[Tensor] = [torch.empty(0)] * len(batch)
        scores: dict[int, list[Score]] = {}
        single = []
        if self.together and (self.store is not None or self.crowd is not None):
            plain = [i for i, rows in enumerate(batch) if rows.tap is OFF and not rows.adapter]
            single = [i for i in plain if len(batch[i].ids) == batch[i].wanted == 1]
        single = single if len(single) > 1 else []
        with evaluating(self.network):
            for i, rows in enumerate(batch):
                if i not in single:
                    found[i], its = self._logits(rows)
                    if its:
                        scores[i] = its
            if single:
                for i, row in zip(single, self._all_at_once([batch[i] for i in single]), strict=True):
                    found[i] = row[None]
        found = [logits.float().cpu() for logits, rows in zip(found, batch, strict=True) if rows.wanted]
        if not found:
            return Logits(torch.empty(0, 0), torch.empty(0, dtype=torch.int64), torch.empty(0), scores)
        values = found[0] if len(found) == 1 else torch.cat(found)  # (W, V)
        return Logits(values, values.argmax(-1), _log_sums(values), scores)

    def _logits(self, rows: Rows) -> tuple[Tensor, list[Score]]:
        """(wanted, V) of one sequence, and the scores that it asks for."""
        if rows.adapter:
            with evaluating(adapted := self.adapted[rows.adapter]):
                return self._logits_of(adapted, rows)
        return self._logits_of(self.network, rows)

    def _logits_of(self, network: Any, rows: Rows) -> tuple[Tensor, list[Score]]:
        ids = torch.tensor([rows.ids], device=next(network.parameters()).device)  # (1, T)
        if isinstance(network, Recurrent):
            return self._by_state(network, ids, rows)
        if isinstance(network, Decoder):
            assert self.store is not None
            cache: Any = PagedCache(self.store, rows.pages, rows.start)
        elif self.crowd is not None:
            cache = self.crowd.cache([rows])
        else:
            cache = self.states[rows.sequence]
            cache.own.length = rows.start
        return self._read_out(network, network.stream(ids, cache=cache, tap=rows.tap), rows.wanted, rows)

    def _read_out(self, network: Any, x: Tensor, wanted: int, rows: Rows) -> tuple[Tensor, list[Score]]:
        """(wanted, V) and scores of a stream (1, T, C), a few rows at a time.

        A tap is shown all T, which changes no number unless it edits them.
        """
        new, tap, shown = x.shape[1], rows.tap, None
        if tap is not OFF:
            logits = network.read_out(x, tap=tap)[0]
            if new == wanted or type(tap) is not ActiveTap or tap.edits("logits", "final_norm"):
                shown = logits
        scores: list[Score] = []
        ids, end = rows.scored, new - wanted
        while len(scores) < len(ids):
            start = end - len(ids) + len(scores)
            stop = min(start + READ, end)
            values = network.read_out(x[:, start:stop])[0] if shown is None else shown[start:stop]
            values, some = values.float().cpu(), ids[len(scores) : len(scores) + stop - start]
            scores += scored(values.numpy(), _log_sums(values).tolist(), some, rows.top)
        if shown is not None:
            return shown[end:], scores
        return network.read_out(x[:, -wanted:])[0] if wanted else x[0, :0], scores

    def _by_state(self, network: Recurrent, ids: Tensor, rows: Rows) -> tuple[Tensor, list[Score]]:
        """(wanted, V) and scores; states are kept before each guess, as the next step may go back to any."""
        state, start, scores = self.states[rows.sequence][rows.start], 0, []
        kept, logits, wanted = {rows.start: state}, [], max(0, rows.wanted - rows.guesses)
        for end in range(ids.shape[1] - rows.guesses, ids.shape[1] + 1):
            state = _copy(state)
            x = network.resume(0, rows.tap("embed", network.embed_tokens(ids[:, start:end])), cache=state, tap=rows.tap)
            made, its = self._read_out(
                network, x, 1 if start else wanted, rows if not start else replace(rows, scored=[])
            )
            logits.append(made)
            scores += its
            kept[rows.start + end] = state
            start = end
        self.states[rows.sequence] = kept
        return torch.cat(logits) if rows.wanted else logits[0][:0], scores

    def _all_at_once(self, batch: Sequence[Rows]) -> Tensor:
        """(B, V) of sequences that take one token each."""
        held = self.crowd or self.store
        assert held is not None
        ids = torch.tensor([rows.ids for rows in batch], device=held.device)  # (B, 1)
        cache = held.cache(batch) if isinstance(held, Crowd) else SideBySide(held, batch)
        return self.network(ids, cache=cache)[:, -1]


def _log_sums(values: Tensor) -> Tensor:
    """Of each row of (W, V) the log of the sum of exp, NaN where a logit is not finite.

    Row by row: a sum over many rows may be split in other ways than one over a few.
    """
    sums = torch.stack([row.logsumexp(-1) for row in values])
    return torch.where(torch.isfinite(values).all(dim=-1), sums, torch.nan)


class Store:
    """The pages of a decoder: of each layer's keys and values a place (K, D) for every token of every page."""

    def __init__(self, network: Decoder, dtype: torch.dtype) -> None:
        config, like = network.config, next(network.parameters())
        self.device, self.dtype, self.numbers = like.device, dtype, like.dtype
        self.shape, self.layers, self.pages = (config.kv_heads, config.head_dim), config.layers, 0
        empty = torch.empty(0, *self.shape, dtype=dtype, device=like.device)
        self.keys, self.values = [empty] * config.layers, [empty] * config.layers
        self.page_bytes = 2 * config.layers * PAGE * config.kv_heads * config.head_dim * dtype.itemsize

    @torch.inference_mode()
    def reserve(self, pages: int) -> None:
        if pages <= self.pages:
            return
        for held in (self.keys, self.values):
            for layer, before in enumerate(held):
                held[layer] = before.new_empty(pages * PAGE, *self.shape)
                held[layer][: len(before)] = before
        self.pages = pages

    @torch.inference_mode()
    def copy(self, source: int, target: int) -> None:
        for held in (*self.keys, *self.values):
            held[target * PAGE : (target + 1) * PAGE] = held[source * PAGE : (source + 1) * PAGE]

    def places(self, pages: Sequence[int], start: int, end: int) -> slice | Tensor:
        """Where tokens start … end - 1 of a sequence lie: one piece where its pages lie in a row."""
        used = pages[start // PAGE : -(-end // PAGE)]
        first = start % PAGE
        if all(page == used[0] + i for i, page in enumerate(used)):
            begin = used[0] * PAGE + first
            return slice(begin, begin + end - start)
        table = torch.tensor(used, device=self.device)[:, None] * PAGE + torch.arange(PAGE, device=self.device)
        return table.flatten()[first : first + end - start]


class PagedCache(KVCache):
    """One sequence's keys and values in a store.

    Args:
        store: where they lie.
        pages: the sequence's table.
        start: tokens held.
    """

    def __init__(self, store: Store, pages: Sequence[int], start: int) -> None:
        self.store, self.pages, self.length, self.real = store, pages, start, None
        self.capacity = len(pages) * PAGE
        self.new: slice | Tensor | None = None
        self.all: slice | Tensor | None = None

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put (1, K, T, D) into their places; gives all (1, K, S, D) so far."""
        if self.new is None or self.all is None:
            end = self._end(key.shape[2])
            self.new, self.all = self.store.places(self.pages, self.length, end), self.store.places(self.pages, 0, end)
        made = []
        for held, given in ((self.store.keys[layer], key), (self.store.values[layer], value)):
            held[self.new] = given[0].transpose(0, 1).to(held.dtype)
            made.append(held[self.all].transpose(0, 1)[None].to(given.dtype))
        return made[0], made[1]


class SideBySide(KVCache):
    """Keys and values of several sequences that take one token each, all ending at the same place of a batch.

    Args:
        store: where they lie.
        batch: their rows.
    """

    def __init__(self, store: Store, batch: Sequence[Rows]) -> None:
        ends = [rows.start + 1 for rows in batch]
        most = max(ends)
        self.store, self.length, self.capacity = store, most - 1, most
        index = torch.empty(len(batch), most, dtype=torch.int64, device=store.device)
        for row, rows, end in zip(index, batch, ends, strict=True):
            places = store.places(rows.pages, 0, end)
            row[most - end :] = torch.arange(places.start, places.stop) if isinstance(places, slice) else places
            row[: most - end] = row[most - end]  # whatever is nobody's might be no number
        self.index = index  # (B, S)
        lengths = torch.tensor(ends, device=store.device)
        self.real = torch.arange(most, device=store.device) >= most - lengths[:, None]  # (B, S)

    def extend_mask(self, mask: Tensor | None, tokens: int) -> Tensor | None:
        """(B, S) bool, False where a shorter sequence has no token."""
        return self.real

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put (B, K, 1, D) into their places; gives all (B, K, S, D) so far."""
        made = []
        for held, given in ((self.store.keys[layer], key), (self.store.values[layer], value)):
            held[self.index[:, -1]] = given[:, :, 0].to(held.dtype)
            made.append(held[self.index].transpose(1, 2).to(given.dtype))
        return made[0], made[1]


class Growing(KVCache):
    """A cache of one sequence that makes room as it needs it.

    Args:
        like: an empty cache of the same layers.
    """

    def __init__(self, like: KVCache) -> None:
        self.keys, self.values = list(like.keys), list(like.values)
        self.capacity, self.length, self.real = like.capacity, like.length, None

    def _end(self, tokens: int) -> int:
        end = self.length + tokens
        if end > self.capacity:
            self.capacity = max(2 * end, 64)
            self.keys, self.values = ([self._wider(held) for held in both] for both in (self.keys, self.values))
        return end

    def _wider(self, held: Tensor) -> Tensor:
        made = held.new_empty(*held.shape[:2], self.capacity, held.shape[3])
        made[:, :, : self.length] = held[:, :, : self.length]
        return made

    def clone(self) -> Growing:
        """One that goes its own way."""
        made = Growing(self)
        made.keys, made.values = ([held.clone() for held in both] for both in (self.keys, self.values))
        return made


def _copy(state: RecurrentState) -> RecurrentState:
    made = RecurrentState(list(state.hidden), list(state.cells))
    made.length = state.length
    return made


class evaluating:
    """The network without dropout, and afterwards as it was."""

    def __init__(self, network: Any) -> None:
        self.network, self.training = network, network.training

    def __enter__(self) -> None:
        if self.training:
            self.network.eval()

    def __exit__(self, *_: object) -> None:
        if self.training:
            self.network.train()
