"""Marian (Junczys-Dowmunt et al. 2018), the OPUS-MT translators: norms on the sums, sinusoidal positions."""

from typing import Any

from cutaway.models.families._family import Keys, Rule
from cutaway.models.families._seq2seq import COPIES, fairseq_like, has_bias, scale, write_scale


def read(keys: Keys) -> dict[str, Any]:
    """One number of positions and one vocabulary for sources and targets, and the scale of the embedding."""
    targets = keys.take("decoder_vocab_size")
    if targets not in (None, keys.whole("vocab_size")):
        raise keys.refuse("decoder_vocab_size", targets, "sources and targets have one vocabulary")
    return scale(keys) | {"source_context": keys.whole("max_position_embeddings")}


MARIAN = fairseq_like(
    model_type="marian",
    source="https://arxiv.org/abs/1804.00344",
    keys={"max_position_embeddings": "context"},
    defaults={"max_position_embeddings": 1024, "decoder_start_token_id": 58100},
    features={"norm_place": "sum", "position": "sinusoidal"},
    rules=(Rule("shared.weight", "embed_tokens.weight"),),
    heads={"MarianMTModel": "seq2seq_lm", "MarianModel": "none"},
    ignored={"add_bias_logits": "the tensors tell"},
    only={
        "share_encoder_decoder_embeddings": (True,),
        "normalize_before": (False,),
        "normalize_embedding": (False,),
        "add_final_layer_norm": (False,),
        "static_position_embeddings": (True,),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    },
    read=read,
    write=write_scale,
    skipped={"embed_positions.weight": "computed from the config"},
    copies=COPIES,
    by_tensors={"logit_bias": has_bias},
)
