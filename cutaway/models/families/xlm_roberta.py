"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa in a hundred languages, and another tokenizer's."""

from cutaway.models.families.roberta import roberta

XLM_ROBERTA = roberta("xlm-roberta", "https://arxiv.org/abs/1911.02116", "XLMRoberta")
