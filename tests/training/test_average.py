"""A running mean of the weights against a computation by hand, and texts that lose words while they are learned."""

import numpy as np
import pytest
import torch
from torch import nn

from cutaway.errors import ConfigError, Interrupted
from cutaway.models import DecoderConfig, RecurrentConfig, load_model
from cutaway.tokenizers import train_tokenizer
from cutaway.training import TrainConfig, resume, train
from cutaway.training.objectives import Classification
from cutaway.training.objectives.labelled import shortened
from cutaway.training.optim import Optimizer, OptimizerConfig
from cutaway.training.ranks import Ranks
from cutaway.training.rows import Rows, RowStore

WORDS = train_tokenizer(["a b c d e f g h"] * 9, "word", 300)
LABELS = ("no", "yes")


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_the_average_is_the_mean_with_falling_shares(name: str):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = Optimizer(OptimizerConfig(name, average=0.8), network)
    plain = {key: value.clone() for key, value in network.state_dict().items()}
    mean = dict(plain)
    for step in range(1, 61):
        network(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        keeps = min(0.8, step / (step + 9))
        now = network.state_dict()
        mean = {key: keeps * mean[key] + (1 - keeps) * now[key] for key in mean}
    now = {key: value.clone() for key, value in network.state_dict().items()}
    assert all(float((now[key] - plain[key]).abs().max()) > 0 for key in now)
    optimizer.swap()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, mean[key])
        torch.testing.assert_close(optimizer.state()[f"{key}/average"], now[key], rtol=0, atol=0)
    optimizer.swap()
    assert all(torch.equal(value, now[key]) for key, value in network.state_dict().items())


def store(count: int = 80) -> RowStore:
    """Texts of eight words, of which "a" says yes."""
    draw = np.random.default_rng(0)
    texts = [[*draw.choice(list("bcdefgh"), 5), "ab"[i % 2]] for i in range(count)]
    parts = {
        "ids": [np.array(WORDS.encode(" ".join(text)), np.int64) for text in texts],
        "target": [np.array([(i + 1) % 2]) for i in range(count)],
    }
    splits = {"train": Rows("train", parts, WORDS), "valid": Rows("valid", parts, WORDS)}
    return RowStore(splits, WORDS, labels=LABELS)


def config(out, **more) -> TrainConfig:
    head = {"head": "sequence_classification", "labels": LABELS, "pooling": "max"}
    network = RecurrentConfig(WORDS.vocab_size, 16, width=8, hidden=8, bidirectional=True, dropout=0.2, **head)
    fixed = {"context": 16, "batch": 8, "dtype": "fp32", "compile": "off", "optimizer": "adamw", "lr": 0.02}
    fixed |= {"baseline": False, "tensorboard": "off", "eval_every": 5, "threads": 1}
    fixed |= {"network": network, "steps": 20}
    return TrainConfig("words", str(out), objective="classify", **{**fixed, **more})


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


@pytest.mark.parametrize("keep_best", [False, True])
def test_a_run_ends_with_the_averages_and_its_steps_are_those_without(tmp_path, keep_best: bool):
    plain = train(config(tmp_path / "plain", keep_best=keep_best), store=store())
    averaged = train(config(tmp_path / "averaged", average=0.9, keep_best=keep_best), store=store())
    losses = [[r["loss"] for r in run.history if "loss" in r] for run in (plain, averaged)]
    assert losses[0] == losses[1]
    assert plain.metrics["valid_loss"] != averaged.metrics["valid_loss"]
    ended = weights(averaged.model)
    assert any(not torch.equal(value, weights(plain.model)[name]) for name, value in ended.items())
    opened = load_model(tmp_path / "averaged")
    assert all(torch.equal(value, ended[name]) for name, value in weights(opened).items())


def test_an_averaged_run_that_was_stopped_ends_with_the_same_bits(tmp_path):
    settings = {"average": 0.9, "word_dropout": 0.3, "save_every": 1}
    whole = train(config(tmp_path / "whole", **settings), store=store())

    def stop(progress) -> None:
        if progress.done == 7:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(config(tmp_path / "parts", **settings), store=store(), progress=stop)
    parts = resume(tmp_path / "parts", store=store())
    again = weights(parts.model)
    assert all(torch.equal(value, again[name]) for name, value in weights(whole.model).items())
    once_more = resume(tmp_path / "parts", store=store())  # there is nothing left to do
    assert all(torch.equal(value, again[name]) for name, value in weights(once_more.model).items())


def test_texts_lose_words_but_never_special_tokens_nor_all():
    special = sorted(WORDS.special.values())[0]
    ids = torch.tensor([[special, 5, 6, 7], [8, 9, 0, 0], [4, 5, 6, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]).bool()
    stays = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [1, 0, 1, 1]]).bool()
    piece = {"ids": ids, "mask": mask, "token_types": ids + 1, "targets": torch.arange(3)}
    made = shortened(piece, stays, WORDS)
    assert [row[m].tolist() for row, m in zip(made["ids"], made["mask"], strict=True)] == [[special, 6, 7], [8], [4, 6]]
    assert torch.equal(made["token_types"], made["ids"] + 1)
    assert torch.equal(made["targets"], piece["targets"])


def test_as_many_words_are_left_out_as_was_asked_and_others_at_each_step(tmp_path):
    objective, rows = Classification(), store()["train"]
    dropped = config(tmp_path, word_dropout=0.4)
    batches = [objective.batch(rows, dropped, Ranks(), step) for step in range(50)]
    left = sum(int(batch.tensors["mask"].sum()) for batch in batches) / sum(batch.tokens for batch in batches)
    assert left == pytest.approx(0.6, abs=0.03)
    same = objective.batch(rows, dropped, Ranks(), 3)
    assert all(torch.equal(x, same.tensors[name]) for name, x in batches[3].tensors.items())
    with pytest.raises(ConfigError, match="reads every token"):
        TrainConfig("data", str(tmp_path), word_dropout=0.1)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_decoder_with_a_head_learns_the_toy(tmp_path, pooling: str):
    head = {"head": "sequence_classification", "labels": LABELS, "pooling": pooling}
    network = DecoderConfig(WORDS.vocab_size, 16, layers=1, width=16, heads=2, **head)
    made = train(config(tmp_path, network=network, steps=120, lr=0.01, eval_every=20), store=store())
    assert made.metrics["accuracy"] > 0.95


def test_examples_in_memory_may_have_more_labels_than_a_column_of_numbers_would(tmp_path):
    many = store()
    many.labels = tuple(map(str, range(1500)))
    Classification().check(many, config(tmp_path))
