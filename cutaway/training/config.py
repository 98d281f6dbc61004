"""Everything a training run depends on, in one frozen config; saved as JSON in the run folder with every choice made.

What is None or "auto" is decided at the start (plan.py), with a reason, and written down, so that a resumed run never
decides again.
"""

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cutaway.errors import ConfigError, DamagedFile, InputError, unknown
from cutaway.files import read_json
from cutaway.models.config import (
    PRESETS,
    NetworkConfig,
    config_from_dict,
    config_to_dict,
    network_of_size,
)
from cutaway.settings import build, to_dict
from cutaway.training.objectives import objective_from, objective_to_dict
from cutaway.training.optim import OptimizerConfig

MOST_THREADS = 4096  # more than any machine has


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Raises:
        ConfigError: a value is out of range; the message says which and what is allowed.
    """

    data: str  # folder of a token store, as `cutaway prepare` makes it; or what examples in memory are called
    out: str  # the run folder to make
    objective: Any = "causal"  # what is learned: a name in OBJECTIVES, a table with "name" and settings, or itself
    network: Any = None  # NetworkConfig, the name of a preset, or some of its fields; None: what fits, of `size`
    size: int = 4  # the size dial (layers; 64 channels each), read when `network` gives no layers
    context: int = 256  # tokens the model sees at once, and those of one training sequence
    batch: int = 16  # sequences per step, all processes and pieces together
    accumulate: int = 1  # cut the batch into this many pieces, one after the other, to save memory
    steps: int | None = None  # None: from `minutes`, or from the sizes of data and model
    minutes: float | None = None  # plan the steps to end, evaluation included, after this time
    optimizer: Literal["muon", "adamw", "adam", "momentum", "sgd"] = "muon"
    lr: float | None = None  # peak learning rate; None: the optimiser's usual one
    lr_rest: float | None = None  # of what Muon leaves to AdamW (embeddings, outputs, norms); None: the objective's
    schedule: Literal["wsd", "cosine", "constant"] = "wsd"  # warm-up, stable, decay; or half a cosine; or flat
    warmup: int | None = None  # steps of linear warm-up; None: 1 % of the steps, 10 to 200
    cooldown: float = 0.5  # share of the steps in which "wsd" decays
    final_lr: float = 0.0  # learning rate at the end, as a share of the peak
    betas: tuple[float, ...] = (0.9, 0.98)  # of Adam and AdamW
    momentum: float = 0.95  # of Muon and "momentum"
    weight_decay: float = 0.0  # of matrices; decoupled with AdamW and Muon, an L2 penalty with the others
    average: float = 0.0  # what is evaluated and kept is a running mean of the weights, of which this share stays at
    # each step (0.99: of about the last hundred); 0: the weights themselves
    word_dropout: float = (
        0.0  # share of a text's tokens that are left out, others each time; of whole texts with labels
    )
    clip: float = 1.0  # largest gradient norm; 0: no clipping
    label_smoothing: float = 0.0  # share of the target spread over the vocabulary (Szegedy et al. 2016)
    z_loss: float = 0.0  # weight of log(Z)², which keeps logits small (PaLM, Chowdhery et al. 2022: 1e-4)
    dtype: Literal["auto", "bf16", "fp32"] = "auto"  # of the forward and backward pass; weights stay fp32
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile
    seed: int = 0  # of weights, data order, dropout and samples
    eval_every: int | None = None  # steps between validation losses; None: 10 in the run, fewer if that takes long
    eval_tokens: int = 65_536  # validation tokens counted each time, from the beginning; 0: all
    save_every: int | None = None  # steps between checkpoints; None: as eval_every
    keep: int = 2  # newest checkpoints kept, and the best beside them
    best: str = "loss"  # which evaluation is better: by the loss, or by one of the objective's figures
    keep_best: bool = False  # end with the weights of the best evaluation
    patience: int = 0  # stop after so many evaluations without a better one, and keep the best; 0: never
    baseline: bool = True  # fit the n-gram model that the run is compared with
    samples: tuple[str, ...] = ()  # prompts to continue at every evaluation
    sample_tokens: int = 60  # length of a sample
    profile: int = 0  # steps to trace with torch.profiler into the run folder
    tensorboard: Literal["auto", "on", "off"] = "auto"  # event files in the run folder
    threads: int | None = None  # None: as torch finds them

    def __post_init__(self) -> None:
        at_least = {"size": 1, "context": 1, "batch": 1, "accumulate": 1, "steps": 1, "eval_every": 1, "save_every": 1}
        at_least |= {"keep": 1, "threads": 1, "sample_tokens": 1, "warmup": 0, "eval_tokens": 0, "patience": 0}
        at_least |= {"profile": 0, "clip": 0, "z_loss": 0, "seed": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, but {value} was given")
        if (self.threads or 1) > MOST_THREADS:
            raise ConfigError(f"threads can be up to {MOST_THREADS:,}, but {self.threads:,} was given")
        for name in ("minutes", "lr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, but {value} was given")
        for name in ("cooldown", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in 0 … 1, but {getattr(self, name)} was given")
        for name in ("label_smoothing", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), but {getattr(self, name)} was given")
        if self.steps is not None and self.minutes is not None:
            raise ConfigError("give steps or minutes, not both: minutes plans the number of steps")
        object.__setattr__(self, "objective", objective_from(self.objective))
        if self.word_dropout and not self.objective.drops:
            raise ConfigError(f"the objective {self.objective.name!r} reads every token; leave word_dropout out")
        if self.samples and not self.objective.speaks:
            raise ConfigError(
                f"what the objective {self.objective.name!r} trains continues no prompts; leave samples out"
            )
        if self.batch % self.accumulate:
            raise ConfigError(f"batch ({self.batch}) must be a multiple of accumulate ({self.accumulate})")
        _ = self.rules  # checks the optimiser's numbers

    @property
    def rules(self) -> OptimizerConfig:
        """What moves the weights."""
        return OptimizerConfig(
            self.optimizer,
            self.lr or 0.0,
            self.objective.lr_rest if self.lr_rest is None else self.lr_rest,
            self.momentum,
            self.betas,
            self.weight_decay,
            self.average,
        )


def train_config(values: Mapping[str, Any], *, where: str = "") -> TrainConfig:
    """A config from plain data, every key and type checked.

    Args:
        values: field -> value, as JSON, TOML or the command line give them.
        where: what to call the source in a message.

    Raises:
        ConfigError: an unknown key (near matches are offered), a wrong type, or a value out of range.
    """
    values = dict(values)
    network = values.pop("network", None)
    if not (network is None or isinstance(network, str | Mapping | NetworkConfig)):
        raise ConfigError(f"network must be a preset's name or a table of fields, but {network!r} was given")
    config = build(TrainConfig, values, where=where)
    return dataclasses.replace(config, network=network)


def train_config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain data; `train_config` and `network_for` lead back to an equal config."""
    network = config.network
    network = config_to_dict(network) if isinstance(network, NetworkConfig) else network
    plain = to_dict(dataclasses.replace(config, network=None))
    return {**plain, "objective": objective_to_dict(config.objective), "network": network}


