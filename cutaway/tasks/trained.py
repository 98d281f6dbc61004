"""A task's model: the folder that training leaves, opened to answer, to be measured and to be asked why.

model.json, model.safetensors, tokenizer …   a model folder like any other: `cutaway serve`, `look` and `quantize`
                                             take it (of an adapter: adapter/, beside the base's own folder)
task.json                                    the task and its settings, labels, columns, calibration, figures
report.json, report.html, README.md          what was measured, and the model card
run/                                         the run that trained it: config and metrics
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutaway import __version__
from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.files import holds, inside, read_json, write_json
from cutaway.generation.engine import Engine
from cutaway.models import Model, load_model
from cutaway.models.adapters import load_adapter, save_adapter
from cutaway.models.model import write_model
from cutaway.progress import OnProgress
from cutaway.tasks.registry import task_from
from cutaway.tasks.start import with_head
from cutaway.tasks.task import Answer, Example, Task, task_to_dict

TASK, ADAPTER = "task.json", "adapter"
FORMAT = 1


@dataclass(eq=False)
class TaskModel:
    """A task and the model that does it.

    Attributes:
        task: with its settings.
        model: what computes.
        labels: of the task.
        calibration: what validation examples taught.
        columns: role -> column of the file that it was trained on.
        base: of an adapter, the model that it stands on; "": it is a model by itself.
        about: what is recorded of its training: data, counts, figures.
    """

    task: Task
    model: Model
    labels: tuple[str, ...] = ()
    calibration: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    base: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    engine: Engine | None = None  # what computes, where another than its own

    def example(self, given: str | Mapping[str, Any] | Example, source: str = "the input") -> Example:
        """What is asked, as an example.

        Args:
            given: role -> value; a lone text is of the first role.
            source: what to call it.

        Raises:
            InputError: it is none; says why.
        """
        if isinstance(given, Example):
            return given
        values = {self.task.roles[0].name: given} if isinstance(given, str) else dict(given)
        asked = [role.name for role in self.task.roles]
        if strange := [name for name in values if name not in asked]:
            raise InputError(f"{source} gives {strange[0]!r}; the task {self.task.name} reads {', '.join(asked)}")
        try:
            return self.task.example(source, values, answered=False)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error

    def predict(
        self, inputs: Sequence[str | Mapping[str, Any] | Example], *, progress: OnProgress | None = None
    ) -> list[Answer]:
        """An answer to each input.

        Args:
            inputs: texts, role -> value, or examples.
            progress: told now and then.

        Raises:
            InputError: one of them is no input; nothing is answered then.
        """
        if isinstance(inputs, str):
            raise InputError("give a list of inputs, even of one")
        examples = [self.example(one, f"input {number}") for number, one in enumerate(inputs, 1)]
        return self.answers(self.raw(examples, progress=progress), examples)

    def raw(self, examples: Sequence[Example], *, progress: OnProgress | None = None) -> list[Any]:
        """What the network makes of each example, before calibration."""
        if not examples:
            return []
        self.engine = self.engine or Engine(self.model)
        return self.task.infer(self.engine, examples, progress)

    def answers(self, raw: Sequence[Any], examples: Sequence[Example]) -> list[Answer]:
        """What is said of outputs that `raw` gave."""
        both = zip(raw, examples, strict=True)
        return [self.task.answer(one, example, self.labels, self.calibration) for one, example in both]

    def why(self, given: str | Mapping[str, Any] | Example, *, method: str = "", part: int = 0) -> Any:
        """Which parts of an input its answer is owed to: a result of `interp`, with its receipt.

        Args:
            given: the input.
            method: of attribution; "": the task's usual one.
            part: of an answer of several parts (spans, labels), which of them is asked about, from 0.
        """
        example = self.example(given)
        (answer,) = self.predict([example])
        return self.task.why(self.model, example, answer, method=method, part=part)

    def record(self) -> dict[str, Any]:
        """What task.json holds."""
        return {
            "format": FORMAT,
            "cutaway": __version__,
            "task": task_to_dict(self.task),
            "labels": list(self.labels),
            "columns": self.columns,
            "calibration": self.calibration,
            "base": self.base,
            "about": self.about,
        }


def write_task(made: TaskModel, folder: Path) -> None:
    """Write a task's model into an existing folder."""
    if made.model.adapter is not None:
        save_adapter(made.model, folder / ADAPTER)
    else:
        write_model(made.model, folder)
    write_json(folder / TASK, made.record())


def open_task(folder: str | Path, *, base: str = "") -> TaskModel:
    """Open the folder that training a task has left.

    Args:
        folder: as `train_task` wrote it.
        base: of an adapter, where the model that it stands on lies now; "": where it lay then.

    Raises:
        InputError: no such folder, or one of no task.
        DamagedFile: a file does not match its checksum.
        ConfigError: made by another version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one that cutaway task train has made")
    if not holds(folder, TASK):
        raise InputError(f"{folder} holds no {TASK}, so it is no task's model; make one with: cutaway task train")
    record = read_json(inside(folder, TASK))
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ConfigError(f"{folder / TASK} is of another version of Cutaway; train the task again")
    try:
        task, labels = task_from(record["task"]), tuple(map(str, record["labels"]))
        columns, calibration = dict(record["columns"]), dict(record["calibration"])
        stands_on, about = str(record["base"]), dict(record["about"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise DamagedFile(f"{folder / TASK} lacks what a task is made of ({error})") from error
    if stands_on:
        model = load_adapter(with_head(load_model(base or stands_on), task.features(labels)), folder / ADAPTER)
    else:
        model = load_model(folder)
    return TaskModel(task, model, labels, calibration, columns, stands_on, about)
