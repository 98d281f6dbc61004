"""The training loop: steps, evaluations, samples, checkpoints, and how a run begins, is continued and ends.

Everything that matters to the weights is a function of the config and the step number: a run that was killed and
resumed ends with the same bits as one that was not.

Shapes: B batch, T tokens.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cutaway.errors import ConfigError, InputError, Interrupted, NonFinite, many, unknown
from cutaway.files import MANIFEST, holds, sha256, write_json
from cutaway.models import OFF, Model, Tap, build_network
from cutaway.models.model import CHECKPOINTS, checkpoints
from cutaway.progress import OnProgress, Progress
from cutaway.tokenizers import TokenStore
from cutaway.training.baseline import better_by, fit_baseline
from cutaway.training.checkpoint import (
    BASELINE,
    CONFIG,
    FAILED,
    RESULT,
    State,
    check_fit,
    find_checkpoint,
    load_checkpoint,
    read_config,
    read_record,
    remove,
    save_checkpoint,
    tidy,
    write_config,
)
from cutaway.training.config import TrainConfig, network_for
from cutaway.training.evaluate import evaluate
from cutaway.training.memory import keep_freed_memory
from cutaway.training.metrics import Log, evaluation_at, read_metrics
from cutaway.training.objectives import Data, Objective, Score
from cutaway.training.plan import DTYPES, batch_of, choose_dtype, matmul_rate, settle
from cutaway.training.profile import tracing
from cutaway.training.ranks import Ranks, joined
from cutaway.training.rows import RowStore
from cutaway.training.schedule import lr_scale
from cutaway.training.signals import Stop, catching
from cutaway.training.stepper import Stepper, Taken

OnSample = Callable[[int, str, str], None]  # step, prompt, continuation
OnNote = Callable[[str], None]
Taps = Callable[[int, nn.Module], Tap]  # the number of a step, from 0, and the network -> what reads or replaces in it

# What may be changed when a run is resumed. Everything else would make it another run.
CHANGEABLE = (
    "steps", "minutes", "lr", "lr_rest", "clip", "eval_every", "save_every", "keep", "patience", "samples",
    "sample_tokens", "profile", "tensorboard", "threads", "data",
)  # fmt: skip
RECORDS = 2000  # lines of steps in metrics.jsonl, at the most about


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        model: what was trained; after early stopping, as it was at its best.
        folder: the run folder.
        objective: what it learned.
        metrics: the figures at the end: steps, loss, valid_loss, bits_per_byte, ngram_loss, better_than_ngram,
            tokens_per_second, seconds, and which of them there are depends on the config.
        notes: the automatic choices and their reasons.
    """

    model: Model = field(repr=False)
    folder: Path
    objective: Objective
    metrics: dict[str, Any]
    notes: list[str] = field(default_factory=list, repr=False)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Every record of metrics.jsonl."""
        return read_metrics(self.folder)


def train(
    config: TrainConfig,
    *,
    progress: OnProgress | None = None,
    on_sample: OnSample | None = None,
    on_note: OnNote | None = None,
    taps: Taps | None = None,
    store: RowStore | None = None,
    start: Model | None = None,
) -> Run:
    """Train a network, from fresh weights or from those of another model.

    Under torchrun, every process calls this with the same config; the first one writes the run folder.

    Args:
        config: of the run.
        progress: called after every step.
        on_sample: called with (step, prompt, continuation) for every prompt in `config.samples` at every evaluation.
        on_note: called with each automatic choice and its reason, and with warnings.
        taps: asked before every step for a tap that reads or replaces activations in its forward passes; gradients
            pass. `cutaway.interp.training_tap` makes one.
        store: examples in memory, in place of those on disk.
        start: the model to go on from, in float32, which is changed; parameters that need no gradient stay as they are.
            Its network is the run's: `config.network` and `config.size` are not read.

    Raises:
        InputError: no such data, too little of it, the folder holds a run already, or the disk is full.
        ConfigError: values that do not fit each other or the data.
        DamagedFile: the data does not match its checksums.
        NonFinite: a loss or gradient is not a number; the last checkpoint is untouched.
        Interrupted: by Ctrl-C or SIGTERM, after saving.
    """
    out = Path(config.out)
    if (out / CONFIG).exists():
        raise InputError(f"{out} holds a run already; continue it with --resume {out}, or choose another folder")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose another place for the run folder")
    return _go(config, {}, False, progress, on_sample, on_note, taps, store=store, start=start)


def resume(
    folder: str | Path,
    *,
    progress: OnProgress | None = None,
    on_sample: OnSample | None = None,
    on_note: OnNote | None = None,
    taps: Taps | None = None,
    store: RowStore | None = None,
    start: Model | None = None,
    **changes: Any,
) -> Run:
    """Continue a run from its newest intact checkpoint, bit for bit as if it had never stopped.

    Args:
        folder: the run folder; it may have been moved.
        progress: see `train`.
        on_sample: see `train`.
        on_note: see `train`.
        taps: see `train`.
        store: the same examples as before, of a run that was given some.
        start: a model of the same shape as before, of a run that was given one.
        changes: fields of TrainConfig to change from here on, those in CHANGEABLE. With `steps` or `minutes` a
            finished run goes on; the schedule is then that of the longer run.

    Raises:
        InputError: not a run folder.
        ConfigError: made by another version, or the data is not what the run was started with.
        DamagedFile: no checkpoint is intact.
        (and those of `train`)
    """
    for name in changes:
        if name not in CHANGEABLE:
            raise ConfigError(unknown("setting that a resumed run can change:", name, CHANGEABLE))
    config, record = read_config(Path(folder))
    begun = (progress, on_sample, on_note, taps)
    return _go(replace(config, out=str(folder)), record, True, *begun, changes, store, start)


def _go(
    config: TrainConfig,
    record: dict[str, Any],
    resumed: bool,
    progress: OnProgress | None,
    on_sample: OnSample | None,
    on_note: OnNote | None,
    taps: Taps | None,
    changes: dict[str, Any] | None = None,
    store: RowStore | None = None,
    start: Model | None = None,
) -> Run:
    """Begin or continue a run, and carry it to its end."""
    started, out = time.perf_counter(), Path(config.out)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if on_note is not None:
            on_note(text)

    if changes:
        longer = {"steps": None, "minutes": None} if changes.keys() & {"steps", "minutes"} else {}
        cadence = {"eval_every": None, "save_every": None} if longer else {}
        config = replace(config, **{**cadence, **longer, **changes})
    threads = config.threads or record.get("threads") or torch.get_num_threads()
    if resumed and threads != record.get("threads", threads):
        note(f"threads: {threads} instead of {record['threads']}; the last bits of the weights may differ")
    if resumed and record.get("torch") != torch.__version__:
        note(f"torch {torch.__version__} instead of {record.get('torch')}; the last bits of the weights may differ")
    with ExitStack() as stack:
        ranks = stack.enter_context(joined())
        stack.enter_context(_environment(threads))
        if config.batch % ranks.world:
            raise ConfigError(f"a batch of {config.batch} cannot be shared by {ranks.world} processes")
        if resumed and ranks.world != record.get("processes", ranks.world):
            note(f"processes: {ranks.world} instead of {record['processes']}; the last bits of the weights may differ")
        data: Data = store or TokenStore.open(config.data)
        origin = _origin(data, config.data)
        if resumed and origin["sha256"] != record["data"].get("sha256"):
            raise ConfigError(
                f"{config.data} is not the data that {out} was started with (its checksum differs); "
                "give the right folder with --data, or start a new run"
            )
        objective = config.objective
        objective.check(data, config)
        tokenizer = objective.tokenizer(data.tokenizer)
        if start is not None:
            config = replace(config, network=start.config)
        chosen = network_for(config, tokenizer.vocab_size, objective.features(data, config.context))
        config = replace(config, data=origin["folder"], network=chosen)
        checkpoint, warnings = find_checkpoint(out) if resumed else (None, [])
        if checkpoint is not None and start is None:
            check_fit(checkpoint, config.network)
        torch.default_generator.manual_seed(config.seed)
        model = start or Model(build_network(config.network), tokenizer, source=str(out))
        learner = objective.learner(model.network, data)

        config, reasons = choose_dtype(config)
        done = int(checkpoint.name.removeprefix("step-")) if checkpoint else 0
        if config.steps is not None and changes and config.steps < done:
            raise ConfigError(f"steps ({config.steps}) is less than the {done} that {out} has taken already")
        baseline = _baseline(config, data, out, ranks, progress)
        if not resumed or changes:
            if config.steps is None and progress is not None:
                progress(Progress("planning", 0))
            plan = settle(config, learner, data, ranks, started=started, done=done)
            reasons += plan.notes + objective.notes(data, config)
            if ranks.first:
                out.mkdir(parents=True, exist_ok=True)
                record = {"threads": threads, "processes": ranks.world, "data": origin}
                write_config(out, plan.config, reasons, **record)
        ranks.wait()
        config, record = read_config(out)  # what the first process decided
        config = replace(config, out=str(out))
        for text in (record["notes"] if not resumed else reasons) + warnings:
            note(text)
        if ranks.first:
            tidy(out, done)
        ranks.wait()
        if taps is not None and learner is not model.network:
            raise ConfigError(
                f"taps look into one network, but the objective {objective.name} trains two together; leave taps out"
            )
        trainer = Trainer(config, model, learner, data, ranks, out, baseline, progress, on_sample, note, taps)
        if checkpoint is not None:
            trainer.load(checkpoint)
        metrics = trainer.run(started)
    return Run(model, out, objective, metrics, [*record["notes"], *(n for n in notes if n not in record["notes"])])


def _origin(data: Data, named: str) -> dict[str, str]:
    """What the data is called, and its checksum."""
    if isinstance(data, RowStore):
        return {"folder": named, "sha256": data.fingerprint()}
    return {"folder": str(Path(named).resolve()), "sha256": sha256(data.folder / MANIFEST)}


def _baseline(
    config: TrainConfig, store: Data, out: Path, ranks: Ranks, progress: OnProgress | None
) -> dict[str, Any] | None:
    """What counting achieves: read from the run folder, or found and stored there (only by the first process)."""
    counted = config.baseline and config.objective.counted and ranks.first and "valid" in store.splits
    if not counted or isinstance(store, RowStore):
        return None
    if holds(out, BASELINE):
        return read_record(out, BASELINE, loss=float, order=int)
    if progress is not None:
        progress(Progress("counting n-grams", 0))
    found = fit_baseline(store, context=config.context, eval_tokens=config.eval_tokens)
    write_json(out / BASELINE, found)
    return found


def figure_of(score: Score, config: TrainConfig) -> float:
    """The figure that says which evaluation is the best.

    Raises:
        ConfigError: the objective has none of that name.
    """
    if config.best not in score.figures:
        raise ConfigError(unknown("figure for best:", config.best, ["loss", *score.figures]))
    return score.figures[config.best]


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Fixed threads and deterministic algorithms inside; the caller's settings and random state afterwards."""
    memory: Any = torch.utils.deterministic
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.get_rng_state()
    fill = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    keep_freed_memory()
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would load the compiler: two seconds
    memory.fill_uninitialized_memory = False  # a help in debugging that costs a pass over every new tensor
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        torch.set_rng_state(before[2])
        memory.fill_uninitialized_memory = fill


