"""A task's model: the folder that training leaves, opened to answer, to be measured and to be asked why.

model.json, model.safetensors, tokenizer …   a model folder like any other: `cutaway serve`, `look` and `quantize`
                                             take it (of an adapter: adapter/, beside the base's own folder)
kept.safetensors                             of a task that answers by its training examples too, what it keeps of them
task.json                                    the task and its settings, labels, columns, calibration, figures
report.json, report.html, README.md          what was measured, and the model card
plan.json                                    what was asked for, and the checksums of what it was made from
run/                                         the run that trained it: config and metrics
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway import __version__
from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.files import atomic_folder, holds, inside, read_json, write_json
from cutaway.generation.engine import Engine
from cutaway.models import Model, load_model
from cutaway.models.adapters import CONFIG, load_adapter, merge_adapter, save_adapter
from cutaway.models.assemble import read_tensors, write_tensors
from cutaway.models.config import config_from_dict, config_to_dict
from cutaway.models.model import MODEL_JSON, write_model
from cutaway.progress import OnProgress
from cutaway.tasks.registry import task_from
from cutaway.tasks.start import HEADS, with_head
from cutaway.tasks.task import Answer, Example, Task, task_to_dict

TASK, ADAPTER, KEPT = "task.json", "adapter", "kept.safetensors"
FORMAT = 1
BESIDE = ("report.json", "report.html", "README.md", "set-aside.jsonl")  # that stay true of the same weights merged


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
        kept: of the training examples, what the task answers by.
        engine: what computes, where another than its own.
    """

    task: Task
    model: Model
    labels: tuple[str, ...] = ()
    calibration: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    base: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    engine: Engine | None = None

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
        return self.task.recall(self.task.infer(self.engine, examples, progress), examples, self.kept)

    def answers(self, raw: Sequence[Any], examples: Sequence[Example]) -> list[Answer]:
        """What is said of outputs that `raw` gave."""
        both = zip(raw, examples, strict=True)
        return [self.task.answer(one, example, self.labels, self.calibration) for one, example in both]

    def why(
        self,
        given: str | Mapping[str, Any] | Example,
        *,
        method: str = "",
        part: int = 0,
        answer: Answer | None = None,
    ) -> Any:
        """Which parts of an input its answer is owed to: a result of `interp`, with its receipt.

        Args:
            given: the input.
            method: of attribution; "": the task's usual one.
            part: of an answer of several parts (spans, labels), which of them is asked about, from 0.
            answer: what is asked about; None: what the model says.
        """
        example = self.example(given)
        if answer is None:
            (answer,) = self.predict([example])
        more: dict[str, Any] = {}
        if self.kept:  # who keeps something asks for it
            more = {"kept": self.kept, "calibration": self.calibration, "labels": self.labels}
        return self.task.why(self.model, example, answer, method=method, part=part, **more)

    def merged(self) -> TaskModel:
        """The same as one model by itself, without a base.

        Raises:
            ConfigError: it is one already.
        """
        if self.model.adapter is None:
            raise ConfigError(f"{self.model.source or 'this'} stands on no base: it is one model already")
        whole = merge_adapter(self.model)
        return TaskModel(
            self.task, whole, self.labels, self.calibration, self.columns, about=self.about, kept=self.kept
        )

    def record(self) -> dict[str, Any]:
        """What task.json holds."""
        on = {"network": config_to_dict(self.model.config), "base_sum": body_sum(self.model)} if self.base else {}
        return {
            "format": FORMAT,
            "cutaway": __version__,
            "task": task_to_dict(self.task),
            "labels": list(self.labels),
            "columns": self.columns,
            "calibration": self.calibration,
            "base": self.base,
            **on,
            "about": self.about,
        }


def write_task(made: TaskModel, folder: Path) -> None:
    """Write a task's model into an existing folder."""
    if made.model.adapter is not None:
        save_adapter(made.model, folder / ADAPTER)
    else:
        write_model(made.model, folder)
    if made.kept:
        write_tensors(made.kept, folder / KEPT)
    write_json(folder / TASK, made.record())


def body_sum(model: Model) -> str:
    """A SHA-256 of the weights that an adapter stands on: all but its parts and what is its own."""
    own = () if model.adapter is None else model.adapter.own
    tensors = {
        name.replace(".base.", "."): tensor
        for name, tensor in model.network.state_dict().items()
        if not name.startswith(HEADS) and not name.endswith((".lora_A", ".lora_B", ".magnitude"))
    }
    whole = sha256()
    for name in sorted(tensors.keys() - {*own}):
        tensor = tensors[name].detach().float().cpu().contiguous()
        whole.update(f"{name}{tuple(tensor.shape)}".encode())
        whole.update(tensor.numpy().reshape(-1).data)
    return whole.hexdigest()


def merge_task(folder: str | Path, out: str | Path, *, base: str = "") -> Path:
    """Make one model of a task's adapter and its base, in a folder of its own.

    Args:
        folder: of an adapter, as `train_task` wrote it.
        out: the folder to make.
        base: where the model that it stands on lies now; "": where it lay then.

    Raises:
        InputError: there is something at `out` already, or the disk is full.
        ConfigError: it stands on no base.
        (and those of `open_task`)
    """
    out = Path(out)
    if out.exists():
        raise InputError(f"{out} exists already; choose another folder")
    merged = open_task(folder, base=base).merged()
    with atomic_folder(out) as room:
        for name in BESIDE:
            if holds(Path(folder), name):
                shutil.copy(inside(Path(folder), name), room / name)
        write_task(merged, room)
    return out


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
    model = _on_base(record, base or stands_on, folder) if stands_on else load_model(folder)
    kept = read_tensors(inside(folder, KEPT)) if holds(folder, KEPT) else {}
    return TaskModel(task, model, labels, calibration, columns, stands_on, about, kept)


def _on_base(record: Mapping[str, Any], base: str, folder: Path) -> Model:
    """An adapter on its base, with the head that it had."""
    inside(folder, f"{ADAPTER}/{CONFIG}")  # and not through a link
    where = f"{folder / TASK}, network"
    config = config_from_dict(record.get("network", {}), where=where)
    inner = folder / base
    body = load_model(inner if holds(inner, MODEL_JSON) else base, dtype=torch.float32, quantised=False)
    if body.config.kind != config.kind:
        raise ConfigError(f"{folder} stands on a {config.kind} network, but {base} is a {body.config.kind}")
    try:
        model = with_head(body, {field.name: getattr(config, field.name) for field in fields(config)})
    except InputError:  # not one tensor is of the same shape
        model = body
    if model.config != config or body_sum(model) != record.get("base_sum"):
        raise ConfigError(f"{folder} was trained on another model than {base} is now; give the right one with --base")
    return load_adapter(model, folder / ADAPTER)
