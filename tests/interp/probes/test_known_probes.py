"""A known answer that takes a training: a GRU that has learned to tell odd from even, probed for it, with controls."""

import pytest
import torch
import torch.nn.functional as F

from cutaway.interp import erase, probe
from cutaway.interp.probes import untrained_copy
from cutaway.models import Model, Recurrent, RecurrentConfig
from cutaway.tokenizers import Tokenizer

KINDS, EVEN = 40, 40  # of tokens, the first half of which flips the state; and the token that says "even"
LENGTH = 12


def texts_and_states(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens, and whether an odd number of the flipping ones has come so far."""
    ids = torch.randint(KINDS, (count, LENGTH), generator=torch.Generator().manual_seed(seed))
    return ids, (ids < KINDS // 2).long().cumsum(1) % 2


def trained(tokenizer: Tokenizer, seed: int) -> tuple[Model, float]:
    """A GRU that says after every token whether flipping tokens came even or odd times, and how often it is right."""
    torch.manual_seed(seed)
    network = Recurrent(RecurrentConfig(KINDS + 2, layers=1, width=12, hidden=16))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(900):
        ids, states = texts_and_states(64, 1000 * seed + step)
        length = min(LENGTH, 1 + step // 60)  # short texts first
        loss = F.cross_entropy(network(ids[:, :length]).flatten(0, 1)[:, EVEN:], states[:, :length].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    ids, states = texts_and_states(200, 999_999)
    with torch.no_grad():
        right = float((network(ids)[..., EVEN:].argmax(-1) == states).float().mean())
    return Model(network.eval(), tokenizer, "a counter"), right


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_count_is_where_it_was_learned_and_nowhere_else(tokenizer: Tokenizer, seed: int):
    model, right = trained(tokenizer, seed)
    assert right > 0.98
    ids, states = texts_and_states(200, 12345 + seed)
    found = probe(model, ids.tolist(), states.tolist(), names="layers.0.hidden", seed=seed)
    (row,) = found["numbers"].rows
    _, score, _, _, _, control, selectivity, untrained = row
    assert score > 0.95
    assert selectivity > 0.3
    assert control < 0.7
    assert untrained < 0.65  # the untrained copy's own control is as high, so nothing is left above it
    bare = probe(untrained_copy(model, seed=seed), ids.tolist(), states.tolist(), names="layers.0.hidden", seed=seed)
    assert bare.figures["selectivity"] < 0.1
    # erased, it is not even there
    gone = erase(model, ids.tolist(), states.tolist(), "layers.0.hidden", seed=seed)
    assert gone.figures["after"] == pytest.approx(gone.figures["baseline"], abs=0.05)
