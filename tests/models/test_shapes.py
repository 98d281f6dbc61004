"""The annotated shapes are checked under tests: a wrong one is caught where it comes in."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from cutaway.generation.sampling import Sampling, distribution
from cutaway.interp import Attention, Receipt
from cutaway.models import DecoderConfig, build_network
from cutaway.models.fused import causal_attention, rms_norm
from cutaway.models.ngram import NGram
from cutaway.tokenizers.order import permute
from cutaway.training.losses import cross_entropy


def test_wrong_shapes_and_dtypes_are_caught():
    network = build_network(DecoderConfig(vocab_size=9, layers=1, width=8, heads=2))
    with pytest.raises(TypeCheckError):
        network(torch.zeros(5, dtype=torch.int64))  # no batch
    with pytest.raises(TypeCheckError):
        network(torch.zeros(1, 5))  # no ids
    with pytest.raises(TypeCheckError):
        network(torch.zeros(1, 5, dtype=torch.int64), mask=torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(TypeCheckError):
        rms_norm(torch.ones(2, 8), torch.ones(7), 1e-6)
    with pytest.raises(TypeCheckError):
        cross_entropy(torch.zeros(2, 3, 9), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(TypeCheckError):
        causal_attention(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 5, 4))
    with pytest.raises(TypeCheckError):
        distribution(torch.zeros(9, dtype=torch.int64), Sampling())


def test_wrong_arrays_are_caught():
    with pytest.raises(TypeCheckError):
        Attention(["a", "b"], torch.ones(2, 2), receipt=Receipt(0.0, 1.0, 0, "float32", ""))  # no layers and heads
    with pytest.raises(TypeCheckError):
        permute(np.arange(4), 4, np.zeros(4, np.uint64))  # signed
    with pytest.raises(TypeCheckError):
        permute(np.arange(4, dtype=np.uint64), 4, np.zeros(3, np.uint64))
    model = NGram.fit(np.array([0, 1, 0, 1, 1]), 2, order=1)
    with pytest.raises(TypeCheckError):
        model.levels[0].mix(np.zeros(2, np.int64), np.zeros(3, np.int64), np.ones(2))
