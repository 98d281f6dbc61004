"""Small, whole files of every kind that Cutaway opens, for `targets` to damage. All of them are the same on every run.

A new family, architecture or kind of network is picked up by itself; where it has fields of its own that are needed or
whose defaults are large, they get a line in SMALL.
"""

import base64
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cutaway import load_model, save_model
from cutaway.errors import ConfigError
from cutaway.generation.quantize import quantize, save_quantized
from cutaway.models import DecoderConfig, EncoderConfig, Model, RecurrentConfig, Seq2SeqConfig, build_network
from cutaway.models.adapters import AdapterConfig, add_adapter, save_adapter
from cutaway.models.families import FAMILIES, Family
from cutaway.models.formats.gguf_architectures import ARCHITECTURES
from cutaway.models.formats.gguf_models import write_network
from cutaway.models.formats.huggingface import Origin
from cutaway.models.ngram import NGram
from cutaway.tokenizers import Tokenizer, TokenStore, train_tokenizer
from cutaway.tokenizers.from_gguf import WORDS
from cutaway.tokenizers.train import KINDS
from cutaway.training import TrainConfig, loop, train

TEXTS = [
    "the cat sat on the mat; the dog isn't here, and 123 birds sing.",
    "def f(x):\n    return x + 1\n",
    "中文没有空格。Ünïcode 😀!",
]
# what is small, by the name of our field
SMALL: dict[str, Any] = {
    "layers": 2,
    "width": 16,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 8,
    "mlp_width": 16,
    "context": 32,
    "experts": 2,
    "experts_used": 1,
    "expert_width": 8,
    "embed_width": 16,
    "activation": "gelu",
    "encoder_layers": 2,
    "encoder_heads": 2,
    "encoder_mlp_width": 16,
    "source_context": 16,
    "mel_bins": 8,
    "start_id": 0,
}
# and by the name of the published key, where a family reads it by itself
SMALL_KEYS: dict[str, Any] = {"num_experts": 2, "num_local_experts": 2}
# adapters: family, head, and what is its own
ADAPTERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain": ("llama", "LlamaForCausalLM", {"use_dora": True, "rank_pattern": {"k_proj": 3}, "bias": "all"}),
    "joined": ("gpt2", "GPT2LMHeadModel", {"target_modules": ("c_attn", "wte"), "alpha_pattern": {r"h\.\d.attn": 2}}),
    "whole": ("bert", "BertForSequenceClassification", {"modules_to_save": ("classifier",), "bias": "lora_only"}),
}


def tokenizer(kind: str = "bpe") -> Tokenizer:
    """A small tokenizer."""
    return train_tokenizer(TEXTS * 3, kind, 560 if kind == "wordpiece" else 320)


def published(family: Family, head: str, vocab_size: int) -> dict[str, Any]:
    """A small config.json of a family, with as many of its keys as have a value."""
    small = SMALL | {"vocab_size": vocab_size}
    values: dict[str, Any] = {"model_type": family.model_type, "architectures": [head]}
    values |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    values |= {theirs: small[ours] for theirs, ours in family.keys.items() if ours in small and ours != "activation"}
    values |= {key: value for key, value in SMALL_KEYS.items() if key in family.defaults}
    if family.heads[head] in ("sequence_classification", "token_classification"):
        values |= {"id2label": {"0": "no", "1": "yes"}}
    if family.heads[head] == "none" and "tie_word_embeddings" in family.keys:
        values |= {"tie_word_embeddings": True}  # there is no output matrix in such a folder
    family.to_config(values)
    only = {key: allowed[0] for key, allowed in family.only.items()}
    for key, value in {**family.defaults, **only}.items():
        try:  # defaults of several families name keys that not each of them reads
            family.to_config({key: value} | values)
            values = {key: value} | values
        except ConfigError:
            continue
    return values


def save_published(folder: Path, family: Family, head: str, text: Tokenizer) -> Path:
    """A folder of a family with a head, as its model was published."""
    values = published(family, head, text.vocab_size)
    config = family.settle(family.to_config(values), ())
    torch.manual_seed(0)
    model = Model(build_network(config), text, origin=Origin(family.model_type, values, True))
    return save_model(model, folder, "huggingface")


