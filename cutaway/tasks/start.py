"""Where a task's model begins: fresh weights on the user's texts, or a checkpoint whose head is made anew.

Shapes: L labels.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.models import Model, build_network, load_model
from cutaway.models.adapter_config import AdapterConfig
from cutaway.models.adapters import add_adapter, named_parts
from cutaway.models.config import CONFIGS, DecoderConfig, EncoderConfig, config_from_dict, network_of_size
from cutaway.models.formats.huggingface import published_head
from cutaway.progress import OnProgress
from cutaway.tasks.task import Task
from cutaway.tokenizers import Tokenizer, train_tokenizer

HEADS = ("head.", "lm_head.")
OF_HEADS = ("pooling", "head_activation", "head_norm", "head_dense_bias", "head_bias")  # what a user may choose of one
LAYER = re.compile(r"^.*?\.\d+\.")  # in a tensor's published name, all that leads into its layer
NO_LAYER = "dummy-target-modules"  # PEFT's word for an adapter without parts
KINDS = {"gru": "recurrent", "lstm": "recurrent"}  # other names of networks


def from_scratch(
    task: Task,
    texts: Iterable[str],
    labels: tuple[str, ...],
    *,
    kind: str = "",
    size: int = 2,
    context: int = 128,
    tokenizer: str | Tokenizer = "bpe",
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
        tokenizer: a kind of tokenizer, or one that was trained.
        vocab_size: its tokens.
        network: fields of the network's config that the user decides.
        seed: of the weights.
        progress: of the tokenizer's training.

    Raises:
        ConfigError: a kind that the task cannot use, or a field that does not exist.
    """
    cell = kind if kind in KINDS else "gru"
    kind = KINDS.get(kind, kind) or task.kinds[0]
    if kind not in task.kinds:
        known = {*task.kinds, *(name for name, one in KINDS.items() if one in task.kinds)} - {*KINDS.values()}
        raise ConfigError(unknown(f"kind of network for the task {task.name}:", kind, known))
    given = isinstance(tokenizer, Tokenizer)
    made = tokenizer if given else train_tokenizer(texts, tokenizer, vocab_size, progress=progress)
    known = {field.name for field in dataclasses.fields(CONFIGS[kind])}
    fields = {name: value for name, value in task.features(labels).items() if name in known}
    if kind == "recurrent":
        sizes = {"width": 64 * size, "hidden": 64 * size, "bidirectional": True, "pooling": "max"}
        fields = {**fields, **sizes, "cell": cell, "vocab_size": made.vocab_size, "context": context}
        config = config_from_dict({"kind": kind, **fields, **(network or {})})
    else:
        if kind == "seq2seq":
            fields |= {"source_context": context, "start_id": made.end_of_text or 0}
        config = network_of_size(kind, size, made.vocab_size, context=context, **{**fields, **(network or {})})
    torch.default_generator.manual_seed(seed)
    return Model(build_network(config), made, source="fresh weights")


def from_checkpoint(
    task: Task,
    source: str,
    labels: tuple[str, ...],
    *,
    head: str = "task",
    dropout: float = 0.0,
    network: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Model:
    """A checkpoint in float32 with the task's head on it.

    Args:
        task: what it is for.
        source: as `load_model` takes it.
        labels: of the task.
        head: "task": as suits the task; "published": as the class for it has it that the family is published with, so
            that other tools open the result.
        dropout: while it learns, on what each block writes.
        network: fields of the head's config that the user decides, such as pooling.
        seed: of the head's weights.

    Raises:
        ConfigError: a kind of network that the task cannot use, a field that is not a head's, or a family without such
            a class.
        (and those of `load_model`)
    """
    model = load_model(source, dtype=torch.float32, quantised=False)
    check_kind(task, source, model.config.kind)
    fields = task.features(labels)
    if head == "published":
        fields = published_head(model.config, model.origin, fields)
    elif isinstance(model.config, DecoderConfig) and fields.get("head") == "sequence_classification":
        fields |= {"pooling": "last"}  # the one token that has seen all others
    if strange := [name for name in network or {} if name not in OF_HEADS]:
        raise ConfigError(unknown("field of a checkpoint's head:", strange[0], OF_HEADS))
    return with_head(model, {**fields, "dropout": dropout, **(network or {})}, seed=seed)


def check_kind(task: Task, source: str, kind: str) -> None:
    """Refuse a checkpoint of a kind that cannot do a task.

    Raises:
        ConfigError: so it is; says which kinds can.
    """
    if kind not in task.kinds:
        what = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} network"
        raise ConfigError(f"{source} is {what}; the task {task.name} needs {' or '.join(task.kinds)}")


