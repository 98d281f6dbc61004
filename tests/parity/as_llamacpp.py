"""Hugging Face folders as GGUF files, as llama.cpp's converter lays them out, by the gguf package's own writer.

Written after conversion/{base,llama,qwen,phi,gemma,olmo,gpt2,gptneox}.py of ggml-org/llama.cpp; only what the tests'
checkpoints have.
"""

import json
import math
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file

NAMES = {
    "mistral": "llama",
    "mixtral": "llama",
    "qwen3_moe": "qwen3moe",
    "gpt_neox": "gptneox",
    "gemma3_text": "gemma3",
}


def as_llamacpp(folder: Path, path: Path) -> Path:
    """Convert a folder with config.json and model.safetensors."""
    config = json.loads((folder / "config.json").read_text())
    family: str = config["model_type"]
    arch: str = NAMES.get(family, family)
    writer = gguf.GGUFWriter(path, arch)
    rope = config.get("rope_parameters") or {}
    layers = config.get("num_hidden_layers") or config["n_layer"]
    if family == "gpt2":
        _gpt2(writer, config)
    elif family == "gpt_neox":
        _neox(writer, config, rope)
    else:
        _common(writer, config, rope, family)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[{"qwen3moe": "QWEN3MOE"}.get(arch, arch.upper())], layers)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in [*_stacked(_laid_out(tensors, config, family), family), *_rope_tensors(config, rope, family)]:
        found = name if name.startswith("rope_f") else names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        writer.add_tensor(found, tensor.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gpt2(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


def _neox(writer: gguf.GGUFWriter, config: dict[str, Any], rope: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    share = rope.get("partial_rotary_factor", 1.0)
    writer.add_rope_dimension_count(int(share * (config["hidden_size"] // config["num_attention_heads"])))
    writer.add_head_count(config["num_attention_heads"])
    writer.add_parallel_residual(config["use_parallel_residual"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    if rope["rope_theta"] != 10_000.0:  # the converter leaves it out, which is right for the published models alone
        writer.add_rope_freq_base(rope["rope_theta"])


def _common(writer: gguf.GGUFWriter, config: dict[str, Any], rope: dict[str, Any], family: str) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(0)
    whole = rope.get("full_attention", rope)
    writer.add_rope_freq_base(whole["rope_theta"])
    if "sliding_attention" in rope:
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    if family == "phi3":
        dims = int(rope.get("partial_rotary_factor", 1.0) * config["hidden_size"]) // config["num_attention_heads"]
        writer.add_rope_dimension_count(dims)
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
        writer.add_sliding_window(config.get("sliding_window") or 0)
        if rope.get("long_factor"):
            scale = config["max_position_embeddings"] / config["original_max_position_embeddings"]
            sharpened = math.sqrt(1 + math.log(scale) / math.log(config["original_max_position_embeddings"]))
            writer.add_rope_scaling_attn_factors(sharpened)
        return
    if whole["rope_type"] in ("linear", "yarn"):
        kind = whole["rope_type"]
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(whole["factor"])
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(whole["original_max_position_embeddings"])
            if whole.get("attention_factor") is not None:
                writer.add_rope_scaling_yarn_attn_factor(whole["attention_factor"])
            if whole.get("beta_fast") is not None:
                writer.add_rope_scaling_yarn_beta_fast(whole["beta_fast"])
    experts = config.get("num_local_experts") or config.get("num_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if family == "qwen3_moe":
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.get("head_dim") is not None:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if family in ("llama", "mistral", "mixtral"):
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(
            config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        )
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if family == "gemma3_text" and config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if family.startswith("gemma"):
        writer.add_sliding_window(config["sliding_window"])


def _permute(rows: torch.Tensor, heads: int) -> torch.Tensor:
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _laid_out(tensors: dict[str, torch.Tensor], config: dict[str, Any], family: str) -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in tensors.items():
        if family in ("llama", "mistral", "mixtral"):
            if ".q_proj." in name:
                tensor = _permute(tensor, config["num_attention_heads"])
            elif ".k_proj." in name:
                tensor = _permute(tensor, config["num_key_value_heads"])
        elif family.startswith("gemma") and name.endswith("norm.weight"):
            tensor = tensor + 1
        elif family == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            tensor = tensor.T
        elif family == "gpt_neox" and ".query_key_value." in name:
            heads = config["num_attention_heads"]
            parts = tensor.reshape(heads, 3, config["hidden_size"] // heads, -1)
            tensor = torch.cat([parts[:, i].reshape(config["hidden_size"], -1) for i in range(3)])
            tensor = tensor.squeeze(1) if name.endswith("bias") else tensor
        found[name] = tensor
    return found


def _stacked(tensors: dict[str, torch.Tensor], family: str) -> list[tuple[str, torch.Tensor]]:
    """Experts in one tensor, under the name that the converter makes for it."""
    made: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if ".experts." not in name:
            made[name] = tensor
            continue
        before, after = name.split(".experts.")
        _, kind, _ = after.split(".")
        before = (
            before.removeprefix("model.").replace("block_sparse_moe", "feed_forward") if family == "mixtral" else before
        )
        made.setdefault(f"{before}.experts.{kind}.weight", []).append(tensor)
    return [(name, torch.stack(found) if isinstance(found, list) else found) for name, found in made.items()]


def _rope_tensors(config: dict[str, Any], rope: dict[str, Any], family: str) -> list[tuple[str, torch.Tensor]]:
    if family == "phi3" and rope.get("long_factor"):
        return [(f"rope_factors_{n}.weight", torch.tensor(rope[f"{n}_factor"])) for n in ("long", "short")]
    if rope.get("rope_type") != "llama3":
        return []
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    factors = []
    for rate in 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)):
        wave, original = 2 * math.pi / rate, rope["original_max_position_embeddings"]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        if wave < original / high:
            factors.append(1)
        elif wave > original / low:
            factors.append(rope["factor"])
        else:
            smooth = (original / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return [("rope_freqs.weight", torch.tensor(factors, dtype=torch.float32))]
