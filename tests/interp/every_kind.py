"""Small noisy networks of every kind, for what must hold for all of them. Not a test file."""

from dataclasses import replace
from typing import Any

import torch

from cutaway.models import (
    DecoderConfig,
    EncoderConfig,
    Model,
    RecurrentConfig,
    Seq2SeqConfig,
    build_network,
)
from cutaway.tokenizers import Tokenizer, train_tokenizer

TEXT, SOURCE = "the cat sat on the mat", "a mat that the cat sat on"
CHINESE = "你好吗。我很好。"
BIASES: dict[str, Any] = {"attention_bias": True, "output_bias": True, "mlp_bias": True}
GPT2: dict[str, Any] = {
    "norm": "layernorm",
    "position": "learned",
    "activation": "gelu_tanh",
    "gated": False,
    "qk_norm": False,
    **BIASES,
}
GEMMA: dict[str, Any] = {
    "norm_plus_one": True,
    "norm_place": "both",
    "score_cap": 3.0,
    "logit_cap": 5.0,
    "embed_scale": 5.0,
    "windows": (4, 0, 7),
}
BART: dict[str, Any] = {
    "norm": "layernorm",
    "norm_place": "sum",
    "embed_norm": True,
    "position": "learned",
    "position_offset": 2,
    "gated": False,
    "logit_bias": True,
    "tied": True,
    "output_scale": 0.7,
    **BIASES,
}
BERT: dict[str, Any] = {"norm_place": "sum", "position": "learned", "gated": False, "token_types": 2, **BIASES}
LABELS: dict[str, Any] = {"head": "sequence_classification", "labels": ("good", "bad", "neither")}
EXPERTS: dict[str, Any] = {"experts": 4, "experts_used": 2, "expert_width": 20, "expert_layers": (0, 2)}
WHISPER: dict[str, Any] = {"source": "audio", "mel_bins": 5, "norm": "layernorm", "position": "sinusoidal", **BIASES}
KINDS: dict[str, Any] = {
    "gpt2": DecoderConfig(300, layers=2, width=24, heads=3, **GPT2),
    "llama": DecoderConfig(300, layers=3, width=32, heads=4, kv_heads=2, qk_norm=False, tied=False),
    "gemma": DecoderConfig(300, layers=3, width=24, heads=4, head_dim=10, **GEMMA),
    "experts": DecoderConfig(300, layers=3, width=32, heads=4, **EXPERTS),
    "decoder of texts": DecoderConfig(300, layers=2, width=24, heads=2, **LABELS),
    "modernbert": EncoderConfig(300, layers=3, width=24, heads=2, windows=(0, 3, 5)),
    "bert": EncoderConfig(300, layers=2, width=24, heads=3, embed_width=16, **BERT),
    "encoder of texts": EncoderConfig(300, layers=2, width=24, heads=3, pooling="cls", **BERT, **LABELS),
    "encoder of vectors": EncoderConfig(300, layers=2, width=24, heads=3, head="embedding", pooling="mean", **BERT),
    "t5": Seq2SeqConfig(300, layers=2, encoder_layers=3, width=24, heads=3, relative_buckets=8),
    "bart": Seq2SeqConfig(300, layers=2, width=24, heads=4, encoder_heads=2, **BART),
    "whisper": Seq2SeqConfig(300, layers=2, width=24, heads=3, gated=False, key_bias=False, **WHISPER),
    "gru": RecurrentConfig(300, layers=2, width=12, hidden=20),
    "lstm": RecurrentConfig(300, layers=2, width=16, hidden=16, cell="lstm", tied=True),
}


def made(
    kind: str, tokenizer: Tokenizer | None = None, dtype: torch.dtype = torch.float64, noise: float = 0.2
) -> Model:
    """A network of a kind, with noise in every weight."""
    tokenizer = tokenizer or train_tokenizer([(TEXT + SOURCE + CHINESE) * 3], "char", 300)
    torch.manual_seed(0)
    network = build_network(replace(KINDS[kind], vocab_size=tokenizer.vocab_size)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return Model(network.to(dtype), tokenizer, "a test")


def given(model: Model, text: str = SOURCE) -> dict[str, Any]:
    """What an encoder–decoder reads beside the text, which is its target."""
    config = model.config
    if not isinstance(config, Seq2SeqConfig):
        return {}
    if config.source == "text":
        return {"source": text}
    frames = torch.randn(1, config.mel_bins, 2 * len(text) - 1, generator=torch.Generator().manual_seed(len(text)))
    return {"source": frames.to(next(model.network.parameters()).dtype)}
