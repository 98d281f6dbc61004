"""Where a task's model begins: fresh weights on the user's texts, or a checkpoint whose head is made anew.

Shapes: L labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from cutaway.errors import ConfigError, InputError
from cutaway.models import Model, build_network, load_model
from cutaway.models.adapter_config import AdapterConfig
from cutaway.models.adapters import add_adapter
from cutaway.models.config import DecoderConfig, EncoderConfig, network_of_size
from cutaway.progress import OnProgress
from cutaway.tasks.task import Task
from cutaway.tokenizers import train_tokenizer

HEADS = ("head.", "lm_head.")
KINDS = {"gru": "recurrent", "lstm": "recurrent"}  # other names of networks


def from_scratch(
    task: Task,
    texts: Iterable[str],
    labels: tuple[str, ...],
    *,
    kind: str = "",
    size: int = 2,
    context: int = 128,
    tokenizer: str = "bpe",
    vocab_size: int = 8192,
    network: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Model:
    """A model with fresh weights, whose tokenizer is learned from the training texts.

    Args:
        task: what it is for.
        texts: of the training examples.
        labels: of the task.
        kind: of network; "": the task's first.
        size: the size dial (`network_of_size`).
        context: tokens that it sees at once.
        tokenizer: a kind of tokenizer.
        vocab_size: its tokens.
        network: fields of the network's config that the user decides.
        seed: of the weights.
        progress: of the tokenizer's training.

    Raises:
        ConfigError: a kind that the task cannot use, or a field that does not exist.
    """
    kind = KINDS.get(kind, kind) or task.kinds[0]
    if kind not in task.kinds:
        raise ConfigError(f"the task {task.name} can be done by {', '.join(task.kinds)} networks, but not by {kind!r}")
    made = train_tokenizer(texts, tokenizer, vocab_size, progress=progress)
    fields = {**task.features(labels), **(network or {})}
    if kind == "recurrent":
        from cutaway.models.config import config_from_dict

        sizes = {"width": 64 * size, "hidden": 64 * size}
        config = config_from_dict({"kind": kind, "vocab_size": made.vocab_size, "context": context, **sizes, **fields})
    else:
        config = network_of_size(kind, size, made.vocab_size, context=context, **fields)
    torch.default_generator.manual_seed(seed)
    return Model(build_network(config), made, source="fresh weights")


def from_checkpoint(task: Task, source: str, labels: tuple[str, ...], *, dropout: float = 0.0, seed: int = 0) -> Model:
    """A checkpoint in float32 with the task's head on it.

    Args:
        task: what it is for.
        source: as `load_model` takes it.
        labels: of the task.
        dropout: while it learns, on what each block writes.
        seed: of the head's weights.

    Raises:
        ConfigError: a kind of network that the task cannot use.
        (and those of `load_model`)
    """
    model = load_model(source, dtype=torch.float32, quantised=False)
    if model.config.kind not in task.kinds:
        raise ConfigError(
            f"{source} is a {model.config.kind} network; the task {task.name} needs {' or '.join(task.kinds)}"
        )
    return with_head(model, {**task.features(labels), "dropout": dropout}, seed=seed)


def with_head(model: Model, fields: Mapping[str, Any], *, seed: int = 0) -> Model:
    """The same body under another head; where it is the same head already, it stays.

    Args:
        model: of any kind.
        fields: of its config that change: head, labels, pooling …
        seed: of the head's weights.
    """
    old = model.config
    fields = dict(fields)
    if isinstance(old, EncoderConfig | DecoderConfig) and old.head == "embedding" and "pooling" in fields:
        fields["pooling"] = old.pooling  # as it was trained to be read
    known = {field.name for field in dataclasses.fields(old)}
    fields = {name: value for name, value in fields.items() if name in known}
    config = dataclasses.replace(old, **fields)
    if config == old:
        return model
    torch.default_generator.manual_seed(seed)
    network = build_network(config)
    own = network.state_dict()
    same = {
        name: tensor
        for name, tensor in model.network.state_dict().items()
        if name in own and own[name].shape == tensor.shape and not name.startswith(HEADS)
    }
    if not same:
        raise InputError(f"{model.source or 'the model'} has no weights to begin with for the task")
    network.load_state_dict(same, strict=False)
    return Model(network, model.tokenizer, model.source, model.origin, model.mel, model.generation)


def learning(model: Model, how: str, *, rank: int = 8, seed: int = 0) -> Model:
    """The model with only that set to learn which should.

    Args:
        model: with the task's head.
        how: "full", "head", "lora" or "dora".
        rank: of an adapter's parts.
        seed: of an adapter's numbers.

    Raises:
        ConfigError: another way, or a head alone where the network has none.
    """
    if how == "full":
        return model
    if how == "head":
        head = getattr(model.network, "head", None)
        if head is None:
            raise ConfigError("this network has no head of its own to train alone; train it in full or with lora")
        for name, parameter in model.network.named_parameters():
            parameter.requires_grad_(name.startswith(HEADS))
        return model
    if how in ("lora", "dora"):
        config = AdapterConfig(
            r=rank, lora_alpha=2 * rank, use_dora=how == "dora", modules_to_save=("classifier", "score")
        )
        return add_adapter(model, config, seed=seed)
    raise ConfigError(f"a model learns in full, by its head, lora or dora, but {how!r} was given")