def network_for(config: TrainConfig, vocab_size: int, features: Mapping[str, Any] | None = None) -> NetworkConfig:
    """The network that the config asks for, with the vocabulary of its data.

    Args:
        config: of the run.
        vocab_size: of the tokenizer.
        features: fields that follow from the objective, for what the user has not decided.

    Raises:
        ConfigError: an unknown preset or field, a network that cannot learn the objective, or a vocabulary smaller than
            the data's.
    """
    network, objective = config.network, config.objective
    if isinstance(network, str):
        if network not in PRESETS:
            raise ConfigError(unknown("preset", network, PRESETS))
        network = dataclasses.replace(PRESETS[network], vocab_size=vocab_size, context=config.context)
    elif network is None or isinstance(network, Mapping):
        fields = {"vocab_size": vocab_size, "context": config.context, **(network or {})}
        kind = fields.pop("kind", objective.kinds[0])
        if kind == "recurrent":
            network = config_from_dict({"kind": kind, **fields}, where="network")
        else:
            if kind == objective.kinds[0]:
                fields = {**(features or {}), **fields}
            depth = fields.get("layers", config.size)
            if not isinstance(depth, int):
                raise ConfigError(f"network.layers must be int, but {depth!r} was given")
            network = network_of_size(kind, depth, **fields)
    objective.fit(network)
    if network.vocab_size < vocab_size:
        raise ConfigError(
            f"the network's vocab_size ({network.vocab_size}) is smaller than the tokenizer's ({vocab_size}); "
            "leave it out to take the tokenizer's"
        )
    if network.context < config.context:
        raise ConfigError(f"context ({config.context}) is larger than the network's ({network.context})")
    return network


def read_settings(path: str | Path) -> dict[str, Any]:
    """Fields of TrainConfig from a JSON or TOML file.

    Raises:
        InputError: no such file.
        DamagedFile: it cannot be read as what its name says.
    """
    path = Path(path)
    if path.suffix != ".toml":
        values = read_json(path)
    elif not path.is_file():
        raise InputError(f"{path} does not exist")
    else:
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DamagedFile(f"{path} is not valid TOML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f'{path} must hold a table of settings, such as {{"steps": 500}}')
    return values


def parse_settings(words: Iterable[str]) -> dict[str, Any]:
    """Fields from words as the command line gives them; a dot leads into a table, values are JSON or plain text.

    >>> parse_settings(["lr=0.01", "network.layers=4", "schedule=cosine"])
    {'lr': 0.01, 'network': {'layers': 4}, 'schedule': 'cosine'}

    Raises:
        ConfigError: a word without "=".
    """
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"settings are given as key=value, such as lr=0.01, but {word!r} was given")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        *tables, name = key.split(".")
        inner = values
        for table in tables:
            inner = inner.setdefault(table, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{word!r} sets a part of {table}, which was given as a whole before")
        inner[name] = value
    return values
