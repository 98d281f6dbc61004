"""Which source tokens a target token was written from: by the attention to the source, or by taking words away.

Attention is had with every translation. Which layer tells most, and whether a token's row is the one that wrote it or
the one that reads it afterwards, differs from model to model (Garg et al. 2019 train one layer to it; Chen et al. 2020
found the row that reads to be often the better one), so it is chosen by what taking words away says on a few sentences.

Shapes: N parts, L layers, T target tokens, S source tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import InputError
from cutaway.models import ActiveTap, Model, Seq2Seq
from cutaway.training.objectives.base import padded

if TYPE_CHECKING:
    from cutaway.tasks.translate.decode import Part

AT_ONCE = 4096  # tokens that go through the network together
ASKED = 24  # sentences by which the layer is chosen


def attention(model: Model, parts: Sequence[Part]) -> list[Part]:
    """Parts with the attention of each layer to the source, the mean of its heads: (L, T + 1, S).

    The row of a target token is the one that wrote it; the row behind it is the one that has read it.
    """
    network = _network(model)
    layers = network.config.layers
    names = [f"layers.{layer}.cross_attn.pattern" for layer in range(layers)]
    made: list[Part] = []
    for some in _batches(parts):
        seen: dict[str, Tensor] = {}
        tap = ActiveTap(keep=names, sink=lambda name, value, seen=seen: seen.__setitem__(name, value.mean(1).half()))
        ids, source, mask = _inputs(network, [p.source for p in some], [p.target for p in some])
        with torch.no_grad():
            network.stream(ids, source=source, source_mask=mask, tap=tap)
        for row, part in enumerate(some):
            each = [seen[name][row, : len(part.target) + 1, : len(part.source)] for name in names]
            made.append(replace(part, attention=torch.stack(each).cpu().clone()))
    return made


def erasure(model: Model, source: Sequence[int], target: Sequence[int]) -> Float[np.ndarray, "T S"]:
    """How much less likely each target token is without each source token, in nats, (T, S).

    A token is taken away by hiding it from the encoder's other tokens and from the decoder.
    """
    network = _network(model)
    S = len(source)
    ids, read, _ = _inputs(network, [list(source)] * (S + 1), [list(target)] * (S + 1))
    mask = torch.ones(S + 1, S, dtype=torch.bool)
    mask[torch.arange(1, S + 1), torch.arange(S)] = False
    found = []
    step = max(1, AT_ONCE // (S + len(target) + 1))
    wanted = torch.tensor(target)
    with torch.no_grad():
        for start in range(0, S + 1, step):
            part = slice(start, start + step)
            x = network.stream(ids[part], source=read[part], source_mask=mask[part].to(ids.device))
            logits = network.read_out(x[:, :-1]).float().log_softmax(-1)
            found.append(logits[:, torch.arange(len(target)), wanted].cpu())
    logprobs = torch.cat(found).double().numpy()  # (S + 1, T)
    return (logprobs[0] - logprobs[1:]).T


def choose_row(model: Model, parts: Sequence[Part]) -> tuple[int, int]:
    """The layer whose attention agrees best with taking words away, and 0: the row that writes, or 1: that reads.

    Raises:
        InputError: no parts.
    """
    parts = [part for part in parts if len(part.source) > 1 and part.target][:ASKED]
    if not parts:
        raise InputError("an alignment is chosen by sentences of two tokens or more, but there are none")
    network = _network(model)
    scores = np.zeros((network.config.layers, 2))
    for part in attention(model, parts):
        assert part.attention is not None
        owed = erasure(model, part.source, part.target).clip(min=0)
        owed = owed / np.maximum(owed.sum(1, keepdims=True), 1e-9)
        pattern = part.attention.float().numpy()
        for shift in (0, 1):
            scores[:, shift] += (pattern[:, shift : shift + len(part.target)] * owed).sum((1, 2)) / len(part.target)
    layer, shift = np.unravel_index(scores.argmax(), scores.shape)
    return int(layer), int(shift)


def rows_of(part: Part, layer: int, shift: int) -> Float[np.ndarray, "T S"]:
    """A part's alignment: of each target token how much it looks at each source token; rows sum to 1."""
    assert part.attention is not None
    return part.attention[layer, shift : shift + len(part.target)].float().numpy()


def by_words(
    matrix: Float[np.ndarray, "T S"], sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> Float[np.ndarray, "S T"]:
    """An alignment of words, source x target: weights of a source word's tokens add up, target tokens' are averaged.

    Args:
        matrix: of tokens, (T, S).
        sources: of each source word the places of its tokens.
        targets: likewise.
    """
    columns = np.stack([matrix[:, list(places)].sum(1) for places in sources], axis=1)
    return np.stack([columns[list(places)].mean(0) for places in targets], axis=1)


def _network(model: Model) -> Seq2Seq:
    assert isinstance(model.network, Seq2Seq)
    return model.network


def _batches(parts: Sequence[Part]) -> list[list[Part]]:
    made: list[list[Part]] = []
    longest = 0
    for part in parts:
        longest = max(longest, len(part.source) + len(part.target) + 1)
        if not made or longest * (len(made[-1]) + 1) > AT_ONCE:
            made.append([])
            longest = len(part.source) + len(part.target) + 1
        made[-1].append(part)
    return made


def _inputs(network: Seq2Seq, sources: Sequence[list[int]], targets: Sequence[list[int]]) -> tuple[Tensor, ...]:
    """Target ids behind the first token (N, T + 1), source ids (N, S), and which of them are real (N, S)."""
    device = next(network.parameters()).device
    start = network.config.start_id
    ids = padded([np.array([start, *one]) for one in targets], start)
    source = padded([np.array(one) for one in sources], 0)
    mask = torch.arange(source.shape[1]) < torch.tensor([len(one) for one in sources])[:, None]
    return ids.to(device), source.to(device), mask.to(device)
