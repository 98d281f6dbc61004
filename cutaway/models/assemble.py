"""Networks out of configs and tensors, and tensors into files.

A network is first built without memory, then given its tensors as they are: what is memory-mapped stays so.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cutaway.errors import DamagedFile
from cutaway.models.config import DecoderConfig, EncoderConfig, NetworkConfig, Seq2SeqConfig
from cutaway.models.decoder import Decoder
from cutaway.models.encoder import Encoder
from cutaway.models.gru import Recurrent
from cutaway.models.seq2seq import Seq2Seq

Network: TypeAlias = Decoder | Encoder | Seq2Seq | Recurrent
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # that networks compute in
FILLS = {"normal_", "uniform_", "kaiming_uniform_", "zero_", "zeros_", "ones_", "fill_"}


def build_network(config: NetworkConfig) -> Network:
    """A network with fresh weights."""
    match config:
        case DecoderConfig():
            return Decoder(config)
        case EncoderConfig():
            return Encoder(config)
        case Seq2SeqConfig():
            return Seq2Seq(config)
    return Recurrent(config)


class _Unfilled(TorchFunctionMode):
    """Skips filling fresh weights, which have no memory yet: asking for random numbers there takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def assemble(config: NetworkConfig, state: Mapping[str, Tensor] | None, *, where: str = "the weights") -> Network:
    """A network made of these very tensors, which it does not copy.

    Args:
        config: what it is made of.
        state: its tensors by name (a tied output matrix may be left out); None: a network of shapes alone.
        where: what to call them in a message.

    Raises:
        DamagedFile: a tensor is missing, left over or misshapen; all are named.
    """
    with torch.device("meta"), _Unfilled():
        network = build_network(config)
    if state is None:
        return network
    state = complete(network, state, where)
    network.load_state_dict(state, assign=True)
    network.restore()
    return network.eval()


def check_layers(config: NetworkConfig, tensors: int, where: str) -> None:
    """Refuse a config of more layers than its file can hold, before any of them is made: each has four tensors or more.

    Raises:
        DamagedFile: says how many there are of each.
    """
    layers = getattr(config, "layers", 0) + getattr(config, "encoder_layers", 0)
    if 4 * layers > tensors:
        raise DamagedFile(f"{where} hold {tensors:,} tensors, too few for the {layers:,} layers of the config")


def complete(network: Network, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The state with the tied output matrix in it; every tensor must have its place and every place its tensor.

    Raises:
        DamagedFile: a tensor is missing, left over or misshapen; all are named.
    """
    state, expected = dict(state), network.state_dict()
    kinds = {tensor.dtype for tensor in state.values()}
    if len(kinds) > 1 or not kinds <= set(DTYPES):
        named = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise DamagedFile(f"{where} hold numbers of the kind {named}; float32, bfloat16, float16 or float64 is needed")
    if getattr(network.config, "tied", False) and "embed_tokens.weight" in state and "lm_head.weight" in expected:
        state.setdefault("lm_head.weight", state["embed_tokens.weight"])
    missing, left = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    problems = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"left over: {', '.join(left)}"] * bool(left)
    if problems or shapes:
        raise DamagedFile(f"{where} do not fit the config; " + "; ".join(problems + shapes[:8]))
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, memory-mapped.

    Raises:
        DamagedFile: it is missing, or no safetensors file.
    """
    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise DamagedFile(f"{path} cannot be read as safetensors: {error}") from error


def write_tensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; a full disk is an OSError, as it is for any other file."""
    try:
        save_file(dict(state), path, metadata=metadata)
    except SafetensorError as error:
        if code := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
        raise


def load_weights(network: Network, path: Path) -> None:
    """Copy a safetensors file into the network.

    Raises:
        DamagedFile: unreadable, or a tensor is missing, left over or misshapen; all are named.
    """
    network.load_state_dict(complete(network, read_tensors(path), str(path)))
