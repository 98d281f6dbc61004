from __future__ import annotations

import pydoc_data.topics

import pytest

from cutaway.tokenizers import KINDS, Tokenizer, train_tokenizer

CHINESE = "人工智能的语言模型学习预测下一个词。训练数据越多，模型越好。我们打开模型，看看里面有什么。" * 20
MIXED = "naïve café — “quoted” 😀 👩‍👩‍👧 e\u0301 1,234.5 def f(x):\n    return x\n\n\tTab\r\n" * 20


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Real English, and a little of everything else."""
    topics = pydoc_data.topics.topics
    return [topics[name] for name in sorted(topics)[:30]] + [CHINESE, MIXED]


@pytest.fixture(scope="session")
def trained(texts: list[str]) -> dict[str, Tokenizer]:
    """One tokenizer of every kind."""
    return {kind: train_tokenizer(texts, kind, 1500) for kind in KINDS}


@pytest.fixture(params=list(KINDS))
def tokenizer(request: pytest.FixtureRequest, trained: dict[str, Tokenizer]) -> Tokenizer:
    return trained[request.param]
