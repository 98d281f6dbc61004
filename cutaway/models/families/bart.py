"""BART (Lewis et al. 2020): norms on the sums, learned positions that begin at row 2."""

from typing import Any

from cutaway.models.families._family import Keys, Rule
from cutaway.models.families._seq2seq import COPIES, fairseq_like, has_bias, scale, write_scale

STACKS = ("encoder", "decoder")


def read(keys: Keys) -> dict[str, Any]:
    """One number of positions for sources and targets, and the scale of the embedding."""
    return scale(keys) | {"source_context": keys.whole("max_position_embeddings")}


BART = fairseq_like(
    model_type="bart",
    source="https://arxiv.org/abs/1910.13461",
    keys={"max_position_embeddings": "context"},
    defaults={"max_position_embeddings": 1024, "decoder_start_token_id": 2},
    features={"norm_place": "sum", "position": "learned", "position_offset": 2, "embed_norm": True},
    rules=(
        Rule("shared.weight", "embed_tokens.weight"),
        *(Rule(f"{stack}.embed_positions.weight", f"{stack}.embed_positions.weight") for stack in STACKS),
        *(Rule(f"{stack}.layernorm_embedding.*", f"{stack}.embed_norm.*") for stack in STACKS),
    ),
    heads={"BartForConditionalGeneration": "seq2seq_lm", "BartModel": "none"},
    ignored={"add_bias_logits": "the tensors tell"},
    only={
        "normalize_before": (False,),
        "normalize_embedding": (True,),
        "add_final_layer_norm": (False,),
        "static_position_embeddings": (False,),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    },
    read=read,
    write=write_scale,
    skipped={"encoder.version": "of fairseq", "decoder.version": "of fairseq"},
    copies=COPIES,
    by_tensors={"logit_bias": has_bias},
)
