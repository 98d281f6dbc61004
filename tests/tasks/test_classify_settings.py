"""What classification can be told: several labels with thresholds, nothing said, out of scope, words, long texts; and
decisions with their reasons."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cutaway.cli import main
from cutaway.errors import ConfigError
from cutaway.tasks import Answer, Example, decide, open_task, task_config, task_from, train_task
from cutaway.tasks.decide import unlikely
from cutaway.tasks.decision import fingerprint
from cutaway.tasks.reading import in_parts
from cutaway.tasks.start import with_head
from cutaway.tasks.trained import write_task

REST = ("the", "film", "was", "a", "story", "with", "music", "and", "actors", "tonight")
MARKS = {"rude": ("idiot", "moron"), "spam": ("prize", "lottery")}


def sentence(draw: random.Random, *words: str) -> str:
    some = [draw.choice(REST) for _ in range(draw.randint(3, 8))]
    for word in words:
        some.insert(draw.randint(0, len(some)), word)
    return " ".join(some)


def several(draw: random.Random, number: int) -> tuple[str, str]:
    """Labels by the words that are there; a quarter has none."""
    labels = [label for label, there in zip(MARKS, (number % 2, number // 2 % 2), strict=True) if there]
    return sentence(draw, *(draw.choice(MARKS[label]) for label in labels)), "|".join(labels) or "fine"


def scoped(draw: random.Random, number: int) -> tuple[str, str]:
    """Two labels, and texts with neither's words."""
    label = ("rude", "spam", "none")[number % 3]
    return sentence(draw, *(draw.choice(MARKS[label]) for _ in range(2) if label in MARKS)), label


def trained(folder: Path, rows: Callable[[random.Random, int], tuple[str, str]], **settings):
    draw = random.Random(0)
    made = [rows(draw, number) for number in range(420)]
    (folder / "data.tsv").write_text(
        "text\tlabel\n" + "".join(f"{text} {number}\t{label}\n" for number, (text, label) in enumerate(made)), "utf-8"
    )
    fresh = {"size": 1, "vocab_size": 400, "epochs": 16, "dropout": 0.0, "threads": 1, "valid": 0.2}
    values = {"task": "classify", "data": str(folder / "data.tsv"), "out": str(folder / "model"), **fresh}
    return train_task(task_config({**values, **settings}))


@pytest.fixture(scope="module")
def moderation(tmp_path_factory: pytest.TempPathFactory):
    task = {"name": "moderation", "nothing": "fine", "reach": 0.9}
    return trained(tmp_path_factory.mktemp("moderation"), several, task=task)


def test_categories_are_said_each_by_itself(moderation):
    assert moderation.model.labels == ("rude", "spam")
    assert moderation.report.figures["accuracy"].value > 0.95
    answers = moderation.model.predict(["a story with idiot and prize", "the film was a story", "actors and moron"])
    assert [answer.answer for answer in answers] == [["rude", "spam"], [], ["rude"]]
    assert set(answers[0].more["thresholds"]) == {"rude", "spam"}


def test_a_decision_names_the_words_that_decided(moderation):
    made = decide(moderation.model, "the film was a moron and a story")
    (ground,) = made.grounds
    assert (ground.category, ground.said, made.answer) == ("rude", True, ["rude"])
    assert ground.words[0][0] == "moron"
    assert 0.5 < ground.words[0][1] <= 1
    assert "“moron”" in made.sentence()
    assert ground.probability is not None
    assert f"{100 * ground.probability:.0f} %" in made.sentence()
    assert "“rude”" in made.sentence("zh")
    with pytest.raises(ConfigError, match="language"):
        made.sentence("fr")


def test_where_nothing_is_said_the_nearest_category_is_told(moderation):
    made = decide(moderation.model, "the film was a story")
    assert made.answer == []
    assert not made.grounds[0].said
    ground = made.grounds[0]
    assert ground.probability is not None
    assert ground.threshold is not None
    assert ground.probability < ground.threshold
    assert made.sentence().startswith("Your text was not marked")


def test_a_record_is_the_same_from_the_folder_and_holds_no_date(moderation):
    text = "an idiot"
    first, second = (decide(model, text).to_json() for model in (moderation.model, open_task(moderation.folder)))
    assert json.dumps(first) == json.dumps(second)
    assert len(first["model"]) == 64


def test_the_fingerprint_is_of_all_that_decides(moderation):
    made = open_task(moderation.folder)
    before = fingerprint(made)
    made.calibration["thresholds"][0] += 0.01
    other = fingerprint(made)
    with torch.no_grad():
        next(made.model.network.parameters()).add_(1e-3)
    assert len({before, other, fingerprint(made)}) == 3


