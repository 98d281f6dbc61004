"""What suits fresh weights: kind and size of network, tokenizer, rates and passes, by the data, where nobody says.

The values were chosen on the validation data of three sets of 6,000 to 26,000 texts (docs/tasks/scratch.md). What the
user decides stays; every choice is told with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from cutaway.tasks.baseline import HAN
from cutaway.tasks.config import USUAL_SIZE, TaskConfig
from cutaway.tasks.task import Example, Task

SEEN = 60_000  # texts that a network of this size sees until it has learned them by heart, the same ones counted again
FEW, MANY = 3, 20  # passes at the least and at the most
LARGE = 50_000  # texts from which on a wider network learns more
SHOWN = 2000  # texts that are looked at
SMALL_VOCABULARY, VOCABULARY = 4096, 8192
LETTERS = 500_000  # of all texts together, from which on the larger vocabulary has enough examples of each token


def suited(config: TaskConfig, examples: Sequence[Example]) -> tuple[TaskConfig, list[str]]:
    """The config with all that it leaves open decided, and why.

    Args:
        config: with its task settled.
        examples: to train on.
    """
    open_fields = {
        name for name in OPEN if getattr(config, name) is None or (name in NAMED and not getattr(config, name))
    }
    if config.minutes is not None:
        open_fields -= {"epochs"}
    if config.optimizer:
        open_fields -= {"lr"}  # another optimiser has rates of its own
    if config.how != "full":
        open_fields -= {"lr"}  # and so have adapters and heads
    advice = dict(config.advice)
    network = {} if config.start else {**advice.pop("network", {}), **config.network}
    if config.start:
        made = CHECKPOINT | advice
        return replace(config, **{name: made[name] for name in open_fields & made.keys()}), []
    made, notes = _network(config, examples)
    made |= advice
    vocabulary, said = _vocabulary(config.task, examples)
    made |= vocabulary
    if "vocab_size" in open_fields and not config.tokenizer:
        notes.append(said)
    given = {name: value for name, value in made.items() if name in open_fields}
    return replace(config, **given, network=network), [text for text in notes if text]


NAMED = ("kind", "size", "tokenizer", "vocab_size", "batch", "optimizer")  # of which "" and 0 leave them open
OPEN = (*NAMED, "epochs", "lr", "dropout", "word_dropout", "average", "label_smoothing")
OTHERS: dict[str, Any] = {"size": USUAL_SIZE, "batch": 32, "dropout": 0.1}
OTHERS |= {"word_dropout": 0.0, "average": 0.0, "label_smoothing": 0.0}
CHECKPOINT = {**OTHERS, "tokenizer": "bpe", "vocab_size": VOCABULARY}


def reads_whole(task: Task) -> bool:
    """Whether the task is one of labels of single texts, for which the values here were found."""
    return task.name == "classify"


def _network(config: TaskConfig, examples: Sequence[Example]) -> tuple[dict[str, Any], list[str]]:
    """Kind, size, rates and passes."""
    count = len(examples)
    pretrained = bool(config.domain) or config.domain_minutes is not None
    if not reads_whole(config.task) or pretrained:  # one that reads both ways learns nothing of raw texts
        return OTHERS | {"kind": config.kind or config.task.kinds[0]}, []
    kind = config.kind or "gru"
    if kind not in ("gru", "lstm", "recurrent"):
        regular = {"dropout": 0.3, "word_dropout": 0.3, "average": 0.99}
        return OTHERS | regular | {"epochs": _passes(count)}, [_why_regular(regular)]
    size = 1 if count < LARGE else 2
    regular = {"dropout": 0.5, "word_dropout": 0.3, "average": 0.99}
    made = {**OTHERS, "kind": kind, "size": size, "optimizer": "adamw", "lr": 3e-3, "epochs": _passes(count), **regular}
    notes = [
        f"kind gru: of {count:,} texts a network that reads them in both ways and keeps the strongest of each unit "
        "learns more than one that has to learn where to look"
        if not config.kind
        else "",
        f"size {size}: {'a wider network would learn the texts by heart' if size == 1 else 'there are many texts'}",
        _why_regular(regular),
    ]
    if config.epochs is None and config.minutes is None:
        notes.append(
            f"epochs {made['epochs']:g}: after some {SEEN:,} texts, the same ones counted again, it learns by heart"
        )
    return made, notes


def _why_regular(regular: dict[str, Any]) -> str:
    return (
        f"dropout {regular['dropout']}, word_dropout {regular['word_dropout']}, average {regular['average']}: against "
        "learning single texts by heart, words are left out and the mean of the last weights is kept"
    )


def _passes(count: int) -> float:
    return float(min(MANY, max(FEW, round(SEEN / count))))


def _vocabulary(task: Task, examples: Sequence[Example]) -> tuple[dict[str, Any], str]:
    """The tokenizer and how many tokens it has."""
    some = ["\n".join(task.texts(example)) for example in examples[:: max(1, len(examples) // SHOWN)]]
    letters = median(map(len, some)) * len(examples)
    size = VOCABULARY if letters >= LETTERS else SMALL_VOCABULARY
    chinese = sum(bool(HAN.search(text)) for text in some) > 0.3 * len(some)
    why = "its tokens are the commonest words and phrases of Chinese" if chinese else "rare words are read in pieces"
    return (
        {"tokenizer": "bpe", "vocab_size": size},
        f"tokenizer bpe of {size:,} tokens: {why}, and of {letters:,.0f} characters each token has its examples",
    )
