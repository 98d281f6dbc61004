"""The objectives of summaries: choosing stretches by a listwise loss, and completing prompts."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cutaway.errors import ConfigError, InputError
from cutaway.models import Decoder, DecoderConfig, Encoder, EncoderConfig, Seq2Seq, Seq2SeqConfig
from cutaway.tokenizers import train_tokenizer
from cutaway.training import TrainConfig
from cutaway.training.objectives import Choice, Completion, SequenceToSequence
from cutaway.training.objectives.choice import stretch_means
from cutaway.training.rows import Rows, RowStore

TOKENIZER = train_tokenizer(["a cat sat on a mat " * 9], "char", 280)
IDS = [np.arange(5) % 9, np.arange(8)[::-1] % 9, np.arange(3)]


def config(out: Path, objective: object) -> TrainConfig:
    return TrainConfig(data="", out=str(out), objective=objective, context=8, batch=3, steps=1)


def encoder() -> Encoder:
    torch.manual_seed(0)
    size = {"context": 16, "layers": 1, "width": 16, "heads": 2}
    head = {"head": "token_classification", "labels": ("in",), "head_activation": "none"}
    return Encoder(EncoderConfig(TOKENIZER.vocab_size, **size, **head)).eval()  # pyright: ignore[reportArgumentType]


def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(DecoderConfig(TOKENIZER.vocab_size, context=16, layers=1, width=16, heads=2)).eval()


@torch.no_grad()
def test_choosing_is_a_cross_entropy_over_each_texts_stretches(tmp_path):
    stretches = [[(0, 2), (2, 5)], [(1, 4), (4, 6), (6, 8)], [(0, 3)]]
    gain = [[0.1, 0.4], [0.3, 0.2, 0.25], [0.5]]
    parts = {
        "ids": IDS,
        "starts": [np.array([a for a, _ in some]) for some in stretches],
        "ends": [np.array([b for _, b in some]) for some in stretches],
        "gain": [np.array(one, np.float32) for one in gain],
    }
    rows, network, objective = Rows("train", parts, TOKENIZER), encoder(), Choice(10.0)
    piece = objective.pad(rows, np.arange(3), 8)
    loss, count = objective.loss(network, piece, config(tmp_path, objective))
    assert count == 3
    expected, chosen = 0.0, 0.0
    for ids, some, known in zip(IDS, stretches, gain, strict=True):
        logits = network(torch.tensor(ids.copy())[None])[0, :, 0]
        scores = torch.stack([logits[a:b].mean() for a, b in some])
        expected += float(F.cross_entropy(scores[None], (10 * torch.tensor(known)).softmax(0)[None]))
        chosen += known[int(scores.argmax())]
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    score = objective.score(objective.measure(network, piece), rows)
    assert score.loss == pytest.approx(expected / 3, rel=1e-4)
    assert score.figures["gain"] == pytest.approx(chosen / 3, rel=1e-4)


def test_an_empty_stretch_is_zero_and_others_are_means():
    logits = torch.tensor([[1.0, 2.0, 6.0]])
    found = stretch_means(logits, torch.tensor([[0, 1, 2]]), torch.tensor([[3, 3, 2]]))
    assert found.tolist() == [[3.0, 4.0, 0.0]]


@torch.no_grad()
def test_completing_counts_the_target_alone(tmp_path):
    begins = [3, 6, 1]
    rows = Rows("train", {"ids": IDS, "begins": [np.array([one]) for one in begins]}, TOKENIZER)
    network, objective = decoder(), Completion()
    piece = objective.pad(rows, np.arange(3), 8)
    loss, count = objective.loss(network, piece, config(tmp_path, objective))
    assert count == sum(len(ids) - begin for ids, begin in zip(IDS, begins, strict=True))
    expected, alike = 0.0, 0.0
    for ids, begin in zip(IDS, begins, strict=True):
        ids = torch.tensor(ids.copy())
        logits = network(ids[None])[0, begin - 1 : -1]
        expected += float(F.cross_entropy(logits, ids[begin:], reduction="sum"))
        both = Counter(logits.argmax(-1).tolist()) & Counter(ids[begin:].tolist())
        alike += both.total() / len(ids[begin:])
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    score = objective.score(objective.measure(network, piece), rows)
    assert score.loss == pytest.approx(expected / count, rel=1e-4)
    assert score.figures["rouge1"] == pytest.approx(alike / 3, rel=1e-4)


@torch.no_grad()
def test_an_encoder_decoder_completes_what_it_is_given_a_source_for(tmp_path):
    torch.manual_seed(0)
    size: dict[str, Any] = {
        "context": 16,
        "source_context": 16,
        "layers": 1,
        "width": 16,
        "heads": 2,
    }
    network = Seq2Seq(Seq2SeqConfig(TOKENIZER.vocab_size, **size)).eval()
    sources = [IDS[1], IDS[2], IDS[0]]
    both = {"ids": IDS, "begins": [np.zeros(1, np.int64)] * 3, "source": sources}
    objective, other = Completion(), SequenceToSequence()
    piece = objective.pad(Rows("train", both, TOKENIZER), np.arange(3), 8)
    theirs = other.pad(Rows("train", {"source": sources, "target": IDS}, TOKENIZER, reads=["source"]), np.arange(3), 8)
    loss, count = objective.loss(network, piece, config(tmp_path, objective))
    expected, counted = other.loss(network, theirs, config(tmp_path, other))
    assert count == counted == sum(map(len, IDS))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    rows = Rows("train", both, TOKENIZER)
    mine = objective.score(objective.measure(network, piece), rows)
    assert mine.figures["accuracy"] == other.score(other.measure(network, theirs), rows).figures["accuracy"]


def test_rows_without_what_is_needed_are_refused(tmp_path):
    store = RowStore({"train": Rows("train", {"ids": IDS}, TOKENIZER)}, TOKENIZER)
    for objective in (Choice(), Completion()):
        with pytest.raises(InputError, match="needs the parts"):
            objective.check(store, config(tmp_path, objective))
    with pytest.raises(ConfigError, match="sharpness"):
        Choice(0.0)
    with pytest.raises(ConfigError, match="token_classification"):
        Choice().fit(EncoderConfig(60, layers=1, width=16, heads=2))