def test_the_words_answer_beside_the_network_and_a_folder_keeps_them(moderation):
    again = open_task(moderation.folder)
    assert again.kept.keys() == moderation.model.kept.keys() != set()
    (raw,) = again.raw([again.example("a moron")])
    assert raw.shape == (2, 2)
    without = again.predict(["a moron"])[0].more["probabilities"]
    again.calibration["weights"] = [again.calibration["weights"][0], 0.0]
    assert again.predict(["a moron"])[0].more["probabilities"] != without


def test_why_is_of_network_and_words_together(moderation):
    text = "a story with prize and music"
    (answer,) = moderation.model.predict([text])
    assert answer.answer == ["spam"]
    found, probability = moderation.model.why(text), answer.more["probabilities"]["spam"]
    assert found.value == pytest.approx(np.log(probability / (1 - probability)), abs=0.05)  # the number that decides
    assert max(zip(found.scores, found.tokens, strict=True))[1].strip() == "prize"


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory):
    task = {"name": "classify", "out_of_scope": "none", "accuracy": 0.99}
    return trained(tmp_path_factory.mktemp("scope"), scoped, task=task)


def test_texts_out_of_scope_are_told(scope):
    answers = scope.model.predict(["film and music tonight was", "a moron and an idiot", "lottery prize the story"])
    assert [answer.answer for answer in answers] == ["none", "rude", "spam"]
    assert sum(answers[0].more["probabilities"].values()) == pytest.approx(1)
    assert scope.report.figures["accuracy"].value > 0.95


def test_why_out_of_scope_rather_than_the_best_label(scope):
    found = scope.model.why("film and music tonight was")
    assert "“none”" in found.target
    assert "minus that of" in found.target


def test_a_label_that_no_example_has_is_said_of_what_is_unlike_them(tmp_path):
    def known(draw: random.Random, number: int) -> tuple[str, str]:
        return scoped(draw, number + number // 2)  # rude and spam in turn

    made = trained(tmp_path, known, task={"name": "classify", "out_of_scope": "strange"}).model
    assert made.labels == ("rude", "spam")
    raw = made.raw([made.example("a moron and an idiot")])[0]
    logits = raw / made.calibration["temperature"]
    limit = made.calibration["scope"]["limit"]
    assert (made.predict(["a moron and an idiot"])[0].answer == "strange") == (-float(logits.max()) > limit)
    assert made.task.answer(torch.zeros(2), Example("", {}), made.labels, made.calibration).answer == "strange"
    assert made.task.answer(torch.tensor([50.0, 0]), Example("", {}), made.labels, made.calibration).answer == "rude"


def test_nothing_is_answered_below_the_probability_that_is_wanted():
    task = task_from({"name": "classify", "several": "no", "abstain": 0.8})
    answer = task.answer(torch.tensor([1.0, 0.0]), Example("", {}), ("a", "b"), {})
    assert answer.answer is None
    assert answer.more["instead_of"] == "a"
    assert answer.probability == pytest.approx(1 / (1 + np.exp(-1)))
    assert task.answer(torch.tensor([2.0, 0.0]), Example("", {}), ("a", "b"), {}).answer == "a"


def test_an_answer_that_was_not_given_is_not_right_and_is_counted():
    one, many = (task_from({"name": "classify", "several": several}) for several in ("no", "yes"))
    answers, examples = [Answer("a"), Answer(None)], [Example("", {}, ("a",)), Example("", {}, ("b",))]
    measured = one.measure(answers, examples, ("a", "b"))
    assert measured.right.tolist() == [1, 0]
    assert measured.tables[-1] == ("Answered", ["share", "accuracy of these"], [[0.5, 1.0]])
    nothing = [Example("", {}, ()), Example("", {}, ())]
    assert many.measure([Answer([]), Answer(None)], nothing, ("a",)).right.tolist() == [1, 0]


def test_the_wanted_accuracy_is_reached_on_validation_data():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 3, generator=draw) * 2
    true = logits.softmax(-1).multinomial(1, generator=draw)[:, 0].tolist()
    labels = ("a", "b", "c")
    examples = [Example("", {"text": "x"}, (labels[number],)) for number in true]
    task = task_from({"name": "classify", "several": "no", "accuracy": 0.9})
    calibration = task.calibrate(list(logits), examples, labels)
    answers = [task.answer(one, example, labels, calibration) for one, example in zip(logits, examples, strict=True)]
    said = [(a.answer, e.truth[0]) for a, e in zip(answers, examples, strict=True) if a.answer is not None]
    assert 50 < len(said) < 500
    assert np.mean([a == b for a, b in said]) >= 0.9


def test_long_texts_are_read_by_their_ends_or_in_windows(scope):
    model, text = scope.model.model, "moron " + "film " * 200 + "prize"
    whole = model.tokenizer.encode(text)
    (ends,), owners = in_parts(model, [text], 32, ends=True)
    assert owners == [0]
    assert list(ends) == [*whole[:16], *whole[-16:]]
    windows, owners = in_parts(model, ["moron", text], 32, ends=False)
    assert owners == [0] + [1] * (len(windows) - 1)
    assert [id for window in windows[1:] for id in window] == list(whole)
    assert max(map(len, windows[1:])) - min(map(len, windows[1:])) <= 1


