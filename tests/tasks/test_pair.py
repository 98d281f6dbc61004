"""Pairs of texts on toy data: read together and apart, from fresh weights, with reasons in both texts."""

import random
from pathlib import Path

import pytest

from cutaway.errors import InputError
from cutaway.tasks import Example, TaskConfig, open_task, task_from, train_task

COLOURS = ("red", "green", "blue")
SHADES: dict[str, str] = dict(zip(COLOURS, ("crimson", "olive", "navy"), strict=True))
REST = ("the", "car", "is", "that", "house", "was", "a", "door")


def write_pairs(path: Path, count: int, seed: int = 0) -> Path:
    """Two texts, each with a word of colour: of the same one or not, never the same word."""
    draw = random.Random(seed)
    lines = ["sentence1\tsentence2\tlabel"]
    for number in range(count):
        same = number % 2
        one = draw.choice(COLOURS)
        other = one if same else draw.choice([c for c in COLOURS if c != one])
        texts = []
        for colour in (one, SHADES[other]):
            words: list[str] = list(draw.sample(REST, 3))
            words.insert(draw.randint(0, 3), colour)
            texts.append(" ".join(words))
        lines.append("\t".join([*texts, ("differs", "same")[same]]))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module", params=["together", "apart"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("pair")
    data = str(write_pairs(folder / "pairs.tsv", 500))
    network = {"width": 32, "heads": 2, "layers": 2}
    shape = {"vocab_size": 400, "epochs": 15, "dropout": 0.0, "context": 32, "network": network, "evaluations": 1}
    task = {"name": "pair", "reads": request.param}
    return train_task(TaskConfig(task, data, str(folder / "model"), threads=1, **shape))


def test_it_learns_what_words_alone_do_not_say(trained):
    assert trained.report.figures["accuracy"].value > 0.95
    asked = [{"first": "the car is red", "second": "that door was crimson"},
             {"first": "the car is red", "second": "that door was navy"}]  # fmt: skip
    assert [answer.answer for answer in trained.model.predict(asked)] == ["same", "differs"]


def test_its_folder_opens_and_answers_the_same(trained):
    again = open_task(trained.folder)
    asked = [{"first": "a house is blue", "second": "the car was navy"}]
    assert again.predict(asked)[0].to_json() == trained.model.predict(asked)[0].to_json()


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients", "gradient"])
def test_both_texts_words_are_the_reason_of_the_logit_that_was_predicted(trained, method):
    asked = {"first": "the car is green", "second": "that door was olive"}
    (raw,) = trained.model.raw([trained.model.example(asked)])
    found = trained.model.why(asked, method=method)
    assert found.value == pytest.approx(float(raw[trained.model.labels.index("same")]), abs=1e-4)
    words = [token.strip() for token in found.tokens]
    assert [word for word in words if "<" not in word] == [*asked["first"].split(), *asked["second"].split()]
    if method == "occlusion":
        best = sorted(zip(map(abs, found.scores), words, strict=True))[-2:]
        assert {word for _, word in best} == {"green", "olive"}


def test_swapped_pairs_are_learned_too(trained):
    task = task_from({"name": "pair", "swap": True})
    example = task.example("f:1", {"first": "red", "second": "navy", "label": "differs"}, answered=True)
    parts, owners = task.encode(trained.model.model, [example], 32)
    assert owners == [0, 0]
    one, other = (ids.tolist() for ids in parts["ids"])
    assert one != other
    assert sorted(one) == sorted(other)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"first": "a", "second": "b"}, "the label is missing"),
        ({"first": "a", "second": " ", "label": "x"}, "the second text is empty"),
        ({"first": None, "second": "b", "label": "x"}, "the first text is missing"),
    ],
)
def test_what_is_no_pair_is_told(values, said):
    with pytest.raises(InputError, match=said):
        task_from("pair").example("here", values, answered=True)


def test_pairs_of_unknown_labels_do_not_choose_the_weights(trained):
    model, task = trained.model.model, trained.model.task
    known = model.config.labels[-1]
    examples = [Example(f"t:{n}", {"first": "a", "second": "b"}, (label,)) for n, label in enumerate(("odd", known))]
    parts, owners = task.encode(model, examples, 16)
    assert set(owners) == {1}
    assert {int(target[0]) for target in parts["target"]} == {len(model.config.labels) - 1}
