"""Everything a task's training depends on, in one frozen config; saved beside the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cutaway.errors import ConfigError
from cutaway.tasks.registry import task_from


@dataclass(frozen=True)
class TaskConfig:
    """The training of a task's model.

    Raises:
        ConfigError: a value is out of range, or two contradict each other.
    """

    task: Any  # a name in TASKS, a table with "name" and settings, or itself
    data: str  # a table: all there is, or what to train on
    out: str  # the folder to make
    valid: str | float = 0.1  # a table, or the share of data that chooses weights, thresholds and temperature
    test: str | float = 0.1  # a table, or the share that is measured on; 0: nothing is
    columns: dict[str, str] = field(default_factory=dict)  # role -> column, where the names do not say it
    drop_leaks: bool = False  # texts that are in two splits are left out of the one that comes first
    start: str = ""  # a checkpoint to begin with; "": fresh weights
    how: Literal["full", "head", "lora", "dora"] = "full"  # what of a checkpoint learns
    head: Literal["task", "published"] = "task"  # on a checkpoint: the task's usual one, or that of transformers' class
    freeze: int = 0  # of a checkpoint in full, the parts from below that stay: 1 the embeddings, 2 a layer too …
    probe: Literal["no", "first", "only"] = "no"  # the head of a checkpoint begins as a logistic regression on what it
    # makes of the texts; only: nothing else is learned
    rank: int = 8  # of an adapter
    domain: tuple[str, ...] = ()  # raw texts to go on pre-training with before the examples
    domain_minutes: float = 5.0  # for that
    kind: str = ""  # fresh weights: decoder, encoder, gru …; "": the task's first
    size: int = 2  # fresh weights: the size dial
    tokenizer: str = "bpe"  # fresh weights: the kind that is trained
    vocab_size: int = 8192  # fresh weights: its tokens
    network: dict[str, Any] = field(
        default_factory=dict
    )  # fresh weights: fields of the network's config; else of its head
    context: int = 0  # tokens of an example at the most; 0: 128, or what the checkpoint sees, up to 256
    epochs: float | None = None  # passes over the examples; None: 3 from a checkpoint, 10 with fresh weights
    minutes: float | None = None  # or what fits this time, all included
    batch: int = 32
    lr: float | None = None  # None: 1e-4 from a checkpoint, 1e-3 for adapters and heads, Muon's own with fresh weights
    optimizer: str = ""  # "": adamw from a checkpoint, muon with fresh weights
    weight_decay: float = 0.01
    dropout: float = 0.1
    label_smoothing: float = 0.0
    patience: int = 0  # evaluations without a better one after which it stops; 0: it goes on to the end
    evaluations: int = 10  # in the run; the best one's weights are kept
    seed: int = 0  # of the division, weights, order and dropout
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", task_from(self.task))
        for name, least in {
            "rank": 1,
            "size": 1,
            "vocab_size": 1,
            "batch": 1,
            "context": 0,
            "patience": 0,
            "freeze": 0,
        }.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, but {getattr(self, name)} was given")
        for name in ("epochs", "minutes", "lr", "domain_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, but {value} was given")
        if self.epochs is not None and self.minutes is not None:
            raise ConfigError("give epochs or minutes, not both: minutes plans the number of steps")
        if not self.start and self.how != "full":
            raise ConfigError(f"how={self.how!r} is of a checkpoint; name one with --from, or leave it out")
        if self.probe != "no" and not self.start:
            raise ConfigError("a probe reads a checkpoint; name one with --from, or leave probe out")
        if self.probe == "only" and self.how != "full":
            raise ConfigError(f"probe=only learns nothing but a head; leave how={self.how!r} out")
        if self.evaluations < 1:
            raise ConfigError(f"evaluations must be at least 1, but {self.evaluations} was given")