def save_gguf(path: Path, architecture: str, kind: str, text: Tokenizer) -> Path:
    """A GGUF file of an architecture, its matrices stored as `kind`."""
    stated: dict[str, Any] = {
        "block_count": 2,
        "context_length": 32,
        "embedding_length": 32,
        "feed_forward_length": 32,
        "attention.head_count": 4,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.layer_norm_epsilon": 1e-6,
    }
    stated = {key: stated[key] for key in ARCHITECTURES[architecture].needed} | {"vocab_size": text.vocab_size}
    if architecture == "qwen3moe":
        stated |= {"expert_count": 2, "expert_used_count": 1, "expert_feed_forward_length": 32}
    if architecture == "llama":  # factors for pairs, as a tensor
        stated |= {"rope_freqs.weight": [1.0, 2.0, 3.0, 4.0]}
    config = ARCHITECTURES[architecture].to_config(stated)
    torch.manual_seed(0)
    vocab = text.spec["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get) + list(text.special)
    metadata: dict[str, Any] = {
        "general.name": "small",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": list(WORDS)[len(architecture) % len(WORDS)],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * len(vocab) + [3] * len(text.special),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in text.spec["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": text.end_of_text,
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    write_network(build_network(config), path, kind, name=architecture, metadata=metadata)
    return path


def foreign_tokenizers() -> dict[str, dict[str, Any]]:
    """Specs of tokenizers as others write them, with every kind of step."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    letters = list("abcdefghijklmnopqrstuvwxyz .,;!?'\n\t0123456789é中😀")
    bert = {name: i for i, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    for piece in [*letters, *(f"##{letter}" for letter in letters), "the", "cat", "##ing"]:
        bert.setdefault(piece, len(bert))
    ends = {name: {"id": name, "ids": [bert[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    begin, text, end = ({"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": "[SEP]", "type_id": 0}})  # fmt: skip
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    charsmap = base64.b64encode(struct.pack("<I", 1024) + bytes(1024) + b"a\0").decode()  # a trie without entries
    pieces = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["▁", -2.0], ["▁the", -3.0]]
    pieces += [[letter, -4.0 - i / 10] for i, letter in enumerate(letters)]
    llama = {name: i for i, name in enumerate(["<unk>", "<s>", "</s>"])}
    llama |= {f"<0x{byte:02X}>": len(llama) + byte for byte in range(256)}
    for piece in ["▁", *letters, "th", "the", "▁the"]:
        llama.setdefault(piece, len(llama))
    whole = {"version": "1.0", "truncation": None, "padding": None}
    return {
        "bert": whole
        | {
            "padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
            | {"pad_type_id": 0, "pad_token": "[PAD]"},
            "truncation": {"direction": "Right", "max_length": 512, "strategy": "LongestFirst", "stride": 0},
            "added_tokens": [{"id": bert[n], "content": n} | flags for n in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")],
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
            | {"strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing", "single": [begin, text, end]}
            | {"pair": [begin, text, end, *second], "special_tokens": ends},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
            | {"max_input_chars_per_word": 100, "vocab": bert},
        },
        "xlm": whole
        | {
            "added_tokens": [{"id": i, "content": n} | flags for i, n in enumerate(("<unk>", "<s>", "</s>"))],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": charsmap},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
                {"type": "Strip", "strip_left": False, "strip_right": True}, {"type": "NFKC"}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}]},
            "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}
            | {"trim_offsets": True, "add_prefix_space": True},
            "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
        },
        "llama": whole
        | {
            "added_tokens": [{"id": i, "content": n} | flags for i, n in enumerate(("<unk>", "<s>", "</s>"))],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None}
            | {"end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False}
            | {"vocab": llama, "merges": [["t", "h"], ["th", "e"], ["▁", "the"]]},
        },
        "words": whole
        | {
            "added_tokens": [], "normalizer": {"type": "Lowercase"}, "post_processor": None, "decoder": None,
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "the": 1, "cat": 2, "text": 3}},
        },
    }  # fmt: skip


def make_all(root: Path) -> dict[str, list[Path]]:
    """Every specimen in folders below `root`, by the kind of target that opens it."""
    made: dict[str, list[Path]] = {}

    def add(target: str, path: Path) -> Path:
        made.setdefault(target, []).append(path)
        return path

    text = tokenizer()
    for name, family in FAMILIES.items():
        for head in family.heads:
            add("published", save_published(root / "published" / f"{name}-{head}", family, head, text))
    torch.manual_seed(0)
    embedding = EncoderConfig(text.vocab_size, 16, 2, 8, 2, windows=(0, 3), head="embedding", normalize=True)
    save_model(Model(build_network(embedding), text), add("pooling", root / "pooling" / "m"), "huggingface")
    own: dict[str, Any] = {
        "decoder": DecoderConfig(text.vocab_size, 32, 2, 8, 2, experts=2, experts_used=1, windows=(0, 4)),
        "sinusoidal": DecoderConfig(text.vocab_size, 32, 1, 8, 2, position="sinusoidal", tied=False),
        "encoder": EncoderConfig(text.vocab_size, 32, 2, 8, 2),
        "seq2seq": Seq2SeqConfig(text.vocab_size, 32, 24, 1, 2, 8, 2),
        "gru": RecurrentConfig(text.vocab_size, 32, 1, 8, 8, tied=True),
        "lstm": RecurrentConfig(text.vocab_size, 32, 2, 8, 8, cell="lstm"),
    }
    for name, config in own.items():
        save_model(Model(build_network(config), text), add("cutaway", root / "cutaway" / name))
    few: dict[str, Any] = {
        "decoder": DecoderConfig(text.vocab_size, 32, 1, 32, 2, experts=2, experts_used=1),
        "encoder": EncoderConfig(text.vocab_size, 32, 1, 32, 2),
        "seq2seq": Seq2SeqConfig(text.vocab_size, 32, 24, 1, 2, 32, 2),
        "lstm": RecurrentConfig(text.vocab_size, 32, 1, 32, 32, cell="lstm"),
    }
    for name, config in few.items():
        made_small = quantize(Model(build_network(config), text), "int4")
        save_quantized(made_small, add("cutaway", root / "cutaway" / f"few-bits-{name}"))
    for name, (family, head, keys) in ADAPTERS.items():
        folder = add("adapter", root / "adapter" / name)
        base = load_model(save_published(folder / "base", FAMILIES[family], head, text))
        adapted = add_adapter(base, AdapterConfig(r=2, **keys))
        save_adapter(adapted, folder / "made")
        for path in (folder / "made").iterdir():
            path.rename(folder / path.name)
        (folder / "made").rmdir()
    for architecture in ARCHITECTURES:
        for kind in ("F32", "F16", "Q8_0"):
            folder = add("gguf", root / "gguf" / f"{architecture}-{kind}")
            folder.mkdir(parents=True)
            save_gguf(folder / "m.gguf", architecture, kind, text)
    for kind in KINDS:
        folder = add("tokenizer", root / "tokenizer" / kind)
        folder.mkdir(parents=True)
        tokenizer(kind).save(folder)
    for name, spec in foreign_tokenizers().items():
        folder = add("tokenizer", root / "tokenizer" / name)
        folder.mkdir(parents=True)
        (folder / "tokenizer.json").write_text(json.dumps(spec))
        special = [token["content"] for token in spec["added_tokens"]][:1]
        stated = {"pad_token": special[0], "eos_token": {"content": special[0]}} if special else {}
        (folder / "tokenizer_config.json").write_text(json.dumps(stated))
        (folder / "special_tokens_map.json").write_text(json.dumps(stated))
    store = add("store", root / "store" / "s")
    TokenStore.from_texts({"train": TEXTS * 4, "valid": TEXTS}, text, store)
    run_root = root / "run"
    loop.matmul_rate = lambda dtype: 1e11  # pyright: ignore[reportAttributeAccessIssue]  # it only serves a figure
    network = {"layers": 1, "width": 8, "heads": 2}
    plan = TrainConfig(str(store), str(run_root / "r"), network=network, context=8, batch=2, steps=2, dtype="fp32")
    train(replace(plan, compile="off", tensorboard="off", eval_tokens=16, threads=1, eval_every=1, save_every=1))
    add("run", run_root / "r")
    folder = add("ngram", root / "ngram" / "n")
    folder.mkdir(parents=True)
    NGram.fit(np.arange(60) % 7, 7, order=3).save(folder / "n.npz")
    return made
