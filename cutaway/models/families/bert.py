"""BERT (Devlin et al. 2019), and with it MiniLM: norms on the sums, learned positions, two kinds of tokens."""

from collections.abc import Collection
from typing import Any

from cutaway.models.encoder_config import EncoderConfig
from cutaway.models.families._encoders import bert_like, free, tied
from cutaway.models.families._family import Rule
from cutaway.models.families._heads import with_head

HEADS = {
    "BertModel": "none",
    "BertForMaskedLM": "masked_lm",
    "BertForPreTraining": "masked_lm",
    "BertForSequenceClassification": "sequence_classification",
    "BertForTokenClassification": "token_classification",
    "BertForQuestionAnswering": "span_extraction",
}
STYLES = {
    "masked_lm": {"head_activation": None, "head_norm": True},
    "sequence_classification": {"head_activation": "tanh"},
}


def write(config: EncoderConfig) -> dict[str, Any]:
    """The architecture with two outputs."""
    return {"architectures": ["BertForPreTraining"]} if config.next_sentence else {}


def has_pooler(config: EncoderConfig, names: Collection[str]) -> bool:
    """Whether a checkpoint holds the layer over its first token, beside the head."""
    return any(name.endswith("pooler.dense.weight") for name in names)


def has_own_pooler(config: EncoderConfig, names: Collection[str]) -> bool:
    """The same, where the pooler is a part of the head that classifies texts."""
    return config.head != "sequence_classification" and has_pooler(config, names)


def has_next_sentence(config: EncoderConfig, names: Collection[str]) -> bool:
    """Whether it holds what tells of the next sentence."""
    return has_own_pooler(config, names) and "cls.seq_relationship.weight" in names


BERT = bert_like(
    model_type="bert",
    source="https://arxiv.org/abs/1810.04805",
    keys={"max_position_embeddings": "context"},
    defaults={},
    rules=(
        Rule("pooler.dense.*", "pooler.*"),
        Rule("cls.seq_relationship.*", "next_sentence.*"),
        Rule("pooler.dense.*", "head.dense.*", when=with_head("sequence_classification")),
        Rule("classifier.*", "head.out.*", when=with_head("sequence_classification")),
        Rule("cls.predictions.transform.dense.*", "head.dense.*", when=with_head("masked_lm")),
        Rule("cls.predictions.transform.LayerNorm.*", "head.norm.*", when=with_head("masked_lm")),
        Rule("cls.predictions.decoder.weight", "lm_head.weight"),
        Rule("cls.predictions.bias", "lm_head.bias", when=tied),
        Rule("cls.predictions.decoder.bias", "lm_head.bias", when=free),
    ),
    heads=HEADS,
    styles=STYLES,
    ignored={},
    write=write,
    prefix="bert.",
    outside=("cls.", "classifier.", "qa_outputs."),
    skipped={"cls.predictions.bias": "read by nothing where the output matrix is free"},
    by_tensors={"pooler": has_own_pooler, "next_sentence": has_next_sentence},
)
