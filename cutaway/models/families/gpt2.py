"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases everywhere; matrices stored the other way round."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._family import Family, Keys, Rule
from cutaway.models.families._heads import other_heads, with_head
from cutaway.models.families._layouts import TURNED, Joined

LAYER, ATTENTION = "layers.{i}", "layers.{i}.self_attn"


def _thirds(config: Any) -> tuple[int, int, int]:
    return (config.width,) * 3


def read(keys: Keys) -> dict[str, Any]:
    """Whether scores are divided by the root of the head's size."""
    return {} if keys.take("scale_attn_weights") else {"attention_scale": 1.0}


def write(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    return {"scale_attn_weights": config.attention_scale != 1.0}


GPT2 = Family(
    model_type="gpt2",
    source="https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf",
    config=DecoderConfig,
    keys={
        "vocab_size": "vocab_size",
        "n_positions": "context",
        "n_embd": "width",
        "n_layer": "layers",
        "n_head": "heads",
        "n_inner": "mlp_width",
        "activation_function": "activation",
        "layer_norm_epsilon": "norm_eps",
        "tie_word_embeddings": "tied",
    },
    defaults={
        "n_positions": 1024,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "scale_attn_weights": True,
    },
    features={
        "norm": "layernorm",
        "position": "learned",
        "gated": False,
        "qk_norm": False,
        "attention_bias": True,
        "output_bias": True,
        "mlp_bias": True,
    },
    rules=(
        Rule("wte.weight", "embed_tokens.weight"),
        Rule("wpe.weight", "embed_positions.weight"),
        Rule("h.{i}.ln_1.*", f"{LAYER}.input_layernorm.*"),
        *(
            Rule(f"h.{{i}}.attn.c_attn.{part}", tuple(f"{ATTENTION}.{n}_proj.{part}" for n in "qkv"), layout)
            for part, layout in (("weight", Joined(_thirds, turned=True)), ("bias", Joined(_thirds)))
        ),
        Rule("h.{i}.attn.c_proj.weight", f"{ATTENTION}.o_proj.weight", TURNED),
        Rule("h.{i}.attn.c_proj.bias", f"{ATTENTION}.o_proj.bias"),
        Rule("h.{i}.ln_2.*", f"{LAYER}.post_attention_layernorm.*"),
        Rule("h.{i}.mlp.c_fc.weight", f"{LAYER}.mlp.up_proj.weight", TURNED),
        Rule("h.{i}.mlp.c_fc.bias", f"{LAYER}.mlp.up_proj.bias"),
        Rule("h.{i}.mlp.c_proj.weight", f"{LAYER}.mlp.down_proj.weight", TURNED),
        Rule("h.{i}.mlp.c_proj.bias", f"{LAYER}.mlp.down_proj.bias"),
        Rule("ln_f.*", "norm.*"),
        Rule("lm_head.weight", "lm_head.weight"),
        Rule("score.*", "head.out.*", when=with_head("sequence_classification")),
        Rule("classifier.*", "head.out.*", when=with_head("token_classification")),
        Rule("qa_outputs.*", "head.out.*", when=with_head("span_extraction")),
    ),
    heads={"GPT2LMHeadModel": "causal_lm", **other_heads("GPT2")},
    ignored={
        "n_ctx": "n_positions is what is read",
        "attn_pdrop": "of training",
        "embd_pdrop": "of training",
        "resid_pdrop": "of training",
        "reorder_and_upcast_attn": "of precision: Cutaway computes in the weights' own",
        **{f"summary_{name}": "of a head that chooses among answers" for name in ("type", "use_proj", "activation")},
        **{f"summary_{name}": "of a head that chooses among answers" for name in ("proj_to_labels", "first_dropout")},
    },
    only={"scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,)},
    read=read,
    write=write,
    prefix="transformer.",
    outside=("lm_head.", "score.", "classifier.", "qa_outputs."),
    skipped={".attn.bias": "the causal mask", ".attn.masked_bias": "what it masks with"},
)
