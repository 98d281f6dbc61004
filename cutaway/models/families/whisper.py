"""Whisper (Radford et al. 2022): spectrograms through two convolutions; norms before; positions as stored."""

from cutaway.models.families._family import Rule
from cutaway.models.families._seq2seq import fairseq_like

MASKING = [f"mask_{what}_{how}" for what in ("time", "feature") for how in ("prob", "length", "min_masks")]

WHISPER = fairseq_like(
    model_type="whisper",
    source="https://arxiv.org/abs/2212.04356",
    keys={
        "num_mel_bins": "mel_bins",
        "max_source_positions": "source_context",
        "max_target_positions": "context",
    },
    defaults={
        "num_mel_bins": 80,
        "max_source_positions": 1500,
        "max_target_positions": 448,
        "decoder_start_token_id": 50257,
    },
    features={"source": "audio", "norm_place": "before", "position": "learned", "key_bias": False},
    rules=(
        Rule("decoder.embed_tokens.weight", "embed_tokens.weight"),
        Rule("encoder.conv1.*", "encoder.conv1.*"),
        Rule("encoder.conv2.*", "encoder.conv2.*"),
        *(
            Rule(f"{stack}.{theirs}", f"{stack}.{ours}")
            for stack in ("encoder", "decoder")
            for theirs, ours in {"embed_positions.weight": "embed_positions.weight", "layer_norm.*": "norm.*"}.items()
        ),
    ),
    heads={"WhisperForConditionalGeneration": "seq2seq_lm", "WhisperModel": "none"},
    ignored={
        "median_filter_width": "of timestamps out of attention",
        "apply_spec_augment": "of training",
        **dict.fromkeys(MASKING, "of training"),
        "use_weighted_layer_sum": "of a head for classes",
        "classifier_proj_size": "of a head for classes",
        "lang_ids": "of generation",
    },
    only={"scale_embedding": (False,), "is_decoder": (False,), "add_cross_attention": (False,)},
    output="proj_out",
)
