"""float32 products by oneDNN are those of torch, of whatever layout, and pass the same gradients."""

import pytest
import torch
import torch.nn.functional as F

from cutaway.models import products
from cutaway.models.fused import joined_linear
from cutaway.models.products import Linear, linear, product


@pytest.fixture(params=[True, False])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways, whichever this processor would take."""
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch comes without oneDNN")
    monkeypatch.setattr(products, "ONEDNN", request.param)
    monkeypatch.setattr(products, "WORTH", 0)  # small ones too
    return request.param


LAYOUTS = {
    "rows": lambda x: x[0],
    "batch": lambda x: x,
    "one text for all rows": lambda x: x[:1].expand(7, -1, -1),
    "every other channel": lambda x: torch.cat((x, x), dim=-1)[..., ::2],
    "turned": lambda x: x.transpose(0, 1),
    "some positions": lambda x: x[:, 2:5],
    "one position": lambda x: x[:, -1:],
    "nothing": lambda x: x[:0],
    "one vector": lambda x: x[0, 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_torchs(way: bool, layout: str, bias: bool):
    torch.manual_seed(0)
    x, weight = LAYOUTS[layout](torch.randn(3, 6, 24)), torch.randn(40, 24)
    shift = torch.randn(40) if bias else None
    torch.testing.assert_close(product(x, weight, shift), F.linear(x, weight, shift), rtol=1e-5, atol=1e-5)
    back = torch.randn(*x.shape[:-1], 40)
    torch.testing.assert_close(product(back, weight.mT), back @ weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("learns", [True, False])
def test_gradients_are_torchs(way: bool, dtype: torch.dtype, learns: bool):
    torch.manual_seed(0)
    layer = Linear(24, 40).to(dtype).requires_grad_(learns)
    x = torch.randn(3, 6, 24, dtype=dtype, requires_grad=True)
    wanted = [x, *layer.parameters()] if learns else [x]
    found = torch.autograd.grad(layer(x).pow(2).sum(), wanted)
    expected = torch.autograd.grad(F.linear(x, layer.weight, layer.bias).pow(2).sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_joined_products_are_the_same_with_and_without_gradients(way: bool):
    torch.manual_seed(0)
    weights = [torch.randn(n, 24, requires_grad=True) for n in (16, 8, 8)]
    x = torch.randn(2, 5, 24, requires_grad=True)
    expected = x @ torch.cat(weights).mT
    torch.testing.assert_close(joined_linear(x, *weights), expected)
    with torch.no_grad():
        torch.testing.assert_close(joined_linear(x, *weights), expected)
    held = [weight.detach() for weight in weights]
    (slope,) = torch.autograd.grad(joined_linear(x, *held).pow(2).sum(), x)
    (truth,) = torch.autograd.grad(expected.pow(2).sum(), x)
    torch.testing.assert_close(slope, truth, rtol=1e-5, atol=1e-4)


def test_what_is_not_finite_stays_so(way: bool):
    x = torch.randn(2, 3, 24)
    x[0, 1, 2] = torch.nan
    x[1, 0, 0] = torch.inf
    made = linear(x, torch.rand(5, 24) + 0.1)
    assert made.isnan().nonzero()[:, :2].unique(dim=0).tolist() == [[0, 1]]
    assert made.isinf().nonzero()[:, :2].unique(dim=0).tolist() == [[1, 0]]


def test_other_things_go_torchs_way(way: bool):
    with torch.device("meta"):
        assert product(torch.randn(2, 24), torch.randn(5, 24)).is_meta
    assert products.REASON
