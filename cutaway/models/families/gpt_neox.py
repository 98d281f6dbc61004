"""GPT-NeoX (Black et al. 2022), and with it Pythia: attention and MLP read side by side, a part of each head turns."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._family import Family, Keys, Rule
from cutaway.models.families._heads import other_heads, with_head
from cutaway.models.families._layouts import BY_HEAD
from cutaway.models.families._rope import read_rope, write_rope

ATTENTION = "layers.{i}.self_attn"


def read(keys: Keys) -> dict[str, Any]:
    """Rotary positions, under keys of their own in older configs, and biases."""
    dim = keys.whole("hidden_size") // max(1, keys.whole("num_attention_heads"))
    bias, context = keys.take("attention_bias"), keys.whole("max_position_embeddings")
    base, share = keys.take("rotary_emb_base"), keys.take("rotary_pct")
    rope = read_rope(keys, dim, context, base=base, share=share)
    return {**rope, "attention_bias": bias, "output_bias": bias}


def write(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    rope = write_rope(config)
    rope.pop("partial_rotary_factor", None)
    theta = rope.pop("rope_theta")
    share = config.rotary_dim / config.head_dim
    return rope | {"rotary_emb_base": theta, "rotary_pct": share, "attention_bias": config.attention_bias}


GPT_NEOX = Family(
    model_type="gpt_neox",
    source="https://arxiv.org/abs/2204.06745",
    config=DecoderConfig,
    keys={
        "vocab_size": "vocab_size",
        "hidden_size": "width",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "intermediate_size": "mlp_width",
        "hidden_act": "activation",
        "max_position_embeddings": "context",
        "layer_norm_eps": "norm_eps",
        "use_parallel_residual": "parallel",
        "tie_word_embeddings": "tied",
    },
    defaults={
        "hidden_act": "gelu",
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "attention_bias": True,
        "rotary_emb_base": 10_000.0,
        "rotary_pct": 0.25,
    },
    features={"norm": "layernorm", "gated": False, "qk_norm": False, "mlp_bias": True},
    rules=(
        Rule("embed_in.weight", "embed_tokens.weight"),
        Rule("layers.{i}.input_layernorm.*", "layers.{i}.input_layernorm.*"),
        Rule("layers.{i}.attention.query_key_value.*", tuple(f"{ATTENTION}.{n}_proj.*" for n in "qkv"), BY_HEAD),
        Rule("layers.{i}.attention.dense.*", f"{ATTENTION}.o_proj.*"),
        Rule("layers.{i}.post_attention_layernorm.*", "layers.{i}.post_attention_layernorm.*"),
        Rule("layers.{i}.mlp.dense_h_to_4h.*", "layers.{i}.mlp.up_proj.*"),
        Rule("layers.{i}.mlp.dense_4h_to_h.*", "layers.{i}.mlp.down_proj.*"),
        Rule("final_layer_norm.*", "norm.*"),
        Rule("embed_out.weight", "lm_head.weight"),
        Rule("score.*", "head.out.*", when=with_head("sequence_classification")),
        Rule("classifier.*", "head.out.*", when=with_head("token_classification")),
        Rule("qa_outputs.*", "head.out.*", when=with_head("span_extraction")),
    ),
    heads={"GPTNeoXForCausalLM": "causal_lm", **other_heads("GPTNeoX")},
    ignored={
        "hidden_dropout": "of training",
        "is_decoder": "always one here",
    },
    read=read,
    write=write,
    prefix="gpt_neox.",
    outside=("embed_out.", "score.", "classifier.", "qa_outputs."),
    skipped={
        ".attention.bias": "the causal mask",
        ".attention.masked_bias": "what it masks with",
        "rotary_emb.inv_freq": "computed from the config",
    },
)
