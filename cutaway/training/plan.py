"""Automatic choices, each measured or derived, each with its reason: precision, compiling, the number of steps.

They are made once, before the first step, and written into the run's config; a resumed run never chooses again.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from cutaway.models import Recurrent, Seq2Seq
from cutaway.training.config import TrainConfig
from cutaway.training.evaluate import batches
from cutaway.training.objectives import Batch, Data
from cutaway.training.ranks import Ranks
from cutaway.training.stepper import Stepper

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
COMPILE_FROM = 600.0  # seconds of training from which on compiling (about a minute) may pay
RESERVE = 0.02  # share of the time kept for what cannot be foreseen
EVALUATIONS = 10  # per run, but fewer if they would take more than this share of the time:
EVALUATION_SHARE = 0.15


def matmul_rate(dtype: torch.dtype, size: int = 1024, repeats: int = 5) -> float:
    """Floating-point operations a second of torch's matrix product, the median of a few."""
    a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / sorted(times[1:])[repeats // 2]


@dataclass(frozen=True)
class Plan:
    """A config with every choice made.

    Attributes:
        config: nothing in it is None or "auto" that matters to the result.
        notes: the reasons.
    """

    config: TrainConfig
    notes: list[str]


def choose_dtype(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """bf16 where this machine multiplies it clearly faster."""
    if config.dtype != "auto":
        return config, []
    rates = {name: matmul_rate(dtype) for name, dtype in DTYPES.items()}
    name = "bf16" if rates["bf16"] > 1.3 * rates["fp32"] else "fp32"
    speeds = " and ".join(f"{rate / 1e9:,.0f} billion operations a second in {n}" for n, rate in rates.items())
    return replace(config, dtype=name), [f"precision {name}: matrix products reach {speeds}"]


def settle(
    config: TrainConfig,
    network: nn.Module,
    store: Data,
    ranks: Ranks,
    *,
    started: float,
    done: int = 0,
    elsewhere: float = 0.0,
) -> Plan:
    """Make the choices that are left.

    Args:
        config: with its dtype chosen.
        network: what is trained; measured on a copy, so that its weights do not change.
        store: what it is trained on.
        ranks: the processes.
        started: `time.perf_counter()` when the run began, for the time budget.
        done: steps taken before, when a run is extended.
        elsewhere: seconds of a save or the like that each evaluation brings with it.
    """
    notes: list[str] = []
    tokens = batch_of(store, config, ranks, 0).tokens
    parameters = sum(p.numel() for p in network.parameters())
    steps, step_seconds = config.steps, None
    valid = store.splits.get("valid")
    scored = 0 if valid is None else min(valid.tokens, config.eval_tokens or valid.tokens)
    budget = None if config.minutes is None else 60 * config.minutes
    if steps is None and budget is None:
        epochs = store["train"].tokens * 4
        wanted = min(20 * parameters, epochs)
        why = "20 tokens per parameter (Hoffmann et al. 2022)"
        if wanted == epochs:
            why = "four passes over the data, after which repeating it helps little (Muennighoff et al. 2023)"
        steps = max(100, wanted // tokens)
        notes.append(f"{steps:,} steps: {why}")
        steps += done
    if config.compile == "auto":
        seconds = budget or (steps or 0) * 6 * parameters * tokens / (0.4 * matmul_rate(DTYPES[config.dtype]))
        config, note, step_seconds = _choose_compile(config, network, store, ranks, seconds)
        notes.append(note)
    every = None
    if budget is not None:
        step_seconds = step_seconds or time_step(config, network, store, ranks, seconds=RESERVE * budget)
        each = _time_evaluation(config, network, store, ranks.world) + elsewhere
        left = budget * (1 - RESERVE) - (time.perf_counter() - started)
        if config.eval_every is None:
            count = max(1, min(EVALUATIONS, int(EVALUATION_SHARE * left / max(each, 1e-9))))
            planned = max(1, int((left - count * each) / step_seconds))
            every = -(-planned // count)
        else:  # every eval_every steps, and at the end
            planned = max(1, int((left - each) / (step_seconds + each / config.eval_every)))
        notes.append(
            f"{planned:,} steps fit {config.minutes:.3g} minutes: {1000 * step_seconds:,.1f} ms a step, "
            f"{each:.1f} s an evaluation"
        )
        steps = done + planned
    assert steps is not None  # every branch above sets it
    if every is None:  # predicting a token costs a third of learning from it
        affordable = int(EVALUATION_SHARE * 3 * (steps - done) * tokens / max(1, scored))
        every = -(-(steps - done) // max(1, min(EVALUATIONS, affordable)))
    every = config.eval_every or max(1, every)
    warmup = min(max(10, steps // 100), 200, steps // 4) if config.warmup is None else config.warmup
    config = replace(
        config, steps=steps, minutes=None, warmup=warmup, eval_every=every, save_every=config.save_every or every
    )
    return Plan(config, notes)


def time_step(
    config: TrainConfig, network: nn.Module, store: Data, ranks: Ranks, *, seconds: float, warm: int = 2
) -> float:
    """Seconds per training step, measured on a throwaway copy: `warm` steps first, then some for `seconds`."""
    stepper = Stepper(config, copy.deepcopy(network), ranks)
    for number in range(warm):
        _step(stepper, config, store, ranks, number)
    start, number = time.perf_counter(), 0
    while number < 3 or (ranks.world == 1 and time.perf_counter() - start < seconds and number < 50):
        _step(stepper, config, store, ranks, warm + number)
        number += 1
    return (time.perf_counter() - start) / number


def _step(stepper: Stepper, config: TrainConfig, store: Data, ranks: Ranks, number: int) -> None:
    stepper.step(batch_of(store, config, ranks, number), lr_scale=1e-3, seed=number)


def batch_of(store: Data, config: TrainConfig, ranks: Ranks, step: int) -> Batch:
    """This process's rows of the batch of a step, a function of (seed, step)."""
    return config.objective.batch(store["train"], config, ranks, step)


def _time_evaluation(config: TrainConfig, network: nn.Module, store: Data, world: int) -> float:
    """Seconds of one evaluation and its samples, from one batch and one token."""
    objective, batch, token = config.objective, 0.0, 0.0

    def timed(job: Callable[[], object]) -> float:
        job()
        start = time.perf_counter()
        job()
        return time.perf_counter() - start

    with torch.no_grad():
        if "valid" in store.splits:
            valid = store["valid"]
            first = next(objective.in_order(valid, config.context))
            rows, size = objective.rows(valid, config.context)
            count = min(
                batches(objective, valid, config.context, config.eval_tokens) or 1e9, valid.tokens / (rows * size)
            )
            batch = timed(lambda: objective.measure(network, first.tensors)) * max(1.0, count)
        if config.samples:
            ids = torch.zeros(1, 1, dtype=torch.int64)
            source = {"source": ids} if isinstance(network, Seq2Seq) else {}
            token = timed(lambda: network(ids, **source))
    return batch / world + token * len(config.samples) * config.sample_tokens


def _choose_compile(
    config: TrainConfig, network: nn.Module, store: Data, ranks: Ranks, seconds: float
) -> tuple[TrainConfig, str, float | None]:
    """Compile if the time it takes is won back within the run; also the seconds per step, if measured."""
    if seconds < COMPILE_FROM or ranks.world > 1 or isinstance(network, Recurrent):
        why = f"the run takes about {seconds:,.0f} s, and compiling pays from about {COMPILE_FROM:,.0f} s on"
        if ranks.world > 1:
            why = "it is only tried with one process"
        if isinstance(network, Recurrent):
            why = "it would unroll every step of a recurrent network, which takes minutes"
        return replace(config, compile="off"), f"torch.compile off: {why}", None
    plain, fast = replace(config, compile="off"), replace(config, compile="on")
    before = time_step(plain, network, store, ranks, seconds=3.0)
    start = time.perf_counter()
    try:
        after = time_step(fast, network, store, ranks, seconds=3.0)
    except Exception as error:  # the compiler's own errors are of many kinds; without it training is as right
        return plain, f"torch.compile off: it failed here ({type(error).__name__})", before
    cost = time.perf_counter() - start
    figures = f"{1000 * before:,.1f} ms a step without, {1000 * after:,.1f} with, {cost:.0f} s to compile"
    if (1 - after / before) * seconds > cost:
        return fast, f"torch.compile on: {figures}", after
    return plain, f"torch.compile off: {figures}", before
