"""A network with its tokenizer: what `load_model` returns and every door of the house opens.

A model folder holds `model.json` (the network's config), `model.safetensors`, the tokenizer's files and a manifest of
checksums. A run folder (from training) holds checkpoints that are model folders with the optimiser's state beside them.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cutaway.errors import DamagedFile, InputError
from cutaway.files import MANIFEST, atomic_folder, read_json, verify, write_json
from cutaway.models.config import DecoderConfig, NetworkConfig, config_from_dict, config_to_dict
from cutaway.models.decoder import Decoder
from cutaway.models.gru import Recurrent
from cutaway.models.tap import OFF, Tap
from cutaway.tokenizers import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from cutaway.generation import Generation

Network: TypeAlias = Decoder | Recurrent

MODEL_JSON, WEIGHTS = "model.json", "model.safetensors"
CHECKPOINTS = "checkpoints"  # inside a run folder: step-00001000, step-00002000 …


class Model:
    """A network and the tokenizer that it speaks through.

    Attributes:
        network: the torch module, `forward(ids, *, cache=None, tap=OFF)`.
        tokenizer: text <-> ids.
        source: where it came from, for messages and receipts.
    """

    def __init__(self, network: Network, tokenizer: Tokenizer, source: str = "") -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.source = source

    @property
    def config(self) -> NetworkConfig:
        """The network's config."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def ids(self, text: str | Sequence[int] | Tensor) -> Tensor:
        """Text, a list of ids or a tensor of them as (B, T) int64 on the model's device.

        Raises:
            InputError: no tokens, or an id outside the vocabulary.
        """
        if isinstance(text, str):
            text = self.tokenizer.encode(text)
        ids = torch.as_tensor(text, dtype=torch.int64, device=self.device)
        ids = ids[None] if ids.ndim == 1 else ids
        if ids.numel() == 0:
            raise InputError("the text is empty: give at least one character")
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise InputError(
                f"token ids must lie in 0 … {self.config.vocab_size - 1}, "
                f"but {int(ids.min())} … {int(ids.max())} was given"
            )
        return ids

    @torch.no_grad()
    def logits(self, text: str | Sequence[int] | Tensor, *, cache: Any = None, tap: Tap = OFF) -> Tensor:
        """(B, T) int64 ids (or text) -> (B, T, V) float32 logits of the next token, without dropout."""
        training = self.network.training
        self.network.eval()
        try:
            return self.network(self.ids(text), cache=cache, tap=tap).float()
        finally:
            self.network.train(training)

    def generate(self, prompt: str, **options: Any) -> Generation:
        """Continue `prompt`; the options are those of `cutaway.generate`."""
        from cutaway.generation import generate  # the one convenience that reaches down the house

        return generate(self, prompt, **options)


def build_network(config: NetworkConfig) -> Network:
    """A network with fresh weights."""
    return Decoder(config) if isinstance(config, DecoderConfig) else Recurrent(config)


def write_model(model: Model, folder: Path) -> None:
    """Write the model's files into an existing folder (a checkpoint adds its own beside them)."""
    write_json(folder / MODEL_JSON, config_to_dict(model.config))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    if getattr(model.config, "tied", False):
        del state["lm_head.weight"]  # it is the embedding
    write_tensors(state, folder / WEIGHTS)
    model.tokenizer.save(folder)


def write_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; a full disk is an OSError, as it is for any other file."""
    try:
        save_file(dict(state), path)
    except SafetensorError as error:
        if code := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
        raise


def save_model(model: Model, folder: str | Path) -> Path:
    """Write a model folder, whole or not at all.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    folder = Path(folder)
    with atomic_folder(folder) as room:
        write_model(model, room)
    return folder


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run folder, newest first, intact or not."""
    return sorted((p for p in (run / CHECKPOINTS).glob("step-*") if p.is_dir()), key=lambda p: p.name, reverse=True)


def newest_intact(run: Path) -> Path:
    """The newest checkpoint whose every file matches its checksum.

    Raises:
        DamagedFile: there are checkpoints but none is intact; says what is wrong with the newest.
        InputError: there is none.
    """
    reasons = []
    for folder in checkpoints(run):
        try:
            verify(folder)
            return folder
        except DamagedFile as error:
            reasons.append(str(error))
    if reasons:
        raise DamagedFile(f"no intact checkpoint in {run}: {reasons[0]}")
    raise InputError(f"{run} holds no checkpoint yet; train for longer, or give a model folder or another run")


def load_model(source: str | Path) -> Model:
    """Open a model folder or a run folder (its newest intact checkpoint).

    Raises:
        InputError: no such folder, or it holds no model.
        DamagedFile: a file does not match its checksum, or tensors are missing, left over or misshapen.
        ConfigError: the config holds a key or value that this version does not know.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a run folder that cutaway train made, or a model folder")
    folder = path if (path / MODEL_JSON).is_file() else None
    if folder is None:
        if not (path / CHECKPOINTS).is_dir():
            raise InputError(f"{path} is neither a model folder (no {MODEL_JSON}) nor a run folder (no {CHECKPOINTS}/)")
        folder = newest_intact(path)
    elif (folder / MANIFEST).is_file():
        verify(folder)
    config = config_from_dict(read_json(folder / MODEL_JSON), where=str(folder / MODEL_JSON))
    network = build_network(config)
    load_weights(network, folder / WEIGHTS)
    network.eval()
    return Model(network, load_tokenizer(folder), source=str(source))


def load_weights(network: Network, path: Path) -> None:
    """Copy a safetensors file into the network; every tensor must have its place and every place its tensor.

    Raises:
        DamagedFile: unreadable, or a tensor is missing, left over or misshapen; all are named.
    """
    try:
        state = load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise DamagedFile(f"{path} cannot be read as safetensors: {error}") from error
    if getattr(network.config, "tied", False) and "embed_tokens.weight" in state:
        state.setdefault("lm_head.weight", state["embed_tokens.weight"])
    expected = network.state_dict()
    missing, left = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & state.keys()
        if state[name].shape != expected[name].shape
    ]
    problems = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"left over: {', '.join(left)}"] * bool(left)
    if problems or shapes:
        raise DamagedFile(f"{path} does not fit its config; " + "; ".join(problems + shapes))
    network.load_state_dict(state)
