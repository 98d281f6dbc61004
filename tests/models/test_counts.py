"""Counts against the networks themselves and against torch's own counter."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cutaway.errors import ConfigError
from cutaway.models import (
    PRESETS,
    ActiveTap,
    Decoder,
    DecoderConfig,
    EncoderConfig,
    NetworkConfig,
    Recurrent,
    RecurrentConfig,
    Seq2Seq,
    Seq2SeqConfig,
    build_network,
    decoder_of_size,
)
from cutaway.models.counts import OPTIMIZERS, counts
from cutaway.training.losses import cross_entropy
from cutaway.training.optim import RULES, Optimizer, OptimizerConfig

CONFIGS: dict[str, NetworkConfig] = {
    "default": decoder_of_size(2, 100, context=32),
    "grouped": DecoderConfig(100, 160, 3, 48, 6, kv_heads=2, head_dim=10, tied=False),
    "gpt2": DecoderConfig(
        90, 32, 2, 32, 4, norm="layernorm", position="learned", gated=False, attention_bias=True, output_bias=True,
        mlp_bias=True, qk_norm=False, activation="gelu",
    ),
    "relu2": DecoderConfig(90, 32, 2, 32, 4, gated=False, activation="relu2", position="none", dropout=0.1),
    "relu": DecoderConfig(90, 32, 2, 32, 4, activation="relu"),
    "attention only": DecoderConfig(90, 32, 2, 32, 4, mlp=False, norm="none", tied=False),
    "attention after": DecoderConfig(90, 32, 2, 32, 4, mlp=False, norm_place="both", norm="layernorm"),
    "no norms": DecoderConfig(90, 32, 2, 32, 4, norm="none", dropout=0.1),
    "decoder of texts": DecoderConfig(90, 32, 2, 32, 4, head="sequence_classification", labels=("a", "b")),
    "decoder of tokens": DecoderConfig(90, 32, 2, 32, 4, head="token_classification", labels=("a", "b"), tied=False),
    "decoder of spans": DecoderConfig(90, 32, 2, 32, 4, head="span_extraction", dropout=0.1),
    "decoder of vectors": DecoderConfig(90, 32, 2, 32, 4, head="embedding", normalize=True, tied=False),
    "modernbert": EncoderConfig(90, 160, 2, 48, 6, windows=(0, 7), head_dim=10),
    "bert": EncoderConfig(
        90, 32, 2, 32, 4, embed_width=20, token_types=3, norm_bias=True, norm_place="sum", position="learned",
        position_offset=3, gated=False, attention_bias=True, output_bias=True, mlp_bias=True, head_dense_bias=True,
        pooler=True,
        next_sentence=True,
    ),
    "tagger": EncoderConfig(90, 32, 2, 32, 4, head="token_classification", labels=("a", "b"), tied=False),
    "t5": Seq2SeqConfig(90, 32, 48, 2, 3, 32, 4, head_dim=10, encoder_mlp_width=50),
    "bart": Seq2SeqConfig(
        90, 32, 48, 2, 3, 32, 4, 2, norm="layernorm", norm_place="sum", embed_norm=True, position="learned",
        position_offset=2, gated=False, attention_bias=True, output_bias=True, mlp_bias=True, logit_bias=True,
        tied=True, activation="relu", dropout=0.1,
    ),
    "whisper": Seq2SeqConfig(
        90, 32, 48, 2, 1, 32, 4, source="audio", mel_bins=10, norm="layernorm", position="learned", gated=False,
        attention_bias=True, key_bias=False, output_bias=True, mlp_bias=True, activation="gelu",
    ),
    "gru": RecurrentConfig(70, 32, 2, 12, 20),
    "lstm": RecurrentConfig(70, 32, 3, 16, 16, "lstm", tied=True),
}  # fmt: skip


def reads(config: NetworkConfig, batch: int) -> dict[str, Tensor]:
    """What an encoder–decoder reads: as many steps as its target has."""
    if not isinstance(config, Seq2SeqConfig):
        return {}
    if config.source == "audio":
        return {"source": torch.zeros(batch, config.mel_bins, 2 * config.context)}
    return {"source": torch.zeros(batch, config.context, dtype=torch.int64)}


@pytest.mark.parametrize("name", [*CONFIGS, "gru-classic"])
def test_parameters_add_up_to_the_network(name: str):
    config = (CONFIGS | PRESETS)[name]
    with torch.device("meta"):
        network = build_network(config)
    assert counts(config).total_parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_operations_are_those_torch_counts(name: str):
    config = CONFIGS[name]
    network = build_network(config)
    # step by step and with explicit attention, as the counter does not know the fused kernels of the CPU
    inside = ".hidden" if isinstance(network, Recurrent) else "attn.pattern"
    same = ActiveTap(edits={name: lambda x: x for name in network.tap_names() if name.endswith(inside)})
    ids = torch.zeros(2, config.context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        logits = network(ids, **reads(config, 2), tap=same)
        forward = counter.get_total_flops()
        logits.sum().backward()
    assert forward == ids.numel() * counts(config).total_forward_flops
    if isinstance(config, Seq2SeqConfig) and config.source == "audio":  # a spectrogram needs no gradient
        first = 2 * 3 * config.width * config.mel_bins * 2 * config.context * len(ids)
        assert counter.get_total_flops() == ids.numel() * counts(config).training_flops - first
    elif not isinstance(config, RecurrentConfig):
        assert counter.get_total_flops() == ids.numel() * counts(config).training_flops
    else:  # what comes before the first step is a constant, and needs no gradient
        first = 2 * len(ids) * config.layers * (3 if config.cell == "gru" else 4) * config.hidden**2
        assert counter.get_total_flops() == ids.numel() * counts(config).training_flops - first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_activations_are_about_what_autograd_keeps(name: str, dtype: torch.dtype):
    batch, config = 16, CONFIGS[name]
    network = build_network(config).to(dtype)
    owned = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    ids = torch.zeros(batch, config.context, dtype=torch.int64)
    given = {name: x.to(dtype) if x.is_floating_point() else x for name, x in reads(config, batch).items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        logits = network(ids, **given)
        cross_entropy(logits, ids.new_zeros(logits.shape[:-1]))
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in (*kept, logits)}
    measured = sum(size for place, size in storages.items() if place not in owned)
    expected = counts(config).training_memory(batch, bf16=dtype == torch.bfloat16)["activations"]
    assert measured == pytest.approx(expected, rel=0.4 if name == "lstm" else 0.05)


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["grouped", "gpt2", "lstm"])
def test_training_memory_is_that_of_the_optimiser(name: str, optimizer: str, bf16: bool):
    network = build_network(CONFIGS[name])
    worker = build_network(CONFIGS[name]).bfloat16() if bf16 else network
    made = Optimizer(OptimizerConfig(optimizer), network, worker)
    expected = {
        "weights": sum(rule.stack.weights.nbytes for rule in made.rules),
        "bfloat16 copy": sum(rule.stack.workers.nbytes for rule in made.rules) if bf16 else 0,
        "gradients": sum(grad.nbytes for grad in made.grads),
        "optimiser": sum(state.nbytes for rule in made.rules for state in rule.state.values()),
    }
    memory = counts(CONFIGS[name]).training_memory(3, optimizer=optimizer, bf16=bf16)
    assert {part: memory[part] for part in expected} == expected
    assert set(memory) == {*expected, "activations"}


def test_every_optimiser_is_counted():
    assert set(OPTIMIZERS) == set(RULES) - {"rest"}
    with pytest.raises(ConfigError, match="did you mean adam or adamw"):
        counts(CONFIGS["gru"]).training_memory(1, optimizer="adamv")


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if not isinstance(config, EncoderConfig)])
def test_the_cache_is_as_large_as_counted(name: str):
    config = replace(CONFIGS[name], context=24)
    network = build_network(config)
    if isinstance(network, Seq2Seq):
        cross = network.new_cache(reads(config, 3)["source"])
        held = [*cross.own.keys, *cross.own.values, *(t for k, v, _ in cross.sources for t in (k, v))]
        assert counts(config).generation_memory(3)["cache"] == sum(t.nbytes for t in held)
        return
    assert isinstance(network, Decoder | Recurrent)
    cache = network.new_cache(3, 24)
    held = [t for value in vars(cache).values() if isinstance(value, list) for t in value]
    if isinstance(config, RecurrentConfig) and config.cell == "gru":
        held = held[: config.layers]  # an LSTM's cells are not used
    assert counts(config).generation_memory(3)["cache"] == sum(t.nbytes for t in held)


def test_the_textbook_preset():
    config = PRESETS["gru-classic"]
    assert isinstance(config, RecurrentConfig)
    assert (config.vocab_size, config.width, config.hidden) == (10_000, 256, 1024)
    assert counts(config).parameters == {
        "embedding": 10_000 * 256,
        "cells": 3 * 1024 * (256 + 1024),
        "cell biases": 2 * 3 * 1024,
        "output": 10_000 * 1024,
    }


def test_attention_grows_with_the_text():
    config = CONFIGS["default"]
    assert (
        counts(config, 64).forward_flops["attention scores and mixing"]
        == 2 * (counts(config, 32).forward_flops["attention scores and mixing"])
    )
    assert counts(config, 32) == counts(config)
    with pytest.raises(ConfigError, match="at least 1 token, but 0"):
        counts(config, 0)
