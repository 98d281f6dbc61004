"""The decoder computes what transformers computes, from the same weights."""

import pytest
import torch
from torch import Tensor

from cutaway.models import Decoder, DecoderConfig

transformers = pytest.importorskip("transformers")

SHAPES = [
    {"layers": 2, "width": 32, "heads": 4, "vocab_size": 50},
    {"layers": 3, "width": 48, "heads": 6, "kv_heads": 2, "head_dim": 16, "vocab_size": 31, "tied": False},
    {"layers": 1, "width": 24, "heads": 3, "kv_heads": 1, "mlp_width": 40, "vocab_size": 17, "rotary_base": 500.0},
]


def fresh(config: DecoderConfig) -> Decoder:
    """A decoder with no weight at zero."""
    torch.manual_seed(1)
    network = Decoder(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def ids(config: DecoderConfig) -> Tensor:
    return torch.randint(0, config.vocab_size, (3, 19), generator=torch.Generator().manual_seed(0))


def common(config: DecoderConfig) -> dict[str, object]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "tie_word_embeddings": config.tied,
        "attn_implementation": "eager",
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


# transformers computes RMS norms and rotary angles in float32 whatever the weights are, so float64 can only be compared
# where neither is used (GPT-2)
FLOAT32 = ((torch.float32, 5e-5),)
BOTH = (*FLOAT32, (torch.float64, 1e-9))


def compare(network: Decoder, peer, weights: dict[str, Tensor], bounds=FLOAT32) -> None:
    missing, unexpected = peer.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("rotary" in name or "attn.bias" in name or "masked_bias" in name for name in missing), missing
    for dtype, bound in bounds:
        network.to(dtype)
        peer.to(dtype).eval()
        tokens = ids(network.config)
        with torch.no_grad():
            ours, theirs = network(tokens), peer(tokens).logits
        assert (ours - theirs).abs().max() <= bound
        network.zero_grad()
        peer.zero_grad()
        network(tokens).square().mean().backward()
        peer(tokens).logits.square().mean().backward()
        mine, other = network.embed_tokens.weight.grad, peer.get_input_embeddings().weight.grad
        assert mine is not None
        assert (mine - other).abs().max() <= bound * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("qk_norm", [True, False], ids=["qwen3", "llama"])
def test_qwen3_and_llama(shape: dict, qk_norm: bool):
    network = fresh(DecoderConfig(context=32, qk_norm=qk_norm, **shape))
    if qk_norm:
        config = transformers.Qwen3Config(**common(network.config))
        peer = transformers.Qwen3ForCausalLM(config)
    else:
        config = transformers.LlamaConfig(**common(network.config))
        peer = transformers.LlamaForCausalLM(config)
    weights = {k if k.startswith("lm_head") else f"model.{k}": v for k, v in network.state_dict().items()}
    compare(network, peer, weights)


def test_gpt2():
    features: dict = {
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "position": "learned",
        "activation": "gelu_tanh",
        "gated": False,
    }
    biases: dict = {"attention_bias": True, "output_bias": True, "mlp_bias": True, "qk_norm": False}
    network = fresh(DecoderConfig(vocab_size=40, context=32, layers=2, width=32, heads=4, **features, **biases))
    peer = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=4, n_inner=128, bos_token_id=0, eos_token_id=0
        )
    )
    mine = network.state_dict()
    weights = {
        "transformer.wte.weight": mine["embed_tokens.weight"],
        "transformer.wpe.weight": mine["embed_positions.weight"],
        "transformer.ln_f.weight": mine["norm.weight"],
        "transformer.ln_f.bias": mine["norm.bias"],
        "lm_head.weight": mine["lm_head.weight"],
    }
    for i in range(2):
        ours, theirs = f"layers.{i}", f"transformer.h.{i}"
        for part in ("weight", "bias"):
            joined = torch.cat([mine[f"{ours}.self_attn.{x}_proj.{part}"] for x in "qkv"])
            weights |= {
                f"{theirs}.ln_1.{part}": mine[f"{ours}.input_layernorm.{part}"],
                f"{theirs}.ln_2.{part}": mine[f"{ours}.post_attention_layernorm.{part}"],
                f"{theirs}.attn.c_attn.{part}": joined.t(),  # GPT-2 stores matrices the other way round
                f"{theirs}.attn.c_proj.{part}": mine[f"{ours}.self_attn.o_proj.{part}"].t(),
                f"{theirs}.mlp.c_fc.{part}": mine[f"{ours}.mlp.up_proj.{part}"].t(),
                f"{theirs}.mlp.c_proj.{part}": mine[f"{ours}.mlp.down_proj.{part}"].t(),
            }
    compare(network, peer, weights, BOTH)
