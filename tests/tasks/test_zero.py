"""Labels without training: sums of log-probabilities, and neighbours as scikit-learn finds them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from cutaway.errors import ConfigError
from cutaway.generation.engine import Engine
from cutaway.models import Model, build_network, network_of_size
from cutaway.models.model import write_model
from cutaway.tasks import Answer, Example, TaskModel, open_task, task_config, task_from, train_task
from cutaway.tasks.zero import EMPTY, LEAST, Nearest
from cutaway.tokenizers import train_tokenizer

WORDS = (
    "cat",
    "dog",
    "horse",
    "bird",
    "piano",
    "drum",
    "flute",
    "violin",
    "a",
    "the",
    "plays",
    "sleeps",
    "loud",
    "soft",
)
ANIMALS, MUSIC = WORDS[:4], WORDS[4:8]


def texts(count: int, seed: int) -> tuple[list[str], list[str]]:
    draw = np.random.default_rng(seed)
    made, labels = [], []
    for number in range(count):
        own = (ANIMALS, MUSIC)[number % 2]
        some = [*draw.choice(WORDS[8:], 2), *draw.choice(own, 2)]
        made.append(" ".join(draw.permutation(some)))
        labels.append(("animal", "music")[number % 2])
    return made, labels


def write(path: Path, count: int, seed: int) -> str:
    made, labels = texts(count, seed)
    path.write_text("text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in zip(made, labels, strict=True)), "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small decoder and a small encoder for vectors, both with random weights."""
    tokenizer, folders = train_tokenizer([" ".join(WORDS), *texts(50, 0)[0]], "bpe", 300), {}
    for kind, fields in (("decoder", {}), ("encoder", {"head": "embedding", "pooling": "mean", "normalize": True})):
        torch.manual_seed(0)
        config = network_of_size(kind, 1, tokenizer.vocab_size, context=64, **fields)
        folder = tmp_path_factory.mktemp(kind) / "model"
        folder.mkdir()
        write_model(Model(build_network(config), tokenizer), folder)
        folders[kind] = str(folder)
    return folders


@pytest.fixture(scope="module")
def nearest(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("nearest")
    files = {name: write(folder / f"{name}.tsv", 40, seed) for seed, name in enumerate(("data", "valid", "test"), 1)}
    return train_task(
        task_config({"task": "nearest", **files, "start": models["encoder"], "out": str(folder / "model")})
    )


def test_neighbours_vote_as_scikit_learns_do(nearest):
    made: TaskModel = nearest.model
    vectors = made.kept["vectors"].numpy()
    names = [made.labels[number] for number in made.kept["targets"]]

    task = made.task
    assert isinstance(task, Nearest)

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) * task.sharpness)

    how: Any = weights
    peer = KNeighborsClassifier(task.neighbours, metric="cosine", weights=how).fit(vectors, names)
    examples = [made.example(text) for text in texts(30, 9)[0]]
    asked = torch.stack(task.infer(made.engine or Engine(made.model), examples)).numpy()
    ours = torch.stack(made.raw(examples)).exp().numpy() - LEAST
    assert ours == pytest.approx(peer.predict_proba(asked), abs=1e-4)


def test_means_are_nearest_by_cosine(nearest):
    made: TaskModel = nearest.model
    task = task_from({"name": "nearest", "neighbours": 0, "several": "no"})
    means = np.stack([made.kept["vectors"][made.kept["targets"] == n].mean(0).numpy() for n in range(2)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    examples = [made.example(text) for text in texts(30, 9)[0]]
    vectors = task.infer(made.engine or Engine(made.model), examples)
    said = torch.stack(task.recall(vectors, examples, made.kept)).argmax(1).numpy()
    assert (said == (torch.stack(vectors).numpy() @ means.T).argmax(1)).all()


@pytest.mark.parametrize("taught", [True, False])
def test_why_names_examples_of_the_labels_it_speaks_of(models: dict[str, str], tmp_path: Path, taught: bool):
    own = {"zoo": ANIMALS, "bar": MUSIC, "none": WORDS[10:14]}  # "none" is not the last of the labels
    rows = [(f"{word} {other}", label) for label, some in own.items() for word in some for other in WORDS[8:10]]
    for name, kept in (("data", rows if taught else [row for row in rows if row[1] != "none"]), ("valid", rows)):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in kept), "utf-8")
    files = {name: str(tmp_path / f"{name}.tsv") for name in ("data", "valid")}
    task = {"name": "nearest", "out_of_scope": "none", "neighbours": 2}
    out = str(tmp_path / "model")
    made = train_task(task_config({"task": task, **files, "test": 0.0, "start": models["encoder"], "out": out})).model
    assert made.labels == (("bar", "none", "zoo") if taught else ("bar", "zoo"))
    label_of = dict(rows)
    for text in ("horse a", "flute the", "sleeps the"):
        named = re.findall(r"“(\w+): ([^”]+)”", made.why(text).target)
        assert len(named) == 2
        assert all(label_of[example] == label for label, example in named)


