"""What published encoders share: config keys of the BERT kind, what stands before a head's output, tensor names."""

from collections.abc import Mapping, Sequence
from typing import Any

from cutaway.models.encoder_config import EncoderConfig
from cutaway.models.families._family import Family, Rule
from cutaway.models.families._heads import with_head

_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_width",
    "hidden_act": "activation",
    "layer_norm_eps": "norm_eps",
    "type_vocab_size": "token_types",
    "tie_word_embeddings": "tied",
}
_DEFAULTS = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "tie_word_embeddings": True,
    "max_position_embeddings": 512,
}
FEATURES = {
    "norm_bias": True,
    "norm_place": "sum",
    "position": "learned",
    "gated": False,
    "attention_bias": True,
    "output_bias": True,
    "mlp_bias": True,
    "head_dense_bias": True,
}
_IGNORED = {
    "hidden_dropout_prob": "of training",
    "attention_probs_dropout_prob": "of training",
    "output_past": "of transformers' interface",
    "directionality": "of the original code: always both",
    **{
        f"pooler_{name}": "of the original code's pooler, read by nothing"
        for name in ("fc_size", "num_attention_heads", "num_fc_layers", "size_per_head", "type")
    },
}
_ONLY = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "position_embedding_type": ("absolute",),
}
SPELLINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # of the first checkpoints
SKIPPED = {
    "embeddings.position_ids": "0, 1, 2 …",
    "embeddings.token_type_ids": "0, 0, 0 …",
}


def tied(config: EncoderConfig) -> bool:
    """The condition of a rule for an output matrix that is the embedding."""
    return config.tied


def free(config: EncoderConfig) -> bool:
    """The condition of a rule for an output matrix of its own."""
    return not config.tied


def layer_rules(at: str = "encoder.layer.{i}") -> tuple[Rule, ...]:
    """The tensors of BERT's layers."""
    names = {
        "attention.self.query": "self_attn.q_proj",
        "attention.self.key": "self_attn.k_proj",
        "attention.self.value": "self_attn.v_proj",
        "attention.output.dense": "self_attn.o_proj",
        "attention.output.LayerNorm": "post_attention_layernorm",
        "intermediate.dense": "mlp.up_proj",
        "output.dense": "mlp.down_proj",
        "output.LayerNorm": "post_feedforward_layernorm",
    }
    return tuple(Rule(f"{at}.{theirs}.*", f"layers.{{i}}.{ours}.*") for theirs, ours in names.items())


EMBEDDING_RULES = (
    Rule("embeddings.word_embeddings.weight", "embed_tokens.weight"),
    Rule("embeddings.position_embeddings.weight", "embed_positions.weight"),
    Rule("embeddings.token_type_embeddings.weight", "embed_types.weight"),
    Rule("embeddings.LayerNorm.*", "embed_norm.*"),
)
LABEL_RULES = (
    Rule("classifier.*", "head.out.*", when=with_head("token_classification")),
    Rule("qa_outputs.*", "head.out.*", when=with_head("span_extraction")),
)


def styled(heads: Mapping[str, str], own: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What stands before the output of each head: nothing, but for what is the head's own."""
    bare = {"head_activation": "none", "head_norm": False}
    return {head: bare | dict(own.get(head, {})) for head in heads.values()}


def bert_like(
    *,
    keys: Mapping[str, str],
    rules: Sequence[Rule],
    defaults: Mapping[str, Any],
    ignored: Mapping[str, str],
    skipped: Mapping[str, str],
    heads: Mapping[str, str],
    styles: Mapping[str, Mapping[str, Any]],
    **own: Any,
) -> Family:
    """A family of BERT's keys, embeddings and layers, with what is its own.

    Args:
        keys: further keys -> fields.
        rules: of what stands on top.
        defaults: what leaving a key out means, beside what it means in all.
        ignored: further keys that change nothing -> why.
        skipped: further tensors that are left out -> why.
        heads: name of a class of architecture -> head.
        styles: head -> what stands before its output, where something does.
        own: its further fields of `Family`.
    """
    return Family(
        config=EncoderConfig,
        keys=_KEYS | dict(keys),
        defaults=_DEFAULTS | dict(defaults),
        features=FEATURES,
        rules=(*EMBEDDING_RULES, *layer_rules(), *rules, *LABEL_RULES),
        ignored=_IGNORED | dict(ignored),
        only=_ONLY,
        skipped=SKIPPED | dict(skipped),
        spellings=SPELLINGS,
        heads=heads,
        styles=styled(heads, styles),
        **own,
    )
