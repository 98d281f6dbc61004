"""One model, or two beside each other, on suites and texts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cutaway.errors import ConfigError
from cutaway.evaluation.compare import compare
from cutaway.evaluation.evaluate import evaluate
from cutaway.evaluation.likelihood import refuse
from cutaway.evaluation.perplexity import perplexity
from cutaway.evaluation.report import Results
from cutaway.evaluation.suites import Suite
from cutaway.generation import Engine
from cutaway.progress import OnProgress, Progress


def run(
    engines: Sequence[Engine],
    suites: Sequence[Suite] = (),
    texts: Mapping[str, Sequence[str]] | None = None,
    *,
    limit: int | None = None,
    window: int | None = None,
    stride: int | None = None,
    progress: OnProgress | None = None,
) -> Results:
    """Evaluate one model, or two and how they differ.

    Args:
        engines: of one model or of two.
        suites: questions, from `read_suite`.
        texts: name -> texts to predict.
        limit: only the first so many questions of each group of a suite.
        window: tokens seen at once in texts; see `perplexity`.
        stride: the same.
        progress: told of each stage.

    Raises:
        ConfigError: nothing to evaluate on, more than two models, a model that cannot be asked so, or a limit below 1.
        InputError: a question that cannot be scored; says where it stands.
        NonFinite: a model computes a NaN or an infinity.
    """
    texts = texts or {}
    if not 1 <= len(engines) <= 2 or not (suites or texts):
        raise ConfigError("an evaluation needs one model or two, and a suite of questions or a text")
    if limit is not None and limit < 1:
        raise ConfigError(f"a limit must be at least 1, but {limit} was given")
    names = [engine.model.source or f"model {number}" for number, engine in enumerate(engines, 1)]
    names = [f"{name} ({number})" for number, name in enumerate(names, 1)] if len(set(names)) < len(names) else names
    for engine in engines:  # before anything is computed
        for kind in [*(suite.kind for suite in suites), *["texts"] * bool(texts)]:
            refuse(engine.model, kind)

    def told(name: str) -> OnProgress | None:
        def tell(report: Progress) -> None:
            assert progress is not None
            progress(replace(report, stage=f"{report.stage}, {name}"))

        return progress if progress is None or len(engines) == 1 else tell

    started = time.perf_counter()
    asked = [
        [evaluate(one, suite, limit=limit, progress=told(name)) for one, name in zip(engines, names, strict=True)]
        for suite in suites
    ]
    read = [
        [
            perplexity(one, given, name=text, window=window, stride=stride, progress=told(name))
            for one, name in zip(engines, names, strict=True)
        ]
        for text, given in texts.items()
    ]
    differences = [d for pair in [*asked, *read] if len(pair) == 2 for d in compare(*pair)]
    return Results(
        tuple(names),
        tuple(f"{engine.backend.name}: {engine.backend.reason}" for engine in engines),
        tuple(map(tuple, asked)),
        tuple(map(tuple, read)),
        tuple(differences),
        time.perf_counter() - started,
    )
