"""Erasure against its own definition and against the same optimum reached another way."""

import pytest
import torch
import torch.nn.functional as F

from cutaway.errors import ConfigError, InputError
from cutaway.interp import erase, probe, record_generation, replace
from cutaway.interp.probes import fit_eraser
from cutaway.interp.probes.fit import fit_classes
from cutaway.models import Model


def samples(seed: int, classes: int = 3, rows: int = 900, channels: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated activations whose classes lie apart."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (rows,), generator=generator)
    apart = torch.randn(classes, channels, generator=generator, dtype=torch.float64)
    return torch.randn(rows, channels, generator=generator, dtype=torch.float64) @ mix + apart[y] + 5, y


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_linear_is_left(seed: int):
    x, y = samples(seed)
    eraser = fit_eraser(x, y)
    left = eraser(x)
    one_hot = F.one_hot(y).double()
    assert (((left - left.mean(0)).T @ (one_hot - one_hot.mean(0))) / len(x)).abs().max() < 1e-10
    assert torch.allclose(left.mean(0), x.mean(0), atol=1e-10)
    assert eraser.rank == 2
    assert (eraser(left) - left).abs().max() < 1e-10
    # the best probe there is, on the rows it was trained on, says what the classes' shares say
    logits = fit_classes(left, y, 3, penalty=1e-9)(left).log_softmax(-1)
    shares = torch.bincount(y).double() / len(y)
    assert F.nll_loss(logits, y) == pytest.approx(float(-(shares * shares.log()).sum()), abs=1e-9)
    before = fit_classes(x, y, 3, penalty=1e-9)(x).log_softmax(-1)
    assert F.nll_loss(before, y) < F.nll_loss(logits, y) - 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_change_is_the_smallest_that_does_it(seed: int):
    x, y = samples(seed)
    eraser = fit_eraser(x, y)
    centred, z = x - x.mean(0), F.one_hot(y).double()
    spread, told = centred.T @ centred / len(x), centred.T @ (z - z.mean(0)) / len(x)
    # Lagrange's condition for the least tr(P S Pᵀ) with P D = D: another way to the same projection
    inverse = torch.linalg.inv(spread)
    optimum = told @ torch.linalg.pinv(told.T @ inverse @ told, rtol=1e-9) @ told.T @ inverse
    assert torch.allclose(eraser.projection, optimum, atol=1e-9)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(7, 7, generator=generator, dtype=torch.float64)
    for norm in (torch.eye(7, dtype=torch.float64), inverse, random @ random.T):
        least = torch.trace(norm @ eraser.projection @ spread @ eraser.projection.T)
        for _ in range(20):  # any other map that keeps D, near and far
            other = torch.randn(7, 7, generator=generator, dtype=torch.float64)
            free = torch.eye(7, dtype=torch.float64) - told @ torch.linalg.pinv(told, rtol=1e-9)
            projection = optimum + 0.1 * other @ free
            assert torch.allclose(projection @ told, told, atol=1e-9)
            assert torch.trace(norm @ projection @ spread @ projection.T) > least
        # erasing with an orthogonal projection also works, and moves more
        orthogonal = told @ torch.linalg.pinv(told, rtol=1e-9)
        assert torch.trace(norm @ orthogonal @ spread @ orthogonal.T) > least


def test_numbers_are_erased_and_flat_directions_do_no_harm():
    x, _ = samples(0)
    x = torch.cat((x, x[:, :2] @ torch.ones(2, 1, dtype=torch.float64), torch.ones(len(x), 1)), dim=1)  # of rank 7
    number = x[:, :1] * 2 + torch.randn(len(x), 1, generator=torch.Generator().manual_seed(0))
    eraser = fit_eraser(x, number)
    left = eraser(x)
    assert ((left - left.mean(0)).T @ (number - number.mean(0)) / len(x)).abs().max() < 1e-9
    assert eraser.rank == 1


def test_a_probe_is_at_chance_in_the_edited_run(model: Model):
    draw = torch.Generator().manual_seed(0)
    texts = ["".join("the casinou"[i] for i in torch.randint(10, (12,), generator=draw).tolist()) for _ in range(40)]
    labels = [[token in "aeiou" for token in text] for text in texts]
    names = ["layers.0.resid_post", "layers.2.resid_post"]
    gone = erase(model, texts, labels, names)
    assert [row[0] for row in gone["numbers"].rows] == names
    for row in gone["numbers"].rows:
        assert row[1] > gone.figures["baseline"] + 0.15
        assert row[2] == pytest.approx(gone.figures["baseline"], abs=0.05)
        assert row[3] == 1
        assert 0 < row[4] < 1
    run = replace(model, texts[0], gone.edits)
    plain = replace(model, texts[0], {names[0]: lambda x: x}, names[0])
    assert torch.allclose(run[names[0]], gone.edits[names[0]](plain[names[0]]), atol=1e-6)
    assert run.receipt.difference > 0.01
    assert probe(model, texts, labels, names=names[0], untrained=False).figures["best"] == gone["numbers"].rows[0][1]


def test_erasers_work_while_text_is_generated(model: Model):
    texts = ["the cat", "a cat sat", "cats eat", "he sat there"]
    name = "layers.1.resid_post"
    gone = erase(model, texts, [[t in "aeiou" for t in text] for text in texts], name)
    written = record_generation(model, "the cat", name, edits=gone.edits, max_new_tokens=4, temperature=0)
    plain = record_generation(model, "the cat", name, max_new_tokens=4, temperature=0)
    for step, was in zip(written.over_steps(name)[:1], plain.over_steps(name)[:1], strict=True):
        assert torch.allclose(step, gone.edits[name](was), atol=1e-5)
        assert not torch.allclose(step, was, atol=1e-3)
    for step in written.over_steps(name):  # what is erased stays so
        assert torch.allclose(step, gone.edits[name](step), atol=1e-5)


def test_heads_are_erased_side_by_side(model: Model):
    texts = ["the cat", "a cat sat", "cats eat", "he sat there"]
    gone = erase(model, texts, [[t in "aeiou" for t in text] for text in texts], "layers.1.attn.z")
    run = replace(model, "the cat", gone.edits)
    assert run["layers.1.attn.z"].shape == (1, 4, 7, 8)


def test_what_an_eraser_refuses(model: Model):
    x, y = samples(0)
    with pytest.raises(InputError, match="900 rows with 899 labels"):
        fit_eraser(x, y[1:])
    with pytest.raises(ConfigError, match="fitted on 7 channels, but 8 came"):
        fit_eraser(x, y)(torch.zeros(2, 8))
    with pytest.raises(InputError, match="as many labels"):
        erase(model, ["the", "cat"], [1], "embed")
