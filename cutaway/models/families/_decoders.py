"""What most published decoders share with Llama: config keys, tensor names, sliding windows."""

from collections.abc import Sequence
from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._family import Keys, Rule
from cutaway.models.families._heads import with_head
from cutaway.models.families._layouts import EXPERTS

KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "intermediate_size": "mlp_width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "max_position_embeddings": "context",
    "rms_norm_eps": "norm_eps",
    "hidden_act": "activation",
    "tie_word_embeddings": "tied",
}
DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
}
RULES = (
    Rule("embed_tokens.weight", "embed_tokens.weight"),
    *(
        Rule(f"layers.{{i}}.self_attn.{name}_proj.*", f"layers.{{i}}.self_attn.{name}_proj.*")
        for name in ("q", "k", "v", "o")
    ),
    *(
        Rule(f"layers.{{i}}.self_attn.{name}.weight", f"layers.{{i}}.self_attn.{name}.weight")
        for name in ("q_norm", "k_norm")
    ),
    *(Rule(f"layers.{{i}}.mlp.{name}_proj.*", f"layers.{{i}}.mlp.{name}_proj.*") for name in ("gate", "up", "down")),
    *(
        Rule(f"layers.{{i}}.{name}_layernorm.weight", f"layers.{{i}}.{name}_layernorm.weight")
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")
    ),
    Rule("norm.weight", "norm.weight"),
    Rule("lm_head.weight", "lm_head.weight"),
    Rule("score.*", "head.out.*", when=with_head("sequence_classification", "token_classification")),
    Rule("qa_outputs.*", "head.out.*", when=with_head("span_extraction")),
)
PREFIXES = {"span_extraction": "transformer."}  # of the classes that came before transformers made one for all
SKIPPED = {"rotary_emb.inv_freq": "computed from the config"}


def expert_rules(router: str, gate: str, up: str, down: str) -> tuple[Rule, ...]:
    """The tensors of a mixture of experts, by the names that stand behind a layer's and an expert's prefix."""
    names = {gate: "gate_proj", up: "up_proj", down: "down_proj"}
    return (
        Rule(f"layers.{{i}}.{router}.weight", "layers.{i}.mlp.router.weight"),
        *(Rule(f"layers.{{i}}.{theirs}.weight", f"layers.{{i}}.mlp.{ours}", EXPERTS) for theirs, ours in names.items()),
    )


def head_dim(keys: Keys) -> int:
    """D, as the config states it or as it follows."""
    return keys.take("head_dim") or keys.whole("hidden_size") // max(1, keys.whole("num_attention_heads"))


def biases(keys: Keys, *, output: bool = True) -> dict[str, Any]:
    """The fields that one key, attention_bias, decides."""
    bias = keys.take("attention_bias")
    return {"attention_bias": bias, "output_bias": bias and output}


def every_layer(keys: Keys) -> dict[str, Any]:
    """Windows where one key gives all layers the same."""
    window = keys.take("sliding_window")
    return {"windows": (window,) * keys.whole("num_hidden_layers")} if window else {}


def by_layer_types(keys: Keys, types: Sequence[str], window: int | None) -> dict[str, Any]:
    """Windows where layer_types says which layers have them.

    Args:
        keys: the config.
        types: of the layers, where the config does not list them.
        window: in tokens.

    Raises:
        ConfigError: a kind of layer that is neither full nor sliding attention.
    """
    listed = keys.take("layer_types")
    stated = types if listed is None else listed
    for kind in stated:
        if kind not in ("full_attention", "sliding_attention") or (kind == "sliding_attention" and not window):
            raise keys.refuse(
                "layer_types", listed, f"{kind} is not full_attention, or sliding_attention with a window"
            )
    windows = tuple((window or 0) if kind == "sliding_attention" else 0 for kind in stated)
    return {"windows": windows} if any(windows) else {}


def layer_types(config: DecoderConfig) -> list[str]:
    """The layers' kinds as configs list them."""
    return ["sliding_attention" if config.window(i) else "full_attention" for i in range(config.layers)]


def largest_window(config: DecoderConfig) -> int | None:
    """The one window that a config can state; if layers differ, reading it back will show that."""
    return max(config.windows, default=0) or None
