"""A study: one text before one model, looked at from many sides, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cutaway.interp.analyses import OF_OUTPUT, analyse, takes_recording, takes_text
from cutaway.interp.inputs import Text, inputs_of
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.numbers import ledger
from cutaway.interp.memory import predicted_bytes
from cutaway.interp.record import Recording, record
from cutaway.interp.results import Result
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress

ROOM = 2**29  # bytes of a recording that is kept for all analyses; of a longer text each records what it reads


class Study:
    """One text before one model. What several analyses read of its run is recorded once.

    Args:
        model: of any kind.
        text: what it reads; of an encoder–decoder the target.
        source: what an encoder–decoder reads.
        room: bytes that the shared recording may take.

    Raises:
        InputError, ConfigError: as `inputs_of`.
    """

    def __init__(self, model: Model, text: Text, source: Source | None = None, *, room: int = ROOM) -> None:
        self.model, self.text, self.source, self.room = model, text, source, room
        self.inputs = inputs_of(model, text, source)
        self._recording: Recording | None = None
        self._output: Recording | None = None

    @property
    def output(self) -> Recording | None:
        """The run with its output at least: of a long text there is room for that alone. None: not even for that."""
        if self._recording is not None:
            return self._recording
        rows, tokens = self.inputs.ids.shape
        if self._output is None and 4 * rows * tokens * self.model.config.vocab_size <= self.room:
            self._output = record(self.model, self.inputs, "logits")
        return self._output

    @property
    def recording(self) -> Recording | None:
        """Everything that the network computed; None where that takes more than there is room for."""
        if self._recording is None and self.bytes <= self.room:
            self._recording, self._output = record(self.model, self.inputs, "*"), None
        return self._recording

    @property
    def bytes(self) -> int:
        """What a recording of everything takes."""
        rows, tokens = self.inputs.ids.shape
        read = 0 if self.inputs.source is None else self.inputs.source.shape[-1]
        return predicted_bytes(self.model.config, self.model.network.tap_names(), rows, tokens, source=read)

    @property
    def given(self) -> tuple[Recording | Model, dict[str, Any]]:
        """What an analysis that takes recordings is called with: the recording; or the model, text and source."""
        if (recording := self.recording) is not None:
            return recording, {}
        return self.model, {"text": self.text, "source": self.source}

    def analyse(
        self, name: str, options: Mapping[str, Any] | None = None, *, progress: OnProgress | None = None
    ) -> Result:
        """Run an analysis by its name on this text; see `analyse`."""
        recording = self.output if name in OF_OUTPUT else self.recording if takes_recording(name) else None
        if recording is not None:
            return analyse(name, recording, "", options, progress=progress)
        heard = {} if self.source is None or not takes_text(name) else {"source": self.source}
        return analyse(name, self.model, self.text, heard | dict(options or {}), progress=progress)

    @torch.no_grad()
    def ledger(self, what: str = "logits", **asked: Any) -> Ledger:
        """Open a number of this run; the arguments are those of `ledger`."""
        if (recording := self.recording) is not None:
            return ledger(recording, what=what, **asked)
        return ledger(self.model, self.text, what, source=self.source, **asked)