def test_logits_of_windows_are_averaged(scope):
    task = task_from({"name": "classify", "several": "no", "long": "windows", "window": 16})
    example = scope.model.example("moron " + "film " * 40)
    windows, _ = in_parts(scope.model.model, [example.given["text"]], 16, ends=False)
    each = torch.stack([scope.model.model.logits([window])[0] for window in windows])
    (found,) = task.infer(scope.model.engine, [example])
    assert found.numpy() == pytest.approx(each.mean(0).numpy(), abs=1e-4)


def test_why_of_a_long_text_is_of_the_window_that_speaks_most(scope):
    task = task_from({"name": "classify", "several": "no", "out_of_scope": "none", "long": "windows", "window": 16})
    example = scope.model.example("film " * 40 + "moron idiot " + "story " * 8)
    found = task.why(scope.model.model, example, Answer("rude", 1.0, {"probabilities": {"rude": 1.0}}))
    assert max(zip(found.scores, found.tokens, strict=True))[1].strip() in MARKS["rude"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reach": 1.5}, "reach must be in 0 … 1"),
        ({"abstain": 0.5, "accuracy": 0.9}, "not both"),
        ({"several": "yes", "out_of_scope": "none"}, "out_of_scope is of texts with one label"),
        ({"several": "no", "nothing": "fine"}, "several=yes"),
        ({"window": 2}, "window must be at least 8"),
    ],
)
def test_settings_that_cannot_be_are_told(settings, said):
    with pytest.raises(ConfigError, match=said):
        task_from({"name": "classify", **settings})


def test_texts_out_of_scope_are_no_unknown_labels_and_do_not_choose_the_weights(scope, tmp_path: Path):
    task = task_from({"name": "classify", "several": "no", "out_of_scope": "else"})
    truths = ("rude", "else", "odd", "spam")
    examples = [Example(f"t:{n}", {"text": f"a film {n}"}, (truth,)) for n, truth in enumerate(truths)]
    notes = task.check({"train": [examples[0], examples[3]], "valid": examples}, ("rude", "spam"))
    (strange,) = [note for note in notes if "not learned" in note]
    assert strange.startswith("valid has 1 example of labels")
    assert "'odd'" in strange
    model = with_head(scope.model.model, {"labels": ("rude", "spam")})
    parts, owners = task.encode(model, examples, 16)
    assert owners == [0, 3]
    assert [target.tolist() for target in parts["target"]] == [[0], [1]]


def test_a_label_that_is_less_likely_than_not_is_told_with_its_threshold():
    task = task_from({"name": "classify", "several": "no", "favour": "macro_f1"})
    calibration, labels = {"offsets": [-1.0, 1.5, 0.0]}, ("a", "b", "c")
    logits = torch.tensor([1.0, -0.5, -1.0])
    answer = task.answer(logits, Example("", {}), labels, calibration)
    assert answer.answer == "b"
    ((label, chance, limit),) = unlikely(answer)
    assert (label, chance) == ("b", answer.more["probabilities"]["b"])
    assert 0 < limit < chance < 0.5
    rest = torch.tensor([1.0, -1.0]).softmax(0)
    for probability, said in ((limit + 1e-6, "b"), (limit - 1e-6, "a")):  # of b, all others as likely to each other
        moved = torch.tensor([rest[0] * (1 - probability), probability, rest[1] * (1 - probability)]).log()
        assert task.answer(moved, Example("", {}), labels, calibration).answer == said
    many = Answer(["a", "b"], 0.1, {"probabilities": {"a": 0.9, "b": 0.2}, "thresholds": {"a": 0.5, "b": 0.1}})
    assert unlikely(many) == [("b", 0.2, 0.1)]
    assert unlikely(Answer("a", 0.4, {"probabilities": {"a": 0.4, "b": 0.3, "c": 0.3}})) == []


def test_the_likeliest_in_spite_of_offsets_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = trained(tmp_path, scoped, task={"name": "classify", "several": "no", "favour": "macro_f1"}, epochs=1).model
    made.calibration["offsets"] = [0.0, 0.0, 50.0]
    (tmp_path / "moved").mkdir()
    write_task(made, tmp_path / "moved")
    (tmp_path / "new.csv").write_text("text\na moron and an idiot\n", "utf-8")
    assert main(["task", "predict", str(tmp_path / "moved"), str(tmp_path / "new.csv")]) == 0
    assert re.search(r"spam  \(spam: \d+\.\d%, said from 0\.0% on\)", capsys.readouterr().out)
    decision = decide(made, "a moron and an idiot")
    assert decision.grounds[0].threshold is not None
    assert decision.grounds[0].threshold < 1e-6
    before = fingerprint(made)
    made.model.network.to(torch.bfloat16)
    assert fingerprint(made) != before
