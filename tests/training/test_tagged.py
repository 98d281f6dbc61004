"""The objective for tags: what it counts beside seqeval, what it leaves out, and what it refuses."""

import numpy as np
import pytest
import torch
from seqeval.metrics import accuracy_score, f1_score
from torch import nn

from cutaway.errors import ConfigError, InputError
from cutaway.models import build_network
from cutaway.models.config import EncoderConfig
from cutaway.text.tags import tag_names
from cutaway.tokenizers import train_tokenizer
from cutaway.training import TrainConfig
from cutaway.training.losses import IGNORE
from cutaway.training.objectives import Tagging, objective_from
from cutaway.training.rows import Rows, RowStore

NAMES = tag_names(("a", "b"))


class Said(nn.Module):
    """Says fixed logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, ids: torch.Tensor, **_: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_figures_are_those_of_seqeval_over_the_tokens_that_have_a_tag():
    draw = np.random.default_rng(1)
    targets = torch.from_numpy(draw.integers(0, 5, (30, 11)))
    targets[torch.from_numpy(draw.random((30, 11)) < 0.3)] = IGNORE
    said = torch.where(torch.from_numpy(draw.random((30, 11)) < 0.7), targets.clamp(min=0), 0)
    logits = nn.functional.one_hot(said, 5).float() * 9
    piece = {"ids": torch.zeros(30, 11, dtype=torch.int64), "targets": targets}
    objective = Tagging()
    score = objective.score(objective.measure(Said(logits), piece), None)  # pyright: ignore[reportArgumentType]
    real = [(row != IGNORE).tolist() for row in targets]
    rows = [[[NAMES[tag] for tag, counts in zip(row.tolist(), keep, strict=True) if counts] for row, keep in
             zip(some, real, strict=True)] for some in (targets, said)]  # fmt: skip
    assert score.figures["f1"] == pytest.approx(f1_score(*rows))
    assert score.figures["accuracy"] == pytest.approx(accuracy_score(*rows))
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    assert score.loss == pytest.approx(float(expected), rel=1e-5)
    assert score.tokens == int((targets != IGNORE).sum())


def test_rows_that_do_not_fit_are_refused(tmp_path):
    tokenizer = train_tokenizer(["a b c"], "char", 300)
    parts = {"ids": [np.array([1, 2, 3])], "target": [np.array([0, 1])]}
    store = RowStore({"train": Rows("train", parts, tokenizer, ["f.jsonl:7"])}, tokenizer)
    config = TrainConfig("x", str(tmp_path), objective=Tagging(), context=8, batch=1, steps=1)
    with pytest.raises(InputError, match=r"f\.jsonl:7 has 3 tokens and 2 tags"):
        Tagging().check(store, config)
    with pytest.raises(ConfigError, match="token_classification"):
        Tagging().fit(build_network(EncoderConfig(300, 8, 1, 16, 2)).config)
    assert objective_from("tag") == Tagging()
