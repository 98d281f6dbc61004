"""What holds for every task: from a toy table to a model that answers, is measured, is kept, and says why.

A new task needs one entry in TOYS.
"""

import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cutaway.cli import main
from cutaway.interp import Result
from cutaway.models import Model, build_network
from cutaway.models.config import network_of_size
from cutaway.models.model import save_model
from cutaway.tasks import (
    TASKS,
    Answer,
    Example,
    TaskConfig,
    Trained,
    evaluate_file,
    open_task,
    read_examples,
    task_from,
    task_to_dict,
    train_task,
)
from cutaway.tokenizers import train_tokenizer

GOOD, BAD = ("lovely", "splendid", "charming", "superb"), ("dreadful", "awful", "boring", "rotten")
REST = ("the", "film", "was", "a", "story", "with", "music", "and", "actors", "tonight")
FIRST, LAST = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo"), ("Kahn", "Lund", "Moss", "Nye")


@dataclass(frozen=True)
class Toy:
    """A table that a task learns in seconds.

    Attributes:
        row: makes the values of a row.
        bad: values of a row that is set aside.
        perfect: the right answer to an example.
        settings: of the training.
        task: settings of the task.
        count: rows to learn from.
        asked: what a model is asked why about.
        best: what right answers reach.
        slow: whether it takes too long for every run of the tests.
        start: makes the checkpoint that it begins with, where it cannot begin without.
    """

    row: Callable[[random.Random, int], dict[str, Any]]
    bad: dict[str, Any]
    perfect: Callable[[Example], Answer]
    settings: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    count: int = 300
    asked: Callable[[Example], dict[str, Any]] = lambda example: dict(example.given)
    best: float = 1.0
    slow: bool = False
    start: Callable[[Path], str] | None = None


def review(draw: random.Random, number: int) -> dict[str, Any]:
    words = [draw.choice(REST) for _ in range(draw.randint(3, 8))]
    words.insert(draw.randint(0, len(words)), draw.choice((GOOD, BAD)[number % 2]))
    return {"text": f"{' '.join(words)} {draw.randrange(10**6)}", "label": ("good", "bad")[number % 2]}


def people(draw: random.Random, _: int) -> dict[str, Any]:
    words, tags = [str(draw.randrange(10**6))], ["O"]
    for _ in range(draw.randint(2, 5)):
        if draw.random() < 0.4:
            words += [draw.choice(FIRST), draw.choice(LAST)]
            tags += ["B-PER", "I-PER"]
        words.append(draw.choice(REST))
        tags.append("O")
    return {"tokens": words, "tags": tags}


def two(draw: random.Random, number: int) -> dict[str, Any]:
    one, other = draw.randrange(2), number % 2
    texts = [f"{' '.join(draw.choices(REST, k=3))} {draw.choice((GOOD, BAD)[kind])}" for kind in (one, one ^ other)]
    return {"sentence1": f"{draw.randrange(10**6)} {texts[0]}", "sentence2": texts[1], "label": ("same", "not")[other]}


def spans(example: Example) -> Answer:
    text = example.given["text"]
    return Answer([{"start": a, "end": b, "text": text[a:b], "label": label} for a, b, label in example.truth], 1.0)


KINDS = {"colour": ("red", "blue", "white"), "animal": ("horse", "owl", "frog"), "place": ("Paris", "Oslo", "Rome")}


def partners(draw: random.Random, number: int) -> dict[str, Any]:
    topic = (GOOD, BAD, FIRST, LAST)[number % 4]
    code = draw.randrange(10**6)
    texts = [f"{draw.choice(REST)} {draw.choice(topic)} n{number % 40} {code}" for _ in range(2)]
    return {"query": texts[0], "passage": texts[1]}


def vectors(example: Example) -> Answer:
    made = np.random.default_rng(zlib.crc32(example.truth.positive.encode())).normal(size=64)
    vector = (made / np.linalg.norm(made)).tolist()
    return Answer(vector, None, {"positive": vector, "cosine": 1.0})


def question(draw: random.Random, number: int) -> dict[str, Any]:
    kinds = draw.sample(list(KINDS), 2)
    words = [draw.choice(REST) for _ in range(6)]
    for kind in kinds:
        words.insert(draw.randint(0, len(words)), draw.choice(KINDS[kind]))
    asked = draw.choice(list(KINDS))
    found = [word for word in words if word in KINDS[asked]]
    return {"question": f"which {asked} ?", "context": f"{' '.join(words)} . {draw.randrange(10**6)}", "answer": found}


def news(draw: random.Random, _: int) -> dict[str, Any]:
    said = [f"{' '.join(draw.choices(REST, k=4)).capitalize()} {draw.randint(10, 9999)}." for _ in range(4)]
    place = draw.randrange(4)
    said[place] = f"The important {said[place].lower()}"
    return {"text": " ".join(said), "summary": said[place]}


