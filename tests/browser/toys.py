"""Small models of every kind, in the folders that users have. Not a test file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import cutaway
from cutaway.models import DecoderConfig, EncoderConfig, Model, RecurrentConfig, Seq2SeqConfig, build_network
from cutaway.models.model import CHECKPOINTS
from cutaway.tokenizers import Tokenizer, train_tokenizer

TEXT = "the cat sat on the mat, and the dog sat on the log"
SOURCE = "a mat that the cat sat on"
CHINESE = "你好吗。我很好。猫坐在垫子上。"
LABELS: dict[str, Any] = {"head": "sequence_classification", "labels": ("good", "bad", "neither")}
BERT: dict[str, Any] = {"norm_place": "sum", "position": "learned", "gated": False, "token_types": 2}
CONFIGS: dict[str, Any] = {
    "decoder": DecoderConfig(300, layers=3, width=32, heads=4, kv_heads=2, context=1024),
    "encoder": EncoderConfig(300, layers=2, width=24, heads=3, pooling="cls", **BERT, **LABELS),
    "masked": EncoderConfig(300, layers=2, width=24, heads=3, **BERT),
    "seq2seq": Seq2SeqConfig(300, layers=2, width=24, heads=3, relative_buckets=8),
    "gru": RecurrentConfig(300, layers=2, width=12, hidden=20),
}


def made(kind: str, tokenizer: Tokenizer | None = None, seed: int = 0) -> Model:
    """A network of a kind, with noise in every weight, so that nothing in it is zero or even."""
    tokenizer = tokenizer or train_tokenizer([(TEXT + SOURCE + CHINESE) * 3], "char", 300)
    torch.manual_seed(seed)
    network = build_network(replace(CONFIGS[kind], vocab_size=tokenizer.vocab_size)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(network, tokenizer, kind)


def laid_out(folder: Path) -> dict[str, Path]:
    """A folder of each kind, and a run with two steps, by name."""
    found = {kind: folder / kind for kind in CONFIGS}
    for kind, path in found.items():
        cutaway.save_model(made(kind), path)
    run = folder / "run"
    for step in (10, 20):
        cutaway.save_model(made("decoder", seed=step), run / CHECKPOINTS / f"step-{step:08d}")
    return {**found, "run": run}
