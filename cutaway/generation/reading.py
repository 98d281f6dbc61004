"""Texts that are read whole, by an encoder or a decoder with another head: to vectors, labels or states.

Every step of the engine reads one batch, in turn a text of each caller, so that one with a single text does not wait
for another's thousands. An encoder spends nothing on padding (see `models.sight.Packed`), and another network little.

Shapes: B texts, T tokens, L what the head makes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.generation.torch_backend import evaluating
from cutaway.models import Encoder, Model, Seq2Seq
from cutaway.models.config_parts import POOLED
from cutaway.models.embedding import pad

if TYPE_CHECKING:
    from cutaway.generation.engine import Engine
    from cutaway.generation.job import Job

LIMIT = 1024  # tokens of a batch, unless one text alone has more: products as large as this are as fast as any
PADDED = 1.25  # times their tokens, what texts may take with padding


class Reading:
    """Texts of one caller, while they are read.

    Args:
        engine: what reads.
        texts: ids of each.
        types: of each token, which of two texts it is of; None: all are of one.
    """

    def __init__(
        self, engine: Engine, texts: Sequence[list[int]], types: Sequence[Sequence[int]] | None = None
    ) -> None:
        self._engine = engine
        self.texts, self.types = texts, types
        self.left = deque(sorted(range(len(texts)), key=lambda i: len(texts[i])))
        self.found: list[Tensor | None] = [None] * len(texts)
        self.missing = len(texts)
        self.error: Exception | None = None
        self.ended, self.waiting = not texts, False
        self.later: Job | None = None

    @property
    def news(self) -> bool:
        """Whether it has ended."""
        return self.ended

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(map(len, self.texts))

    def tell(self, number: int, made: Tensor) -> None:
        """What was made of a text (the engine's to call)."""
        self.missing -= self.found[number] is None  # it may be told again, where a step failed with others' texts
        self.found[number] = made
        self.ended = self.ended or not self.missing

    def end(self, error: Exception | None = None) -> None:
        """No more is read (the engine's to call)."""
        self.error, self.ended = error, True
        self.left.clear()

    def cancel(self) -> None:
        """Read no more of it."""
        if not self.ended:
            self.end(InputError("the reading was cancelled"))

    def results(self) -> list[Tensor]:
        """Wait for all; of each text what the head makes, on the CPU: (L,) of whole texts, else (T, L).

        Raises:
            Exception: what it failed with.
        """
        self._engine.pull(self, whole=True)
        if self.error is not None:
            raise self.error
        return [made for made in self.found if made is not None]


class Readings:
    """All that wait to be read by one model.

    Args:
        model: what reads.

    Attributes:
        texts: of the last batch.
        tokens: read so far.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._rows: deque[Reading] = deque()
        self.texts = self.tokens = 0

    def add(self, reading: Reading) -> None:
        """One more, from any thread."""
        if not reading.ended:
            self._rows.append(reading)

    @property
    def reads(self) -> bool:
        """Whether this model reads texts whole."""
        return not _writes(self.model)

    @property
    def waiting(self) -> bool:
        """Whether there is something to read."""
        return bool(self._rows)

    def end(self, error: Exception) -> None:
        """Read no more."""
        while self._rows:
            reading = self._rows.popleft()
            if not reading.ended:
                reading.end(error)

    def step(self) -> bool:
        """Read one batch; False: there was none."""
        batch = self._batch()
        self.texts, self.tokens = len(batch), self.tokens + sum(map(_length, batch))
        if not batch:
            return False
        try:
            self._read(batch)
        except Exception as error:
            if len(owners := {id(reading): reading for reading, _ in batch}) == 1:
                batch[0][0].end(error)
            else:  # whose failure was it?
                for reading in owners.values():
                    try:
                        self._read([one for one in batch if one[0] is reading])
                    except Exception as its:
                        reading.end(its)
        return True

    def _batch(self) -> list[tuple[Reading, int]]:
        """The next texts, shortest first: in turn one of each caller, its shortest, while there is room."""
        batch: list[tuple[Reading, int]] = []
        room, turn = LIMIT, deque(self._rows)
        while turn:
            reading = turn.popleft()
            try:
                number = reading.left[0]
                if batch and len(reading.texts[number]) > room:
                    continue
                batch.append((reading, reading.left.popleft()))
            except IndexError:  # it has no more, or was cancelled just now
                continue
            room -= len(reading.texts[number])
            turn.append(reading)
        for _ in range(len(self._rows)):
            reading = self._rows.popleft()
            if reading.left:
                self._rows.append(reading)
        self._rows.rotate(-1)  # another's come first
        return sorted(batch, key=_length)

    def _read(self, batch: Sequence[tuple[Reading, int]]) -> None:
        for some in [batch] if isinstance(self.model.network, Encoder) else _alike(batch):
            self._read_together(some)

    def _read_together(self, batch: Sequence[tuple[Reading, int]]) -> None:
        network, texts = self.model.network, [reading.texts[number] for reading, number in batch]
        ids, mask = pad(texts, self.model.tokenizer.pad or 0)
        device = self.model.device
        given: dict[str, Any] = {} if mask.all() else {"mask": mask.to(device)}
        if isinstance(network, Encoder):
            given["unpadded"] = True
        typed = getattr(network.config, "token_types", 0) or getattr(network.config, "apart", False)
        if typed and any(reading.types for reading, _ in batch):
            kinds = [
                list(reading.types[number]) if reading.types else [0] * len(reading.texts[number])
                for reading, number in batch
            ]
            given["token_types"] = pad(kinds, 0)[0].to(device)
        with torch.inference_mode(), evaluating(network):
            made = network(ids.to(device), **given).float().cpu()  # (B, L) or (B, T, L)
            pooled = getattr(network.config, "head", "") in POOLED
            rows = [row.clone() if pooled else row[: len(text)].clone() for row, text in zip(made, texts, strict=True)]
            finite = (
                torch.isfinite(made).all(1).tolist() if pooled else [bool(torch.isfinite(row).all()) for row in rows]
            )
        for (reading, number), row, fine in zip(batch, rows, finite, strict=True):
            if fine:
                reading.tell(number, row)
            else:
                reading.end(
                    NonFinite(f"what was computed of text {number} is NaN or infinite: the weights are damaged")
                )


def _length(one: tuple[Reading, int]) -> int:
    reading, number = one
    return len(reading.texts[number])


def _alike(batch: Sequence[tuple[Reading, int]]) -> list[list[tuple[Reading, int]]]:
    """Texts in the order of their lengths, in parts of which little is padding."""
    parts: list[list[tuple[Reading, int]]] = []
    tokens = 0
    for one in batch:
        tokens += _length(one)
        if not parts or _length(one) * (len(parts[-1]) + 1) > PADDED * tokens:
            parts.append([])
            tokens = _length(one)
        parts[-1].append(one)
    return parts


def _writes(model: Model) -> bool:
    return isinstance(model.network, Seq2Seq) or model.network.config.head == "causal_lm"


def ids_of(model: Model, texts: Sequence[Any]) -> list[list[int]]:
    """The ids of texts as a network that reads them whole takes them, with special tokens around them.

    Raises:
        ConfigError: a network that writes.
        InputError: a lone string, or a text that is empty or longer than the context.
    """
    if _writes(model):
        raise ConfigError(f"{model.source or 'the model'} writes texts; reading them whole is for encoders and heads")
    if isinstance(texts, str):
        raise InputError("give a list of texts, even of one")
    made = []
    for number, text in enumerate(texts):
        # ids that are as they must be need no tensor to be checked with, which would take as long as all of HTTP
        good = isinstance(text, list) and all(type(id) is int and 0 <= id < model.config.vocab_size for id in text)
        made.append(text if good and text else model.ids(text)[0].tolist())
        if len(made[-1]) > model.config.context:
            raise InputError(
                f"text {number} has {len(made[-1])} tokens, but this model sees {model.config.context} at once; "
                "shorten or split it"
            )
    return made
