"""Of a table of embeddings only the rows that are read learn, exactly as they would beside all the others."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from cutaway.models import build_network
from cutaway.models.config import DecoderConfig, EncoderConfig
from cutaway.models.sight import Sight
from cutaway.training import TrainConfig
from cutaway.training.objectives import Batch, Classification
from cutaway.training.stepper import ReadRows, Stepper

SIZES = {"vocab_size": 300, "context": 16, "layers": 1, "width": 32, "heads": 2}
HEAD = {"head": "sequence_classification", "labels": ("a", "b", "c"), "pooling": "mean"}


def batches(steps: int, rows: np.ndarray) -> list[Batch]:
    draw = np.random.default_rng(0)
    made = []
    for _ in range(steps):
        ids = torch.from_numpy(draw.choice(rows, size=(6, 9)))
        piece = {"ids": ids, "mask": torch.ones(6, 9, dtype=torch.bool), "targets": ids[:, 0] % 3}
        made.append(Batch(piece, list(range(6)), 6, 54))
    return made


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_rows_that_are_read_learn_as_beside_all_others(dtype: str):
    torch.manual_seed(0)
    config = EncoderConfig(**SIZES, **HEAD)  # pyright: ignore[reportArgumentType]
    whole = build_network(config)
    apart = copy.deepcopy(whole)
    before = whole.embed_tokens.weight.detach().clone()
    rows = np.array([3, 5, 8, 40, 77, 299])
    given: dict[str, Any] = {"optimizer": "adamw", "lr": 0.01, "dtype": dtype, "clip": 0.0}
    run = TrainConfig("", "", objective=Classification(), network=config, **given)
    one, two = Stepper(run, whole), Stepper(run, apart, read=rows)
    assert isinstance(two.worker.embed_tokens, ReadRows)
    assert two.worker.embed_tokens.weight.shape == (6, 32)
    for number, batch in enumerate(batches(5, rows)):
        first, second = (s.step(batch, lr_scale=1.0, seed=number) for s in (one, two))
        assert first.loss == second.loss
        assert first.norm == pytest.approx(second.norm, rel=1e-6)
    for (name, a), b in zip(whole.named_parameters(), apart.parameters(), strict=True):
        assert torch.equal(a, b), name
    others = np.setdiff1d(np.arange(300), rows)
    assert torch.equal(apart.embed_tokens.weight[others], before[others])
    assert not torch.equal(apart.embed_tokens.weight[rows], before[rows])
    # and what was learned is taken up again
    again = copy.deepcopy(apart)
    resumed = Stepper(run, again, read=rows)
    resumed.optimizer.load({name: t.clone() for name, t in two.optimizer.state().items()})
    batch = batches(6, rows)[5]
    for stepper in (two, resumed):
        stepper.step(batch, lr_scale=1.0, seed=9)
    for a, b in zip(apart.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_id_that_was_not_announced_is_an_error_and_never_another_row():
    torch.manual_seed(0)
    table = ReadRows(torch.nn.Embedding(10, 4), torch.tensor([2, 5]))
    with pytest.raises(IndexError):
        table(torch.tensor([[2, 3]]))


def test_a_table_that_is_the_output_matrix_learns_whole():
    config = DecoderConfig(**SIZES, tied=True)  # pyright: ignore[reportArgumentType]
    run = TrainConfig("", "", network=config, optimizer="adamw", dtype="fp32")
    assert not isinstance(Stepper(run, build_network(config), read=np.array([1, 2])).worker.embed_tokens, ReadRows)
    assert dataclasses.replace(config, tied=False).tied is False


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("window", [0, 3])
def test_attention_in_bfloat16_has_torchs_gradients(padded: bool, window: int, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    real = torch.arange(9) < torch.tensor([[9], [5]]) if padded else None
    sight = Sight(0, 9, torch.device("cpu"), real, causal=False)
    wide = [torch.randn(2, 3, 9, 16) for _ in range(3)]
    slope = torch.randn(2, 3, 9, 16)

    def gradients(dtype: torch.dtype) -> list[torch.Tensor]:
        given = [x.to(dtype).requires_grad_() for x in wide]
        q, k, v = given
        made = sight.attend(q, k, v, window)
        return [made.detach(), *torch.autograd.grad(made, given, slope.to(dtype))]

    expected = gradients(torch.float32)
    for most in (1 << 26, 0):  # by hand, and where that would take too much memory
        monkeypatch.setattr("cutaway.models.sight.MOST_SCORES", most)
        for one, other in zip(gradients(torch.bfloat16), expected, strict=True):
            torch.testing.assert_close(one.float(), other, rtol=0.05, atol=0.05)
