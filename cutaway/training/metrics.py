"""What happened, step by step: lines of JSON in the run folder, and TensorBoard's event files beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cutaway.errors import DamagedFile, MissingExtra, need
from cutaway.files import disk_errors, holds, inside, parse_json

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"


class Log:
    """Appends records.

    Args:
        folder: of the run.
        step: where the run continues; TensorBoard is told to forget what came after.
        tensorboard: "on", "off", or "auto" for where the library is installed.

    Attributes:
        note: why TensorBoard's files are not written, or "".

    Raises:
        MissingExtra: tensorboard is "on" but not installed.
    """

    def __init__(self, folder: Path, step: int = 0, tensorboard: str = "off") -> None:
        self.path, self.note = folder / METRICS, ""
        self._writer: Any = None
        if tensorboard == "off":
            return
        try:
            need("tensorboard", "tensorboard", "writing TensorBoard's event files")
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)
        except MissingExtra as error:
            if tensorboard == "on":
                raise
            self.note = f"no TensorBoard files: {error}"

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record, which has a "step", and flush it.

        Raises:
            InputError: the disk is full.
        """
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        if self._writer is not None:
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float):
                    self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All records of a run, in order; half a line at the end, of a process that was killed, is left out.

    Raises:
        DamagedFile: a line that is not a record.
    """
    path = folder / METRICS
    lines = inside(folder, METRICS).read_bytes().splitlines() if holds(folder, METRICS) else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line, f"{path}, line {number}")
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                raise ValueError("not a record with a step")
            records.append(record)
        except ValueError as error:
            if number < len(lines):
                reason = str(error).removeprefix(f"{path}, line {number}").lstrip(": ")
                raise DamagedFile(f"{path}, line {number}: {reason}; delete the line") from error
    return records


def evaluation_at(folder: Path, step: int) -> dict[str, Any]:
    """What the evaluation after a step has found: the validation loss and other figures."""
    found = (record for record in read_metrics(folder) if record["step"] == step and "valid_loss" in record)
    return {name: value for record in found for name, value in record.items() if name not in ("step", "seconds")}
