"""How large a network is, part by part: parameters, floating-point operations, memory. The parts add up to the whole.

Operations are those of matrix products, two per multiply-and-add, as torch's FlopCounterMode counts them; a training
step takes three forward passes' worth (Kaplan et al. 2020).

Shapes: T tokens, C channels, H query heads, K key/value heads, D head dim, M channels inside the MLP, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

from cutaway.models.config import DecoderConfig, NetworkConfig, RecurrentConfig
from cutaway.models.gru import GATES

OPTIMIZER_STATES = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2, "muon": 1}  # numbers kept per parameter, about


@dataclass(frozen=True)
class Counts:
    """The size of a network.

    Attributes:
        parameters: by part.
        forward_flops: by part, per token of a full context.
        cache_bytes: of one token's keys and values in float32 (or of a recurrent state as a whole).
    """

    parameters: dict[str, int]
    forward_flops: dict[str, int]
    cache_bytes: int

    @property
    def total_parameters(self) -> int:
        """All parts together; a tied output matrix counts once."""
        return sum(self.parameters.values())

    @property
    def total_forward_flops(self) -> int:
        """Per token of a full context."""
        return sum(self.forward_flops.values())

    @property
    def training_flops(self) -> int:
        """Per token: forward, and twice that for the gradients."""
        return 3 * self.total_forward_flops

    def training_bytes(self, optimizer: str = "muon", *, bf16: bool = True) -> int:
        """Weights, gradients, optimiser state and the bfloat16 copy while training; activations come on top."""
        each = 4 + 4 * OPTIMIZER_STATES[optimizer] + (2 + 2 if bf16 else 4)
        return each * self.total_parameters

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "parameters": self.parameters,
            "total_parameters": self.total_parameters,
            "forward_flops_per_token": self.forward_flops,
            "training_flops_per_token": self.training_flops,
            "cache_bytes_per_token": self.cache_bytes,
        }


def counts(config: NetworkConfig, tokens: int | None = None) -> Counts:
    """Count a network without building it.

    Args:
        config: what it is made of.
        tokens: length of the text that operations are counted for; the context by default.
    """
    if isinstance(config, RecurrentConfig):
        return _recurrent(config)
    return _decoder(config, tokens or config.context)


def _decoder(c: DecoderConfig, T: int) -> Counts:
    C, V, L, M = c.width, c.vocab_size, c.layers, c.mlp_width
    inner, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    norm = C * (2 if c.norm == "layernorm" else 1)
    qkv, out = C * (inner + 2 * kv), inner * C
    up, down = C * M * (2 if c.gated else 1), M * C
    parameters = {
        "embedding": V * C,
        "positions": c.context * C if c.position == "learned" else 0,
        "attention": L * (qkv + out),
        "attention biases": L * ((inner + 2 * kv) * c.attention_bias + C * c.output_bias),
        "query and key norms": L * 2 * c.head_dim * c.qk_norm,
        "mlp": L * (up + down),
        "mlp biases": L * c.mlp_bias * (M * (2 if c.gated else 1) + C),
        "norms": (2 * L + 1) * norm,
        "output": 0 if c.tied else V * C,
    }
    flops = {
        "attention projections": 2 * L * (qkv + out),
        "attention scores and mixing": 2 * L * 2 * T * inner,
        "mlp": 2 * L * (up + down),
        "output": 2 * V * C,
    }
    return Counts(_present(parameters), flops, 4 * 2 * L * kv)


def _recurrent(c: RecurrentConfig) -> Counts:
    gates = len(GATES[c.cell])
    inputs = [c.width] + [c.hidden] * (c.layers - 1)
    matrices = sum(gates * c.hidden * (size + c.hidden) for size in inputs)
    parameters = {
        "embedding": c.vocab_size * c.width,
        "cells": matrices,
        "cell biases": c.layers * 2 * gates * c.hidden,
        "output": 0 if c.tied else c.vocab_size * c.hidden,
    }
    flops = {"cells": 2 * matrices, "output": 2 * c.vocab_size * c.hidden}
    states = 2 if c.cell == "lstm" else 1
    return Counts(_present(parameters), flops, 4 * states * c.layers * c.hidden)


def _present(parts: dict[str, int]) -> dict[str, int]:
    return {name: int(size) for name, size in parts.items() if size}
