"""Every family, in a table: a newcomer is one file and a line here."""

from cutaway.models.families._family import Family
from cutaway.models.families.bart import BART
from cutaway.models.families.bert import BERT
from cutaway.models.families.distilbert import DISTILBERT
from cutaway.models.families.electra import ELECTRA
from cutaway.models.families.gemma2 import GEMMA2
from cutaway.models.families.gemma3 import GEMMA3
from cutaway.models.families.gpt2 import GPT2
from cutaway.models.families.gpt_neox import GPT_NEOX
from cutaway.models.families.llama import LLAMA
from cutaway.models.families.marian import MARIAN
from cutaway.models.families.mistral import MISTRAL
from cutaway.models.families.mixtral import MIXTRAL
from cutaway.models.families.modernbert import MODERNBERT
from cutaway.models.families.olmo2 import OLMO2
from cutaway.models.families.phi3 import PHI3
from cutaway.models.families.qwen2 import QWEN2
from cutaway.models.families.qwen3 import QWEN3
from cutaway.models.families.qwen3_moe import QWEN3_MOE
from cutaway.models.families.roberta import ROBERTA
from cutaway.models.families.t5 import T5
from cutaway.models.families.whisper import WHISPER
from cutaway.models.families.xlm_roberta import XLM_ROBERTA

# in the order in which an export looks for one that can express a network
FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        QWEN3,
        LLAMA,
        QWEN2,
        MISTRAL,
        GPT2,
        GPT_NEOX,
        GEMMA2,
        GEMMA3,
        PHI3,
        OLMO2,
        MIXTRAL,
        QWEN3_MOE,
        MODERNBERT,
        BERT,
        ROBERTA,
        XLM_ROBERTA,
        DISTILBERT,
        ELECTRA,
        T5,
        BART,
        MARIAN,
        WHISPER,
    )
}
