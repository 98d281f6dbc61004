"""Published decoders compute what they compute in transformers, from the same files, and go back unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import Float64, masks, token_ids, write_checkpoint
from safetensors.torch import load_file

from cutaway.models import ActiveTap, Decoder, DecoderConfig
from cutaway.models.families import FAMILIES
from cutaway.models.formats.huggingface import expressible, open_huggingface, write_huggingface

transformers = pytest.importorskip("transformers")

LENGTH = 23
EAGER: dict[str, Any] = {"attn_implementation": "eager", "experts_implementation": "eager"}
SMALL: dict[str, Any] = {
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
ODD = SMALL | {"vocab_size": 37, "hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 10}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.1, 1.2, 1.4], "long_factor": [1.5, 2, 3, 5]}


def gpt2(**keys: Any) -> dict[str, Any]:
    return {"vocab_size": 41, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3} | keys


def neox(**keys: Any) -> dict[str, Any]:
    return {key: value for key, value in SMALL.items() if key != "num_key_value_heads"} | keys


# family -> class of config, class of model, and the shapes to try
SHAPES: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "llama": (
        "LlamaConfig",
        "LlamaForCausalLM",
        [
            SMALL,
            ODD | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "rope_parameters": LLAMA3},
            SMALL | {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}},
            SMALL
            | {
                "max_position_embeddings": 16,
                "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
            },
            SMALL | {"rope_parameters": YARN, "hidden_act": "gelu"},
            SMALL | {"rope_parameters": YARN | {"truncate": False, "attention_factor": 1.3, "beta_fast": 8.0}},
        ],
    ),
    "mistral": (
        "MistralConfig",
        "MistralForCausalLM",
        [
            SMALL | {"sliding_window": 5},
            ODD | {"sliding_window": None, "tie_word_embeddings": True},
            SMALL | {"num_key_value_heads": 4, "sliding_window": 1, "rms_norm_eps": 1e-3},
        ],
    ),
    "qwen2": (
        "Qwen2Config",
        "Qwen2ForCausalLM",
        [
            SMALL | {"num_key_value_heads": 4},
            SMALL
            | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1, "tie_word_embeddings": True},
            SMALL | {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 0, "rope_parameters": YARN},
        ],
    ),
    "qwen3": (
        "Qwen3Config",
        "Qwen3ForCausalLM",
        [
            SMALL | {"head_dim": 8},
            ODD | {"tie_word_embeddings": True, "attention_bias": True},
            SMALL | {"head_dim": 12, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
        ],
    ),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        [
            gpt2(),
            gpt2(n_inner=50, activation_function="relu"),
            gpt2(scale_attn_weights=False, tie_word_embeddings=False),
        ],
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        [
            neox(),
            neox(
                use_parallel_residual=False,
                rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0},
            ),
            neox(
                attention_bias=False,
                hidden_act="gelu_new",
                rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            ),
        ],
    ),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        [
            SMALL | {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8},
            ODD | {"sliding_window": 30, "query_pre_attn_scalar": 17, "attn_logit_softcapping": 2.0},
            SMALL
            | {"head_dim": 16, "final_logit_softcapping": None, "attn_logit_softcapping": None, "attention_bias": True},
        ],
    ),
    "gemma3_text": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        [
            SMALL | {"head_dim": 8, "sliding_window": 5, "num_hidden_layers": 7, "query_pre_attn_scalar": 8},
            ODD | {"sliding_window": 3, "layer_types": ["full_attention", "sliding_attention", "full_attention"]},
            SMALL
            | {
                "head_dim": 8,
                "sliding_window": 6,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                "final_logit_softcapping": 5.0,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                },
            },
        ],
    ),
    "phi3": (
        "Phi3Config",
        "Phi3ForCausalLM",
        [
            SMALL,
            SMALL | {"sliding_window": 7, "tie_word_embeddings": True, "num_key_value_heads": 4},
            SMALL | {"rope_parameters": LONG, "original_max_position_embeddings": 32},  # the text fits
            SMALL | {"rope_parameters": LONG, "original_max_position_embeddings": 16},  # it does not
            SMALL | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        ],
    ),
    "olmo2": (
        "Olmo2Config",
        "Olmo2ForCausalLM",
        [
            SMALL,
            SMALL | {"attention_bias": True, "tie_word_embeddings": True},
            SMALL | {"num_key_value_heads": 1, "hidden_size": 40},
        ],
    ),
    "mixtral": (
        "MixtralConfig",
        "MixtralForCausalLM",
        [
            SMALL | {"num_local_experts": 4},
            SMALL
            | {"num_local_experts": 3, "num_experts_per_tok": 3, "sliding_window": 4, "tie_word_embeddings": True},
            ODD | {"num_local_experts": 5, "num_experts_per_tok": 1},
        ],
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        [
            SMALL | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20},
            ODD
            | {
                "num_experts": 3,
                "num_experts_per_tok": 1,
                "moe_intermediate_size": 7,
                "norm_topk_prob": True,
                "mlp_only_layers": [1],
                "tie_word_embeddings": True,
            },
            SMALL
            | {
                "head_dim": 8,
                "num_experts": 4,
                "num_experts_per_tok": 4,
                "moe_intermediate_size": 12,
                "decoder_sparse_step": 2,
                "use_sliding_window": True,
                "sliding_window": 5,
            },
        ],
    ),
}
CASES = [
    pytest.param((name, i), id=f"{name}-{i}") for name, (_, _, shapes) in SHAPES.items() for i in range(len(shapes))
]


def write(family: str, number: int, folder: Path) -> Any:
    config_class, model_class, shapes = SHAPES[family]
    config = getattr(transformers, config_class)(**shapes[number])
    config._attn_implementation = config._experts_implementation = "eager"
    return write_checkpoint(lambda: getattr(transformers, model_class)(config), folder)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    return write(request.param[0], request.param[1], tmp_path), tmp_path


def test_every_decoder_family_is_tried():
    decoders = {name for name, family in FAMILIES.items() if family.config is DecoderConfig}
    assert decoders == set(SHAPES)
    assert all(len(shapes) >= 3 for _, _, shapes in SHAPES.values())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-5), (torch.float64, 1e-9)], ids=["float32", "float64"])
@pytest.mark.parametrize("case_number", CASES)
@torch.no_grad()
def test_logits_and_hidden_states(
    case_number: tuple[str, int], dtype: torch.dtype, bound: float, tmp_path: Path, record_property: Any
):
    peer = write(*case_number, tmp_path)
    network, _ = open_huggingface(tmp_path, dtype)
    ids = token_ids(network.config.vocab_size, 3, min(LENGTH, network.config.context))
    if dtype == torch.float64:
        with Float64():
            torch.set_default_dtype(dtype)
            try:  # once more in float64, angles and all
                peer = type(peer).from_pretrained(tmp_path, dtype=dtype, **EAGER).eval()
            finally:
                torch.set_default_dtype(torch.float32)
    for mask in masks(*ids.shape).values():
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        positions = (real.cumsum(1) - 1).clamp(min=0)
        given = {"attention_mask": real.long()} if mask is not None else {}
        with Float64() if dtype == torch.float64 else torch.no_grad():
            theirs = peer(ids, position_ids=positions, output_hidden_states=True, use_cache=False, **given)
        seen: dict[str, torch.Tensor] = {}
        names = ["embed", *(f"layers.{i}.resid_post" for i in range(network.config.layers)), "final_norm"]
        ours = network(ids, mask=mask, tap=ActiveTap(names, sink=seen.__setitem__))
        assert ours.dtype == theirs.logits.dtype == dtype
        difference = float((ours - theirs.logits)[real].abs().max())
        assert difference <= bound
        record_property(f"{peer.config.model_type} {dtype}", difference)
        hidden = list(theirs.hidden_states)
        mine = [seen[name] for name in names]
        mine.pop(-2)  # theirs has the last layer after the final norm only
        assert len(hidden) == len(mine)
        for a, b in zip(mine, hidden, strict=True):
            assert (a - b)[real].abs().max() <= bound * max(1.0, float(b[real].abs().max()))


@torch.no_grad()
def test_with_a_cache_and_padding(case: tuple[Any, Path]):
    network, _ = open_huggingface(case[1])
    assert isinstance(network, Decoder)
    length = min(LENGTH, network.config.context)
    ids = token_ids(network.config.vocab_size, 2, length)
    scaling = network.config.rotary_scaling
    if scaling is not None and scaling.kind in ("dynamic", "longrope") and length > scaling.original_context:
        ids = ids[
            :, : scaling.original_context
        ]  # beyond it, angles depend on the length: what was cached is of a shorter text
    for mask in (None, masks(*ids.shape)["left"]):
        whole = network(ids, mask=mask)
        cache = network.new_cache(2, ids.shape[1])
        steps = [slice(0, 9), slice(9, 10), slice(10, ids.shape[1])]
        parts = [network(ids[:, s], mask=None if mask is None else mask[:, s], cache=cache) for s in steps]
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        assert (torch.cat(parts, dim=1) - whole)[real].abs().max() <= 1e-5


def test_round_trip(case: tuple[Any, Path], tmp_path_factory: pytest.TempPathFactory):
    folder = case[1]
    network, origin = open_huggingface(folder)
    back = tmp_path_factory.mktemp("back")
    write_huggingface(network, back, origin=origin, extra={})
    ours, theirs = load_file(back / "model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in theirs)
    assert json.loads((back / "config.json").read_text()) == json.loads((folder / "config.json").read_text())


@torch.no_grad()
def test_written_without_its_origin_it_still_opens_in_transformers(
    case: tuple[Any, Path], tmp_path_factory: pytest.TempPathFactory
):
    """The config is spelled by the family file alone."""
    peer, folder = case
    network, origin = open_huggingface(folder)
    back = tmp_path_factory.mktemp("back")
    write_huggingface(network, back, family=origin.family, extra={})
    again = type(peer).from_pretrained(back, dtype=torch.float32, **EAGER).eval()
    ids = token_ids(network.config.vocab_size, 2, min(LENGTH, network.config.context))
    assert (again(ids).logits - peer(ids).logits).abs().max() <= 1e-5
    reopened, _ = open_huggingface(back)
    assert reopened.config == network.config


def test_the_first_family_that_can_express_it_is_taken():
    fields: dict[str, Any] = {"vocab_size": 30, "layers": 2, "width": 32, "heads": 4}
    assert expressible(DecoderConfig(**fields))[0].model_type == "qwen3"
    assert expressible(DecoderConfig(**fields, qk_norm=False))[0].model_type == "llama"
