"""A study: one text before one model, looked at from many sides, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from threading import RLock
from typing import Any

import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp.analyses import ANALYSES, OF_OUTPUT, analyse, options_of, takes_recording
from cutaway.interp.inputs import Text, inputs_of
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.numbers import ledger
from cutaway.interp.memory import predicted_bytes
from cutaway.interp.recall import recall
from cutaway.interp.record import Recording, record
from cutaway.interp.results import Result
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress

ROOM = 2**29  # bytes of a recording that is kept whole; of a longer text layers are formed when they are read


class Study:
    """One text before one model. What several analyses read of its run is recorded once; they may run in threads.

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
        self._lock = RLock()
        self._recording: Recording | None = None
        self._output: Recording | None = None

    @property
    def output(self) -> Recording:
        """The run with its output at least: all of it, or of a text whose patterns no memory holds that alone."""
        with self._lock:
            if self._output is None:
                try:
                    return self.recording
                except InputError:  # not even one layer has room
                    self._output = record(self.model, self.inputs, "logits")
            return self._output

    @property
    def recording(self) -> Recording:
        """Everything that the network computed; where there is no room for all of it, formed when it is read."""
        with self._lock:
            if self._recording is None:
                whole = self.bytes <= self.room
                self._recording = record(self.model, self.inputs) if whole else recall(self.model, self.inputs)
            return self._recording

    @property
    def recorded(self) -> bool:
        """Whether that is there already, and whole: any number of it opens at once."""
        return self._recording is not None and self.bytes <= self.room

    @property
    def bytes(self) -> int:
        """What a recording of everything takes."""
        rows, tokens = self.inputs.ids.shape
        read = 0 if self.inputs.source is None else self.inputs.source.shape[-1]
        return predicted_bytes(self.model.config, self.model.network.tap_names(), rows, tokens, source=read)

    def analyse(
        self, name: str, options: Mapping[str, Any] | None = None, *, progress: OnProgress | None = None
    ) -> Result:
        """Run an analysis by its name on this text; see `analyse`.

        Raises:
            ConfigError: as there; or another source than that of the study.
        """
        options = dict(options or {})
        if "source" in options:
            raise ConfigError("what is read beside the text belongs to the study, so source is no option of it")
        if takes_recording(name):
            recording = self.output if name in OF_OUTPUT else self.recording
            return analyse(name, recording, "", options, progress=progress)
        reads = name in ANALYSES and "source" in options_of(name)
        heard = {"source": self.source} if reads and self.source is not None else {}
        return analyse(name, self.model, self.text, heard | options, progress=progress)

    @torch.no_grad()
    def ledger(self, what: str = "logits", **asked: Any) -> Ledger:
        """Open a number of this run; the arguments are those of `ledger`."""
        return ledger(self.recording, what=what, **asked)