GERMAN = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fuenf", "six": "sechs"}
GERMAN |= {"cat": "Katze", "dog": "Hund"}


def sentence(draw: random.Random, _: int) -> dict[str, Any]:
    words = [draw.choice(list(GERMAN)) for _ in range(draw.randint(4, 5))]  # BLEU counts four words in a row
    return {"source": " ".join(words), "target": " ".join(GERMAN[word] for word in words)}


def decoder(folder: Path) -> str:
    return checkpoint(folder, "decoder")


def encoder(folder: Path) -> str:
    return checkpoint(folder, "encoder", head="embedding", pooling="mean", normalize=True)


def checkpoint(folder: Path, kind: str, **features: Any) -> str:
    """A small network with random weights, to begin with."""
    texts = [review(random.Random(seed), seed)["text"] for seed in range(200)]
    tokenizer = train_tokenizer(texts, "bpe", 400)
    torch.manual_seed(0)
    network = build_network(network_of_size(kind, 1, tokenizer.vocab_size, context=64, **features))
    save_model(Model(network.eval(), tokenizer), folder / "checkpoint")
    return str(folder / "checkpoint")


TOYS = {
    "answer": Toy(
        question,
        {"question": "which ?", "context": "the owl", "answer": "frog"},
        lambda example: Answer(example.truth[0].text if example.truth else None, 1.0),
        {"size": 1, "vocab_size": 500, "epochs": 10, "context": 32},
        count=700,
    ),
    "embed": Toy(
        partners,
        {"query": " ", "passage": "a text"},
        vectors,
        {"size": 1, "vocab_size": 500, "epochs": 6, "context": 32},
        asked=lambda example: {"text": example.given["text"], "positive": example.truth.positive},
    ),
    "nearest": Toy(
        review,
        {"text": " ", "label": "good"},
        lambda example: Answer(example.truth[0], 1.0),
        start=encoder,
    ),
    "score": Toy(
        review,
        {"text": " ", "label": "good"},
        lambda example: Answer(example.truth[0], 1.0),
        start=decoder,
        count=60,
    ),
    "summarise": Toy(
        news,
        {"text": " ", "summary": "It rains."},
        lambda example: Answer(example.truth[0], 1.0),
        {"size": 1, "vocab_size": 300, "epochs": 10},
        {"sentences": 1},
        count=240,
    ),
    "translate": Toy(
        sentence,
        {"source": " ", "target": "eins"},
        lambda example: Answer(example.truth, 1.0),
        {"size": 1, "vocab_size": 320, "context": 24, "network": {"heads": 4, "layers": 2}, "epochs": 18},
        count=1400,
        slow=True,
        best=100.0,
    ),
    "classify": Toy(
        review,
        {"text": " ", "label": "good"},
        lambda example: Answer(example.truth[0], 1.0),
        {"size": 1, "vocab_size": 400, "epochs": 12, "context": 32},
    ),
    "tag": Toy(
        people,
        {"tokens": ["one", "two"], "tags": ["O"]},
        spans,
        {"size": 1, "vocab_size": 600, "epochs": 10, "context": 32, "batch": 16},
    ),
    "pair": Toy(
        two,
        {"sentence1": "a film", "sentence2": " ", "label": "same"},
        lambda example: Answer(example.truth[0], 1.0),
        {"size": 1, "vocab_size": 400, "epochs": 20, "context": 48},
        {"reads": "apart"},
    ),
}  # fmt: skip


def write(toy: Toy, path: Path, count: int, seed: int, *bad: dict[str, Any]) -> Path:
    draw = random.Random(seed)
    rows = [*(toy.row(draw, number) for number in range(count)), *bad]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_every_task_has_a_toy():
    assert set(TASKS) <= set(TOYS)


@dataclass(frozen=True)
class Made:
    toy: Toy
    trained: Trained
    test: Path
    examples: list[Example]

    def asked(self) -> dict[str, Any]:
        """What a model is asked why about."""
        roles = [role.name for role in self.trained.model.task.roles]
        return {name: value for name, value in self.toy.asked(self.examples[0]).items() if name in roles}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * TOYS[name].slow) for name in TASKS if name in TOYS],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    toy, folder = TOYS[request.param], tmp_path_factory.mktemp(request.param)
    data = write(toy, folder / "data.jsonl", toy.count, 0, toy.bad)
    test = write(toy, folder / "test.jsonl", 40, 1, toy.bad)
    settings = {"dropout": 0.0, "threads": 1, "evaluations": 3, **toy.settings}
    if toy.start is not None:
        settings["start"] = toy.start(folder)
    task = {"name": request.param, **toy.task}
    trained = train_task(TaskConfig(task, str(data), str(folder / "model"), **settings))
    return Made(toy, trained, test, read_examples(trained.model.task, test)[0])


