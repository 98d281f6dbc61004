"""Why a sentence is in a summary: what its score is owed to, or which sentences of the document it was written from.

Shapes: S sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.attribution.occlusion import removal
from cutaway.interp.attribution.question import Attribution, Question
from cutaway.interp.frozen import frozen
from cutaway.interp.inputs import Inputs, forward, inputs_of
from cutaway.interp.receipt import Clock, Receipt
from cutaway.interp.results import TokenScores
from cutaway.interp.target import Target
from cutaway.models import Model, Seq2Seq
from cutaway.tasks.summarise import extract
from cutaway.tasks.task import Answer, Example
from cutaway.text.sentences import sentence_spans

if TYPE_CHECKING:
    from cutaway.tasks.summarise.task import Summarise


@dataclass(frozen=True)
class Stretch(Target):
    """The mean of what the head says of some tokens of a text.

    Attributes:
        start: the first of them.
        end: behind the last.
    """

    start: int = 0
    end: int = 0

    def __call__(self, output: Tensor, inputs: Inputs) -> Tensor:
        """Of each text, (B, T, L) -> (B,)."""
        return output[:, self.start : self.end, 0].mean(1)


def why(task: Summarise, model: Model, example: Example, answer: Answer, *, method: str = "", part: int = 0) -> Any:
    """What one sentence of a summary is owed to.

    Args:
        task: that made it.
        model: that answered.
        example: the document.
        answer: its summary.
        method: scored: occlusion, what the sentence's score loses without each word; written: leave_out, how much less
            likely the sentence is without each sentence of the document; textrank, centroid and lead: links.
        part: which sentence of the summary, from 0.

    Raises:
        ConfigError: a method that the way does not have.
        InputError: the summary has no such sentence.
    """
    told = answer.more.get("sentences", ())
    if not 0 <= part < len(told):
        raise InputError(f"the summary has {len(told)} sentences, from 0 on, but sentence {part} was asked about")
    if task.way == "scored":
        _only(method, "occlusion", task.way)
        return scored(task, model, example, told[part]["support"][0]["sentence"], part)
    if task.way == "written":
        _only(method, "leave_out", task.way)
        return left_out(task, model, example, answer, part)
    _only(method, "links", task.way)
    return ranked(task, model, example, told[part]["support"][0]["sentence"], part)


def _only(method: str, known: str, way: str) -> None:
    if method not in ("", known):
        raise ConfigError(f"of the way {way!r} why can be found by {known}, but {method!r} was given")


def _receipt(clock: Clock, model: Model, example: Example, part: int, gap: float | None = None) -> Receipt:
    code = (
        f"from cutaway.tasks import open_task\n\nmade = open_task({model.source!r})\n"
        f"result = made.why({dict(example.given)!r:.20000}, part={part})\n"
    )
    return replace(clock.receipt(gap=gap), code=code)


def scored(task: Summarise, model: Model, example: Example, number: int, part: int) -> Attribution:
    """What a sentence's score loses when each word of what was read with it is replaced by a mean vector."""
    window = next(one for one in task.windows(model, example)[1] if number in one.numbers)
    clock = Clock(model, "occlusion", window.ids)
    start, end = window.places[window.numbers.index(number)]
    target = Stretch(f"score of sentence {number}", None, 0, start=start, end=end)
    question = Question(frozen(model), inputs_of(model, window.ids), target, {})
    remove = removal(question, "mean", "word")
    count = len(remove.players)
    kept = torch.cat((torch.ones(1, count, dtype=torch.bool), ~torch.eye(count, dtype=torch.bool)))
    numbers = remove(kept).double().cpu()
    scores = remove.scores((numbers[0] - numbers[1:]).tolist(), "word")
    receipt = _receipt(clock, model, example, part)
    return question.result("occlusion", scores, "word", receipt, value=float(numbers[0]))


def left_out(task: Summarise, model: Model, example: Example, answer: Answer, part: int) -> TokenScores:
    """How much less likely a written sentence is, behind those before it, with each sentence of the document left out
    in turn (nats).

    A long document is asked about by its part with the sentences that support what was said.
    """
    summary, text, prompt = answer.answer, task.document(example), task.prompt(model)
    support = answer.more["sentences"][part]["support"]
    first = len(text) - len(example.given["text"]) + (support[0]["start"] if support else 0)  # behind the title
    start, end = next((a, b) for a, b in prompt.parts(text) if first < b)
    spans = [(a, b) for a, b in sentence_spans(text) if start <= a and b <= end]
    clock = Clock(model, "occlusion", summary)
    begin, until = sentence_spans(summary)[part]
    target, before = prompt.target(summary[:until]), len(prompt.target(summary[:begin])) if begin else 0
    versions = [text[start:end], *(text[start:a] + text[b:end] for a, b in spans)]
    reads = frozen(model)
    totals = [likelihood(reads, prompt.ids(one if one.strip() else " "), target, before) for one in versions]
    scores: list[float | None] = [totals[0] - total for total in totals[1:]]
    return TokenScores(
        f"how much less likely “{summary[begin:until]}” is without each sentence",
        "nats",
        [text[a:b] for a, b in spans],
        [0] * len(spans),
        scores,
        True,
        receipt=_receipt(clock, model, example, part),
    )


@torch.no_grad()
def likelihood(model: Model, prompt: Sequence[int], target: Sequence[int], before: int = 0) -> float:
    """The log-probability of ids behind a prompt, in nats, without that of the first `before` of them."""
    if isinstance(model.network, Seq2Seq):
        inputs, first = inputs_of(model, [model.config.start_id, *target], source=list(prompt)), 0  # pyright: ignore[reportAttributeAccessIssue]
    else:
        inputs, first = inputs_of(model, [*prompt, *target]), len(prompt) - 1
    rows = forward(model, inputs)[0, first : first + len(target)].double().log_softmax(-1)
    return float(rows[torch.arange(len(target)), torch.tensor(target)][before:].sum())


def ranked(task: Summarise, model: Model, example: Example, number: int, part: int) -> TokenScores:
    """What each sentence gives to the rank of one: they and its place make up all of it."""
    from cutaway.models.embedding import embed

    text = example.given["text"]
    spans = sentence_spans(text)
    quotes = [text[start:end] for start, end in spans]
    clock = Clock(model, "occlusion", text)
    vectors = np.asarray(embed(model, quotes)) if model.config.head == "embedding" else extract.word_vectors(quotes)  # pyright: ignore[reportAttributeAccessIssue]
    start = extract.prior(len(quotes), task.position)
    if task.way == "textrank":
        rank = extract.textrank(vectors, start)
        given = extract.DAMPING * rank * extract.links(vectors)[:, number]
        given[number] += (1 - extract.DAMPING) * start[number]
        gap = float(abs(given.sum() - rank[number]))
    elif task.way == "centroid":
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        given = (vectors @ unit[number]) / max(1e-12, float(np.linalg.norm(vectors.sum(0))))
        gap = float(abs(given.sum() - extract.centroid(vectors)[number]))
    else:
        given, gap = np.eye(len(quotes))[number], 0.0
    what = {"textrank": "rank", "centroid": "nearness to the centre", "lead": "place"}[task.way]
    return TokenScores(
        f"what each sentence gives to the {what} of sentence {number}",
        "share of rank" if task.way == "textrank" else "cosine",
        quotes,
        [0] * len(quotes),
        given.tolist(),
        False,
        receipt=_receipt(clock, model, example, part, gap),
    )
