"""Guessing ahead by looking up what the text said before (prompt look-up), and its cost where nothing repeats.

`lookup_speedup`: greedy decoding with the look-up over without, tokens per second behind the first, over all texts that
repeat: functions of Python's library that are to be written again with a change, and paragraphs of Cutaway's
documentation to be summarised. Each text gives the same tokens both ways, or there is no figure. `lookup_worst_case`:
the same where nothing is repeated, of the text that is slowest in the median: stories drawn at temperature 1, and the
answers to short questions.
"""

import heapq
import inspect
import textwrap
from collections.abc import Callable
from statistics import median
from typing import Any

import _bench
from _generate_engine import Timed, opened, timed

from cutaway.generation.engine import Engine
from cutaway.tokenizers.chat import chat_ids

EDITS: list[tuple[Callable[..., Any] | type, str]] = [
    (heapq.nsmallest, "Rename the variable result to found."),
    (textwrap.indent, "Rename the parameter prefix to margin."),
    (textwrap.dedent, "Rename the variable margin to common."),
    (heapq.merge, "Rename the parameter reverse to descending."),
]
TURNS = 4  # of texts where nothing repeats, whose times differ by less than one measurement scatters
STORIES = ["Once upon a time", "The ship left the harbour at dawn, and", "My grandmother used to say"]
QUESTIONS = ["What is the capital of France?", "How do plants grow?", "Why is the sky blue?"]


def lookup(quick: bool, runs: int) -> dict[str, Any]:
    model, engine = opened()
    new = 32 if quick else 192

    def said(text: str) -> list[int]:
        return chat_ids(model, [{"role": "user", "content": text}])

    repeats = [
        said(f"{change} Write the whole function again:\n\n```python\n{inspect.getsource(function)}```\n")
        for function, change in EDITS[: 1 if quick else None]
    ]
    page = (_bench.BENCH.parent / "docs" / "architecture.md").read_text("utf-8")
    parts = [part for part in page.split("\n\n") if 300 < len(part) < 1200 and "|" not in part]
    summaries = [said(f"Summarise this text, with its own words:\n\n{part}") for part in parts[: 1 if quick else 4]]
    greedy, drawn = {"temperature": 0.0}, {"temperature": 1.0}
    others = [(model.tokenizer.encode(story), drawn) for story in STORIES] + [(said(q), greedy) for q in QUESTIONS]
    gains: dict[str, list[float]] = {"code": [], "summaries": [], "both": []}
    kept: list[list[float]] = [[] for _ in others]
    accepted: list[float] = []
    for _ in range(runs):
        times = {}
        for name, prompts in (("code", repeats), ("summaries", summaries)):
            pairs = [_pair(engine, prompt, new, greedy) for prompt in prompts]
            assert all(plain.made.ids == guessed.made.ids for plain, guessed in pairs), "the tokens differ"
            times[name] = [sum(_behind(one[way]) for one in pairs) for way in (0, 1)]
            accepted += [guessed.made.acceptance or 0.0 for _, guessed in pairs]
        times["both"] = [times["code"][way] + times["summaries"][way] for way in (0, 1)]
        for name, (plain, guessed) in times.items():
            gains[name].append(plain / guessed)
        for shares, (prompt, how) in zip(kept, others, strict=True):
            pairs = [_pair(engine, prompt, new, how) for _ in range(1 if quick else TURNS)]
            shares.append(sum(_behind(plain) for plain, _ in pairs) / sum(_behind(guessed) for _, guessed in pairs))
    words = f"code × {median(gains['code']):.2f}, summaries × {median(gains['summaries']):.2f}"
    return {
        "lookup_speedup": _bench.figure(
            gains["both"], ">= 1.5", cutaway=f"{words}; {median(accepted):.0%} of the guesses right"
        ),
        "lookup_worst_case": _bench.figure(
            min(kept, key=median), ">= 0.95", cutaway="stories and short questions, the slowest of six"
        ),
    }


def _pair(engine: Engine, prompt: list[int], new: int, sampling: dict[str, Any]) -> tuple[Timed, Timed]:
    """Without and with guesses."""
    plain = timed(engine, prompt, new, sampling=sampling)
    return plain, timed(engine, prompt, new, sampling=sampling, speculate="lookup")


def _behind(one: Timed) -> float:
    """Seconds from the first token to the last."""
    return one.seconds[-1] - one.seconds[0]
