"""The receipt that `cutaway doctor --model` prints, for every kind of network and head."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cutaway import save_model
from cutaway.errors import ConfigError
from cutaway.models import (
    DecoderConfig,
    EncoderConfig,
    Model,
    NetworkConfig,
    RecurrentConfig,
    Seq2SeqConfig,
    build_network,
)
from cutaway.parity import parity
from cutaway.tokenizers import train_tokenizer

pytest.importorskip("transformers")

SIZE: dict[str, Any] = {"vocab_size": 300, "context": 64, "layers": 2, "width": 24, "heads": 3}
LABELS = ("yes", "no", "perhaps")
WHISPER: dict[str, Any] = {
    "source": "audio",
    "mel_bins": 20,
    "position": "learned",
    "norm": "layernorm",
    "norm_eps": 1e-5,
    "gated": False,
    "activation": "gelu",
    "attention_bias": True,
    "key_bias": False,
    "output_bias": True,
    "mlp_bias": True,
    "attention_scale": 0.0,
}
CONFIGS: dict[str, tuple[NetworkConfig, str]] = {
    "decoder": (DecoderConfig(**SIZE), "Qwen3ForCausalLM"),
    "decoder of texts": (
        DecoderConfig(**SIZE, head="sequence_classification", labels=LABELS),
        "Qwen3ForSequenceClassification",
    ),
    "decoder of tokens": (
        DecoderConfig(**SIZE, head="token_classification", labels=LABELS),
        "Qwen3ForTokenClassification",
    ),
    "decoder of spans": (DecoderConfig(**SIZE, head="span_extraction"), "Qwen3ForQuestionAnswering"),
    "decoder of vectors": (DecoderConfig(**SIZE, head="embedding", normalize=True), "Qwen3Model"),
    "decoder of states": (DecoderConfig(**SIZE, head="none", tied=False), "Qwen3Model"),
    "masked": (EncoderConfig(**SIZE), "ModernBertForMaskedLM"),
    "texts": (
        EncoderConfig(**SIZE, head="sequence_classification", labels=LABELS),
        "ModernBertForSequenceClassification",
    ),
    "tokens": (EncoderConfig(**SIZE, head="token_classification", labels=LABELS), "ModernBertForTokenClassification"),
    "states": (EncoderConfig(**SIZE, head="embedding", pooling="mean"), "ModernBertModel"),
    "t5": (Seq2SeqConfig(**SIZE), "T5ForConditionalGeneration"),
    "whisper": (Seq2SeqConfig(**SIZE, **WHISPER), "WhisperForConditionalGeneration"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_receipt_of_every_kind(tmp_path: Path, name: str):
    config, architecture = CONFIGS[name]
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    save_model(Model(network, train_tokenizer(["abc"], "char", 300)), tmp_path / "m")
    found = parity(tmp_path / "m")
    assert found.architecture == architecture
    assert found.difference <= 5e-5
    assert found.scale > 0.01
    assert found.same_choice == found.choices > 0
    assert found.to_json()["tokens"] == found.tokens


def test_a_network_that_no_family_expresses_is_named(tmp_path: Path):
    network = build_network(RecurrentConfig(vocab_size=300))
    save_model(Model(network, train_tokenizer(["abc"], "char", 300)), tmp_path / "m")
    with pytest.raises(ConfigError, match="recurrent"):
        parity(tmp_path / "m")
