"""Domain adaptation: before a network learns a task, it goes on pre-training on raw text of the kind that it will read.

An encoder guesses hidden tokens, a decoder the next one (Gururangan et al. 2020, "Don't stop pretraining"). Fresh
weights read the task's own training texts too. What is made is a model folder that the task then starts from.

    run/domain/
      own.jsonl   the task's own texts, for fresh weights
      corpus/     all texts as tokens
      run/        the run, with its checkpoints
      model/      what it made: whole or not there
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from cutaway.errors import ConfigError
from cutaway.files import holds, write_atomic
from cutaway.models import Model, load_model, save_model
from cutaway.models.config import EncoderConfig
from cutaway.models.model import MODEL_JSON
from cutaway.progress import OnProgress
from cutaway.tasks.config import TaskConfig
from cutaway.tasks.data import TaskData
from cutaway.tasks.start import from_scratch, with_head
from cutaway.tokenizers import Tokenizer, TokenStore, prepare
from cutaway.tokenizers.frame import frame
from cutaway.tokenizers.tokenizer import ROLES
from cutaway.training import TrainConfig, resume, train
from cutaway.training.checkpoint import CONFIG as RUN_CONFIG

OBJECTIVES = {"encoder": "masked", "decoder": "causal", "recurrent": "causal"}
CONTEXT, MINUTES, SHARE = 128, 5.0, 0.4  # tokens of a window; of a training planned by time, at most this share


def pretrain(
    config: TaskConfig,
    data: TaskData,
    room: Path,
    *,
    until: float | None = None,
    progress: OnProgress | None = None,
    on_note: Any = None,
) -> Path:
    """Go on pre-training on raw text; or go on where a run of before has ended.

    Args:
        config: with `domain`, `domain_minutes` or both.
        data: of the task.
        room: the folder to make.
        until: `time.perf_counter()` at which the whole training of the task should be done; None: no limit.
        progress: told at every stage.
        on_note: told each choice with its reason.

    Returns:
        The model folder.

    Raises:
        ConfigError: a kind of network that has no such objective.
        InputError: a text that cannot be read, or too little of it.
    """
    made = room / "model"
    if holds(made, MODEL_JSON):
        return made
    room.mkdir(parents=True, exist_ok=True)
    start = load_model(config.start, dtype=torch.float32, quantised=False) if config.start else None
    sources = [*config.domain]
    if start is None or not sources:
        own = [text for example in data.splits["train"] for text in config.task.texts(example)]
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in own)
        write_atomic(room / "own.jsonl", lines)
        sources.append(str(room / "own.jsonl"))
    corpus = room / "corpus"
    if not corpus.is_dir():
        tokenizer = config.tokenizer if start is None else ending(start.tokenizer)
        prepare(
            sources,
            corpus,
            tokenizer=tokenizer,
            vocab_size=config.vocab_size,
            workers=config.threads,
            progress=progress,
        )
    store = TokenStore.open(corpus)
    model = begin(config, data, start, store.tokenizer)
    fresh = start is None
    minutes = config.domain_minutes or MINUTES
    if until is not None:
        minutes = min(minutes, SHARE * max(1.0, until - time.perf_counter()) / 60)
    settings = TrainConfig(
        data=str(corpus),
        out=str(room / "run"),
        objective=OBJECTIVES[model.config.kind],
        context=min(CONTEXT, model.config.context),
        batch=config.batch,
        minutes=minutes,
        optimizer="muon" if fresh else "adamw",
        lr=None if fresh else 1e-4,
        betas=(0.9, 0.98),
        dtype=config.dtype,
        compile="off",
        seed=config.seed,
        keep=1,
        baseline=False,
        threads=config.threads,
    )
    if holds(room / "run", RUN_CONFIG):
        run = resume(room / "run", start=model, progress=progress, on_note=on_note)
    else:
        run = train(settings, start=model, progress=progress, on_note=on_note)
    run.model.network.eval()
    save_model(run.model, made)
    if on_note is not None:
        figure = f"; validation loss {run.metrics['valid_loss']:.3f}" if "valid_loss" in run.metrics else ""
        on_note(f"pre-trained for {run.metrics['steps']:,} steps on {', '.join(sources)}{figure}")
    return made


def begin(config: TaskConfig, data: TaskData, start: Model | None, tokenizer: Tokenizer) -> Model:
    """The network that goes on, under a head that guesses tokens.

    Raises:
        ConfigError: a kind of network that has no such objective.
    """
    if start is None:
        start = from_scratch(
            config.task,
            (),
            data.labels,
            kind=config.kind,
            size=config.size,
            context=config.context or CONTEXT,
            tokenizer=tokenizer,
            network={"dropout": config.dropout or 0.0, **config.network},
            seed=config.seed,
        )
    kind = start.config.kind
    if kind not in OBJECTIVES:
        raise ConfigError(f"raw text can be learned from by {', '.join(OBJECTIVES)} networks, but not by {kind} ones")
    bare = {"labels": (), "labelling": "one", "normalize": False, "longest": 0}
    if not isinstance(start.config, EncoderConfig):
        return with_head(start, {**bare, "head": "causal_lm"}, seed=config.seed)
    if start.config.head == "masked_lm":
        return start
    style = {"head_activation": start.config.activation, "head_norm": True, "head_dense_bias": start.config.norm_bias}
    model = with_head(start, {**bare, **style, "head": "masked_lm", "tied": True}, seed=config.seed)
    head: Any = model.network.head
    with torch.no_grad():  # what it reads passes through at first, as the layers speak the embedding's language already
        torch.nn.init.eye_(head.dense.weight)
    return model


def ending(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with a token that ends a text: the last that stands around one, where it names none."""
    if tokenizer.end_of_text is not None:
        return tokenizer
    around = frame(tokenizer, [])[0]
    if not around:
        raise ConfigError(f"{tokenizer} has no token that ends a text; name its eos_token in tokenizer_config.json")
    names = {number: name for name, number in tokenizer.special.items()}
    roles = {role: names[number] for role in ROLES if (number := getattr(tokenizer, role)) in names}
    roles["end_of_text"] = names[around[-1]]
    spec = json.dumps(tokenizer.spec, ensure_ascii=False)
    return Tokenizer(spec, roles=roles, chat_template=tokenizer.chat_template)


def wanted(config: TaskConfig) -> bool:
    """Whether a training begins with raw text."""
    return bool(config.domain) or config.domain_minutes is not None
