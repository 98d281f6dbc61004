"""ELECTRA (Clark et al. 2020): a generator fills gaps, a discriminator finds what was filled; narrow embeddings."""

from cutaway.models.families._encoders import bert_like
from cutaway.models.families._family import Rule
from cutaway.models.families._heads import with_head

HEADS = {
    "ElectraModel": "none",
    "ElectraForPreTraining": "replaced_token",
    "ElectraForMaskedLM": "masked_lm",
    "ElectraForSequenceClassification": "sequence_classification",
    "ElectraForTokenClassification": "token_classification",
    "ElectraForQuestionAnswering": "span_extraction",
}
STYLES = {
    "masked_lm": {"head_activation": "gelu", "head_norm": True},
    "replaced_token": {"head_activation": None},
    "sequence_classification": {"head_activation": "gelu"},
}


ELECTRA = bert_like(
    model_type="electra",
    source="https://arxiv.org/abs/2003.10555",
    keys={"max_position_embeddings": "context", "embedding_size": "embed_width"},
    defaults={"embedding_size": 128},
    rules=(
        Rule("embeddings_project.*", "embed_proj.*"),
        Rule("classifier.dense.*", "head.dense.*", when=with_head("sequence_classification")),
        Rule("classifier.out_proj.*", "head.out.*", when=with_head("sequence_classification")),
        Rule("discriminator_predictions.dense.*", "head.dense.*", when=with_head("replaced_token")),
        Rule("discriminator_predictions.dense_prediction.*", "head.out.*", when=with_head("replaced_token")),
        Rule("generator_predictions.dense.*", "head.dense.*", when=with_head("masked_lm")),
        Rule("generator_predictions.LayerNorm.*", "head.norm.*", when=with_head("masked_lm")),
        Rule("generator_lm_head.*", "lm_head.*"),
    ),
    heads=HEADS,
    styles=STYLES,
    ignored={
        f"summary_{name}": "of a head that chooses among answers"
        for name in ("type", "use_proj", "activation", "last_dropout")
    },
    prefix="electra.",
    outside=("generator_", "discriminator_", "classifier.", "qa_outputs."),
    skipped={},
)
