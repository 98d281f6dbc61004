"""One vector for each text, pooled as a checkpoint's own files say.

sentence-transformers (Reimers & Gurevych 2019) keeps beside a model what it does after it: `modules.json` lists the
steps, `1_Pooling/config.json` says how states become one vector. Both are read as data, the classes they name from a
closed table; a step or a way that is not known is an error.

Shapes: N texts, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.files import holds, inside, read_json, write_json
from cutaway.models.config import DecoderConfig, EncoderConfig, Seq2SeqConfig
from cutaway.tokenizers.frame import frame

if TYPE_CHECKING:
    from cutaway.models.model import Model

MODULES, POOLING, LENGTHS = "modules.json", "1_Pooling", "sentence_bert_config.json"
PROMPTS = "config_sentence_transformers.json"
WAYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
}
STEPS = ("Transformer", "Pooling", "Normalize")
BATCH = 32

Config = TypeVar("Config")
Pooled = TypeVar("Pooled", bound=DecoderConfig | EncoderConfig)


def read_embedding(folder: Path, config: Pooled) -> Pooled:
    """The config with the pooling that the folder's files state; as it is where they state none.

    Args:
        folder: of the model.
        config: as config.json has it.

    Raises:
        ConfigError: a step or a way of pooling that is not supported, named.
        DamagedFile: a file that is not what it should be.
    """
    if config.head not in ("none", "causal_lm") or not holds(folder, MODULES):
        return config
    where, listed = folder / MODULES, read_json(inside(folder, MODULES))
    if not isinstance(listed, list) or not all(isinstance(step, dict) for step in listed):
        raise DamagedFile(f"{where} must hold a list of modules")
    steps = [str(step.get("type")).rpartition(".")[2] for step in listed]
    if steps not in (list(STEPS), list(STEPS[:2])):
        raise ConfigError(f"{where} asks for {', '.join(steps)}, but {', '.join(STEPS)} are supported, in this order")
    if (path := listed[1].get("path")) != POOLING or listed[0].get("path") not in ("", "0_Transformer"):
        raise ConfigError(f"{where} keeps its pooling in {path!r}, but {POOLING} is supported, beside the model")
    how = _pooling(inside(folder, f"{POOLING}/config.json"), config.width)
    limit, lengths = 0, folder / LENGTHS
    if holds(folder, LENGTHS):
        stated = read_json(inside(folder, LENGTHS))
        limit = stated.get("max_seq_length") if isinstance(stated, dict) else None
        limit = 0 if limit is None else limit
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            raise DamagedFile(f"max_seq_length in {lengths} must be a whole number, but {limit!r} was given")
        if isinstance(stated, dict) and stated.get("do_lower_case"):
            raise ConfigError(f"do_lower_case in {lengths} is not supported: the tokenizer decides that")
    stated = read_json(inside(folder, PROMPTS)) if holds(folder, PROMPTS) else {}
    if isinstance(stated, dict) and (name := stated.get("default_prompt_name")):
        raise ConfigError(
            f"default_prompt_name = {name!r} in {folder / PROMPTS} puts a prompt before every text, which is not "
            "supported; set it to null there, and begin the texts with the prompt"
        )
    context = min(limit, config.context) if limit else config.context
    return replace(config, head="embedding", pooling=how, normalize=len(steps) == 3, longest=context)


def _pooling(file: Path, width: int) -> Any:
    """The way of pooling that a file states."""
    stated = read_json(file)
    if not isinstance(stated, dict):
        raise DamagedFile(f"{file} must hold a JSON object")
    if stated.get("word_embedding_dimension", stated.get("embedding_dimension", width)) != width:
        raise DamagedFile(f"{file} is of states of another width than {width}")
    chosen = [key for key, value in stated.items() if key.startswith("pooling_mode_") and value]
    if "pooling_mode" in stated:
        chosen = [f"pooling_mode_{stated['pooling_mode']}"]
    names = {name: way for way, key in WAYS.items() for name in (key, f"pooling_mode_{way}")}
    known = {"word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"}
    left = [key for key in stated if key not in known and not key.startswith("pooling_mode_")]
    if len(chosen) != 1 or chosen[0] not in names or left or stated.get("include_prompt") is False:
        asked = ", ".join([*chosen, *left]) or "nothing"
        raise ConfigError(f"{file} asks for {asked}; one of {', '.join(WAYS.values())} is supported")
    return names[chosen[0]]


def write_embedding(folder: Path, config: DecoderConfig | EncoderConfig) -> None:
    """Write the files that `read_embedding` reads."""
    steps = STEPS if config.normalize else STEPS[:2]
    paths = ("", POOLING, "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{step}"}
        for i, step in enumerate(steps)
    ]
    write_json(folder / MODULES, modules)
    (folder / POOLING).mkdir(exist_ok=True)
    ways = {key: way == config.pooling for way, key in WAYS.items()}
    write_json(folder / POOLING / "config.json", {"word_embedding_dimension": config.width, **ways})
    write_json(folder / LENGTHS, {"max_seq_length": config.longest or config.context, "do_lower_case": False})


def bare(config: Config) -> Config:
    """The config of the network beneath the pooling, which is what a config.json states."""
    if isinstance(config, DecoderConfig | EncoderConfig) and config.head == "embedding":
        plain = {"head": "none", "pooling": type(config).pooling, "normalize": False, "longest": 0}
        return replace(config, **plain)
    return config


def beneath(stated: Config, config: Any) -> Config:
    """What a config.json states, as the network beneath the pooling, where the network has one."""
    if isinstance(stated, DecoderConfig | EncoderConfig) and config.head == "embedding":
        return bare(replace(stated, head="embedding"))
    return stated


@torch.no_grad()
def embed(model: Model, texts: Sequence[str], *, batch: int = BATCH) -> Float[Tensor, "N C"]:
    """One vector for each text, (N, C) in the dtype of the weights, on the CPU.

    Texts of about the same length are computed together. What is longer than the model's own limit is cut.

    Args:
        model: an encoder or decoder with a head for embedding, as sentence-transformers' folders have.
        texts: what to embed.
        batch: texts computed at once.

    Raises:
        InputError: a lone string, no texts, or an empty one.
        ConfigError: the model makes no vectors.
    """
    framed = framed_texts(model, texts)
    network, training = model.network, model.network.training
    order = sorted(range(len(framed)), key=lambda i: len(framed[i]))
    rows: dict[int, Tensor] = {}
    network.eval()
    try:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            ids, mask = pad([framed[i] for i in chosen], model.tokenizer.pad or 0)
            vectors = network(ids.to(model.device), mask=mask.to(model.device)).cpu()
            rows.update(zip(chosen, vectors, strict=True))
    finally:
        network.train(training)
    return torch.stack([rows[i] for i in range(len(framed))])


def framed_texts(model: Model, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text as a network with pooling reads it, cut to the longest that it takes.

    Raises:
        InputError: a lone string, no texts, or an empty one.
        ConfigError: the model makes no vectors.
    """
    config = model.config
    if isinstance(config, Seq2SeqConfig) or config.head != "embedding":
        head = getattr(config, "head", None)
        has = f"a {config.kind} with a head for {head}" if head else f"a {config.kind} network"
        raise ConfigError(f"{model.source or 'the model'} is {has}; embedding texts needs a network with pooling")
    if isinstance(texts, str) or not texts:
        raise InputError("give a list of texts, even of one")
    longest = config.longest or config.context
    framed = [frame(model.tokenizer, model.tokenizer.encode(text), longest=longest)[0] for text in texts]
    if empty := [number for number, ids in enumerate(framed) if not ids]:
        raise InputError(f"text {empty[0]} of {len(texts)} is empty")
    return framed


def pad(rows: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Rows of ids as one tensor (B, T) int64, padded on the right, and (B, T) bool of which are real.

    Args:
        rows: ids of each text.
        padding: the id to fill with.
    """
    ids = torch.full((len(rows), max(map(len, rows))), padding)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = torch.tensor(found)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]
