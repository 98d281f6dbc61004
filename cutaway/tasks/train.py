"""From a user's file to a measured, servable model: read, begin, learn, calibrate, measure, save."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from cutaway.errors import ConfigError, CutawayError
from cutaway.files import holds
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress
from cutaway.tasks import domain
from cutaway.tasks.config import TaskConfig
from cutaway.tasks.data import TaskData, cut_note, read_data
from cutaway.tasks.fresh import suited
from cutaway.tasks.plan import RUN, appearing, begin_plan, config_to_dict, continuable, placed, read_plan, tidy
from cutaway.tasks.probe import fit_head
from cutaway.tasks.repeat import Repeated, learn_all, report_outside, write_predictions
from cutaway.tasks.report import Point, TaskReport, measure_task, write_report
from cutaway.tasks.report.measure import fingerprint
from cutaway.tasks.report.noise import FOLDS as PARTS
from cutaway.tasks.report.noise import MOST
from cutaway.tasks.start import as_it_is, from_checkpoint, from_scratch, learning
from cutaway.tasks.task import Task
from cutaway.tasks.trained import TaskModel, write_task
from cutaway.tasks.tune import Trial, tune
from cutaway.training import TrainConfig, resume, train
from cutaway.training.checkpoint import CONFIG as RUN_CONFIG
from cutaway.training.objectives import Classification, Objective
from cutaway.training.optim import DEFAULT_LR
from cutaway.training.rows import Rows, RowStore

OnNote = Callable[[str], None]
ASIDE, FOLDS, BASE = "set-aside.jsonl", "folds.jsonl", "base"
CONTEXT, FRESH_CONTEXT = 256, 128
LEAST = 1.0  # seconds that are trained for, however short the time is
SAVING = 2.0  # seconds that writing takes
TRIED, BASELINE_TRIED = 32, 400  # examples that are tried to know how long all will take
WHYS = 10  # reasons that a report gives


@dataclass(frozen=True)
class Trained:
    """What training a task gave.

    Attributes:
        model: to answer with.
        folder: where it lies.
        report: what was measured; None where nothing was held out.
        data: what it was made from.
        repeated: what other seeds, folds and fewer examples showed, where they were asked for.
        trials: of a search, what was tried.
        notes: the choices and their reasons.
        seconds: that all took.
    """

    model: TaskModel
    folder: Path
    report: TaskReport | None
    data: TaskData
    repeated: Repeated
    trials: list[Trial]
    notes: list[str]
    seconds: float


def train_task(config: TaskConfig, *, progress: OnProgress | None = None, on_note: OnNote | None = None) -> Trained:
    """Train a task's model on a user's data.

    Args:
        config: of all of it.
        progress: told at every stage.
        on_note: told each choice with its reason, and warnings.

    Raises:
        InputError: the data cannot be read or learned from, or the folder holds something already.
        ConfigError: values that do not fit each other.
        Interrupted: by Ctrl-C or SIGTERM; `resume_task` continues.
        (and those of `cutaway.train`)
    """
    started = time.perf_counter()
    begin_plan(config)
    return _carry_out(config, started, progress, on_note)


def resume_task(out: str | Path, *, progress: OnProgress | None = None, on_note: OnNote | None = None) -> Trained:
    """Continue a training that was interrupted or killed; it ends with the same bits as one that was not.

    Args:
        out: the folder that was being made; it may have been moved.
        progress: see `train_task`.
        on_note: see `train_task`.

    Raises:
        InputError: no training was begun there, or it has ended.
        ConfigError: the data has changed since.
        (and those of `train_task`)
    """
    started = time.perf_counter()
    return _carry_out(read_plan(Path(out)), started, progress, on_note)


def _carry_out(config: TaskConfig, started: float, progress: OnProgress | None, on_note: OnNote | None) -> Trained:
    """From the plan to the whole folder; what a run of before has done is not done again."""
    out, notes = Path(config.out), list[str]()

    def note(text: str) -> None:
        notes.append(text)
        if on_note is not None:
            on_note(text)

    with continuable(out):
        if config.folds and isinstance(config.test, float | int):
            config = replace(config, test=0.0)  # every example is in a fold
        data = read_data(
            config.task,
            config.data,
            valid=config.valid,
            test=config.test,
            columns=config.columns,
            drop_leaks=config.drop_leaks,
            seed=config.seed,
            progress=progress,
        )
        for text in data.notes:
            note(text)
        config, reasons = suited(replace(config, task=data.task), data.splits["train"])
        for text in reasons:
            note(text)
        until = None if config.minutes is None else started + 60 * config.minutes
        run, body = out / RUN, ""
        if domain.wanted(config):
            body = str(domain.pretrain(config, data, run / "domain", until=until, progress=progress, on_note=note))
        train_one = partial(learn, body=body, progress=progress, on_note=note)
        trials: list[Trial] = []
        if config.trials:
            config, trials = tune(usual(config), data, run, train_one, until=until, on_note=note)
            until = None  # the length is one of the settings
        made, best, repeated = learn_all(config, data, run, train_one, until=until, on_note=note)
        with appearing(out) as room:
            write_aside(data, room)
            made.model.source = str(out)
            made.about |= {"config": config_to_dict(config), "run": str(best.relative_to(out)), **repeated.to_json()}
            made.about |= {"trials": [asdict(trial) for trial in trials]}
            made.about |= {"data": {"fingerprint": fingerprint(data), "notes": data.notes}}
            report = None
            if "test" in data.splits:
                report = measure_task(made, data, run=best, progress=progress)
            elif repeated.outside is not None:
                report = report_outside(made, repeated, config.folds)
            if report is not None and repeated.curve:
                report = replace(report, curve=tuple(Point(count, figures) for count, figures in repeated.curve))
            write_report(room, made, data, report, notes=notes)
            if repeated.predictions:
                write_predictions(repeated, room / FOLDS)
            if body and made.base:
                made.base = BASE
                shutil.copytree(body, room / BASE)
            write_task(made, room)
        tidy(out / RUN)
    return Trained(made, out, report, data, repeated, trials, notes, time.perf_counter() - started)


def write_aside(data: TaskData, folder: Path) -> None:
    """The rows that were set aside, a JSON record a line; nothing where there are none."""
    if data.aside:
        lines = [json.dumps({"source": one.source, "reason": one.reason}, ensure_ascii=False) for one in data.aside]
        (folder / ASIDE).write_text("\n".join(lines) + "\n", "utf-8")


def learn(
    config: TaskConfig,
    data: TaskData,
    run: Path,
    *,
    body: str = "",
    until: float | None = None,
    progress: OnProgress | None = None,
    on_note: OnNote | None = None,
) -> TaskModel:
    """Train and calibrate, without measuring; or go on where a run of before has ended.

    Args:
        config: with its task settled.
        data: in splits.
        run: the run folder to make, or to go on with.
        body: a model that was pre-trained for this, to begin with in place of `config.start` or fresh weights.
        until: `time.perf_counter()` at which all should be done, measuring included; None: as the epochs say.
        progress: told at every stage.
        on_note: told each choice with its reason.
    """
    task: Task = config.task
    model = begin(config, data, progress, body)
    if not task.trained:
        return _finished(TaskModel(task, model, data.labels, columns=data.columns), data, progress)
    context = config.context or min(model.config.context, CONTEXT if config.start else FRESH_CONTEXT)
    splits, objective = {}, task.objective(data.splits["train"], data.labels)
    for name in ("train", "valid"):
        if examples := data.splits.get(name):
            if progress:
                progress(Progress(f"encoding {name}", 0, len(examples), "examples"))
            parts, owners = task.encode(model, examples, context)
            if name == "valid" and not owners:  # not one has a label that is known
                continue
            sources = [examples[owner].source for owner in owners]
            if on_note and (said := cut_note(name, parts[objective.parts[0]], owners, context)):
                on_note(said)
            splits[name] = Rows(name, parts, model.tokenizer, sources, reads=objective.parts[:1])
    store = RowStore(splits, model.tokenizer, labels=data.labels, name=config.data)
    if config.start and config.probe != "no" and isinstance(objective, Classification):
        rows, bf16 = splits["train"].parts, config.dtype != "fp32"
        fit_head(model, rows["ids"], rows["target"], weights=objective.weights, bf16=bf16, progress=progress)
        if config.probe == "only":
            model.network.eval()
            return _finished(TaskModel(task, model, data.labels, columns=data.columns), data, progress)
    how = {"store": store, "start": model, "progress": progress, "on_note": on_note}
    if holds(run, RUN_CONFIG):
        trained = resume(run, **how)
    else:
        minutes = None
        if until is not None:
            after = time_after(task, model, data, progress)
            minutes = max(LEAST, until - after - time.perf_counter()) / 60
            if on_note is not None:
                on_note(f"about {after:.0f} s are kept for calibration and measuring")
        settings = settings_of(replace(config, minutes=minutes), store, objective, context, run)
        trained = train(settings, **how)
    trained.model.network.eval()
    made = TaskModel(task, trained.model, data.labels, columns=data.columns)
    made.base = placed(config.start) if model.adapter else ""
    made.about = {"training": trained.metrics, "notes": trained.notes}
    return _finished(made, data, progress)


def _finished(made: TaskModel, data: TaskData, progress: OnProgress | None) -> TaskModel:
    """With what it keeps of the training examples, calibrated."""
    task = made.task
    made.kept = task.keep(made.model, data.splits["train"], data.labels, progress)
    if valid := data.splits.get("valid"):
        made.calibration = task.calibrate(made.raw(valid, progress=progress), valid, data.labels)
    return made


def time_after(task: Task, model: Model, data: TaskData, progress: OnProgress | None = None) -> float:
    """About how many seconds follow the training: answers, reasons and baselines of a report, each tried on some."""
    if progress:
        progress(Progress("planning", 0))
    held = [example for name in ("valid", "test") for example in data.splits.get(name, [])]
    train, seconds = data.splits["train"], 0.0
    if held:
        some, tried = held[:: max(1, len(held) // TRIED)][:TRIED], TaskModel(task, model, data.labels)
        tried.raw(some[:1])
        seconds += _timed(lambda: tried.raw(some)) * len(held) / len(some)
    if "test" in data.splits:
        tried = TaskModel(task, model, data.labels)
        seconds += WHYS * _timed(lambda: tried.why(data.splits["test"][0]))
    if task.baseline_name and "test" in data.splits:
        some = train[:: max(1, len(train) // BASELINE_TRIED)][:BASELINE_TRIED]
        one = _timed(lambda: task.baseline(some, data.splits["test"][:TRIED], task.labels(some))) / len(some)
        seconds += one * (len(train) + PARTS * min(len(train), MOST))
    return 1.2 * seconds + SAVING


def _timed(job: Callable[[], object]) -> float:
    """Seconds of a job; none where the task has no such thing."""
    began = time.perf_counter()
    with suppress(CutawayError):
        job()
        return time.perf_counter() - began
    return 0.0


def begin(config: TaskConfig, data: TaskData, progress: OnProgress | None = None, body: str = "") -> Model:
    """The model before it has learned the task."""
    task: Task = config.task
    if not task.trained:
        if not config.start:
            raise ConfigError(f"the task {task.name} learns nothing, so it needs a checkpoint; name one with --from")
        return as_it_is(task, config.start, data.labels)
    if body or config.start:
        model = from_checkpoint(
            task,
            body or config.start,
            data.labels,
            head=config.head,
            dropout=config.dropout or 0.0,
            network=config.network if config.start else None,
            seed=config.seed,
        )
        return learning(model, config.how, freeze=config.freeze, rank=config.rank, seed=config.seed)
    texts = (text for example in data.splits["train"] for text in task.vocabulary(example))
    return from_scratch(
        task,
        texts,
        data.labels,
        kind=config.kind,
        size=config.size,
        context=config.context or FRESH_CONTEXT,
        tokenizer=config.tokenizer,
        vocab_size=config.vocab_size,
        network={"dropout": config.dropout or 0.0, **config.network},
        seed=config.seed,
        progress=progress,
    )


def usual(config: TaskConfig) -> TaskConfig:
    """The config with its rate, length and optimiser as they are where nobody says otherwise."""
    fresh, small = not config.start, config.how != "full"
    advice = config.advice
    advised = advice.get("optimizer", "muon" if fresh else "adamw")
    optimizer = config.optimizer or advised
    rate = advice.get("lr") if optimizer == advised and not small else None
    lr = config.lr or rate or (DEFAULT_LR[optimizer] if fresh else 1e-3 if small else 1e-4)
    return replace(config, optimizer=optimizer, lr=lr, epochs=config.epochs or advice.get("epochs", 10 if fresh else 3))


def settings_of(config: TaskConfig, store: RowStore, objective: Objective, context: int, run: Path) -> TrainConfig:
    """The run's config."""
    task, fresh, minutes = config.task, not config.start, config.minutes
    config = usual(replace(config, minutes=None))
    assert config.epochs
    steps = None if minutes else max(1, round(config.epochs * store["train"].examples / config.batch))
    return TrainConfig(
        data=config.data,
        out=str(run),
        objective=objective,
        context=context,
        batch=config.batch,
        steps=steps,
        minutes=minutes,
        optimizer=config.optimizer,  # pyright: ignore[reportArgumentType]
        lr=config.lr,
        schedule="wsd",
        warmup=None if steps is None else steps // 10,
        cooldown=0.9,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.999) if not fresh else (0.9, 0.98),
        average=config.average or 0.0,
        word_dropout=config.word_dropout or 0.0,
        label_smoothing=config.label_smoothing or 0.0,
        dtype=config.dtype,
        compile="off",
        seed=config.seed,
        eval_every=None if steps is None else max(1, steps // config.evaluations),
        eval_tokens=0,
        best=(task.best or task.metric) if "valid" in store.splits else "loss",
        keep_best="valid" in store.splits,
        keep=1,
        patience=config.patience,
        baseline=False,
        tensorboard="auto",
        threads=config.threads,
    )