def test_a_folder_keeps_the_examples_and_answers_the_same(nearest):
    again = open_task(nearest.folder)
    asked = texts(10, 5)[0]
    assert [a.to_json() for a in again.predict(asked)] == [a.to_json() for a in nearest.model.predict(asked)]
    assert nearest.report.figures["accuracy"].value > 0.95  # shared words bring even random vectors near


def test_the_reason_names_the_nearest_examples(nearest):
    text = texts(1, 5)[0][0]
    found = nearest.model.why(text)
    assert "animal: " in found.target
    assert "music: " in found.target
    assert max(zip(found.scores, found.tokens, strict=True))[1].strip() in ANIMALS


@pytest.fixture(scope="module")
def score(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("score")
    task = {"name": "score", "prompt": "{text} is", "spoken": {"animal": "a cat sleeps", "music": "loud"}}
    config = {"task": task, "data": write(folder / "data.tsv", 40, 1), "start": models["decoder"]}
    return train_task(task_config({**config, "out": str(folder / "model")})).model


def test_a_label_is_as_likely_as_its_words_after_the_prompt(score):
    model, text = score.model, "the dog plays"

    def likely(text: str) -> torch.Tensor:
        found = []
        for words in (" a cat sleeps", " loud"):
            before, after = model.tokenizer.encode(f"{text} is"), model.tokenizer.encode(words)
            rows = model.logits([[*before, *after]])[0].double().log_softmax(-1)
            found.append(sum(rows[len(before) + n - 1, id] for n, id in enumerate(after)))
        return torch.stack(found).softmax(-1)

    plain = likely(text) / torch.stack([likely(empty) for empty in EMPTY]).mean(0)
    (raw,) = score.raw([score.example(text)])
    assert raw.softmax(-1).numpy() == pytest.approx((plain / plain.sum()).numpy(), abs=1e-5)


def test_its_answers_are_labels_with_probabilities_and_reasons(score):
    (answer,) = score.predict(["the dog plays"])
    assert answer.answer in ("animal", "music")
    assert sum(answer.more["probabilities"].values()) == pytest.approx(1)
    assert "minus that of" in score.why("the dog plays").target


def test_without_a_checkpoint_nothing_can_be_said(tmp_path):
    config = {"task": "score", "data": write(tmp_path / "data.tsv", 20, 1), "out": str(tmp_path / "model")}
    with pytest.raises(ConfigError, match="needs a checkpoint"):
        train_task(task_config(config))
    with pytest.raises(ConfigError, match="where the text stands"):
        task_from({"name": "score", "prompt": "What is this?"})


def test_why_of_a_language_model_is_of_labels_that_it_speaks(models: dict[str, str]):
    from cutaway.models import load_model

    task, model = (
        task_from({"name": "score", "choices": ["cat", "drum"], "out_of_scope": "none"}),
        load_model(models["decoder"]),
    )
    example = Example("", {"text": "a loud flute"})
    chances = {"cat": 0.1, "drum": 0.2, "none": 0.7}
    words = [model.tokenizer.encode(" drum")[0], model.tokenizer.encode(" cat")[0]]
    for said in ("none", "drum"):
        found = task.why(model, example, Answer(said, chances[said], {"probabilities": chances}))
        assert all(repr(model.tokenizer.token(word)).strip("'") in found.target for word in words)
