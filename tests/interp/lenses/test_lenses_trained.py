"""B13: on a model that was trained, a tuned lens comes nearer to the output with every layer, and beats the logit lens.

The control is a copy that was not trained: its layers say nothing of the next token, whatever the lens.
"""

import argparse
import statistics
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from cutaway.interp.lenses import fit_jacobian_lens, lens_distance, train_tuned_lens
from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.tokenizers import train_tokenizer

LENGTH, LAYERS = 48, 4


def text() -> str:
    """Python and English prose that Python brings along."""
    return "\n".join(Path(str(module.__file__)).read_text("utf-8") for module in (argparse, statistics, textwrap))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distance_falls_with_depth_and_training_the_lens_pays(seed: int):
    words = text()
    tokenizer = train_tokenizer([words], "char", 300)
    ids = torch.tensor(tokenizer.encode(words))
    cut = int(0.8 * len(ids))
    torch.manual_seed(seed)
    config = DecoderConfig(tokenizer.vocab_size, context=LENGTH, layers=LAYERS, width=64, heads=4, tied=False)
    network = Decoder(config)
    with torch.no_grad():  # a fresh network writes nothing; the control shall write something
        for name, parameter in network.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                parameter.normal_(0, 0.5 / parameter.shape[-1] ** 0.5)
    control = Model(Decoder(config), tokenizer, "not trained")
    control.network.load_state_dict(network.state_dict())
    optimizer: Any = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
    steps = 400
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        x = ids[torch.randint(cut - LENGTH - 1, (16, 1)) + torch.arange(LENGTH + 1)]
        optimizer.zero_grad()
        cross_entropy(network(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()).backward()
        optimizer.step()

    def pieces(start: int, count: int) -> list[list[int]]:
        return [ids[start + i * LENGTH : start + (i + 1) * LENGTH].tolist() for i in range(count)]

    fitted, held_out = pieces(0, 150), pieces(cut, 30)
    found = {}
    for name, model in (("trained", Model(network.eval(), tokenizer, "trained")), ("control", control)):
        lens = train_tuned_lens(model, fitted, steps=300, batch=256, seed=seed)
        lenses = {"tuned": lens, "jacobian": fit_jacobian_lens(model, fitted[:20], targets="same", seed=seed)}
        found[name] = lens_distance(model, held_out, lenses)
    logit, tuned = ([value or 0 for value in found["trained"].lines[lens]] for lens in ("logit", "tuned"))
    assert all(after < before for before, after in pairwise(tuned))  # KL falls with depth
    assert all(b <= a for a, b in zip(logit, tuned, strict=True))  # at every layer, on texts it has not seen
    assert tuned[0] < 0.7 * logit[0]
    assert tuned[-1] == logit[-1] == 0
    loss, untrained = (found[name].loss["tuned"] for name in ("trained", "control"))
    assert loss[0] - loss[-1] > 0.3  # depth helps to say what comes
    assert abs(untrained[0] - untrained[-1]) < 0.1  # without training it does not
    assert min(untrained) > loss[0] + 0.5
