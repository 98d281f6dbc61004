"""From a user's file to a measured, servable model: read, begin, learn, calibrate, measure, save."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cutaway.errors import InputError
from cutaway.files import atomic_folder, write_json
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress
from cutaway.settings import to_dict
from cutaway.tasks.config import TaskConfig
from cutaway.tasks.data import TaskData, read_data
from cutaway.tasks.report import TaskReport, measure_task
from cutaway.tasks.start import from_checkpoint, from_scratch, learning
from cutaway.tasks.task import Task, task_to_dict
from cutaway.tasks.trained import TaskModel, write_task
from cutaway.training import TrainConfig, train
from cutaway.training.objectives import Objective
from cutaway.training.rows import Rows, RowStore

OnNote = Callable[[str], None]
ASIDE, REPORT, RUN = "set-aside.jsonl", "report.json", "run"
CONTEXT, FRESH_CONTEXT = 256, 128


@dataclass(frozen=True)
class Trained:
    """What training a task gave.

    Attributes:
        model: to answer with.
        folder: where it lies.
        report: what was measured; None where nothing was held out.
        data: what it was made from.
        notes: the choices and their reasons.
        seconds: that all took.
    """

    model: TaskModel
    folder: Path
    report: TaskReport | None
    data: TaskData
    notes: list[str]
    seconds: float


def train_task(config: TaskConfig, *, progress: OnProgress | None = None, on_note: OnNote | None = None) -> Trained:
    """Train a task's model on a user's data.

    Args:
        config: of all of it.
        progress: told at every stage.
        on_note: told each choice with its reason, and warnings.

    Raises:
        InputError: the data cannot be read or learned from, or the folder exists already.
        ConfigError: values that do not fit each other.
        (and those of `cutaway.train`)
    """
    started, out = time.perf_counter(), Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already; choose another folder, or remove it")
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if on_note is not None:
            on_note(text)

    data = read_data(
        config.task,
        config.data,
        valid=config.valid,
        test=config.test,
        columns=config.columns,
        seed=config.seed,
        progress=progress,
    )
    for text in data.notes:
        note(text)
    task = data.task
    with atomic_folder(out) as room:
        write_aside(data, room)
        made = learn(replace(config, task=task), data, room / RUN, progress=progress, on_note=note)
        report = None
        if "test" in data.splits:
            report = measure_task(made, data, progress=progress)
            write_json(room / REPORT, report.to_json())
        made.about |= {"config": {**to_dict(config), "task": task_to_dict(task)}}
        write_task(made, room)
    made.model.source = str(out)
    return Trained(made, out, report, data, notes, time.perf_counter() - started)


def write_aside(data: TaskData, folder: Path) -> None:
    """The rows that were set aside, a JSON record a line; nothing where there are none."""
    if data.aside:
        lines = [json.dumps({"source": one.source, "reason": one.reason}, ensure_ascii=False) for one in data.aside]
        (folder / ASIDE).write_text("\n".join(lines) + "\n", "utf-8")


def learn(
    config: TaskConfig, data: TaskData, run: Path, *, progress: OnProgress | None = None, on_note: OnNote | None = None
) -> TaskModel:
    """Train and calibrate, without measuring.

    Args:
        config: with its task settled.
        data: in splits.
        run: the run folder to make.
        progress: told at every stage.
        on_note: told each choice with its reason.
    """
    task: Task = config.task
    model = begin(config, data, progress)
    context = config.context or min(model.config.context, CONTEXT if config.start else FRESH_CONTEXT)
    splits, objective = {}, task.objective(data.splits["train"], data.labels)
    for name in ("train", "valid"):
        if examples := data.splits.get(name):
            if progress:
                progress(Progress(f"encoding {name}", 0, len(examples), "examples"))
            parts, owners = task.encode(model, examples, context)
            sources = [examples[owner].source for owner in owners]
            splits[name] = Rows(name, parts, model.tokenizer, sources, reads=objective.parts[:1])
    store = RowStore(splits, model.tokenizer, labels=data.labels, name=config.data)
    settings = settings_of(config, store, objective, context, run)
    trained = train(settings, store=store, start=model, progress=progress, on_note=on_note)
    for checkpoint in (run / "checkpoints").glob("*"):
        shutil.rmtree(checkpoint)
    trained.model.network.eval()
    made = TaskModel(task, trained.model, data.labels, columns=data.columns, base=config.start if model.adapter else "")
    made.about = {"training": trained.metrics, "notes": trained.notes}
    if valid := data.splits.get("valid"):
        made.calibration = task.calibrate(made.raw(valid, progress=progress), valid, data.labels)
    return made


def begin(config: TaskConfig, data: TaskData, progress: OnProgress | None = None) -> Model:
    """The model before it has learned."""
    task: Task = config.task
    if config.start:
        model = from_checkpoint(task, config.start, data.labels, dropout=config.dropout, seed=config.seed)
        return learning(model, config.how, rank=config.rank, seed=config.seed)
    texts = (text for example in data.splits["train"] for text in task.texts(example))
    return from_scratch(
        task,
        texts,
        data.labels,
        kind=config.kind,
        size=config.size,
        context=config.context or FRESH_CONTEXT,
        tokenizer=config.tokenizer,
        vocab_size=config.vocab_size,
        network={"dropout": config.dropout, **config.network},
        seed=config.seed,
        progress=progress,
    )


def settings_of(config: TaskConfig, store: RowStore, objective: Objective, context: int, run: Path) -> TrainConfig:
    """The run's config."""
    task: Task = config.task
    fresh, small = not config.start, config.how != "full"
    optimizer = config.optimizer or ("muon" if fresh else "adamw")
    lr = config.lr or ((None if optimizer == "muon" else 1e-3) if fresh or small else 1e-4)
    epochs = config.epochs or (10 if fresh else 3)
    steps = None if config.minutes else max(1, round(epochs * store["train"].examples / config.batch))
    return TrainConfig(
        data=config.data,
        out=str(run),
        objective=objective,
        context=context,
        batch=config.batch,
        steps=steps,
        minutes=config.minutes,
        optimizer=optimizer,  # pyright: ignore[reportArgumentType]
        lr=lr,
        schedule="wsd",
        warmup=None if steps is None else steps // 10,
        cooldown=0.9,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.999) if not fresh else (0.9, 0.98),
        label_smoothing=config.label_smoothing,
        dtype=config.dtype,
        compile="off",
        seed=config.seed,
        eval_every=None if steps is None else max(1, steps // config.evaluations),
        eval_tokens=0,
        best=task.metric if "valid" in store.splits else "loss",
        keep_best="valid" in store.splits,
        keep=1,
        patience=config.patience,
        baseline=False,
        tensorboard="auto",
        threads=config.threads,
    )
