"""An adapter computes what it computes in PEFT, from the same files, and what Cutaway writes PEFT opens."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import token_ids, write_checkpoint

from cutaway.models import Model
from cutaway.models.adapters import AdapterConfig, add_adapter, load_adapter, merge_adapter, save_adapter
from cutaway.models.formats.huggingface import open_huggingface
from cutaway.tokenizers import train_tokenizer

transformers = pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft")

LLAMA: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
NEOX = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
BERT = NEOX | {"pad_token_id": 0, "id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
GPT2 = {"vocab_size": 53, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3, "pad_token_id": None}
# name -> class of config, of model, keys; and what PEFT's adapter is
BASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", LLAMA),
    "llama-tied": ("LlamaConfig", "LlamaForCausalLM", LLAMA | {"tie_word_embeddings": True, "attention_bias": True}),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", LLAMA),
    "neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", NEOX),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "bert": ("BertConfig", "BertForSequenceClassification", BERT),
    "bert-bare": ("BertConfig", "BertModel", BERT),
}
ATTENTION = ["q_proj", "v_proj"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {"target_modules": ATTENTION, "r": 4, "lora_alpha": 7}),
    "all-linear": ("llama", {"target_modules": "all-linear", "r": 3, "use_rslora": True}),
    "expression": ("llama", {"target_modules": r".*\.(self_attn|mlp)\.(q|up)_proj", "r": 2, "use_dora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": [*ATTENTION, "down_proj"],
            "r": 4,
            "rank_pattern": {"down_proj": 2, r"layers\.\d+\.self_attn\.v_proj": 5},
            "alpha_pattern": {"model.layers.1.self_attn.q_proj": 30, "mlp.down_proj": 1},
            "use_rslora": True,
        },
    ),
    "layers": ("llama", {"target_modules": ATTENTION, "layers_to_transform": [0, 2], "use_dora": True}),
    "whole": ("llama", {"target_modules": ATTENTION, "modules_to_save": ["lm_head", "embed_tokens"]}),
    "output": ("llama", {"target_modules": ["lm_head", "o_proj"], "use_dora": True}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "o_proj"]}),
    "tied": ("llama-tied", {"target_modules": ["embed_tokens", "lm_head", "k_proj"]}),
    "biases": ("llama-tied", {"target_modules": ATTENTION, "bias": "all", "use_dora": True}),
    "biases-of-parts": ("llama-tied", {"target_modules": ATTENTION, "bias": "lora_only"}),
    "joined": ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"], "use_dora": True}),
    "by-head": ("neox", {"target_modules": ["query_key_value", "dense"], "bias": "all"}),
    "by-head-dora": ("neox", {"target_modules": ["query_key_value", "dense_4h_to_h"], "use_dora": True}),
    "turned": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True, "use_rslora": True}),
    "turned-dora": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}),
    "encoder": ("bert", {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}),
    "encoder-dora": ("bert", {"target_modules": "all-linear", "task_type": "SEQ_CLS", "use_dora": True}),
    "encoder-biases": ("bert", {"target_modules": ["dense"], "bias": "all", "use_rslora": True}),
    "encoder-bare": ("bert-bare", {"target_modules": ["key", "dense"], "task_type": "FEATURE_EXTRACTION"}),
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the cat sat on the mat"] * 3, "bpe", 300)


def make_base(folder: Path, name: str) -> Any:
    kind, cls, keys = BASES[name]
    config = getattr(transformers, kind)(**keys, attn_implementation="eager")
    return write_checkpoint(lambda: getattr(transformers, cls)(config), folder)


def open_base(folder: Path, tokenizer: Any) -> Model:
    network, origin = open_huggingface(folder)
    return Model(network, tokenizer, origin=origin)


@pytest.mark.filterwarnings("ignore")  # PEFT warns of tied matrices and of what it saves
@pytest.mark.parametrize("case", CASES)
def test_adapter_computes_what_it_computes_in_peft(case: str, tmp_path: Path, tokenizer: Any) -> None:
    name, keys = CASES[case]
    peer = make_base(tmp_path / "base", name)
    torch.manual_seed(1)
    adapted = peft.get_peft_model(peer, peft.LoraConfig(**keys)).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    base = open_base(tmp_path / "base", tokenizer)
    ids = token_ids(53, 2, 17)
    with torch.no_grad():
        made = adapted(ids)
    expected = made.logits if hasattr(made, "logits") else made.last_hidden_state

    model = load_adapter(base, tmp_path / "adapter")
    found = model.logits(ids)
    assert (found - expected).abs().max() < 5e-5
    assert (base.logits(ids) - expected).abs().max() > 1e-2  # the adapter does something, and not to its base
    own = {part.data_ptr() for part in model.network.parameters()} - {p.data_ptr() for p in base.network.parameters()}
    shared = {part.data_ptr() for part in model.network.parameters()} - own
    assert len(shared) >= len(list(base.network.parameters())) // 3  # at the least: biases and layers may be its own
    assert (merge_adapter(model).logits(ids) - found).abs().max() < 1e-5

    save_adapter(model, tmp_path / "again")
    assert torch.equal(load_adapter(base, tmp_path / "again").logits(ids), found)
    fresh = getattr(transformers, BASES[name][1]).from_pretrained(tmp_path / "base", attn_implementation="eager")
    opened = peft.PeftModel.from_pretrained(fresh, tmp_path / "again").eval()
    with torch.no_grad():
        again = opened(ids)
    assert (expected - (again.logits if hasattr(again, "logits") else again.last_hidden_state)).abs().max() < 5e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_peft_opens_a_fresh_adapter(case: str, tmp_path: Path, tokenizer: Any) -> None:
    name, keys = CASES[case]
    make_base(tmp_path / "base", name)
    base = open_base(tmp_path / "base", tokenizer)
    listed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}
    listed.pop("fan_in_fan_out", None)
    if listed.get("task_type") == "SEQ_CLS":
        listed["modules_to_save"] = ("classifier", "score")  # as PEFT adds them
    model = add_adapter(base, AdapterConfig(**listed))
    ids = token_ids(53, 2, 17)
    assert (model.logits(ids) - base.logits(ids)).abs().max() < 1e-5  # it has learned nothing yet
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    found = model.logits(ids)
    assert (found - base.logits(ids)).abs().max() > 1e-2
    save_adapter(model, tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    fresh = getattr(transformers, BASES[name][1]).from_pretrained(tmp_path / "base", attn_implementation="eager")
    opened = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    left = peft.get_peft_model_state_dict(opened)
    assert sum("lora_A" in key or "lora_embedding_A" in key for key in left) > 0
    with torch.no_grad():
        made = opened(ids)
    assert (found - (made.logits if hasattr(made, "logits") else made.last_hidden_state)).abs().max() < 5e-5
