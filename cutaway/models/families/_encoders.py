"""What published encoders share: config keys of the BERT kind, heads by the name of the architecture, tensor names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cutaway.errors import ConfigError, unknown
from cutaway.models.encoder_config import LABELLED, EncoderConfig
from cutaway.models.families._family import Family, Keys, Rule, activation

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
    "classifier_dropout": "of training",
    "finetuning_task": "what it was trained on",
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
MOST_LABELS = 2**20
SKIPPED = {
    "embeddings.position_ids": "0, 1, 2 …",
    "embeddings.token_type_ids": "0, 0, 0 …",
}


def with_head(*heads: str) -> Callable[[Any], bool]:
    """The condition of a rule that some heads have."""
    return lambda config: config.head in heads


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


def read_head(
    keys: Keys,
    heads: Mapping[str, str],
    styles: Mapping[str, Mapping[str, Any]],
    activation_key: str = "hidden_act",
) -> dict[str, Any]:
    """The fields about what stands on top.

    Args:
        keys: the config.
        heads: name of a class of architecture -> head.
        styles: head -> the fields that the family's has; an activation of None is that of the layers.
        activation_key: which states that.

    Raises:
        ConfigError: an architecture that is not supported, or labels without an order.
    """
    named = keys.take("architectures") or [next(iter(heads))]
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str) or named[0] not in heads:
        raise ConfigError(unknown(f"architecture in {keys.where}", str(named), heads))
    head = heads[named[0]]
    style = {"head_activation": "none", "head_norm": False} | dict(styles.get(head, {}))
    if style["head_activation"] is None:
        style["head_activation"] = activation(keys, activation_key)
    found = {"head": head, **style}
    names, count = keys.take("id2label"), keys.take("num_labels")
    if head in LABELLED:
        found["labels"] = tuple(_labels(keys, names, count))
    elif head == "span_extraction" and len(_labels(keys, names, count)) != 2:
        raise keys.refuse("id2label", names, "an answer has two ends")
    return found


def _labels(keys: Keys, names: Any, count: Any) -> list[str]:
    """The labels in order; without names there are two of them, or as many as are counted."""
    if names is None:
        count = 2 if count is None else count
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_LABELS:
            raise keys.refuse("num_labels", count, f"it is a whole number from 1 to {MOST_LABELS:,}")
        return [f"LABEL_{i}" for i in range(count)]
    numbered = {str(number): name for number, name in names.items()} if isinstance(names, Mapping) else {}
    ordered = [numbered.get(str(i)) for i in range(len(numbered))]
    if not numbered or not all(isinstance(name, str) for name in ordered):
        raise keys.refuse("id2label", names, "it maps 0, 1, 2 … to names")
    return [str(name) for name in ordered]


def write_head(config: EncoderConfig, heads: Mapping[str, str]) -> dict[str, Any]:
    """The reverse of `read_head`.

    Raises:
        ConfigError: the family has no such head.
    """
    named = [architecture for architecture, head in heads.items() if head == config.head]
    if not named:
        raise ConfigError(f"head is {config.head!r}, there it is one of {', '.join(sorted(set(heads.values())))}")
    written: dict[str, Any] = {"architectures": [named[0]]}
    if config.head in LABELLED:
        written["id2label"] = {str(i): name for i, name in enumerate(config.labels)}
        written["label2id"] = {name: i for i, name in enumerate(config.labels)}
    return written


def bert_like(
    *,
    keys: Mapping[str, str],
    rules: Sequence[Rule],
    defaults: Mapping[str, Any],
    ignored: Mapping[str, str],
    skipped: Mapping[str, str],
    **own: Any,
) -> Family:
    """A family of BERT's keys, embeddings and layers, with what is its own.

    Args:
        keys: further keys -> fields.
        rules: of what stands on top.
        defaults: what leaving a key out means, beside what it means in all.
        ignored: further keys that change nothing -> why.
        skipped: further tensors that are left out -> why.
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
        **own,
    )
