"""An encoder–decoder that copies or reverses looks at the diagonal, or at the other one."""

import pytest
import torch
from kinds import letters

from cutaway.interp import attention
from cutaway.models import Model, Seq2Seq, Seq2SeqConfig

SIZE, LETTERS = 8, 11


def words(count: int, *, backwards: bool, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sources, what the decoder reads, and what it should say, each (B, SIZE)."""
    source = torch.randint(1, LETTERS + 1, (count, SIZE), generator=draw)
    wanted = source.flip(1) if backwards else source
    return source, torch.cat((torch.zeros(count, 1).long(), wanted[:, :-1]), dim=1), wanted


def fresh(seed: int) -> Seq2Seq:
    torch.manual_seed(seed)
    return Seq2Seq(Seq2SeqConfig(LETTERS + 1, context=16, layers=1, width=64, heads=1, position="learned"))


def trained(seed: int, *, backwards: bool, steps: int = 300) -> tuple[Seq2Seq, float]:
    """One head between the two, and how often it then writes a word right.

    The encoder's own attention is left as it begins, writing nothing: it cannot move letters, so that what stands at a
    place of the source is known from that place alone, and the head has to look there. With it some seeds let the
    encoder turn the word around.
    """
    network = fresh(seed)
    for name, parameter in network.encoder.named_parameters():
        if "o_proj" in name:
            parameter.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.01, betas=(0.9, 0.98))
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * min(1, (step + 1) / 50) * (1 - step / steps)
        source, read, wanted = words(64, backwards=backwards, draw=draw)
        loss = torch.nn.functional.cross_entropy(network(read, source=source).flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    source, read, wanted = words(200, backwards=backwards, draw=draw)
    with torch.no_grad():
        right = network.eval()(read, source=source).argmax(-1) == wanted
    return network, float(right.all(1).float().mean())


def mass(network: Seq2Seq, *, backwards: bool) -> float:
    """How much of the pattern lies on the diagonal, over fresh words."""
    model = Model(network, letters(), "a test")
    source, read, _ = words(20, backwards=backwards, draw=torch.Generator().manual_seed(99))
    found = []
    for one, other in zip(source, read, strict=True):
        pattern = attention(model, other, source=one, part="cross").patterns[0, 0]
        found.append((pattern.flip(-1) if backwards else pattern).diagonal().mean())
    return float(torch.stack(found).mean())


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cross_attention_is_the_diagonal(seed: int, backwards: bool):
    network, right = trained(seed, backwards=backwards)
    assert right > 0.99
    assert mass(network, backwards=backwards) > 0.95
    assert mass(network, backwards=not backwards) < 0.2
    assert mass(fresh(seed), backwards=backwards) < 0.3  # untrained
