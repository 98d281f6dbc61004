"""Texts that are read whole, by an encoder or a decoder with another head: to vectors, labels or states.

Every step of the engine reads one batch, which begins with another caller's texts each time, so that one with a single
text does not wait for another's thousands. It holds texts of about the same length: little is spent on padding.

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
from cutaway.models import Model, Recurrent, Seq2Seq
from cutaway.models.config_parts import POOLED
from cutaway.models.embedding import pad

if TYPE_CHECKING:
    from cutaway.generation.engine import Engine
    from cutaway.generation.job import Job

LIMIT = 4096  # tokens of a batch, padding counted


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

    def tell(self, number: int, made: Tensor) -> None:
        """What was made of a text (the engine's to call)."""
        self.found[number] = made
        self.missing -= 1
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
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._rows: deque[Reading] = deque()

    def add(self, reading: Reading) -> None:
        """One more, from any thread."""
        if not reading.ended:
            self._rows.append(reading)

    @property
    def waiting(self) -> bool:
        """Whether there is something to read."""
        return bool(self._rows)

    def step(self) -> bool:
        """Read one batch; False: there was none."""
        batch = self._batch()
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
        """The next texts: the shortest of the caller whose turn it is, and what others have that is no longer."""
        batch: list[tuple[Reading, int]] = []
        longest = 0
        for place in range(len(self._rows)):
            reading = self._rows.popleft()
            while reading.left:
                length = len(reading.texts[reading.left[0]])
                most = longest if place and batch else max(longest, length)
                if length > most or (batch and most * (len(batch) + 1) > LIMIT):
                    break
                longest = most
                batch.append((reading, reading.left.popleft()))
            if reading.left:
                self._rows.append(reading)
        self._rows.rotate(-1)
        return batch

    def _read(self, batch: Sequence[tuple[Reading, int]]) -> None:
        network, texts = self.model.network, [reading.texts[number] for reading, number in batch]
        ids, mask = pad(texts, self.model.tokenizer.pad or 0)
        device = self.model.device
        with torch.inference_mode(), evaluating(network):
            given: dict[str, Tensor] = {}
            if getattr(network.config, "token_types", 0) and any(reading.types for reading, _ in batch):
                kinds = [
                    list(reading.types[number]) if reading.types else [0] * len(reading.texts[number])
                    for reading, number in batch
                ]
                given["token_types"] = pad(kinds, 0)[0].to(device)
            made = network(ids.to(device), mask=mask.to(device), **given).float().cpu()  # (B, L) or (B, T, L)
        pooled = getattr(network.config, "head", "") in POOLED
        for (reading, number), row, text in zip(batch, made, texts, strict=True):
            row = row if pooled else row[: len(text)]
            if torch.isfinite(row).all():
                reading.tell(number, row.clone())
            else:
                reading.end(
                    NonFinite(f"what was computed of text {number} is NaN or infinite: the weights are damaged")
                )


def ids_of(model: Model, texts: Sequence[Any]) -> list[list[int]]:
    """The ids of texts as a network that reads them whole takes them, with special tokens around them.

    Raises:
        ConfigError: a network that writes.
        InputError: a lone string, or a text that is empty or longer than the context.
    """
    head = getattr(model.config, "head", None)
    if isinstance(model.network, Recurrent | Seq2Seq) or head == "causal_lm":
        raise ConfigError(f"{model.source or 'the model'} writes texts; reading them whole is for encoders and heads")
    if isinstance(texts, str):
        raise InputError("give a list of texts, even of one")
    made = []
    for number, text in enumerate(texts):
        made.append(model.ids(text)[0].tolist())
        if len(made[-1]) > model.config.context:
            raise InputError(
                f"text {number} has {len(made[-1])} tokens, but this model sees {model.config.context} at once; "
                "shorten or split it"
            )
    return made
