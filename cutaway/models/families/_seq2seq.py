"""What BART, Marian and Whisper share: config keys of fairseq's kind, and tensor names."""

from collections.abc import Collection, Mapping
from typing import Any

from cutaway.models.families._family import Family, Keys, Rule
from cutaway.models.families._layouts import ROW
from cutaway.models.seq2seq_config import Seq2SeqConfig

COPIES = {f"{stack}.embed_tokens.weight": "embed_tokens.weight" for stack in ("encoder", "decoder")}
_KEYS = {
    "vocab_size": "vocab_size",
    "d_model": "width",
    "encoder_layers": "encoder_layers",
    "decoder_layers": "layers",
    "encoder_attention_heads": "encoder_heads",
    "decoder_attention_heads": "heads",
    "encoder_ffn_dim": "encoder_mlp_width",
    "decoder_ffn_dim": "mlp_width",
    "activation_function": "activation",
    "decoder_start_token_id": "start_id",
    "tie_word_embeddings": "tied",
}
_DEFAULTS = {"activation_function": "gelu", "tie_word_embeddings": True, "scale_embedding": False}
_FEATURES = {
    "norm": "layernorm",
    "norm_eps": 1e-5,
    "gated": False,
    "attention_bias": True,
    "output_bias": True,
    "mlp_bias": True,
    "attention_scale": 0.0,
}
_IGNORED = {
    **dict.fromkeys(("dropout", "activation_dropout", "classif_dropout"), "of training"),
    **dict.fromkeys(("encoder_layerdrop", "decoder_layerdrop", "save_step"), "of training"),
    "init_std": "of fresh weights",
    "num_hidden_layers": "says encoder_layers once more",
    "_num_labels": "of a head for classes",
    "num_labels": "of a head for classes",
    "output_past": "of transformers' interface",
    "extra_pos_embeddings": "the rows before the first position, of which the architecture has a number of its own",
}


def scale(keys: Keys) -> dict[str, Any]:
    """Whether the token embedding is scaled by the root of the width."""
    return {"embed_scale": max(1, keys.whole("d_model")) ** 0.5} if keys.take("scale_embedding") else {}


def write_scale(config: Seq2SeqConfig) -> dict[str, Any]:
    """The reverse of `scale`."""
    return {"scale_embedding": config.embed_scale != 1}


def has_bias(config: Seq2SeqConfig, names: Collection[str]) -> bool:
    """Whether a checkpoint adds something to its logits."""
    return "final_logits_bias" in names


def layer_rules(stack: str, norms: Mapping[str, str]) -> tuple[Rule, ...]:
    """The tensors of a stack's layers; their norm -> ours."""
    names = {f"self_attn.{n}_proj": f"self_attn.{n}_proj" for n in "qkv"} | {"self_attn.out_proj": "self_attn.o_proj"}
    names |= {"fc1": "mlp.up_proj", "fc2": "mlp.down_proj", **norms}
    if stack == "decoder":
        names |= {f"encoder_attn.{n}_proj": f"cross_attn.{n}_proj" for n in "qkv"}
        names |= {"encoder_attn.out_proj": "cross_attn.o_proj"}
    at = f"{stack}.layers.{{i}}"
    return tuple(Rule(f"{at}.{theirs}.*", f"{at}.{ours}.*") for theirs, ours in names.items())


def fairseq_like(
    *,
    keys: Mapping[str, str],
    features: Mapping[str, Any],
    rules: tuple[Rule, ...],
    ignored: Mapping[str, str],
    defaults: Mapping[str, Any] | None = None,
    output: str = "lm_head",
    **own: Any,
) -> Family:
    """A family of fairseq's keys and layers, with what is its own.

    Args:
        keys: further keys -> fields.
        features: further fields that it always has so; of `norm_place` the layers' norms follow.
        rules: further tensors.
        ignored: further keys that change nothing -> why.
        defaults: what leaving a key out means, beside what it means in all.
        output: what the output matrix is called.
        own: its further fields of `Family`.
    """
    summed = features["norm_place"] == "sum"
    attention = "post_attention_layernorm" if summed else "input_layernorm"
    cross = "post_cross_layernorm" if summed else "post_attention_layernorm"
    last = {"encoder": "post_attention_layernorm", "decoder": "post_cross_layernorm"}
    norms = {
        stack: {
            "self_attn_layer_norm": attention,
            "final_layer_norm": "post_feedforward_layernorm" if summed else last[stack],
        }
        for stack in last
    }
    norms["decoder"]["encoder_attn_layer_norm"] = cross
    return Family(
        config=Seq2SeqConfig,
        keys=_KEYS | dict(keys),
        defaults=_DEFAULTS | dict(defaults or {}),
        features=_FEATURES | dict(features),
        rules=(
            *rules,
            *(rule for stack in norms for rule in layer_rules(stack, norms[stack])),
            Rule(f"{output}.weight", "lm_head.weight"),
            Rule("final_logits_bias", "lm_head.bias", ROW),
        ),
        ignored=_IGNORED | dict(ignored),
        outside=(f"{output}.", "final_logits_bias"),
        **own,
    )
