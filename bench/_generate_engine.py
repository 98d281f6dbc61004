"""Cutaway's side of `bench/generate.py`: an engine on two threads, and the times at which its tokens come."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import _bench
import torch
from _generate_peers import THREADS, smollm2

import cutaway
from cutaway.generation.engine import Engine
from cutaway.generation.request import Generation, Request
from cutaway.models import Model

_strangers = itertools.count()


@dataclass
class Timed:
    """One request: seconds from its submission to each of its tokens, and what it made."""

    seconds: list[float]
    made: Generation

    @property
    def decode(self) -> float:
        """New tokens per second behind the first."""
        return (len(self.seconds) - 1) / (self.seconds[-1] - self.seconds[0])


def opened(**options: Any) -> tuple[Model, Engine]:
    """SmolLM2 as it is stored, and an engine for it."""
    torch.set_num_threads(THREADS)
    model = cutaway.load_model(smollm2(), quantised=True)
    return model, Engine(model, threads=THREADS, **options)


def asked(prompt: str | Sequence[int], new: int, **options: Any) -> Request:
    """Greedy unless told otherwise; of a tenant of its own, so that nothing of an earlier request is used for it."""
    greedy = {"sampling": {"temperature": 0.0}, "tenant": str(next(_strangers))}
    return Request(prompt=prompt, max_new_tokens=new, **(greedy | options))


def timed(engine: Engine, prompt: str | Sequence[int], new: int, **options: Any) -> Timed:
    """One request alone."""
    request, start, seconds = asked(prompt, new, **options), time.perf_counter(), []
    ticket = engine.submit(request)
    for _ in ticket:
        seconds.append(time.perf_counter() - start)
    return Timed(seconds, ticket.result())


def job(engine: Engine, prompts: Sequence[Sequence[int]], new: int) -> float:
    """New tokens per second over a whole job: from the submission of all requests to the last token's text."""
    requests, start = [asked(prompt, new) for prompt in prompts], time.perf_counter()
    tickets = [engine.submit(request) for request in requests]
    count = sum(len(ticket.result().ids) for ticket in tickets)
    assert count == len(prompts) * new, "a text ended early"
    return count / (time.perf_counter() - start)


def text_ids(model: Model) -> list[int]:
    """Cutaway's documentation as ids: real text, long enough for every prompt."""
    pages = sorted((_bench.BENCH.parent / "docs").rglob("*.md"))
    return model.tokenizer.encode("\n".join(page.read_text("utf-8") for page in pages))
