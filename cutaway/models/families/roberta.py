"""RoBERTa (Liu et al. 2019): BERT, whose positions start behind the padding's id."""

from typing import Any

from cutaway.models.encoder_config import EncoderConfig
from cutaway.models.families._encoders import bert_like, free, tied
from cutaway.models.families._family import Family, Keys, Rule
from cutaway.models.families._heads import with_head
from cutaway.models.families.bert import has_pooler

STYLES = {
    "masked_lm": {"head_activation": "gelu", "head_norm": True},
    "sequence_classification": {"head_activation": "tanh"},
}


def roberta(model_type: str, source: str, name: str) -> Family:
    """The family of RoBERTa's architecture under a name of its own.

    Args:
        model_type: in a config.
        source: the paper.
        name: with which the names of its architectures begin.
    """
    heads = {
        f"{name}Model": "none",
        f"{name}ForMaskedLM": "masked_lm",
        f"{name}ForSequenceClassification": "sequence_classification",
        f"{name}ForTokenClassification": "token_classification",
        f"{name}ForQuestionAnswering": "span_extraction",
    }

    def read(keys: Keys) -> dict[str, Any]:
        """The padding's id, which gives the first position, and the context."""
        rows, padding = keys.whole("max_position_embeddings"), keys.whole("pad_token_id")
        return {"position_offset": padding + 1, "context": rows - padding - 1}

    def write(config: EncoderConfig) -> dict[str, Any]:
        """The reverse of `read`."""
        offset = config.position_offset
        return {"pad_token_id": offset - 1, "max_position_embeddings": config.context + offset}

    return bert_like(
        model_type=model_type,
        source=source,
        keys={},
        defaults={"pad_token_id": 1},
        rules=(
            Rule("pooler.dense.*", "pooler.*"),
            Rule("classifier.dense.*", "head.dense.*", when=with_head("sequence_classification")),
            Rule("classifier.out_proj.*", "head.out.*", when=with_head("sequence_classification")),
            Rule("lm_head.dense.*", "head.dense.*", when=with_head("masked_lm")),
            Rule("lm_head.layer_norm.*", "head.norm.*", when=with_head("masked_lm")),
            Rule("lm_head.decoder.weight", "lm_head.weight"),
            Rule("lm_head.bias", "lm_head.bias", when=tied),
            Rule("lm_head.decoder.bias", "lm_head.bias", when=free),
        ),
        heads=heads,
        styles=STYLES,
        ignored={},
        read=read,
        write=write,
        prefix="roberta.",
        outside=("lm_head.", "classifier.", "qa_outputs."),
        skipped={"lm_head.bias": "read by nothing where the output matrix is free"},
        by_tensors={"pooler": has_pooler},
    )


ROBERTA = roberta("roberta", "https://arxiv.org/abs/1907.11692", "Roberta")
