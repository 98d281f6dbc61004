"""What suits fresh weights: the user's own values stay, the rest follows from the data, each with its reason."""

import pytest
import torch

from cutaway.errors import ConfigError
from cutaway.models import DecoderConfig, EncoderConfig, RecurrentConfig, Seq2SeqConfig
from cutaway.tasks import TaskConfig
from cutaway.tasks.fresh import suited
from cutaway.tasks.start import from_scratch
from cutaway.tasks.task import Example

LABELS = ("bad", "good")


def examples(count: int, text: str = "a film of some length that is neither good nor bad"):
    return [Example(f"f:{i}", {"text": f"{text} {i}"}, (LABELS[i % 2],)) for i in range(count)]


def config(**more) -> TaskConfig:
    return TaskConfig("classify", "data.csv", "model", **more)


def test_all_that_is_open_is_decided_and_told():
    made, notes = suited(config(), examples(6000))
    assert (made.kind, made.size, made.optimizer, made.tokenizer) == ("gru", 1, "adamw", "bpe")
    assert None not in (made.epochs, made.lr, made.dropout, made.word_dropout, made.average)
    assert {note.split()[0].rstrip(":,") for note in notes} == {"kind", "size", "dropout", "epochs", "tokenizer"}
    assert suited(made, examples(6000))[0] == made


def test_what_the_user_decides_stays():
    given = {"size": 3, "dropout": 0.0, "word_dropout": 0.0, "average": 0.0, "epochs": 2.0, "vocab_size": 300}
    made, notes = suited(config(**given, tokenizer="char"), examples(6000))
    assert {name: getattr(made, name) for name in given} == given
    assert made.tokenizer == "char"
    assert not any(note.startswith(("epochs", "tokenizer")) for note in notes)
    assert suited(config(optimizer="muon"), examples(600))[0].lr is None  # a rate of AdamW's is none of Muon's
    assert suited(config(minutes=1.0), examples(600))[0].epochs is None


def test_few_texts_are_passed_over_more_often_and_have_fewer_tokens():
    few, many = (suited(config(), examples(count))[0] for count in (500, 30_000))
    assert (few.epochs or 0) > (many.epochs or 0)
    assert few.vocab_size < many.vocab_size


def test_of_chinese_the_reason_says_so():
    _, notes = suited(config(), examples(600, "房间很大，服务很好"))
    assert any("phrases of Chinese" in note for note in notes)


def test_a_checkpoint_and_other_tasks_keep_the_usual_values():
    made, notes = suited(config(start="a/model"), examples(600))
    assert (made.dropout, made.word_dropout, made.average, notes) == (0.1, 0.0, 0.0, [])
    tagger, _ = suited(TaskConfig("tag", "data.jsonl", "model"), examples(600))
    assert (tagger.kind, tagger.size, tagger.dropout, tagger.word_dropout) == ("encoder", 2, 0.1, 0.0)


@pytest.mark.parametrize(
    ("kind", "made"),
    [("gru", RecurrentConfig), ("lstm", RecurrentConfig), ("encoder", EncoderConfig), ("decoder", DecoderConfig)],
)
def test_every_kind_of_network_begins_with_the_tasks_head(kind: str, made: type):
    task, texts = config().task, [example.given["text"] for example in examples(50)]
    model = from_scratch(task, texts, LABELS, kind=kind, size=1, vocab_size=300)
    assert isinstance(model.config, made)
    assert not isinstance(model.config, Seq2SeqConfig)
    assert model.config.head == "sequence_classification"
    assert model.config.labels == LABELS
    if isinstance(model.config, RecurrentConfig):
        assert (model.config.cell, model.config.bidirectional, model.config.pooling) == (kind, True, "max")
    with torch.no_grad():
        assert model.network(model.ids(texts[0])).shape == (1, 2)
    with pytest.raises(ConfigError, match="no_such_field"):
        from_scratch(task, texts, LABELS, kind=kind, vocab_size=300, network={"no_such_field": 1})
