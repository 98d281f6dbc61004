"""ModernBERT (Warner et al. 2024): norms before, rotary positions, gated MLPs; two layers of three have a window."""

from collections.abc import Mapping
from typing import Any

from cutaway.models.encoder_config import EncoderConfig
from cutaway.models.families._family import ACTIVATION_NAMES, Family, Keys, Rule, activation
from cutaway.models.families._heads import read_head
from cutaway.models.families._layouts import Joined
from cutaway.models.families._rope import read_parameters, scaling_parameters

HEADS = {
    "ModernBertModel": "none",
    "ModernBertForMaskedLM": "masked_lm",
    "ModernBertForSequenceClassification": "sequence_classification",
    "ModernBertForTokenClassification": "token_classification",
    "ModernBertForQuestionAnswering": "span_extraction",
}
KINDS = ("full_attention", "sliding_attention")


def read(keys: Keys) -> dict[str, Any]:
    """Two kinds of rotary positions, the layers' windows, biases, and what stands before a head's output."""
    layers = keys.whole("num_hidden_layers")
    dim = keys.whole("hidden_size") // max(1, keys.whole("num_attention_heads"))
    every = keys.take("global_attn_every_n_layers")
    kinds = keys.take("layer_types")
    if kinds is None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise keys.refuse("global_attn_every_n_layers", every, "it is a whole number from 1 on")
        kinds = [KINDS[bool(i % every)] for i in range(layers)]
    if not isinstance(kinds, list) or not all(kind in KINDS for kind in kinds):
        raise keys.refuse("layer_types", kinds, f"it lists {' or '.join(KINDS)}")
    # so many tokens stand to either side of a token, which is one itself
    window = keys.whole("local_attention") // 2 + 1
    found: dict[str, Any] = {"windows": tuple(window * (kind == KINDS[1]) for kind in kinds)}
    found |= _read_rope(keys, dim)
    bias = keys.take("attention_bias")
    found |= {"attention_bias": bias, "output_bias": bias}
    found |= {
        "head_activation": activation(keys, "classifier_activation"),
        "head_norm": True,
        "head_dense_bias": keys.take("classifier_bias"),
    }
    output_bias = keys.take("decoder_bias")
    return found | ({"head_bias": output_bias} if read_head(keys, HEADS)["head"] == "masked_lm" else {})


def _read_rope(keys: Keys, dim: int) -> dict[str, Any]:
    context = keys.whole("max_position_embeddings")
    scaling, stated = keys.take("rope_scaling"), keys.take("rope_parameters") or {}
    if scaling is not None:
        raise keys.refuse("rope_scaling", scaling, "state it in rope_parameters, for each kind of layer")
    if not isinstance(stated, Mapping) or not set(stated) <= set(KINDS):
        raise keys.refuse("rope_parameters", stated, f"it states {' and '.join(KINDS)}")
    bases = keys.take("global_rope_theta"), keys.take("local_rope_theta")
    whole, near = (
        read_parameters(keys, stated.get(kind) or {}, dim, context, base)
        for kind, base in zip(KINDS, bases, strict=True)
    )
    if "rotary_scaling" in near:
        raise keys.refuse("rope_parameters", stated, "layers with a window have no scaling in Cutaway")
    for found in (whole, near):
        if found.pop("rotary_dim") != dim:
            raise keys.refuse("rope_parameters", stated, "whole heads turn here")
    return whole | {"rotary_base_local": near["rotary_base"]}


def write(config: EncoderConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    windows = [config.window(i) for i in range(config.layers)]
    whole: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rotary_base}
    if config.rotary_scaling is not None:
        whole |= scaling_parameters(config)
    local = config.rotary_base_local or config.rotary_base
    spelled = {ours: theirs for theirs, ours in reversed(ACTIVATION_NAMES.items())}
    return {
        "layer_types": [KINDS[window > 0] for window in windows],
        "local_attention": 2 * (max(windows) - 1) if any(windows) else 128,
        "rope_parameters": dict(zip(KINDS, (whole, {"rope_type": "default", "rope_theta": local}), strict=True)),
        "attention_bias": config.attention_bias,
        "classifier_activation": spelled.get(config.head_activation, "gelu"),
        "classifier_bias": config.head_dense_bias,
        "decoder_bias": config.head_bias,
    }


def _thirds(config: Any) -> tuple[int, int, int]:
    return (config.heads * config.head_dim,) * 3


def _halves(config: Any) -> tuple[int, int]:
    return (config.mlp_width, config.mlp_width)


def _tall(config: EncoderConfig) -> bool:
    return config.head not in ("none", "embedding")


LAYER, ATTENTION = "layers.{i}", "layers.{i}.self_attn"

MODERNBERT = Family(
    model_type="modernbert",
    source="https://arxiv.org/abs/2412.13663",
    config=EncoderConfig,
    keys={
        "vocab_size": "vocab_size",
        "hidden_size": "width",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "intermediate_size": "mlp_width",
        "max_position_embeddings": "context",
        "hidden_activation": "activation",
        "norm_eps": "norm_eps",
        "norm_bias": "norm_bias",
        "mlp_bias": "mlp_bias",
        "classifier_pooling": "pooling",
        "tie_word_embeddings": "tied",
    },
    defaults={
        "max_position_embeddings": 8192,
        "hidden_activation": "gelu",
        "norm_eps": 1e-5,
        "norm_bias": False,
        "mlp_bias": False,
        "attention_bias": False,
        "classifier_pooling": "cls",
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "decoder_bias": True,
        "local_attention": 128,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
        "tie_word_embeddings": True,
    },
    rules=(
        Rule("embeddings.tok_embeddings.weight", "embed_tokens.weight"),
        Rule("embeddings.norm.*", "embed_norm.*"),
        Rule("layers.{i}.attn_norm.*", f"{LAYER}.input_layernorm.*"),
        Rule("layers.{i}.attn.Wqkv.*", tuple(f"{ATTENTION}.{n}_proj.*" for n in "qkv"), Joined(_thirds)),
        Rule("layers.{i}.attn.Wo.*", f"{ATTENTION}.o_proj.*"),
        Rule("layers.{i}.mlp_norm.*", f"{LAYER}.post_attention_layernorm.*"),
        Rule("layers.{i}.mlp.Wi.*", tuple(f"{LAYER}.mlp.{n}_proj.*" for n in ("gate", "up")), Joined(_halves)),
        Rule("layers.{i}.mlp.Wo.*", f"{LAYER}.mlp.down_proj.*"),
        Rule("final_norm.*", "norm.*"),
        Rule("head.dense.*", "head.dense.*", when=_tall),
        Rule("head.norm.*", "head.norm.*", when=_tall),
        Rule("classifier.*", "head.out.*"),
        Rule("decoder.*", "lm_head.*"),
    ),
    heads=HEADS,
    ignored={
        "embedding_dropout": "of training",
        "mlp_dropout": "of training",
        "initializer_cutoff_factor": "of fresh weights",
        "layer_norm_eps": "norm_eps is what is read",
        "position_embedding_type": "positions are rotary, whatever it says",
        "deterministic_flash_attn": "a choice of kernel",
        "reference_compile": "a choice of kernel",
        "repad_logits_with_grad": "a choice of kernel",
        "sparse_prediction": "of training: which logits are computed, not how",
        "sparse_pred_ignore_index": "of training",
    },
    only={"classifier_pooling": ("cls", "mean")},
    read=read,
    write=write,
    outside=("head.", "decoder.", "classifier."),
)
