"""Attention without a softmax learns in context as gradient descent does (von Oswald et al. 2022, arXiv 2212.07677)."""

import pytest
import torch
from by_hand import alphabet, attention_only

from cutaway.interp import replace
from cutaway.interp.attention.parts import heads_of


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_linear_attention_is_one_step_of_gradient_descent(seed: int):
    """Tokens are pairs (x, y), the last one (x, 0); what is written beside its y is the prediction after one step.

    The softmax is undone by putting the scores in the pattern's place.
    """
    dim, count, rate = 5, 20, 0.3
    width = dim + 1
    model = attention_only(alphabet(), 1, width, heads=1, head_dim=width, attention_scale=1.0, context=64)
    heads, place = heads_of(model), torch.zeros(width).double()
    place[dim] = 1
    attends = heads.attention(0)
    with torch.no_grad():
        read_x = torch.eye(width).double()
        read_x[dim, dim] = 0
        attends.q_proj.weight.copy_(read_x)
        attends.k_proj.weight.copy_(read_x)
        attends.v_proj.weight.copy_(torch.diag(place))
        attends.o_proj.weight.copy_(rate / count * torch.eye(width).double())
    torch.manual_seed(seed)
    x = torch.randn(count, dim).double()
    y = x @ torch.randn(dim).double()
    asked = torch.randn(dim).double()
    tokens = torch.cat((torch.cat((x, y[:, None]), 1), torch.cat((asked, torch.zeros(1).double()))[None]))[None]

    weights = torch.zeros(dim, dtype=torch.float64, requires_grad=True)
    ((x @ weights - y).square().sum() / (2 * count)).backward()
    assert weights.grad is not None
    predicted = float(-rate * weights.grad @ asked)
    assert abs(predicted) > 1e-3

    kept: list[torch.Tensor] = []

    def keep(scores: torch.Tensor) -> torch.Tensor:
        kept.append(scores.masked_fill(scores.isinf(), 0.0))
        return scores

    edits = {"embed": tokens, "layers.0.attn.scores": keep, "layers.0.attn.pattern": lambda _: kept[-1]}
    seen = replace(model, torch.zeros(1, count + 1).long(), edits, "layers.0.attn_out")
    assert float(seen["layers.0.attn_out"][0, -1, dim]) == pytest.approx(predicted, abs=1e-6)
    softmaxed = replace(model, torch.zeros(1, count + 1).long(), {"embed": tokens}, "layers.0.attn_out")
    assert (
        abs(float(softmaxed["layers.0.attn_out"][0, -1, dim]) - predicted) > 1e-3
    )  # with a softmax it is another thing
