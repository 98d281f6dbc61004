"""DistilBERT (Sanh et al. 2019): half of BERT's layers, one kind of tokens, no pooler."""

from cutaway.models.encoder_config import EncoderConfig
from cutaway.models.families._encoders import (
    EMBEDDING_RULES,
    FEATURES,
    LABEL_RULES,
    SKIPPED,
    SPELLINGS,
    styled,
)
from cutaway.models.families._family import Family, Rule
from cutaway.models.families._heads import with_head

HEADS = {
    "DistilBertModel": "none",
    "DistilBertForMaskedLM": "masked_lm",
    "DistilBertForSequenceClassification": "sequence_classification",
    "DistilBertForTokenClassification": "token_classification",
    "DistilBertForQuestionAnswering": "span_extraction",
}
STYLES = {
    "masked_lm": {"head_activation": None, "head_norm": True},
    "sequence_classification": {"head_activation": "relu"},
}
LAYER = {
    "attention.q_lin": "self_attn.q_proj",
    "attention.k_lin": "self_attn.k_proj",
    "attention.v_lin": "self_attn.v_proj",
    "attention.out_lin": "self_attn.o_proj",
    "sa_layer_norm": "post_attention_layernorm",
    "ffn.lin1": "mlp.up_proj",
    "ffn.lin2": "mlp.down_proj",
    "output_layer_norm": "post_feedforward_layernorm",
}


DISTILBERT = Family(
    model_type="distilbert",
    source="https://arxiv.org/abs/1910.01108",
    config=EncoderConfig,
    keys={
        "vocab_size": "vocab_size",
        "dim": "width",
        "n_layers": "layers",
        "n_heads": "heads",
        "hidden_dim": "mlp_width",
        "activation": "activation",
        "max_position_embeddings": "context",
        "tie_word_embeddings": "tied",
    },
    defaults={"activation": "gelu", "max_position_embeddings": 512, "tie_word_embeddings": True},
    features=FEATURES | {"norm_eps": 1e-12, "token_types": 0},
    rules=(
        *EMBEDDING_RULES,
        *(Rule(f"transformer.layer.{{i}}.{theirs}.*", f"layers.{{i}}.{ours}.*") for theirs, ours in LAYER.items()),
        Rule("pre_classifier.*", "head.dense.*", when=with_head("sequence_classification")),
        Rule("classifier.*", "head.out.*", when=with_head("sequence_classification")),
        *LABEL_RULES,
        Rule("vocab_transform.*", "head.dense.*", when=with_head("masked_lm")),
        Rule("vocab_layer_norm.*", "head.norm.*", when=with_head("masked_lm")),
        Rule("vocab_projector.*", "lm_head.*"),
    ),
    heads=HEADS,
    styles=styled(HEADS, STYLES),
    ignored={
        "dropout": "of training",
        "qa_dropout": "of training",
        "seq_classif_dropout": "of training",
        "sinusoidal_pos_embds": "of fresh weights: the positions' table is in the file",
        "tie_weights_": "tie_word_embeddings is what is read",
    },
    prefix="distilbert.",
    outside=("vocab_", "pre_classifier.", "classifier.", "qa_outputs."),
    skipped=SKIPPED,
    spellings=SPELLINGS,
)
