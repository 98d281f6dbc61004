"""The weights of a model folder: a safetensors file, whose matrices may be blocks.

A matrix of blocks is a uint8 tensor, the bytes of each of its rows, under the name of the numbers that it stands for.
What the bytes are stands in the file's metadata, under "cutaway.blocks":

    {"version": 1, "kinds": {"layers.0.mlp.up_proj.weight": "Q4_1", …}}

with ggml's names of kinds. Norms, biases and what else is small stay numbers beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cutaway.errors import ConfigError, DamagedFile, unknown
from cutaway.files import parse_json
from cutaway.models.assemble import Network, assemble, check_layers, read_tensors, write_tensors
from cutaway.models.config import NetworkConfig
from cutaway.models.formats.ggml import BY_NAME, Blocks
from cutaway.models.memory import check_memory
from cutaway.models.quantised import blocks_in, floats_in, network_of_blocks

KEY, VERSION = "cutaway.blocks", 1


def write_weights(network: Network, path: Path) -> None:
    """Write a network's tensors, blocks as they are; a tied output matrix is left out."""
    blocks = blocks_in(network)
    tensors = {**floats_in(network), **{name: kept.data for name, kept in blocks.items()}}
    if getattr(network.config, "tied", False):
        tensors.pop("lm_head.weight", None)  # it is the embedding
    kinds = {name: kept.kind for name, kept in blocks.items() if name in tensors}
    metadata = {KEY: json.dumps({"version": VERSION, "kinds": kinds})} if kinds else None
    write_tensors({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path, metadata)


def read_weights(config: NetworkConfig, path: Path, dtype: torch.dtype | None = None, *, keep: bool = True) -> Network:
    """The network of a file that `write_weights` wrote.

    Args:
        config: what the network is made of.
        path: of the file.
        dtype: of the numbers; None: as they are stored.
        keep: whether blocks stay blocks.

    Raises:
        ConfigError: a version or a kind of blocks that is not supported, named.
        DamagedFile: it cannot be read, or tensors are missing, left over or misshapen; all are named.
        InputError: it does not fit into the memory that is free.
    """
    tensors, where = read_tensors(path), str(path)
    check_layers(config, len(tensors), where)
    kinds = _kinds(path, where)
    blocks = {name: _blocks(name, kind, tensors.pop(name, None), where) for name, kind in kinds.items()}
    wanted = dtype or next((tensor.dtype for tensor in tensors.values()), torch.float32)
    check_memory(config, wanted, where, blocks=sum(kept.data.numel() for kept in blocks.values()) if keep else 0)
    blocks = {name: Blocks(kept.kind, kept.data, wanted) for name, kept in blocks.items()}
    # copied out of the file: products of numbers that lie otherwise in memory may differ in the last bit
    state = {name: tensor.to(dtype or tensor.dtype, copy=True) for name, tensor in tensors.items()}
    if not blocks or not keep:
        numbers = {name: kept.numbers() for name, kept in blocks.items()}
        return assemble(config, {**state, **numbers}, where=where)
    return network_of_blocks(config, state, blocks, where)


def _kinds(path: Path, where: str) -> Mapping[str, str]:
    """Name of a tensor -> the kind of its blocks."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"{where} cannot be read as safetensors: {error}") from error
    if text is None:
        return {}
    stated: Any = parse_json(text, f"{KEY} in {where}")
    if not isinstance(stated, dict) or not isinstance(stated.get("kinds"), dict):
        raise DamagedFile(f"{KEY} in {where} must be a table of kinds")
    if stated.get("version") != VERSION:
        raise ConfigError(f"the blocks in {where} are of version {stated.get('version')!r}; {VERSION} is supported")
    for kind in stated["kinds"].values():
        if not isinstance(kind, str) or kind not in BY_NAME or BY_NAME[kind].decode is None:
            known = [name for name, how in BY_NAME.items() if how.decode is not None]
            raise ConfigError(unknown(f"kind of blocks in {where}", str(kind), known))
    return stated["kinds"]


def _blocks(name: str, kind: str, data: Tensor | None, where: str) -> Blocks:
    size = BY_NAME[kind].bytes
    if data is None or data.dtype != torch.uint8 or data.ndim < 2 or data.shape[-1] % size or not data.numel():
        found = "nothing" if data is None else f"{tuple(data.shape)} of {str(data.dtype).removeprefix('torch.')}"
        raise DamagedFile(f"{where} should hold {name} as rows of {kind}, {size} bytes a block, but holds {found}")
    return Blocks(kind, data, torch.float32)
