"""Tagging on toy data: learned from fresh weights, counted as seqeval counts, with exact places in any writing."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from seqeval.metrics import f1_score, precision_score, recall_score

from cutaway.errors import InputError
from cutaway.tasks import TaskConfig, open_task, task_from, train_task
from cutaway.tasks.tag import Tag, _whole_tokens, redacted
from cutaway.tasks.task import Answer
from cutaway.text.tags import read_tags

FIRST, LAST = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo"), ("Kahn", "Lund", "Moss", "Nye")
TOWNS = ("Rome", "Oslo", "Lima", "Bonn", "Kyiv")
REST = ("met", "saw", "in", "the", "old", "friend", "of", "and", "wrote", "to", "about", "a", "house")


def sentence(draw: random.Random) -> tuple[list[str], list[str]]:
    """Words and tags: persons of one or two names, towns, and others."""
    words, tags = [], []
    for _ in range(draw.randint(3, 8)):
        kind = draw.random()
        if kind < 0.25:
            words += [draw.choice(FIRST), draw.choice(LAST)]
            tags += ["B-PER", "I-PER"]
        elif kind < 0.4:
            words.append(draw.choice(TOWNS))
            tags.append("B-LOC")
        words.append(draw.choice(REST))
        tags.append("O")
    return words, tags


def write_sentences(path: Path, count: int = 300, seed: int = 0) -> Path:
    draw = random.Random(seed)
    rows = [dict(zip(("tokens", "tags"), sentence(draw), strict=True)) for _ in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tag")
    data = str(write_sentences(folder / "people.jsonl"))
    network = {"width": 32, "heads": 2, "layers": 2}
    shape = {"vocab_size": 400, "epochs": 8, "dropout": 0.0, "context": 32, "batch": 16, "network": network}
    return train_task(TaskConfig("tag", data, str(folder / "model"), threads=1, evaluations=1, **shape))


def test_it_learns_spans(trained):
    assert trained.report.figures["f1"].value > 0.95
    assert trained.report.baseline["f1"].value > 0.95
    text = "Flo Lund saw Oslo"
    (answer,) = trained.model.predict([text])
    assert [(s["text"], s["label"]) for s in answer.answer] == [("Flo Lund", "PER"), ("Oslo", "LOC")]
    assert all(text[s["start"] : s["end"]] == s["text"] and 0.5 < s["probability"] <= 1 for s in answer.answer)


def test_its_folder_opens_and_answers_the_same(trained):
    again = open_task(trained.folder)
    given = [{"text": ["Ada", "Kahn", "met", "Bo", "Nye", "in", "Lima"]}]
    (one,), (other,) = again.predict(given), trained.model.predict(given)
    assert one.to_json() == other.to_json()
    assert one.more["tags"] == ["B-PER", "I-PER", "O", "B-PER", "I-PER", "O", "B-LOC"]


def test_a_long_document_answers_as_its_parts_do(trained):
    draw = random.Random(5)
    parts = [" ".join(sentence(draw)[0]) for _ in range(60)]
    assert len(trained.model.model.tokenizer.encode(" ".join(parts))) > 10 * trained.model.model.config.context
    (whole,) = trained.model.predict([" ".join(parts)])
    expected, start = [], 0
    for part, answer in zip(parts, trained.model.predict(parts), strict=True):
        expected += [(start + s["start"], start + s["end"], s["label"]) for s in answer.answer]
        start += len(part) + 1
    found = [(s["start"], s["end"], s["label"]) for s in whole.answer]
    assert len(expected) > 60
    assert found == expected


@pytest.mark.parametrize("method", ["occlusion", "gradient"])
def test_a_span_is_owed_to_its_own_words(trained, method):
    text = "the old friend met Flo Lund in Oslo"
    ((bounds, logits),) = trained.model.raw([trained.model.example(text)])
    words = [text[a:b] for a, b in bounds]
    labels = trained.model.model.config.labels
    for part, (word, tag) in enumerate((("Flo", "B-PER"), ("Oslo", "B-LOC"))):
        found = trained.model.why(text, method=method, part=part)
        assert found.value == pytest.approx(float(logits[words.index(word), labels.index(tag)]), abs=1e-4)
    found = trained.model.why(text)
    best = max(zip(found.scores, found.tokens, strict=True))[1].strip()
    assert best in ("Flo", "Lund")
    with pytest.raises(InputError, match="2 spans, so none of them is number 2"):
        trained.model.why(text, part=2)
    assert "minus" in trained.model.why("the old house").target


def test_spans_are_counted_as_seqeval_counts():
    draw = np.random.default_rng(0)
    names = ["O", "B-a", "I-a", "B-b", "I-b"]
    task = task_from("tag")
    true, said = ([draw.choice(names, size=n).tolist() for n in range(1, 60)] for _ in range(2))
    said = [[t if draw.random() < 0.7 else s for t, s in zip(ts, ss, strict=True)]
            for ts, ss in zip(true, said, strict=True)]  # fmt: skip

    def example(tags: list[str]):
        return task.example("here", {"text": [f"w{n}" for n in range(len(tags))], "tags": tags}, answered=True)

    answers = []
    for tags in said:
        spans = [{"start": a, "end": b, "label": label} for a, b, label in example(tags).truth]
        answers.append(Answer(spans))
    measured = task.measure(answers, [example(tags) for tags in true], ("a", "b"))
    values = {quantity.name: quantity.figure().value for quantity in measured.quantities}
    assert values["f1"] == pytest.approx(f1_score(true, said), abs=1e-12)
    assert values["precision"] == pytest.approx(precision_score(true, said), abs=1e-12)
    assert values["recall"] == pytest.approx(recall_score(true, said), abs=1e-12)


TEXTS = [
    "Zoë met 👩‍👩‍👧 and e\u0301lan in 北京市。",
    "我叫王小明，住在上海。",
    "🏳️‍🌈👍🏽 Ünïcödé\u00a0नमस्ते สวัสดี\u200bx",
    "a\u0301\u0302b c1_d-e's 3.5%",
]


@pytest.mark.parametrize("text", TEXTS)
def test_places_are_exact_in_any_writing(trained, text):
    """Every word made a span by force comes back verbatim, at its place."""
    task, example = trained.model.task, trained.model.example(text)
    ((bounds, logits),) = trained.model.raw([example])
    forced = torch.full_like(logits, -9.0)
    forced[:, 1] = 9.0
    answer = task.answer((bounds, forced), example, trained.model.labels, {})
    assert [(s["start"], s["end"]) for s in answer.answer] == bounds
    assert all(text[s["start"] : s["end"]] == s["text"] for s in answer.answer)
    assert "".join(text.split()).replace("\u200b", "") == "".join(s["text"] for s in answer.answer).replace(
        "\u200b", ""
    )


def test_spans_of_characters_and_redaction():
    task = task_from({"name": "tag", "redact": True})
    text = "Mail ada@x.org or call Bo."
    example = task.example("here", {"text": text, "tags": [[23, 25, "NAME"], [5, 14, "MAIL"]]}, answered=True)
    assert [text[a:b] for a, b, _ in example.truth] == ["ada@x.org", "Bo"]
    spans = [{"start": a, "end": b, "label": label} for a, b, label in example.truth]
    assert redacted(text, spans) == "Mail [MAIL] or call [NAME]."
    records = [{"start": 23, "end": 25, "type": "NAME"}, {"start": 5, "end": 14, "label": "MAIL"}]
    assert task.example("here", {"text": text, "tags": json.dumps(records)}, answered=True).truth == example.truth
    spaced = task.example("here", {"text": "Ada  went home", "tags": "B-P O O"}, answered=True)
    assert (spaced.given["text"], spaced.truth) == ("Ada went home", ((0, 3, "P"),))


BAD = [
    (["a", "b"], ["O"], r"there must be one tag for each token \(1 tag for 2 tokens\)"),
    ("a b", "O O O", r"one tag for each token \(3 tags for 2 tokens\)"),
    (["a", " "], ["O", "O"], "token 1 must be text that is not empty"),
    ("abc", [[1, 9, "X"]], "not inside the text, which has 3 characters"),
    ("abc", [[0, 2, "X"], [1, 3, "Y"]], "overlap, but a word can be in one span only"),
    ("abc", [[0, 2]], r"must be \[start, end, type\]"),
    (["a"], [[0, 1, "X"]], "the text was given as tokens"),
    (["a"], ["B_X"], "the tag 'B_X' is of no known scheme"),
    (["a"], ["3"], "the tag '3' is of no known scheme"),
    (["a"], ["B-"], "the tag 'B-' is of no known scheme"),
    (["a", "b"], ["B-X", "X"], "of different schemes"),
    (["a"], [3], "tags must be names such as B-PERSON, but 3 was given"),
    ("a", None, "the tags are missing"),
    ("a", "[broken", "look like JSON but are none"),
]


@pytest.mark.parametrize(("text", "tags", "said"), BAD)
def test_what_is_no_example_is_told(text, tags, said):
    with pytest.raises(InputError, match=said):
        task_from("tag").example("here", {"text": text, "tags": tags}, answered=True)


def test_rows_of_another_length_are_set_aside_with_their_line(tmp_path):
    from cutaway.tasks import read_examples

    path = write_sentences(tmp_path / "some.jsonl", 3)
    path.write_text(path.read_text() + '{"tokens": ["a", "b"], "tags": ["O"]}\n', "utf-8")
    examples, aside, _ = read_examples(task_from("tag"), path)
    assert len(examples) == 3
    assert [(one.source, one.kind) for one in aside] == [(f"{path}:4", "there must be one tag for each token")]


def test_other_schemes_are_converted_and_told(tmp_path):
    rows = [
        {"tokens": ["a", "b", "c", "d"], "tags": ["B-X", "E-X", "O", "S-X"]},
        {"tokens": ["a", "b", "c", "e"], "tags": ["I-X", "I-X", "O", "I-X"]},
        {"tokens": ["a", "b", "c", "f"], "tags": ["X", "X", "O", "X"]},
    ]
    task = task_from("tag")
    examples = [task.example(f"f:{n}", {"text": r["tokens"], "tags": r["tags"]}, answered=True)
                for n, r in enumerate(rows)]  # fmt: skip
    assert len({example.truth for example in examples}) == 1
    notes = " ".join(task.check({"train": examples}, task.labels(examples)))
    assert "BIOES" in notes
    assert "IOB1" in notes
    assert "bare types (IO)" in notes
    assert read_tags(["U-X", "B-X", "L-X"])[1] == "BILOU"


def test_stretches_are_widened_to_the_tokens_that_they_touch():
    draw = random.Random(0)
    for _ in range(200):
        edges = sorted(draw.sample(range(60), 2 * draw.randint(1, 9)))
        tokens = list(zip(edges[::2], edges[1::2], strict=True))
        start = draw.choice([place for token in tokens for place in range(*token)])
        end = draw.choice([place + 1 for token in tokens for place in range(*token) if place >= start])
        touched = [token for token in tokens if token[1] > start and token[0] < end]
        assert _whole_tokens(tokens, start, end) == (touched[0][0], touched[-1][1])


def test_a_text_of_many_names_is_redacted_and_its_tokens_found_in_linear_work():
    tokens = ["ab"] * 30_000  # what takes the square of these would take minutes
    task = Tag(redact=True)
    example = task.example("a text", {"text": tokens}, answered=False)
    logits = torch.zeros(len(tokens), 3)
    logits[:, 1] = 9
    answer = task.answer((list(example.given["tokens"]), logits), example, ("PER",), {})
    assert answer.more["redacted"] == " ".join(["[PER]"] * len(tokens))
    assert answer.more["tags"] == ["B-PER"] * len(tokens)
