"""Summaries at once, of any text and with any model, or with none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cutaway.errors import ConfigError, InputError
from cutaway.generation.engine import Engine
from cutaway.models import Model
from cutaway.progress import OnProgress
from cutaway.tasks.summarise.support import Supports
from cutaway.tasks.summarise.task import Summarise
from cutaway.tasks.task import Answer
from cutaway.text.sentences import sentence_spans

BARE = ("textrank", "centroid", "lead")  # ways that need no model


def summarise_text(
    text: str,
    *,
    model: Any = None,
    sentences: int = 0,
    way: str = "",
    title: str = "",
    support: Model | None = None,
    source: str = "the text",
    progress: OnProgress | None = None,
) -> Answer:
    """The summary of a text, each sentence with what supports it.

    Args:
        text: of any length.
        model: a task's model (`open_task`); a model that writes, whose summary it is; one that makes vectors, by which
            sentences are compared; None: their words are.
        sentences: of the summary; 0: as many as the task's model learned to choose, else 3. What a model writes is as
            long as its instruction says.
        way: textrank (the usual one), centroid or lead, without a task's model.
        title: of the text.
        support: a model that makes vectors, by which supporting sentences are looked for, beside words.
        source: what to call the text in messages.
        progress: told now and then.

    Raises:
        InputError: a text that is none.
        ConfigError: a way that there is not, or a model that cannot do it.
    """
    from cutaway.tasks.trained import TaskModel  # which knows every task

    if isinstance(model, TaskModel):
        if not isinstance(model.task, Summarise):
            raise ConfigError(f"the model was trained for the task {model.task.name}, not to summarise")
        if way and way != model.task.way:
            raise ConfigError(f"this task's model was made for the way {model.task.way!r}; leave {way!r} out")
        made = replace(model, task=replace(model.task, sentences=sentences or model.task.sentences))
        (answer,) = made.predict([{"text": text, "title": title}], progress=progress)
        return answer if support is None else linked(answer, text, support)
    task = Summarise(way=_way(model, way), sentences=sentences or 3)  # pyright: ignore[reportArgumentType]
    try:
        example = task.example(source, {"text": text, "title": title}, answered=False)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    if model is not None and task.way != "lead":
        (raw,) = task.infer(Engine(model), [example], progress)
    else:
        spans = sentence_spans(text)
        raw = task.extracted([text[start:end] for start, end in spans], spans, None)
    answer = task.answer(raw, example, (), {})
    return answer if support is None else linked(answer, text, support)


def _way(model: Model | None, way: str) -> str:
    head = getattr(model.config, "head", "causal_lm") if model is not None else "none"
    writes = head == "causal_lm"
    known = ("written",) if writes else BARE
    if model is not None and not writes and head != "embedding":
        raise ConfigError(
            f"{model.source or 'the model'} has a head for {head}; a summary needs a model that writes, one that makes "
            "vectors, or one that cutaway task train summarise has made"
        )
    if way and way not in known:
        raise ConfigError(f"with {'this model' if model else 'no model'} the ways are {', '.join(known)}, not {way!r}")
    return way or known[0]


def linked(answer: Answer, text: str, model: Model) -> Answer:
    """The answer with its support looked for by vectors too.

    Args:
        answer: a summary of the text.
        text: the document.
        model: that makes vectors.
    """
    from cutaway.models.embedding import embed

    spans = sentence_spans(text)
    told = answer.more["sentences"]
    rows = embed(model, [*(text[start:end] for start, end in spans), *(one["text"] for one in told)])
    vectors = rows.float().numpy()
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    supports = Supports(text, spans, vectors[: len(spans)])
    found = [{**one, **supports.of(one["text"], vectors[len(spans) + n])} for n, one in enumerate(told)]
    return replace(answer, more={**answer.more, "sentences": found})
