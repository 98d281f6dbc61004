"""T5 (Raffel et al. 2020) and its version 1.1 with gated MLPs and an output matrix of its own; also mT5 and Flan-T5."""

from collections.abc import Collection
from typing import Any

from cutaway.models.families._family import ACTIVATION_NAMES, Family, Keys, Rule
from cutaway.models.families._seq2seq import COPIES
from cutaway.models.seq2seq_config import Seq2SeqConfig

ATTENTION = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}


def read(keys: Keys) -> dict[str, Any]:
    """MLPs as one text names them, the decoder's depth, the first token, and whether the output is scaled."""
    projection = keys.take("feed_forward_proj")
    gate, _, name = projection.rpartition("-") if isinstance(projection, str) else ("", "", "")
    name = "gelu_new" if projection == "gated-gelu" else name
    name, gated = keys.take("dense_act_fn", name), keys.take("is_gated_act", gate == "gated")
    if gate not in ("", "gated") or name not in ACTIVATION_NAMES:
        raise keys.refuse("feed_forward_proj", projection, f"it is one of {', '.join(ACTIVATION_NAMES)}, or gated-…")
    layers = keys.take("num_decoder_layers")
    start = keys.take("decoder_start_token_id")
    tied = keys.take("tie_word_embeddings") is not False
    scaled = keys.take("scale_decoder_outputs", tied)
    return {
        "activation": ACTIVATION_NAMES[name],
        "gated": gated,
        "layers": keys.whole("num_layers") if layers is None else layers,
        "start_id": (keys.take("pad_token_id") or 0) if start is None else start,
        "tied": tied,
        "output_scale": max(1, keys.whole("d_model")) ** -0.5 if scaled else 1.0,
    }


def write(config: Seq2SeqConfig) -> dict[str, Any]:
    """The reverse of `read`."""
    name = {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation)
    projection = "gelu" if config.gated and name == "gelu_new" else name
    return {
        "feed_forward_proj": f"gated-{projection}" if config.gated else projection,
        "dense_act_fn": name,
        "is_gated_act": config.gated,
        "num_decoder_layers": config.layers,
        "decoder_start_token_id": config.start_id,
        "tie_word_embeddings": config.tied,
        "scale_decoder_outputs": config.output_scale != 1,
        "n_positions": config.context,
    }


def has_no_output(config: Seq2SeqConfig, names: Collection[str]) -> bool:
    """Whether the output matrix is the embedding: as in transformers, wherever a file holds no other."""
    return "lm_head.weight" not in names


def layer_rules(stack: str, norms: dict[int, str]) -> tuple[Rule, ...]:
    """The tensors of a stack's layers, whose parts are numbered; part -> our norm of it."""
    at, ours = f"{stack}.block.{{i}}.layer", f"{stack}.layers.{{i}}"
    last = max(norms)
    parts = {0: ("SelfAttention", "self_attn"), 1: ("EncDecAttention", "cross_attn")}
    mlp = {"wi": "up_proj", "wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}
    gated = {"wi": False, "wi_0": True, "wi_1": True}
    return (
        *(
            Rule(f"{at}.{n}.{parts[n][0]}.{theirs}.weight", f"{ours}.{parts[n][1]}.{mine}.weight")
            for n in range(last)
            for theirs, mine in ATTENTION.items()
        ),
        *(
            Rule(
                f"{at}.{last}.DenseReluDense.{theirs}.weight",
                f"{ours}.mlp.{mine}.weight",
                when=None if theirs == "wo" else lambda config, has=gated[theirs]: config.gated == has,
            )
            for theirs, mine in mlp.items()
        ),
        *(Rule(f"{at}.{n}.layer_norm.weight", f"{ours}.{norm}.weight") for n, norm in norms.items()),
        Rule(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", f"{stack}.relative_bias.weight"),
        Rule(f"{stack}.final_layer_norm.weight", f"{stack}.norm.weight"),
    )


T5 = Family(
    model_type="t5",
    source="https://arxiv.org/abs/1910.10683",
    config=Seq2SeqConfig,
    keys={
        "vocab_size": "vocab_size",
        "d_model": "width",
        "d_kv": "head_dim",
        "d_ff": "mlp_width",
        "num_layers": "encoder_layers",
        "num_heads": "heads",
        "relative_attention_num_buckets": "relative_buckets",
        "relative_attention_max_distance": "relative_distance",
        "layer_norm_epsilon": "norm_eps",
        "n_positions": "context",
    },
    defaults={
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "n_positions": 512,
        "feed_forward_proj": "relu",
    },
    features={"position": "relative", "attention_scale": 1.0},
    rules=(
        Rule("shared.weight", "embed_tokens.weight"),
        *layer_rules("encoder", {0: "input_layernorm", 1: "post_attention_layernorm"}),
        *layer_rules("decoder", {0: "input_layernorm", 1: "post_attention_layernorm", 2: "post_cross_layernorm"}),
        Rule("lm_head.weight", "lm_head.weight"),
    ),
    heads={"T5ForConditionalGeneration": "seq2seq_lm", "T5WithLMHeadModel": "seq2seq_lm", "T5Model": "none"},
    ignored={
        "dropout_rate": "of training",
        "initializer_factor": "of fresh weights",
    },
    only={"is_decoder": (False,), "add_cross_attention": (False,)},
    read=read,
    write=write,
    prefix="",
    skipped={"EncDecAttention.relative_attention_bias.weight": "of the first checkpoints, read by nothing"},
    copies=COPIES,
    by_tensors={"tied": has_no_output},
)
