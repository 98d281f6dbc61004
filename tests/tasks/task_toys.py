"""Toy data of a task's training, and small published bases to train from."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from cutaway.tokenizers import train_tokenizer

GOOD, BAD = ("lovely", "splendid", "charming", "superb"), ("dreadful", "awful", "boring", "rotten")
REST = ("the", "film", "was", "a", "story", "with", "music", "and", "actors", "tonight")


def reviews(count: int = 240, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of which one word says the label."""
    draw, made = random.Random(seed), []
    for number in range(count):
        words = [draw.choice(REST) for _ in range(draw.randint(3, 9))]
        words.insert(draw.randint(0, len(words)), draw.choice((GOOD, BAD)[number % 2]))
        made.append((f"{' '.join(words)} {number}", ("good", "bad")[number % 2]))
    return made


def write_reviews(path: Path, count: int = 240, seed: int = 0) -> Path:
    """The same as a table."""
    rows = "".join(f"{text}\t{label}\n" for text, label in reviews(count, seed))
    path.write_text("text\tlabel\n" + rows, "utf-8")
    return path


def write_base(folder: Path, kind: str) -> Any:
    """A published base, made by transformers with random weights: "bert" (a bare one, with its pooler) or "llama"."""
    import transformers

    texts = [text for text, _ in reviews()]
    tokenizer = train_tokenizer(texts, "bpe", 320)
    sizes: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
    }
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 64, "pad_token_id": tokenizer.pad}
    torch.manual_seed(0)
    if kind == "llama":
        base = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**sizes, initializer_range=0.1, bos_token_id=None, eos_token_id=None)
        )
    else:
        base = transformers.BertModel(transformers.BertConfig(**sizes, initializer_range=0.1))
    base.save_pretrained(folder)
    tokenizer.save(folder)
    return tokenizer
