"""Models in GGUF files: how llama.cpp spells architectures and names tensors.

Shapes: H heads, D head dim, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, DamagedFile, unknown
from cutaway.models.assemble import Network, assemble, check_layers
from cutaway.models.config import DecoderConfig
from cutaway.models.formats.gguf import GGUF
from cutaway.settings import build

KEYS = {  # behind the architecture's name -> field
    "block_count": "layers",
    "context_length": "context",
    "embedding_length": "width",
    "feed_forward_length": "mlp_width",
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "rope.freq_base": "rotary_base",
    "rope.dimension_count": "rotary_dim",
}
NEEDED = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")
# keys that change no number of a forward pass, or say again what another says
IGNORED = ("vocab_size", "attention.value_length", "rope.scaling.finetuned")
NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "output": "lm_head",
    "blk.{i}.attn_norm": "layers.{i}.input_layernorm",
    "blk.{i}.attn_q": "layers.{i}.self_attn.q_proj",
    "blk.{i}.attn_k": "layers.{i}.self_attn.k_proj",
    "blk.{i}.attn_v": "layers.{i}.self_attn.v_proj",
    "blk.{i}.attn_output": "layers.{i}.self_attn.o_proj",
    "blk.{i}.attn_q_norm": "layers.{i}.self_attn.q_norm",
    "blk.{i}.attn_k_norm": "layers.{i}.self_attn.k_norm",
    "blk.{i}.ffn_norm": "layers.{i}.post_attention_layernorm",
    "blk.{i}.ffn_gate": "layers.{i}.mlp.gate_proj",
    "blk.{i}.ffn_up": "layers.{i}.mlp.up_proj",
    "blk.{i}.ffn_down": "layers.{i}.mlp.down_proj",
}


@dataclass(frozen=True)
class Architecture:
    """One of llama.cpp's.

    Attributes:
        features: fields of ours that it always has so.
        pairs: whether the channels that rotary positions turn together lie beside each other, not half a head apart.
    """

    features: Mapping[str, Any] = field(default_factory=dict)
    pairs: bool = False


ARCHITECTURES = {
    "llama": Architecture({"qk_norm": False}, pairs=True),
    "qwen2": Architecture({"qk_norm": False, "attention_bias": True}),
    "qwen3": Architecture({"qk_norm": True}),
}


def open_gguf(file: GGUF, dtype: torch.dtype | None = None) -> Network:
    """The network of a file, its weights dequantised.

    Args:
        file: from `read_gguf`.
        dtype: of the weights; None: float32.

    Raises:
        ConfigError: an architecture, key or value that is not supported, named.
        DamagedFile: tensors that are missing, left over or misshapen, named.
    """
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ConfigError(unknown(f"general.architecture in {file.path}", str(name), ARCHITECTURES))
    architecture = ARCHITECTURES[name]
    config = _config(file, name, architecture)
    check_layers(config, len(file.tensors), str(file.path))
    expected = assemble(config, None).state_dict()
    homes = _homes(config)
    wanted = {theirs for theirs, ours in homes.items() if ours in expected}
    if config.tied:
        wanted.discard("output.weight")
    missing, left = sorted(wanted - file.tensors.keys()), sorted(file.tensors.keys() - wanted)
    problems = [f"missing: {', '.join(missing[:8])}"] * bool(missing) + [f"left over: {', '.join(left[:8])}"] * bool(
        left
    )
    if problems:
        raise DamagedFile(f"the tensors of {file.path} do not fit its metadata; {'; '.join(problems)}")
    state = {}
    for theirs in wanted:
        ours = homes[theirs]
        if file.tensors[theirs].shape != expected[ours].shape:
            shape, other = file.tensors[theirs].shape, tuple(expected[ours].shape)
            raise DamagedFile(f"{theirs} in {file.path} has the shape {shape} instead of {other}")
        tensor = file.tensors[theirs].load(dtype or torch.float32)
        if architecture.pairs and ".attn_q." in theirs:
            tensor = _apart(tensor, config.heads)
        elif architecture.pairs and ".attn_k." in theirs:
            tensor = _apart(tensor, config.kv_heads)
        state[ours] = tensor
        file.release()
    return assemble(config, state, where=str(file.path))


def _config(file: GGUF, name: str, architecture: Architecture) -> DecoderConfig:
    given = {key.removeprefix(f"{name}."): v for key, v in file.metadata.items() if key.startswith(f"{name}.")}
    if missing := [key for key in NEEDED if key not in given]:
        raise DamagedFile(f"{file.path} lacks the keys {', '.join(f'{name}.{key}' for key in missing)}")
    if given.get("rope.scaling.type", "none") == "none":
        given = {key: v for key, v in given.items() if key != "rope.scaling.type"}
    if unsupported := [key for key in given if key not in KEYS and key not in IGNORED]:
        shown = ", ".join(f"{name}.{key} = {given[key]!r}" for key in unsupported[:8])
        raise ConfigError(f"{file.path} holds keys that Cutaway does not know, so it cannot compute them: {shown}")
    fields = {ours: given[key] for key, ours in KEYS.items() if key in given}
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise DamagedFile(f"{file.path} has no matrix token_embd.weight")
    bias = "blk.0.attn_q.bias" in file.tensors
    found = {"vocab_size": embedding.shape[0], "tied": "output.weight" not in file.tensors, "attention_bias": bias}
    return build(DecoderConfig, {**fields, **found, **architecture.features}, where=str(file.path))


def _homes(config: DecoderConfig) -> dict[str, str]:
    """Name in the file -> ours."""
    return {
        f"{theirs}.{part}".replace("{i}", str(i)): f"{ours}.{part}".replace("{i}", str(i))
        for theirs, ours in NAMES.items()
        for i in range(config.layers if "{i}" in theirs else 1)
        for part in ("weight", "bias")
    }


def _apart(rows: Tensor, heads: int) -> Tensor:
    """Rows (H · D, …) whose pairs lie beside each other, as rows whose pairs lie half a head apart."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
