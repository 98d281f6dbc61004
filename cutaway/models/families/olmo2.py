"""OLMo 2 (Walsh et al. 2025): norms on what attention and MLP write, and on all queries and all keys together."""

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import DEFAULTS, KEYS, RULES, SKIPPED
from cutaway.models.families._family import Family
from cutaway.models.families._heads import other_heads
from cutaway.models.families.llama import read, write

OLMO2 = Family(
    model_type="olmo2",
    source="https://arxiv.org/abs/2501.00656",
    config=DecoderConfig,
    keys={theirs: ours for theirs, ours in KEYS.items() if theirs != "head_dim"},
    defaults=DEFAULTS | {"max_position_embeddings": 2048, "rms_norm_eps": 1e-5},
    features={"norm_place": "after", "qk_norm": True, "qk_norm_joint": True},
    rules=RULES,
    heads={
        "Olmo2ForCausalLM": "causal_lm",
        **other_heads("Olmo2", without=("span_extraction", "token_classification")),
    },
    read=read,
    write=write,
    skipped=SKIPPED,
)
