"""Small networks of every kind with noisy weights, for tests of analyses: a fresh network writes zeros."""

from typing import Any

import torch

from cutaway.models import (
    DecoderConfig,
    EncoderConfig,
    Model,
    NetworkConfig,
    RecurrentConfig,
    Seq2SeqConfig,
    build_network,
)
from cutaway.tokenizers import Tokenizer, train_tokenizer

TEXT, SOURCE = "the cat sat on the mat", "a mat that the cat sat on"
BIASES = {"attention_bias": True, "output_bias": True, "mlp_bias": True}
GPT2 = {"norm": "layernorm", "position": "learned", "activation": "gelu_tanh", "gated": False, "qk_norm": False}
GEMMA = {"norm_plus_one": True, "norm_place": "both", "logit_cap": 5.0, "embed_scale": 5.0, "windows": (4, 0)}
BERT = {"norm_place": "sum", "position": "learned", "gated": False, **BIASES}
BART = {"norm": "layernorm", "norm_place": "sum", "embed_norm": True, "position": "learned", "gated": False, **BIASES}
SHAPES: dict[str, tuple[type, dict[str, Any]]] = {
    "qwen3": (DecoderConfig, {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2}),
    "llama": (DecoderConfig, {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "qk_norm": False, "tied": False}),
    "gpt2": (DecoderConfig, {"layers": 3, "width": 24, "heads": 3, **GPT2, **BIASES}),
    "gemma": (DecoderConfig, {"layers": 2, "width": 24, "heads": 4, "kv_heads": 2, "head_dim": 10, **GEMMA}),
    "neox": (
        DecoderConfig,
        {"layers": 2, "width": 32, "heads": 4, "parallel": True, "rotary_dim": 2, "norm": "layernorm"},
    ),
    "olmo": (DecoderConfig, {"layers": 2, "width": 32, "heads": 4, "norm_place": "after", "qk_norm_joint": True}),
    "bert": (EncoderConfig, {"layers": 2, "width": 24, "heads": 3, "embed_width": 16, "token_types": 2, **BERT}),
    "modernbert": (EncoderConfig, {"layers": 2, "width": 24, "heads": 2, "windows": (0, 5)}),
    "t5": (Seq2SeqConfig, {"layers": 2, "encoder_layers": 3, "width": 24, "heads": 3, "relative_buckets": 8}),
    "bart": (Seq2SeqConfig, {"layers": 2, "width": 24, "heads": 4, "encoder_heads": 2, **BART}),
    "whisper": (
        Seq2SeqConfig,
        {"layers": 2, "width": 24, "heads": 3, "source": "audio", "mel_bins": 5, "position": "sinusoidal"},
    ),
    "gru": (RecurrentConfig, {"layers": 2, "width": 12, "hidden": 20}),
    "lstm": (RecurrentConfig, {"layers": 1, "width": 12, "hidden": 20, "cell": "lstm"}),
}


def letters() -> Tokenizer:
    """A character of the two texts each."""
    return train_tokenizer([(TEXT + SOURCE) * 3], "char", 300)


def made(shape: str, tokenizer: Tokenizer, **fields: Any) -> Model:
    """A model of that shape; `fields` change its config."""
    kind, own = SHAPES[shape]
    config: NetworkConfig = kind(vocab_size=tokenizer.vocab_size, context=48, **{**own, **fields})
    torch.manual_seed(0)
    network = build_network(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(network, tokenizer, "a test")


def given(model: Model) -> dict[str, Any]:
    """What an encoder–decoder reads beside the text, which is its target."""
    if not isinstance(model.config, Seq2SeqConfig):
        return {}
    if model.config.source == "text":
        return {"source": SOURCE}
    return {"source": torch.randn(1, model.config.mel_bins, 31, generator=torch.Generator().manual_seed(0))}


def parts(model: Model) -> list[str]:
    """The parts of a model that attend."""
    kind = model.config.kind
    return {"seq2seq": ["decoder", "encoder", "cross"], "recurrent": []}.get(kind, [kind])
