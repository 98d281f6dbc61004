"""Counts against the networks themselves and against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cutaway.models import (
    PRESETS,
    ActiveTap,
    DecoderConfig,
    NetworkConfig,
    RecurrentConfig,
    build_network,
    decoder_of_size,
)
from cutaway.models.counts import counts

CONFIGS: dict[str, NetworkConfig] = {
    "default": decoder_of_size(2, 100, context=32),
    "grouped": DecoderConfig(100, 32, 3, 48, 6, kv_heads=2, head_dim=10, tied=False),
    "gpt2": DecoderConfig(
        90, 32, 2, 32, 4, norm="layernorm", position="learned", gated=False, attention_bias=True, output_bias=True,
        mlp_bias=True, qk_norm=False,
    ),
    "gru": RecurrentConfig(70, 32, 2, 12, 20),
    "lstm": RecurrentConfig(70, 32, 3, 16, 16, "lstm", tied=True),
    "gru-classic": PRESETS["gru-classic"],
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_add_up_to_the_network(name: str):
    network = build_network(CONFIGS[name])
    assert counts(CONFIGS[name]).total_parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ["default", "grouped", "gpt2"])
def test_operations_are_those_torch_counts(name: str):
    config = CONFIGS[name]
    network = build_network(config).eval()
    # explicit attention: the counter does not know the fused kernel of the CPU
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        same = {f"layers.{i}.attn.pattern": lambda x: x for i in range(config.layers)}
        network(torch.zeros(1, 32, dtype=torch.int64), tap=ActiveTap(edits=same))
    assert counter.get_total_flops() == 32 * counts(config).total_forward_flops


def test_the_textbook_preset():
    config = PRESETS["gru-classic"]
    assert (config.vocab_size, config.width, config.hidden) == (10_000, 256, 1024)  # pyright: ignore
    parts = counts(config).parameters
    assert parts["embedding"] == 10_000 * 256
    assert parts["cells"] + parts["cell biases"] == 3 * 1024 * (256 + 1024 + 2)
    assert parts["output"] == 10_000 * 1024


def test_training_memory():
    size = counts(CONFIGS["default"])
    weights_and_state = 4 + 2 * 4
    assert size.training_bytes("adamw", bf16=False) == size.total_parameters * (weights_and_state + 4)
    assert size.training_bytes("adamw") == size.total_parameters * (weights_and_state + 2 + 2)
