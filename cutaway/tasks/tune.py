"""Hyper-parameter search: try settings, keep what is best on validation data (TPE, Bergstra et al. 2011, by optuna).

The first trial is what is chosen where nobody searches, so the search ends with nothing worse on validation data. Test
examples are never looked at. A trial is a function of the seed, its number and the trials before it, so that a search
that was killed goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cutaway.errors import ConfigError, need
from cutaway.files import holds, read_json, write_json
from cutaway.tasks.config import TaskConfig
from cutaway.tasks.data import TaskData
from cutaway.tasks.plan import tidy
from cutaway.tasks.repeat import Learn, outcome_of

TRIAL = "trial.json"
STARTUP = 4  # trials that are drawn at random, before the model of the search speaks


@dataclass(frozen=True)
class Trial:
    """Settings that were tried.

    Attributes:
        number: from 1.
        settings: field of TaskConfig -> value.
        figure: the task's metric on validation data.
        seconds: that it took.
    """

    number: int
    settings: dict[str, Any]
    figure: float
    seconds: float


def space_of(config: TaskConfig) -> dict[str, tuple[Any, ...]]:
    """What is searched: field -> ("log" | "even", least, most), or ("one", values …).

    Around the usual values: those of the config with `usual` applied.
    """
    lr, epochs = config.lr or 1e-3, config.epochs or 3
    return {
        "lr": ("log", lr / 10, lr * 5),
        "epochs": ("one", *sorted({round(epochs * times, 2) for times in (0.5, 1.0, 1.5, 2.0)})),
        "batch": ("one", *sorted({8, 16, 32, 64, config.batch})),
        "dropout": ("even", 0.0, 0.3),
        "label_smoothing": ("even", 0.0, 0.2),
        "weight_decay": ("log", 1e-3, 0.3),
    }


def tune(
    config: TaskConfig,
    data: TaskData,
    run: Path,
    learn: Learn,
    *,
    until: float | None = None,
    on_note: Callable[[str], None] | None = None,
) -> tuple[TaskConfig, list[Trial]]:
    """The config with the settings that are best on validation data.

    Args:
        config: with `trials`, its usual values filled in; `minutes` bounds the search and the training after it.
        data: in splits, with validation examples.
        run: the folder of the trials.
        learn: trains one.
        until: `time.perf_counter()` at which all should be done, the training with the best settings included.
        on_note: told what was found.

    Raises:
        ConfigError: no validation examples, a field that is not searched, or no range for it.
        MissingExtra: optuna is not installed.
    """
    optuna = need("optuna", "tasks", "hyper-parameter search")
    if "valid" not in data.splits:
        raise ConfigError("a search chooses by validation data; give --valid a table, or a share above 0")
    space = {name: one for name, one in space_of(config).items() if name in config.search}
    ranges = {name: _range(optuna, one) for name, one in space.items()}
    config = replace(config, minutes=None)
    done: list[Trial] = []
    with _quiet(optuna):
        while len(done) < config.trials:
            number = len(done) + 1
            if until is not None and done and time.perf_counter() + 2.2 * max(one.seconds for one in done) > until:
                break  # as long as the longest, and then the training with the best
            room = run / f"trial-{number}"
            if not holds(room, TRIAL):
                settings = _next(optuna, config, space, ranges, done)
                began = time.perf_counter()
                outcome = outcome_of(replace(config, **settings), data, room, learn, test=False)
                figure = next(iter(outcome["valid"].values()))["value"]
                made = Trial(number, settings, figure, round(time.perf_counter() - began, 2))
                write_json(room / TRIAL, asdict(made))
                tidy(room)
            done.append(Trial(**read_json(room / TRIAL)))
            if on_note is not None:
                on_note(f"trial {number}: {done[-1].figure:.4f} with {_words(done[-1].settings)}")
    best = max(done, key=lambda one: one.figure)  # the first of equals: the usual values, if they are among them
    if on_note is not None:
        on_note(f"trial {best.number} of {len(done)} is the best on validation data: {_words(best.settings)}")
    return replace(config, **best.settings), done


def _next(
    optuna: Any, config: TaskConfig, space: dict[str, tuple[Any, ...]], ranges: dict[str, Any], done: list[Trial]
) -> dict[str, Any]:
    """The settings of the next trial."""
    if not done:
        return {name: getattr(config, name) for name in space}
    sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=1000 * config.seed + len(done))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for one in done:
        known = {name: value for name, value in one.settings.items() if _inside(space[name], value)}
        if len(known) == len(ranges):
            study.add_trial(optuna.trial.create_trial(params=known, distributions=ranges, value=one.figure))
    drawn = study.ask(ranges).params
    return {name: _rounded(value) for name, value in drawn.items()}


def _rounded(value: Any) -> Any:
    """To three digits, which is all that can matter."""
    if not isinstance(value, float) or value == 0:
        return value
    return round(value, 2 - math.floor(math.log10(abs(value))))


def _inside(space: tuple[Any, ...], value: Any) -> bool:
    kind, *rest = space
    return value in rest if kind == "one" else rest[0] <= value <= rest[1]


def _range(optuna: Any, space: tuple[Any, ...]) -> Any:
    kind, *rest = space
    if kind == "one":
        return optuna.distributions.CategoricalDistribution(rest)
    return optuna.distributions.FloatDistribution(rest[0], rest[1], log=kind == "log")


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())


class _quiet:
    """Optuna says nothing inside."""

    def __init__(self, optuna: Any) -> None:
        self.logging = optuna.logging

    def __enter__(self) -> None:
        self.before = self.logging.get_verbosity()
        self.logging.set_verbosity(self.logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logging.set_verbosity(self.before)
