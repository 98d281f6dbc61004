"""A model of no layers is a table of pairs: it learns a Markov chain, and no more."""

import pytest
import torch

from cutaway.models import Decoder, DecoderConfig


def chain(states: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Transitions (V, V) and how often each state is visited (V,)."""
    draw = torch.Generator().manual_seed(seed)
    transitions = (1.5 * torch.randn(states, states, generator=draw, dtype=torch.float64)).softmax(-1)
    often = torch.linalg.matrix_power(transitions, 200)[0]
    return transitions, often


def walks(
    transitions: torch.Tensor, often: torch.Tensor, rows: int, length: int, draw: torch.Generator
) -> torch.Tensor:
    """(rows, length) states."""
    ids = [torch.multinomial(often, rows, replacement=True, generator=draw)]
    for _ in range(length - 1):
        ids.append(torch.multinomial(transitions[ids[-1]], 1, generator=draw)[:, 0])
    return torch.stack(ids, dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("states", [8, 24, 64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_model_of_no_layers_is_the_chain_it_learned(seed: int, states: int):
    transitions, often = chain(states, seed)
    rate = float(-(often[:, None] * transitions * transitions.log()).sum())
    control = float(-(often * often.log()).sum())  # of one who knows how often each state comes, and no more
    draw = torch.Generator().manual_seed(seed)
    steps = 720 if states == 64 else 400  # a table of 4,096 numbers needs more to be as close
    data = walks(transitions, often, 40 * steps, 512, draw)
    given = {"sampled": data, "shuffled": data.flatten()[torch.randperm(data.numel(), generator=draw)].view_as(data)}
    losses, distances = {}, {}
    for name, ids in given.items():
        torch.manual_seed(seed)
        network = Decoder(DecoderConfig(states, context=512, layers=0, width=64, heads=1, tied=False))
        assert network.tap_names() == ["embed", "final_norm", "logits"]
        optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.03 * (1 - step / steps)
            batch = ids[40 * step : 40 * step + 40]
            logits = network(batch[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            said = network(torch.arange(states)[:, None])[:, 0].double().log_softmax(-1)
        losses[name] = float(-(often[:, None] * transitions * said).sum())
        distances[name] = float((often * (said.exp() - transitions).abs().sum(-1) / 2).sum())
    assert rate <= losses["sampled"] < 1.005 * rate
    assert distances["sampled"] < 0.02
    assert losses["shuffled"] == pytest.approx(control, rel=0.02)
    assert distances["shuffled"] > 0.2
