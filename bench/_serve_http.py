"""Sixteen clients at once, 64 tokens in and 128 out, streamed.

- `http16_vs_llamacpp`: new tokens per second, from the first request's sending to the last answer's end, over those of
  llama.cpp's `llama-server` with sixteen slots.
- `http16_vs_engine`: over those of the same prompts submitted to an engine in this process, without HTTP.
- `ttft_p95_over_p50`: of the sixteen times from a request's sending to its first token, the 95th percentile over the
  median.

The work is equal: greedy, the same prompts as ids, exactly 128 tokens each, which is checked. llama.cpp is told to
ignore ends; Cutaway is given prompts whose continuations do not end by themselves, found by trying. Each run has its
own prompts, so that neither server finds them computed. The client is `_serve_client.py`.
"""

import time
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

import _bench
import _serve_peers as peers
from _generate_engine import asked, opened, text_ids

from cutaway.generation.engine import Engine

CLIENTS, PROMPT, NEW = 16, 64, 128


def http(quick: bool, runs: int) -> dict[str, Any]:
    new = 32 if quick else NEW
    model, engine = opened()
    rounds = _prompts(engine, text_ids(model), new, runs + 1)
    ours, theirs, alone, waits = [], [], [], []
    ports = peers.free_port(), peers.free_port()
    with (
        peers.Client() as client,
        peers.running(peers.cutaway_command(ports[0]), ports[0]) as cutaway,
        peers.running(peers.llamacpp_command(ports[1], CLIENTS, PROMPT + NEW + 64), ports[1]) as llamacpp,
    ):
        for number, prompts in enumerate(rounds):
            made = client.ask(cutaway.port, [_request(ids, new) for ids in prompts])
            peer = client.ask(llamacpp.port, [_request(ids, new, ignore_eos=True) for ids in prompts])
            direct = _direct(engine, prompts, new)
            if number == 0:  # to be warm
                continue
            ours.append(_speed(made, new))
            theirs.append(_speed(peer, new))
            alone.append(direct)
            waits.append([one["first"] - one["sent"] for one in made])
    speed = f"{median(ours):.0f} tokens/s"
    middle = [median(wait) for wait in waits]
    late = [quantiles(wait, n=20, method="inclusive")[-1] for wait in waits]
    return {
        "http16_vs_llamacpp": _bench.figure(
            [our / their for our, their in zip(ours, theirs, strict=True)],
            ">= 2.5",
            cutaway=speed,
            peer=f"{median(theirs):.0f} tokens/s",
            peer_name=f"llama-server, {CLIENTS} slots",
        ),
        "http16_vs_engine": _bench.figure(
            [our / one for our, one in zip(ours, alone, strict=True)],
            ">= 0.9",
            cutaway=f"{speed}; the engine alone: {median(alone):.0f}",
        ),
        "ttft_p95_over_p50": _bench.figure(
            [p95 / p50 for p95, p50 in zip(late, middle, strict=True)],
            "<= 1.5",
            cutaway=f"{median(late) * 1000:.0f} ms over {median(middle) * 1000:.0f} ms",
        ),
    }


def _request(ids: Sequence[int], new: int, **more: Any) -> tuple[str, Any]:
    asked = {"model": peers.MODEL, "prompt": list(ids), "max_tokens": new, "temperature": 0, "stream": True}
    return "/v1/completions", {**asked, "stream_options": {"include_usage": True}, **more}


def _speed(made: Sequence[dict[str, Any]], new: int) -> float:
    """New tokens per second of a round."""
    for one in made:
        assert one["last"]["usage"]["completion_tokens"] == new, "a text ended early"
    return len(made) * new / max(one["end"] for one in made)


def _direct(engine: Engine, prompts: Sequence[Sequence[int]], new: int) -> float:
    """The same without HTTP."""
    requests, start = [asked(ids, new) for ids in prompts], time.perf_counter()
    tickets = [engine.submit(request) for request in requests]
    count = sum(len(ticket.result().ids) for ticket in tickets)
    assert count == len(prompts) * new, "a text ended early"
    return count / (time.perf_counter() - start)


def _prompts(engine: Engine, ids: Sequence[int], new: int, rounds: int) -> list[list[list[int]]]:
    """For each round as many prompts as clients, all different, whose continuations are long enough."""
    found: list[list[int]] = []
    place = 0
    while len(found) < rounds * CLIENTS:
        tried = [list(ids[place + i * PROMPT :][:PROMPT]) for i in range(2 * CLIENTS)]
        place += 2 * CLIENTS * PROMPT
        tickets = [engine.submit(asked(one, new)) for one in tried]
        found += [one for one, ticket in zip(tried, tickets, strict=True) if len(ticket.result().ids) == new]
    return [found[first : first + CLIENTS] for first in range(0, rounds * CLIENTS, CLIENTS)]
