"""What learns from rows of tasks: answers in texts, and contrast. Padding changes nothing; stores are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cutaway.errors import InputError
from cutaway.models import EncoderConfig, build_network
from cutaway.tokenizers import train_tokenizer
from cutaway.training import TrainConfig, train
from cutaway.training.objectives import Contrast, Objective, SpanExtraction
from cutaway.training.ranks import Ranks
from cutaway.training.rows import Rows, RowStore

TOKENIZER = train_tokenizer(["abcd"], "char", 300)


def rows_of(objective: Objective, count: int = 24) -> Rows:
    draw = np.random.default_rng(0)

    def ids() -> list[np.ndarray]:
        return [draw.integers(3, TOKENIZER.vocab_size, draw.integers(4, 12)) for _ in range(count)]

    parts: dict[str, Any] = {"ids": ids()}
    if isinstance(objective, SpanExtraction):
        parts["allowed"] = [np.r_[1, np.ones(len(row) - 1, np.int64)] for row in parts["ids"]]
        parts["spans"] = [np.array([[1, 2]] * (1 + n % 3)) + np.arange(1 + n % 3)[:, None] % 2 for n in range(count)]
    else:
        parts |= {"positive": ids(), "negative": ids(), "groups": list(np.arange(2 * count).reshape(count, 2))}
    return Rows("train", parts, TOKENIZER)


def network_of(objective: Objective) -> torch.nn.Module:
    torch.manual_seed(0)
    features: dict[str, Any] = {"span_extraction": {}, "embedding": {"pooling": "mean"}}
    head = "span_extraction" if isinstance(objective, SpanExtraction) else "embedding"
    config = EncoderConfig(TOKENIZER.vocab_size, context=16, layers=1, width=16, heads=2, head=head, **features[head])
    network = build_network(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return network


@torch.no_grad()
def test_padding_changes_no_answer():
    objective = SpanExtraction()
    rows, network = rows_of(objective), network_of(objective)
    numbers = np.arange(8)
    whole, count = objective.loss(network, objective.pad(rows, numbers, 16), None)  # pyright: ignore[reportArgumentType]
    alone = [objective.loss(network, objective.pad(rows, numbers[n : n + 1], 16), None) for n in range(8)]  # pyright: ignore[reportArgumentType]
    assert count == 8
    assert whole.item() == pytest.approx(sum(loss.item() for loss, _ in alone), rel=1e-5)
    together = objective.measure(network, objective.pad(rows, numbers, 16))
    single = [objective.measure(network, objective.pad(rows, numbers[n : n + 1], 16)) for n in range(8)]
    assert together == pytest.approx(np.sum(single, axis=0).tolist(), rel=1e-5)


def test_padding_changes_no_vector():
    objective = Contrast()
    rows, network = rows_of(objective), network_of(objective)
    piece = objective.pad(rows, np.arange(8), 16)
    vectors = network(piece["ids"], mask=piece["ids_mask"])
    for number, ids in enumerate(rows["ids"][:8]):
        torch.testing.assert_close(network(torch.from_numpy(ids)[None])[0], vectors[number], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("objective", [SpanExtraction(), Contrast(symmetric=False)], ids=["answer", "contrast"])
def test_a_run_learns_its_rows_and_a_batch_follows_from_its_step(objective: Objective, tmp_path: Path):
    rows = rows_of(objective)
    store = RowStore({"train": rows, "valid": rows}, TOKENIZER)
    kind = "span_extraction" if isinstance(objective, SpanExtraction) else "embedding"
    config = TrainConfig(
        data="rows", out=str(tmp_path / "run"), objective=objective, context=16, batch=8, steps=60, eval_every=30,
        dtype="fp32", compile="off", tensorboard="off", baseline=False, threads=1, optimizer="adamw", lr=5e-3,
        network={"kind": "encoder", "layers": 1, "width": 16, "heads": 2, "head": kind},
    )  # fmt: skip
    first, again = (objective.batch(rows, config, Ranks(), 3) for _ in range(2))
    assert first.starts == again.starts
    assert all(torch.equal(first.tensors[name], tensor) for name, tensor in again.tensors.items())
    halves = [objective.batch(rows, config, Ranks(rank, 2), 3) for rank in range(2)]
    assert first.starts == halves[0].starts + halves[1].starts
    run = train(config, store=store)
    losses = [record["loss"] for record in run.history if "loss" in record]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert {*objective.shown, "valid_loss"} <= run.metrics.keys()


@pytest.mark.parametrize("name", ["answer", "contrast"])
def test_a_store_on_disk_is_refused_with_the_way_to_go(name: str, tiny: Any):
    with pytest.raises(InputError, match="cutaway task train"):
        train(tiny(objective=name))