def test_it_learns_a_toy_in_seconds(made: Made):
    report = made.trained.report
    assert report is not None
    assert report.metric == made.trained.model.task.metric
    assert report.figures[report.metric].value > 0.95 * made.toy.best or not made.trained.model.task.trained
    assert (
        report.figures[report.metric].low <= report.figures[report.metric].value <= report.figures[report.metric].high
    )
    assert bool(report.baseline) == bool(made.trained.model.task.baseline_name)


def test_answers_keep_the_order_and_do_not_depend_on_their_company(made: Made):
    model = made.trained.model
    long = max(made.examples, key=lambda example: len(str(example.given)))
    together = model.predict([*made.examples[:12], long])
    for example, answer in zip(made.examples[:12], together, strict=False):
        (alone,) = model.predict([example])
        assert _same(alone.to_json(), answer.to_json())
    turned = model.predict([long, *made.examples[11::-1]])
    assert all(_same(a.to_json(), b.to_json()) for a, b in zip(turned[::-1], together, strict=True))
    assert model.predict([]) == []


def _same(first: Any, second: Any) -> bool:
    """The same, but for what rounding in another batch does to numbers."""
    if isinstance(first, float) and isinstance(second, float):
        return first == pytest.approx(second, abs=1e-4)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return first == second


def test_probabilities_are_some_and_answers_are_plain_data(made: Made):
    for answer in made.trained.model.predict(made.examples):
        assert answer.probability is None or 0 <= answer.probability <= 1
        json.dumps(answer.to_json(), allow_nan=False)


def test_without_calibration_it_answers_too(made: Made):
    model = made.trained.model
    raw = model.raw(made.examples[:4])
    for one, example in zip(raw, made.examples, strict=False):
        json.dumps(model.task.answer(one, example, model.labels, {}).to_json(), allow_nan=False)


def test_its_folder_opens_and_answers_the_same(made: Made):
    again = open_task(made.trained.folder)
    assert task_from(task_to_dict(again.task)) == again.task == made.trained.model.task
    assert json.dumps(again.record()) == json.dumps(made.trained.model.record())
    first, second = (model.predict(made.examples) for model in (made.trained.model, again))
    assert [answer.to_json() for answer in first] == [answer.to_json() for answer in second]


def test_a_row_that_is_none_is_set_aside_by_its_line(made: Made):
    (line,) = made.trained.folder.joinpath("set-aside.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["source"].endswith(f"data.jsonl:{made.toy.count + 1}")
    assert len(json.loads(line)["reason"]) > 10
    assert "1 row set aside: 1 × " in " ".join(made.trained.notes)
    assert len(made.examples) == 40


def test_right_answers_are_measured_as_right_and_the_baseline_as_no_better(made: Made):
    task, labels = made.trained.model.task, made.trained.model.labels
    said = [made.toy.perfect(example) for example in made.examples]
    perfect = task.measure(said, made.examples, labels)
    best = made.toy.best
    assert all(quantity.figure().value == pytest.approx(best) for quantity in perfect.quantities)
    assert (perfect.right == 1).all()
    assert perfect.quantities[0].name == task.metric
    others = [replace(one, answer=other.answer) for one, other in zip(said, said[1:] + said[:1], strict=True)]
    assert task.measure(others, made.examples, labels).quantities[0].figure().value < 0.9 * best
    report = made.trained.report
    assert report is not None
    assert report.baseline is None or report.baseline[task.metric].value <= best


def test_every_answer_can_be_asked_why(made: Made):
    found = made.trained.model.why(made.asked())
    assert isinstance(found, Result)
    assert found.receipt.milliseconds > 0
    assert found.receipt.source == made.trained.model.model.source
    compile(found.receipt.code, "receipt", "exec")
    json.dumps(found.to_json(), allow_nan=False)


def test_its_report_has_all_its_faces(made: Made):
    for name in ("report.json", "report.html", "README.md", "task.json"):
        assert (made.trained.folder / name).stat().st_size > 500
    report = evaluate_file(made.trained.model, made.test, compare=open_task(made.trained.folder), whys=1)
    assert report.examples == 40
    assert [one.source.rpartition(":")[2] for one in report.aside] == ["41"]
    assert report.compared is not None
    assert report.compared.p[report.metric] == 1
    assert "<main" in report.to_html()
    json.dumps(report.to_json(), allow_nan=False)
    assert made.trained.model.task.name in made.trained.folder.joinpath("README.md").read_text("utf-8")


def test_its_commands_speak_json(made: Made, capsys: pytest.CaptureFixture[str]):
    folder, test = str(made.trained.folder), str(made.test)
    assert main(["task", "predict", folder, test, "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["source"] for one in answers] == [example.source for example in made.examples]
    assert main(["task", "evaluate", folder, test, "--json"]) == 0
    figure = json.loads(capsys.readouterr().out)["figures"][made.trained.model.task.metric]
    assert figure["value"] > 0.9 * made.toy.best or not made.trained.model.task.trained
    assert main(["task", "why", folder, json.dumps(made.asked()), "--json"]) == 0
    assert "receipt" in json.loads(capsys.readouterr().out)