def as_it_is(task: Task, source: str, labels: tuple[str, ...]) -> Model:
    """A checkpoint for a task that learns nothing.

    Raises:
        ConfigError: a kind of network, or a head, that the task cannot use.
        (and those of `load_model`)
    """
    model = load_model(source)
    check_kind(task, source, model.config.kind)
    return with_head(model, task.features(labels))


def with_head(model: Model, fields: Mapping[str, Any], *, seed: int = 0) -> Model:
    """The same body under another head; where it is the same head already, it stays.

    Args:
        model: of any kind.
        fields: of its config that change: head, labels, pooling …
        seed: of the head's weights.
    """
    old = model.config
    fields = dict(fields)
    if isinstance(old, EncoderConfig | DecoderConfig) and old.head == "embedding" and fields.get("pooling") == "mean":
        fields["pooling"] = old.pooling  # as it was trained to be read
    known = {field.name for field in dataclasses.fields(old) if field.init}
    fields = {name: value for name, value in fields.items() if name in known}
    if getattr(old, "pooler", False) and fields.get("head", "none") not in ("none", "embedding", "masked_lm"):
        fields |= {"pooler": False, "next_sentence": False}  # nothing reads them there
    config = dataclasses.replace(old, **fields)
    if config == old:
        return model
    torch.default_generator.manual_seed(seed)
    network = build_network(config)
    own, theirs = network.state_dict(), model.network.state_dict()
    stays = getattr(config, "head", "") == getattr(old, "head", "") and getattr(config, "labels", ()) == getattr(
        old, "labels", ()
    )
    same = {
        name: tensor
        for name, tensor in theirs.items()
        if name in own and own[name].shape == tensor.shape and (stays or not name.startswith(HEADS))
    }
    if not same:
        raise InputError(f"{model.source or 'the model'} has no weights to begin with for the task")
    if isinstance(config, EncoderConfig) and config.head_activation == "tanh" and config.pooling == "cls":
        pooler = {f"head.dense.{part}": theirs.get(f"pooler.{part}") for part in ("weight", "bias")}
        same |= {name: tensor for name, tensor in pooler.items() if tensor is not None and name in own}
    network.load_state_dict(same, strict=False)
    return Model(network, model.tokenizer, model.source, model.origin, model.mel, model.generation)


def learning(model: Model, how: str, *, freeze: int = 0, rank: int = 8, seed: int = 0) -> Model:
    """The model with only that set to learn which should: all of it, or what an adapter holds.

    An adapter has low-rank parts beside every matrix of the layers, and the head as its own; with "head" that alone.

    Args:
        model: with the task's head.
        how: "full", "head", "lora" or "dora".
        freeze: of "full", how many parts from below stay as they are: 1 the embeddings, 2 the first layer too …
        rank: of an adapter's parts.
        seed: of an adapter's numbers.

    Raises:
        ConfigError: another way, a head alone where the network has none, or layers that no published family has.
    """
    if how == "full":
        still = ("embed", *(f"layers.{number}." for number in range(freeze - 1))) if freeze else ()
        for name, parameter in model.network.named_parameters():
            parameter.requires_grad_(not name.startswith(still))
        return model
    if how not in ("head", "lora", "dora"):
        raise ConfigError(f"a model learns in full, by its head, lora or dora, but {how!r} was given")
    parts = named_parts(model)
    heads = {name.split(".")[0] for name, ours in parts.items() if ours[0].startswith("head.")}
    if how == "head" and not heads:
        raise ConfigError("this network has no head of its own to train alone; train it in full or with lora")
    layers = {LAYER.sub("", name).removesuffix(".weight") for name, ours in parts.items() if _is_matrix(name, ours)}
    config = AdapterConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=NO_LAYER if how == "head" else tuple(sorted(layers)),
        use_dora=how == "dora",
        modules_to_save=tuple(sorted(heads)) or None,
        task_type="SEQ_CLS" if getattr(model.config, "head", "") == "sequence_classification" else None,
        base_model_name_or_path=model.source or None,
    )
    return add_adapter(model, config, seed=seed)


def _is_matrix(theirs: str, ours: tuple[str, ...]) -> bool:
    """Whether a tensor is one that parts are put beside: a matrix of a layer that all tokens pass through."""
    kept = LAYER.match(theirs) and theirs.endswith(".weight") and "norm" not in ours[0].lower()
    return bool(kept) and "router" not in ours[0]