class Trainer:
    """A run in progress.

    Args:
        config: with every choice made.
        model: the network in float32, and its tokenizer.
        learner: what the objective trains: the network, or what holds it and a helper.
        store: the data.
        ranks: the processes.
        out: the run folder.
        baseline: what counting achieves, if known.
        progress: called after every step.
        on_sample: called with every sample.
        note: called with what the user should know.
        taps: looks into the steps.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: Model,
        learner: nn.Module,
        store: Data,
        ranks: Ranks,
        out: Path,
        baseline: dict[str, Any] | None,
        progress: OnProgress | None,
        on_sample: OnSample | None,
        note: OnNote,
        taps: Taps | None = None,
    ) -> None:
        self.taps = taps
        self.config, self.model, self.store, self.ranks, self.out = config, model, store, ranks, out
        self.baseline, self.progress, self.on_sample, self.note = baseline, progress, on_sample, note
        self.steps = config.steps or 0
        self.keeps_best = config.keep_best or bool(config.patience)
        self.objective, self.learner = config.objective, learner
        self.helpers = self.objective.helpers(learner)
        self.stepper = Stepper(config, learner, ranks, self.objective.read_ids(store))
        self.state = State()
        self.saved = -1  # the step of the last checkpoint
        self.stop: Stop = Stop()
        self.stopping = False
        self.parameters = sum(p.numel() for p in learner.parameters())
        self.peak = matmul_rate(DTYPES[config.dtype])
        self.step_seconds = self.step_tokens = 0.0  # moving averages, for the speed and the time left
        self.figures: dict[str, Any] = {}  # the newest of every metric
        self.record_every = -(-self.steps // RECORDS)

    def load(self, checkpoint: Path) -> None:
        """Continue from a checkpoint."""
        self.state = load_checkpoint(checkpoint, self.model, self.helpers, self.stepper.optimizer)
        self.saved = self.state.step  # its weights are the averages, where there are any
        for record in read_metrics(self.out):
            self.figures |= {k: v for k, v in record.items() if k not in ("prompt", "sample")}

    def run(self, started: float) -> dict[str, Any]:
        """Carry the run to its end; returns the metrics."""
        result = self.out / RESULT
        if holds(self.out, RESULT):
            ended = read_record(self.out, RESULT, planned=int, metrics=dict)
            metrics: dict[str, Any] = ended["metrics"]
            if ended["planned"] == self.steps and metrics.get("steps") == self.saved:
                self.note(f"finished already at step {self.saved:,}; give more steps or minutes to go on")
                self.learner.eval()
                return metrics
        if self.saved >= 0:
            self.stepper.optimizer.swap()
        if self.ranks.first:
            result.unlink(missing_ok=True)
            (self.out / FAILED).unlink(missing_ok=True)
        log = Log(self.out, self.state.step, self.config.tensorboard if self.ranks.first else "off")
        if log.note:
            self.note(log.note)
        self.log, self.clock, self.before = log, started, self.state.seconds
        trace = tracing(self.config.profile, self.out)
        try:
            with catching() as self.stop, trace as tick:
                reason = self._loop(tick)
        finally:
            log.close()
        return self._finish(reason)

    def _loop(self, tick: Callable[[], None]) -> str:
        """Until the end; returns why it ended."""
        state, config = self.state, self.config
        while True:
            improved = False
            if self._evaluation_due():
                with self._averaged():
                    improved = self._evaluate()
            due = state.step % (config.save_every or 1) == 0 and state.step > 0
            evaluated = state.evaluated == state.step or "valid" not in self.store.splits
            ended = state.step >= self.steps and evaluated
            stale = bool(config.patience) and state.stale >= config.patience
            stopping = self.stopping or (bool(self.stop) and self.ranks.world == 1)
            if self.saved != state.step and (due or ended or stopping or (improved and self.keeps_best)):
                self._save()
            if ended or stale:
                return "finished" if ended else "stopped early"
            if stopping:
                raise Interrupted(
                    f"stopped by {self.stop.name} after step {state.step:,}; all is saved. "
                    f"Continue with: cutaway train --resume {self.out}",
                    self.stop.exit_code,
                )
            self._step()
            tick()

    def _step(self) -> None:
        """One step and its record."""
        state, config, start = self.state, self.config, time.perf_counter()
        batch = batch_of(self.store, config, self.ranks, state.step)
        scale = lr_scale(
            state.step,
            self.steps,
            kind=config.schedule,
            warmup=config.warmup or 0,
            cooldown=config.cooldown,
            final=config.final_lr,
        )
        seed = (config.seed * 1_000_003 + state.step) * 1009 + self.ranks.rank
        tap = OFF if self.taps is None else self.taps(state.step, self.learner)
        taken = self.stepper.step(batch, lr_scale=scale, seed=seed, stop=bool(self.stop), tap=tap)
        if not taken.finite:
            self._fail(taken, batch.starts)
        self.stopping = taken.stop > 0
        state.step += 1
        seconds = time.perf_counter() - start
        self.step_seconds = seconds if not self.step_seconds else 0.9 * self.step_seconds + 0.1 * seconds
        state.seconds = self.before + time.perf_counter() - self.clock
        self.step_tokens = batch.tokens if not self.step_tokens else 0.9 * self.step_tokens + 0.1 * batch.tokens
        speed = self.step_tokens / self.step_seconds
        record = {
            "step": state.step,
            "loss": taken.loss,
            "lr": config.rules.lr * scale,
            "grad_norm": taken.norm,
            "tokens_per_second": round(speed, 1),
            "seconds": round(state.seconds, 3),
        }
        if self.objective.whole:
            record["share_of_peak"] = round(6 * self.parameters * speed / self.peak, 4)
        self.figures |= record
        if self.ranks.first and (state.step % self.record_every == 0 or state.step == self.steps):
            self.log.add(record)
        self._report()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """With the averages of the weights in their place, where the run keeps some."""
        self.stepper.optimizer.swap()
        try:
            yield
        finally:
            self.stepper.optimizer.swap()

    def _evaluation_due(self) -> bool:
        state = self.state
        due = state.step == self.steps or state.step % (self.config.eval_every or self.steps) == 0
        return due and state.step > 0 and state.evaluated < state.step and "valid" in self.store.splits

    def _evaluate(self) -> bool:
        """The validation loss and the samples; whether it is the best so far. Left off when a signal comes."""
        state, config = self.state, self.config
        stop = partial(bool, self.stop) if self.ranks.world == 1 else bool
        score = evaluate(
            self.learner,
            self.store["valid"],
            context=config.context,
            tokens=config.eval_tokens,
            objective=self.objective,
            ranks=self.ranks,
            stop=stop,
        )
        if score is None:
            return False
        state.evaluated = state.step
        value = -score.loss if config.best == "loss" else figure_of(score, config)
        best = None if state.best_value is None or state.best_loss is None else (state.best_value, -state.best_loss)
        improved = best is None or (value, -score.loss) > best  # the figures of few examples are often equal
        if improved:
            state.best_loss, state.best_value = score.loss, value
            state.best_step, state.stale = state.step, 0
        else:
            state.stale += 1
        record = {"valid_loss": score.loss, **score.figures, "valid_tokens": score.tokens}
        if self.baseline is not None:
            ngram = self.baseline["loss"]
            record |= {"ngram_loss": ngram, "better_than_ngram": round(better_by(score.loss, ngram), 4)}
        state.seconds = self.before + time.perf_counter() - self.clock
        self.figures |= record
        if self.ranks.first:
            self.log.add({"step": state.step, **record, "seconds": round(state.seconds, 3)})
            self._sample()
        self._report()
        return improved

    def _sample(self) -> None:
        """Continue the prompts, the same way at every evaluation."""
        for prompt in self.config.samples:
            made = self.model.generate(prompt, max_new_tokens=self.config.sample_tokens, seed=self.config.seed)
            self.log.add({"step": self.state.step, "prompt": prompt, "sample": made.text})
            if self.on_sample is not None:
                self.on_sample(self.state.step, prompt, made.text)

    def _save(self) -> None:
        """Add a checkpoint."""
        self.saved = self.state.step
        if self.ranks.first:
            with self._averaged():
                save_checkpoint(
                    self.out, self.model, self.helpers, self.stepper.optimizer, self.state, self.config.keep
                )
        self.ranks.wait()

    def _fail(self, taken: Taken, starts: list[int]) -> None:
        """Stop at a loss or gradient that is no number; leave what is needed to take this step again.

        Raises:
            NonFinite: always.
        """
        state, config = self.state, self.config
        found = checkpoints(self.out)
        documents = self.objective.sources(self.store["train"], starts, config.context)
        record = {"step": state.step, "loss": str(taken.loss), "grad_norm": str(taken.norm), "seed": config.seed}
        record |= {"starts": starts, "context": config.context, "documents": documents}
        write_json(self.out / (FAILED if self.ranks.first else f"rank{self.ranks.rank}-{FAILED}"), record)
        last = f"the last good checkpoint, {found[0].name}, is untouched" if found else "there was no checkpoint yet"
        shown = ", ".join(documents[:3]) + (f" and {len(documents) - 3} more" if len(documents) > 3 else "")
        raise NonFinite(
            f"step {state.step:,}: the loss is {taken.loss} and the gradient's norm {taken.norm}, so training stopped; "
            f"the batch is from {shown} ({FAILED} lists all), and {last}. Continue from it with a smaller learning "
            f"rate: cutaway train --resume {self.out} --set lr={config.rules.lr / 3:.2g}"
        )

    def _finish(self, reason: str) -> dict[str, Any]:
        """Write the result; after early stopping, go back to the best checkpoint and make it the newest."""
        state = self.state
        best = self.out / CHECKPOINTS / f"step-{state.best_step:08d}"
        back = reason == "stopped early" or (self.config.keep_best and 0 < state.best_step < state.step)
        if back:
            ended = f"stopped early at step {state.step:,}" if reason == "stopped early" else "finished"
            measure = "loss" if self.config.best == "loss" else self.config.best.replace("_", " ")
            self.note(
                f"{ended}: the validation {measure} did not get better in {many(state.stale, 'evaluation')}; "
                f"the model is that of step {state.best_step:,}"
            )
            if self.ranks.first:
                remove(self.out, [later for later in checkpoints(self.out) if later.name > best.name])
            self.ranks.wait()
            load_checkpoint(best, self.model, self.helpers, self.stepper.optimizer)
            self.figures |= evaluation_at(self.out, state.best_step)
        else:
            self.stepper.optimizer.swap()
        self.learner.eval()
        metrics = {**self.figures, "steps": state.best_step if back else state.step}
        metrics.pop("step", None)
        metrics |= {"parameters": self.parameters, "best_valid_loss": state.best_loss, "ended": reason}
        if self.ranks.first:
            write_json(self.out / RESULT, {"planned": self.steps, "metrics": metrics})
        return metrics

    def _report(self) -> None:
        """Tell the caller where the run is."""
        if self.progress is None:
            return
        figures, left = self.figures, (self.steps - self.state.step) * self.step_seconds
        shown = {"loss": f"{figures['loss']:.3f}"} if "loss" in figures else {}
        if "valid_loss" in figures:
            shown |= {"valid": f"{figures['valid_loss']:.3f}"}
            shown |= {
                name.replace("_", " "): f"{figures[name]:.3f}" for name in self.objective.shown if name in figures
            }
        if "better_than_ngram" in figures:
            shown |= {"than counting": f"{100 * figures['better_than_ngram']:+.1f} %"}
        if "lr" in figures:
            shown |= {"lr": f"{figures['lr']:.2g}", "grad norm": f"{figures['grad_norm']:.2f}"}
            shown |= {"tokens/s": f"{figures['tokens_per_second']:,.0f}"}
        if "share_of_peak" in figures:
            shown |= {"of peak": f"{100 * figures['share_of_peak']:.0f} %"}
        shown |= {"left": f"{int(left) // 60}:{int(left) % 60:02d}"}
        self.progress(Progress("training", self.state.step, self.steps, "steps", shown))
