"""A table of answers: figures, slices and cells are those of the rows they name."""

from typing import Any

import numpy as np
import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.models import EncoderConfig, Model, build_network
from cutaway.tasks import answer_rows
from cutaway.tasks.report import labelling_model
from cutaway.text.rows import rows_of_text
from cutaway.tokenizers import train_tokenizer

LABELS = ("good", "bad", "neither")
TEXTS = ["the cat sat", "on the mat", "a dog", "sat a cat on", "the log", "mat", "cat", "dog on a log"]


def made(**features: Any) -> Model:
    tokenizer = train_tokenizer([" ".join(TEXTS) * 3], "char", 300)
    torch.manual_seed(0)
    head = {"head": "sequence_classification", "labels": LABELS} | features
    network = build_network(EncoderConfig(tokenizer.vocab_size, layers=2, width=24, heads=3, **head)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    return Model(network, tokenizer, "a test")


def table(count: int = 24) -> str:
    rows = (f"{TEXTS[n % 8]} {'sat ' * (n % 5)}\t{LABELS[n % 3]}\t{('web', 'mail')[n % 2]}" for n in range(count))
    return "\n".join(["text\tlabel\tchannel", *rows])


def test_everything_is_counted_from_the_rows():
    model = made()
    found = answer_rows(model, rows_of_text(table()))
    assert found.columns == {"text": "text", "label": "label"}
    for row in found.rows:
        chances = model.logits(row.given["text"])[0].softmax(-1)
        assert row.answer == LABELS[int(chances.argmax())]
        assert row.probability == pytest.approx(float(chances.max()), abs=1e-5)
        assert row.right == float(row.answer == row.truth)
    right = np.array([row.right for row in found.rows])
    assert found.figures["accuracy"] == pytest.approx(right.mean())
    cells = {(truth, said): rows for truth, said, rows in found.cells}
    assert sorted(n for rows in cells.values() for n in rows) == list(range(24))
    for (truth, said), rows in cells.items():
        assert all((found.rows[n].truth, found.rows[n].answer) == (truth, said) for n in rows)
    matrix = found["confusion"]
    for i, truth in enumerate(matrix.rows):
        for j, said in enumerate(matrix.columns):
            assert int(matrix.values[i, j]) == len(cells.get((truth, said), []))
    assert {one.by for one in found.slices} == {"label", "length", "channel"}
    for one in found.slices:
        assert one.figure == pytest.approx(right[one.rows].mean())
        assert one.low <= one.figure <= one.high
        if one.by == "label":
            assert {found.rows[n].truth for n in one.rows} == {one.value}
    compile(found.receipt.code, "receipt", "exec")


def test_rows_without_a_truth_are_answered_and_not_measured():
    model = made()
    rows = [{"text": "the cat"}, {"text": "a dog", "label": "bad"}, {"text": " "}, {"text": "mat", "label": "strange"}]
    found = answer_rows(model, rows)
    assert [row.truth for row in found.rows] == [None, "bad", "strange"]
    assert [row.right is None for row in found.rows] == [True, False, False]
    assert found.rows[2].right == 0.0
    assert any("1 of 3 rows have no truth" in note for note in found.notes)
    assert any("the text is empty" in note for note in found.notes)
    assert any("not taught" in note for note in found.notes)
    alone = answer_rows(model, [{"text": "the cat"}])
    assert (alone.metric, alone.slices, alone.cells, alone.parts) == ("", [], [], {})


def test_several_labels_have_no_confusion():
    model = made(labelling="several")
    rows = [{"text": text, "label": "good|bad" if n % 2 else "neither"} for n, text in enumerate(TEXTS)]
    found = answer_rows(model, rows)
    assert found.cells == []
    assert "confusion" not in found.parts
    assert found.figures.keys() >= {"accuracy", "macro_f1"}


def test_what_cannot_be_answered_says_why():
    with pytest.raises(ConfigError, match="gives texts no labels"):
        labelling_model(made(head="masked_lm", labels=()))
    model = made()
    with pytest.raises(InputError, match=r"1 … 5,000 rows"):
        answer_rows(model, [])
    with pytest.raises(InputError, match="not one row is an example"):
        answer_rows(model, [{"text": ""}])
    with pytest.raises(InputError, match="has the columns"):
        answer_rows(model, [{"one": "a", "two": "b", "three": "c"}])
