"""A model to take gradients through, but none of its weights."""

from __future__ import annotations

import copy

from torch import nn

from cutaway.models import Model

TOKENS_AT_ONCE = 1024  # in one pass: its tensors stay in the processor's cache, and products are large enough


def frozen(model: Model) -> Model:
    """The same model in the same memory, without gradients of its weights and without dropout.

    Autograd then computes and keeps nothing for them, nothing of the user's model changes, and threads do not meet.
    """
    shared: dict[int, object] = {}
    for parameter in model.network.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.network.buffers():
        shared[id(buffer)] = buffer
    for module in model.network.modules():
        if (blocks := module.__dict__.get("blocks")) is not None:  # of weights that are kept quantised
            shared[id(blocks)] = blocks
    network = copy.deepcopy(model.network, shared).eval()
    return Model(network, model.tokenizer, model.source, model.origin, model.mel, model.generation)
