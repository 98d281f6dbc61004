"""What a training started from a page is told: a small order, and defaults that suit a laptop, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cutaway.errors import ConfigError
from cutaway.training.config import TrainConfig, train_config

Kind = Literal["decoder", "gru"]
MOST_SIZE, MOST_CONTEXT, MOST_MINUTES, MOST_STEPS, MOST_VOCAB = 12, 2048, 24 * 60.0, 1_000_000, 65_536
KEEP = 24  # checkpoints that stay, so that every one of the ten or so of a run can be opened
SHORT_MINUTES, SHORT_STEPS = 5, 2000  # up to which fewer validation tokens are counted, so that they are ten times
VOCABULARIES = ((5_000_000, 4096), (500_000, 2048), (60_000, 1024), (0, 512))  # bytes of text -> tokens


@dataclass(frozen=True)
class Order:
    """A training as a form asks for it; everything else is `TrainConfig`'s usual.

    Attributes:
        kind: "decoder" or "gru".
        size: the size dial: layers of a decoder, 64 channels for each; of a GRU 64 numbers a token and 128 units each.
        context: tokens that are seen at once.
        minutes: how long, planned; or
        steps: how many.
        vocab_size: of the tokenizer that is trained; not read with a corpus that is prepared.
        prompt: what is continued at every evaluation; "" begins a text.
        seed: of weights, data order and samples.
        lr: peak learning rate; None: the optimiser's usual one.
        save_every: steps between checkpoints; None: ten or so in the run.
        clean: whether texts are cleaned first (`cutaway.text.clean`): what repeats itself or is no prose is left out.

    Raises:
        ConfigError: a value is out of range, or neither or both of minutes and steps are given.
    """

    kind: Kind = "decoder"
    size: int = 2
    context: int = 128
    minutes: float | None = None
    steps: int | None = None
    vocab_size: int = 1024
    prompt: str = ""
    seed: int = 0
    lr: float | None = None
    save_every: int | None = None
    clean: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("decoder", "gru"):
            raise ConfigError(f"kind must be decoder or gru, but {self.kind!r} was given")
        ranges = {"size": (1, MOST_SIZE), "context": (8, MOST_CONTEXT), "vocab_size": (260, MOST_VOCAB)}
        ranges |= {"minutes": (0, MOST_MINUTES), "steps": (1, MOST_STEPS)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"{name} must be in {least:,g} … {most:,g}, but {value:,} was given")
        if (self.minutes is None) == (self.steps is None):
            raise ConfigError("give minutes or steps, one of them")

    def config(self, data: str | Path, out: str | Path) -> TrainConfig:
        """The run's config.

        Args:
            data: the corpus.
            out: the run folder.
        """
        short = (self.minutes or 0) <= SHORT_MINUTES and (self.steps or 0) <= SHORT_STEPS
        values: dict[str, Any] = {
            "data": str(data), "out": str(out), "size": self.size, "context": self.context, "minutes": self.minutes,
            "steps": self.steps, "seed": self.seed, "lr": self.lr, "samples": [self.prompt], "keep": KEEP,
            "eval_every": self.save_every, "eval_tokens": 8192 if short else 65_536, "compile": "off",
            "tensorboard": "off",
        }  # fmt: skip
        if self.kind == "gru":
            values["network"] = {"kind": "recurrent", "width": 64 * self.size, "hidden": 128 * self.size}
        return train_config(values)


@dataclass(frozen=True)
class Suggestion:
    """A value of an `Order`, and why."""

    name: str
    value: float
    why: str


def suggest_order(size: int) -> list[Suggestion]:
    """What suits a laptop and so much text.

    Args:
        size: of the text, in bytes.
    """
    vocabulary = next(tokens for least, tokens in VOCABULARIES if size >= least)
    large = size >= 2_000_000
    context = 128 if size >= 60_000 else 64
    return [
        Suggestion(
            "vocab_size",
            vocabulary,
            f"{size:,} bytes of text: a token must be seen often to be learned, and each costs a row of weights",
        ),
        Suggestion(
            "size",
            4 if large else 2,
            "enough text for four layers of 256 channels"
            if large
            else "two layers of 128 channels: two are the least in which induction heads can form, and a step takes "
            "milliseconds on two cores",
        ),
        Suggestion(
            "context",
            context,
            "a paragraph at a time; attention's cost grows with the square"
            if context > 64
            else "so little text has few places from which a longer one could be cut",
        ),
        Suggestion(
            "minutes",
            10 if large else 2,
            "steps are planned so that the schedule ends just then; it can be stopped at any time, and go on",
        ),
    ]
