"""Everything a task's training depends on, in one frozen config; saved beside the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cutaway.errors import ConfigError, unknown
from cutaway.tasks.registry import task_from

USUAL_SIZE = 2  # of the size dial
SEARCHED = ("lr", "epochs", "batch", "dropout", "label_smoothing", "weight_decay")  # what a search can vary


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
    domain_minutes: float | None = None  # for that; None: 5 where there is raw text; given alone: on the task's texts
    kind: str = ""  # fresh weights: decoder, encoder, gru …; "": what suits the task and its data (`fresh.suited`)
    size: int = 0  # fresh weights: the size dial; 0: what suits
    tokenizer: str = ""  # fresh weights: the kind that is trained; "": what suits
    vocab_size: int = 0  # fresh weights: its tokens; 0: what suits
    network: dict[str, Any] = field(
        default_factory=dict
    )  # fresh weights: fields of the network's config; else of its head
    context: int = 0  # tokens of an example at the most; 0: 128, or what the checkpoint sees, up to 256
    epochs: float | None = None  # passes over the examples; None: 3 from a checkpoint, 10 with fresh weights
    minutes: float | None = None  # or what fits this time, all included
    batch: int = 0  # examples of a step; 0: what suits the task, or 32
    lr: float | None = None  # None: 1e-4 from a checkpoint, 1e-3 for adapters and heads, Muon's own with fresh weights
    optimizer: str = ""  # "": adamw from a checkpoint, muon with fresh weights
    weight_decay: float = 0.01
    dropout: float | None = None  # None: 0.1 from a checkpoint, what suits with fresh weights
    word_dropout: float | None = None  # share of a text's tokens left out, others each time; None: what suits, or none
    average: float | None = None  # of the running mean of the weights that is kept, the share that stays at each step;
    # None: what suits, or none
    label_smoothing: float | None = None  # None: what suits the task, or none
    patience: int = 0  # evaluations without a better one after which it stops; 0: it goes on to the end
    evaluations: int = 10  # in the run; the best one's weights are kept
    seeds: int = (
        1  # so many trainings with other weights and order, from `seed` on; the best on validation data is kept
    )
    folds: int = 0  # cross-validation: so many parts, each answered by a model that has not seen it
    trials: int = 0  # search the settings of `search` with so many trainings first, or as many as `minutes` allow
    search: tuple[str, ...] = SEARCHED  # what is searched
    curve: tuple[float, ...] = ()  # the learning curve: shares of the training examples that are learned from as well
    seed: int = 0  # of the division, weights, order and dropout
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", task_from(self.task))
        for name, least in {
            "rank": 1,
            "size": 0,
            "vocab_size": 0,
            "batch": 0,
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
        if self.epochs is not None and self.minutes is not None and not self.trials:
            raise ConfigError("give epochs or minutes, not both: minutes plans the number of steps")
        if not self.start and self.how != "full":
            raise ConfigError(f"how={self.how!r} is of a checkpoint; name one with --from, or leave it out")
        if self.probe != "no" and not self.start:
            raise ConfigError("a probe reads a checkpoint; name one with --from, or leave probe out")
        if self.probe == "only" and self.how != "full":
            raise ConfigError(f"probe=only learns nothing but a head; leave how={self.how!r} out")
        if self.seeds < 1:
            raise ConfigError(f"seeds must be at least 1, but {self.seeds} was given")
        if self.trials < 0:
            raise ConfigError(f"trials must not be negative, but {self.trials} was given")
        if strange := [name for name in self.search if name not in SEARCHED]:
            raise ConfigError(unknown("setting to search:", strange[0], SEARCHED))
        if self.folds < 0 or self.folds == 1:
            raise ConfigError(f"folds must be 2 or more, or 0 for none, but {self.folds} was given")
        if self.folds and not self.task.alone:
            raise ConfigError(
                f"answers of the task {self.task.name} are compared with each other, which those of the models of "
                "several folds cannot be; leave folds out, and give seeds to see how much is chance"
            )
        if not all(0 < share <= 1 for share in self.curve):
            raise ConfigError(f"curve holds shares of the training examples, 0 … 1, but {self.curve} was given")
        if self.folds and (self.domain_minutes is not None or self.domain) and not (self.start and self.domain):
            raise ConfigError(
                "folds together with pre-training on the task's own texts would show each model the texts that it is "
                "measured on; leave one of them out"
            )
        if self.evaluations < 1:
            raise ConfigError(f"evaluations must be at least 1, but {self.evaluations} was given")

    @property
    def advice(self) -> dict[str, Any]:
        """What suits the task, where the user says nothing."""
        return self.task.advised(not self.start, self.size or USUAL_SIZE)
