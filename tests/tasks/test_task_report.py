"""The report: figures against scikit-learn, calibration against a plain computation, and what stands in its faces."""

import io
import json
import random
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from saved_page import Page, give_script
from test_classify import write_reviews

from cutaway.cli import main
from cutaway.evaluation.significance import Figure
from cutaway.interp.attribution import Attribution
from cutaway.tasks import (
    Answer,
    Example,
    TaskConfig,
    TaskModel,
    TaskReport,
    evaluate_file,
    open_task,
    read_data,
    task_from,
    train_task,
)
from cutaway.tasks.baseline import linear_probabilities
from cutaway.tasks.calibrate import calibration_curve, calibration_error, temperature_of
from cutaway.tasks.figures import mean_of
from cutaway.tasks.report import Slice, compare_tasks
from cutaway.tasks.report.findings import chances_of, confused, slices_of
from cutaway.tasks.report.measure import differences_p, fingerprint, training_data
from cutaway.tasks.report.noise import confident_errors, suspects_of
from cutaway.tasks.report.report import weakest

LABELS = ("a", "b", "c", "d")


def answered(count: int = 300, seed: int = 0) -> tuple[list[Answer], list[Example]]:
    """Answers of which about 70 % are right, one label each."""
    draw = random.Random(seed)
    answers, examples = [], []
    for number in range(count):
        truth = draw.choice(LABELS[:3])
        said = truth if draw.random() < 0.7 else draw.choice(LABELS)
        more = {"shop": ("north", "south")[number % 3 == 0], "id": number}
        examples.append(Example(f"t.csv:{number + 2}", {"text": "x" * draw.randint(1, 80)}, (truth,), more))
        answers.append(Answer(said, draw.random()))
    return answers, examples


def test_figures_of_one_label_are_those_of_scikit_learn():
    metrics = import_module("sklearn.metrics")
    answers, examples = answered()
    task = task_from({"name": "classify", "several": "no"})
    measured = task.measure(answers, examples, LABELS)
    true, said = [example.truth[0] for example in examples], [answer.answer for answer in answers]
    found = {quantity.name: quantity.figure().value for quantity in measured.quantities}
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, said), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(true, said, average="macro"), abs=1e-12)
    tables = {title: rows for title, _, rows in measured.tables}
    precision, recall, f1, support = metrics.precision_recall_fscore_support(true, said, labels=LABELS, zero_division=0)
    expected = np.stack([precision, recall, f1, support], axis=1)
    assert np.array([row[1:] for row in tables["By label"]]) == pytest.approx(expected, abs=1e-12)
    counts = metrics.confusion_matrix(true, said, labels=LABELS)
    shown = {row[0]: row[1:] for row in tables["Confusion: true label by answer"]}
    assert all(shown.get(label, [0] * 4) == counts[n].tolist() for n, label in enumerate(LABELS))


def test_figures_of_several_labels_are_those_of_scikit_learn():
    metrics = import_module("sklearn.metrics")
    draw = np.random.default_rng(0)
    true, said = draw.random((200, 4)) < 0.3, draw.random((200, 4)) < 0.4
    some = lambda row: tuple(label for label, holds in zip(LABELS, row, strict=True) if holds)  # noqa: E731
    examples = [Example(f"t:{n}", {"text": "x"}, some(row)) for n, row in enumerate(true)]
    answers = [Answer(list(some(row)), 0.5) for row in said]
    measured = task_from({"name": "classify", "several": "yes"}).measure(answers, examples, LABELS)
    found = {quantity.name: quantity.figure().value for quantity in measured.quantities}
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, said), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(true, said, average="macro"), abs=1e-12)


def test_an_interval_is_about_the_binomial_one():
    answers, examples = answered(1000)
    figure = task_from({"name": "classify", "several": "no"}).measure(answers, examples, LABELS).quantities[0].figure()
    wide = 1.96 * (figure.value * (1 - figure.value) / 1000) ** 0.5
    assert figure.low == pytest.approx(figure.value - wide, abs=0.004)
    assert figure.high == pytest.approx(figure.value + wide, abs=0.004)


def test_the_calibration_error_is_what_a_plain_computation_finds():
    calibration = import_module("sklearn.calibration")
    draw = np.random.default_rng(0)
    sure = draw.random(2000) ** 0.3
    right = (draw.random(2000) < sure**2).astype(float)
    expected = 0.0
    for low in range(15):
        inside = [n for n, p in enumerate(sure) if low / 15 <= p < (low + 1) / 15]
        if inside:
            expected += len(inside) / 2000 * abs(np.mean(sure[inside]) - np.mean(right[inside]))
    assert calibration_error(sure, right) == pytest.approx(expected, abs=1e-12)
    often, usual = calibration.calibration_curve(right, sure, n_bins=10)
    curve = calibration_curve(sure, right)
    assert [b for _, b, _ in curve] == pytest.approx(often.tolist(), abs=1e-12)
    assert [a for a, _, _ in curve] == pytest.approx(usual.tolist(), abs=1e-12)
    assert sum(count for *_, count in curve) == 2000


@pytest.mark.parametrize("several", [False, True])
def test_the_temperature_is_the_likeliest(several: bool):
    optimize = import_module("scipy.optimize")
    draw = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(500, 4, generator=draw, dtype=torch.float64)
    if several:
        targets: torch.Tensor = (torch.rand(500, 4, generator=draw) < (logits / 3).sigmoid()).double()
    else:
        targets = torch.multinomial((logits / 3).softmax(-1), 1, generator=draw)[:, 0]

    def loss(t: float) -> float:
        p = (logits / t).sigmoid() if several else (logits / t).softmax(-1)
        chosen = torch.where(targets > 0.5, p, 1 - p) if several else p.gather(1, targets[:, None])
        return -float(chosen.log().sum()) + np.log(t) ** 2 / 2

    best = optimize.minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-9}).x
    assert temperature_of(logits, targets, several=several) == pytest.approx(best, abs=1e-4)
    assert best == pytest.approx(3, rel=0.25)
    certain = temperature_of(100 * torch.eye(4), torch.arange(4)), temperature_of(torch.eye(4), torch.arange(4))
    assert certain[0] == pytest.approx(1)  # what is right and sure stays so
    assert 0.2 < certain[1] < 1


def slow_confident(probabilities: np.ndarray, given: np.ndarray) -> dict[int, int]:
    """Rows off the diagonal of the confident joint, as equation 1 of the paper counts them, that lean away."""
    labels = probabilities.shape[1]
    usual = {j: np.mean([p[j] for p, y in zip(probabilities, given, strict=True) if y == j]) for j in range(labels)}
    found = {}
    for number, (p, y) in enumerate(zip(probabilities, given, strict=True)):
        reached = [j for j in range(labels) if p[j] >= usual[j]]
        if reached and p[best := max(reached, key=lambda j: p[j])] > p[y]:
            found[number] = best
    return found


def test_confident_learning_counts_as_its_paper_does():
    draw = np.random.default_rng(0)
    true = draw.integers(0, 3, 400)
    probabilities = draw.dirichlet((0.4, 0.4, 0.4), 400) * 0.6
    probabilities[np.arange(400), true] += 0.4
    given = true.copy()
    flipped = draw.choice(400, 40, replace=False)
    given[flipped] = (given[flipped] + 1) % 3
    rows, likely = confident_errors(probabilities, given)
    assert dict(zip(rows.tolist(), likely.tolist(), strict=True)) == slow_confident(probabilities, given)
    lead = probabilities[rows, likely] - probabilities[rows, given[rows]]
    assert (np.diff(lead) <= 0).all()


def test_labels_in_doubt_are_named_by_their_lines(tmp_path: Path):
    lines = write_reviews(tmp_path / "r.tsv", 300).read_text().splitlines()
    wrong = [21, 58, 133, 200, 277]  # lines of the file
    for line in wrong:
        text, label = lines[line - 1].split("\t")
        lines[line - 1] = f"{text}\t{'bad' if label == 'good' else 'good'}"
    (tmp_path / "r.tsv").write_text("\n".join(lines) + "\n")
    data = read_data(task_from("classify"), tmp_path / "r.tsv", valid=0.0, test=0.0)
    suspects, count = suspects_of(data.task, data.splits["train"], data.labels)
    named = {int(one.source.rpartition(":")[2]) for one in suspects}
    assert named <= set(wrong)
    assert count == len(named) >= 3  # the others it has learned itself
    assert all(one.probability > one.of_label and one.likely != one.label for one in suspects)


def test_the_baseline_gives_no_chance_to_labels_it_has_not_seen():
    made = linear_probabilities(["a b", "a c", "d e", "d f"], np.array([0, 0, 2, 2]), ["a", "d"])
    assert made.shape == (2, 3)
    assert made.sum(1) == pytest.approx([1, 1])
    assert not made[:, 1].any()
    assert made.argmax(1).tolist() == [0, 2]
    assert linear_probabilities(["a", "b"], np.array([1, 1]), ["c"]).tolist() == [[0, 1]]


def test_slices_are_the_metric_on_their_examples():
    answers, examples = answered()
    task = task_from({"name": "classify", "several": "no"})
    measured = task.measure(answers, examples, LABELS)
    slices = slices_of(task, examples, measured, measured)
    by = {kind: [one for one in slices if one.by == kind] for kind in ("label", "length", "shop", "file", "id")}
    assert not by["file"]  # all are of one
    assert not by["id"]  # each row has its own
    assert {one.value for one in by["shop"]} == {"north", "south"}
    assert [sum(one.examples for one in by[kind]) for kind in ("label", "length", "shop")] == [300] * 3
    south = np.array([example.more["shop"] == "south" for example in examples])
    found = next(one for one in by["shop"] if one.value == "south")
    assert found.figure.value == found.baseline == pytest.approx(measured.right[south].mean())
    assert found.figure.low < found.figure.value < found.figure.high
    lengths = sorted(len(example.given["text"]) for example in examples)
    assert by["length"][0].value == f"1 to {lengths[74]} characters"
    alike = [replace(example, given={"text": "x" * (5, 9)[n % 2]}) for n, example in enumerate(examples)]
    found = [one.value for one in slices_of(task, alike, measured) if one.by == "length"]
    assert found == ["5 characters", "9 characters"]


def test_the_most_frequent_confusion_is_told_with_a_row():
    answers, examples = answered()
    made = confused(answers, examples, LABELS)
    assert made is not None
    true, said, count, share, where = made[2][0]
    pairs = [(e.truth[0], a.answer) for a, e in zip(answers, examples, strict=True)]
    assert pairs.count((true, said)) == count == max(pairs.count(pair) for pair in set(pairs) if pair[0] != pair[1])
    assert share == count / sum(a == true for a, _ in pairs)
    assert pairs[int(where.rpartition(":")[2]) - 2] == (true, said)


def test_two_models_are_compared_on_the_same_rows():
    task = task_from({"name": "classify", "several": "no"})
    answers, examples = answered()
    better = [
        Answer(e.truth[0], 0.9) if n % 4 == 0 else a for n, (a, e) in enumerate(zip(answers, examples, strict=True))
    ]
    first, second = (task.measure(some, examples, LABELS) for some in (better, answers))
    found = compare_tasks(first, second, "other")
    assert found.differences["accuracy"].value == pytest.approx(first.right.mean() - second.right.mean())
    assert found.differences["accuracy"].low > 0
    assert found.p["accuracy"] < 0.01
    assert found.mcnemar is not None
    assert found.mcnemar < 0.01
    assert (found.only_this, found.only_other) == (int((first.right > second.right).sum()), 0)
    same = compare_tasks(first, first, "itself")
    assert same.p["accuracy"] == same.mcnemar == 1.0
    assert same.differences["macro_f1"].high == 0


def test_of_several_labels_each_has_a_probability():
    examples = [Example("t:1", {"text": "x"}, ("a", "b")), Example("t:2", {"text": "y"}, ())]
    answers = [
        Answer(["a"], 0.1, {"probabilities": {"a": 0.9, "b": 0.4}}),
        Answer([], 0.2, {"probabilities": {"a": 0.2, "b": 0.1}}),
    ]
    of, sure, right = chances_of(answers, examples, np.array([0.0, 1.0]))
    assert of == "labels"
    assert sure.tolist() == [0.9, 0.4, 0.2, 0.1]
    assert right.tolist() == [1, 1, 0, 0]


# --- of a model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("report")
    lines = write_reviews(folder / "reviews.tsv", 300).read_text().splitlines()
    lines = [f"{line}\t{('shop', 'north', 'south')[0 if not n else 1 + n % 2]}" for n, line in enumerate(lines)]
    lines[5] = lines[5].replace("good", "").replace("bad", "")  # no label
    (folder / "reviews.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    config = TaskConfig(
        "classify", str(folder / "reviews.tsv"), str(folder / "model"),
        size=1, vocab_size=300, epochs=2, dropout=0.0, threads=1,
    )  # fmt: skip
    return train_task(config)


def test_training_leaves_a_report_a_page_and_a_card(trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    report: TaskReport = trained.report
    plain = json.loads((trained.folder / "report.json").read_text("utf-8"))
    assert plain["version"] == 2
    assert plain["figures"]["accuracy"]["value"] == report.figures["accuracy"].value
    assert {one["by"] for one in plain["slices"]} >= {"label", "length"}
    assert [step for step, _ in plain["course"]["loss"]] == sorted(step for step, _ in plain["course"]["loss"])
    assert plain["calibration"]["after"] <= plain["calibration"]["before"] + 0.05
    page = (trained.folder / "report.html").read_text("utf-8")
    assert "default-src 'none'" in page
    give_script(tmp_path, monkeypatch)
    parts = Page(report.to_html()).parts
    shown = [part["picture"] for part in parts]
    assert shown[0] == "panel"
    assert set(shown) >= {"intervals", "confusion", "reliability", "misses", "curve"}
    confusion, misses = parts[shown.index("confusion")], parts[shown.index("misses")]
    assert sum(map(sum, confusion["counts"])) == report.examples
    assert [row["source"] for row in misses["rows"]] == [miss.source for miss in report.misses]
    why = report.misses[0].why
    assert isinstance(why, Attribution)
    assert misses["rows"][0]["why"]["scores"] == why.scores
    card = (trained.folder / "README.md").read_text("utf-8")
    assert f"{report.figures['accuracy'].value:.3f}" in card
    assert "TF-IDF and logistic regression" in card
    assert "| train | 23" in card
    assert "1 × the label is missing, first at" in card.replace("\\", "")
    assert "cutaway task predict" in card
    assert (trained.folder / "set-aside.jsonl").read_text("utf-8").count("\n") == 1


def test_the_worst_errors_come_first_with_what_they_are_owed_to(trained):
    report: TaskReport = trained.report
    sure = [miss.probability for miss in report.misses if miss.probability is not None]
    assert report.wrong == len(sure) == len(report.misses) > 0
    assert sure == sorted(sure, reverse=True)
    first = report.misses[0]
    assert isinstance(first.why, Attribution)
    assert first.why.receipt is not None
    assert first.why.receipt.milliseconds > 0
    assert "".join(first.why.tokens).replace(" ", "")[:5] == first.given["text"].replace(" ", "")[:5]


def test_a_report_prints_within_its_width_and_commands_no_terminal(trained):
    for width in (60, 100):
        written = io.StringIO()
        Console(file=written, width=width).print(trained.report)
        shown = written.getvalue()
        assert all(len(line) <= width for line in shown.splitlines())
        assert "accuracy" in shown
        assert "calibration error" in shown


def test_a_file_is_measured_beside_the_baseline_and_another_model(
    trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    give_script(tmp_path, monkeypatch)
    test = write_reviews(tmp_path / "new.tsv", 60, seed=5)
    seen = (trained.folder.parent / "reviews.tsv").read_text("utf-8").splitlines()[1:4]
    extra = ["a new film\tfine", "\tgood", *(line.rpartition("\t")[0] for line in seen)]
    test.write_text(test.read_text("utf-8") + "\n".join(extra) + "\n", "utf-8")
    page = tmp_path / "page.html"
    words = ["task", "evaluate", str(trained.folder), str(test), "--compare", str(trained.folder), "--html", str(page)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 64
    assert found["aside"] == [{"source": f"{test}:63", "reason": "the text is empty"}]
    answers = open_task(trained.folder).predict(
        [line.split("\t")[0] for line in test.read_text("utf-8").splitlines()[1:61]]
    )
    right = [a.answer == ("good", "bad")[n % 2] for n, a in enumerate(answers)]
    assert found["figures"]["accuracy"]["value"] >= sum(right) / 64
    assert found["baseline"]["accuracy"]["value"] > 0.9
    assert found["compared"]["p"]["accuracy"] == 1.0
    notes = " ".join(found["notes"])
    assert "labels of 1 row were not taught to the model ('fine'; first at" in notes
    assert "trained on 3 of 64 rows" in notes
    assert "text: column 'text', label: column 'label'" in notes
    shown = Page(page.read_text("utf-8"))
    assert "misses" in shown.pictures
    assert f"The model {trained.folder} on 64 examples" in shown.parts[0]["notes"][0]  # a path keeps its letters
    assert main(words) == 0
    assert "accuracy" in capsys.readouterr().out


def test_without_the_training_data_there_is_no_baseline_and_a_note_says_why(trained, tmp_path: Path):
    test = write_reviews(tmp_path / "new.tsv", 40, seed=6)
    home = trained.folder.parent / "reviews.tsv"
    made, data = open_task(trained.folder), home.read_bytes()
    try:
        home.write_bytes(data + b"an added row\tgood\tnorth\n")
        assert "is not what the model was trained on any more" in " ".join(evaluate_file(made, test, whys=0).notes)
        home.unlink()
        report = evaluate_file(made, test, whys=0)
    finally:
        home.write_bytes(data)
    assert report.baseline is None
    assert "is not there any more" in " ".join(report.notes)
    assert all(miss.why is None for miss in report.misses)


def test_each_figure_has_its_own_p(trained):
    report = trained.report
    assert report.p_values.keys() == report.figures.keys()
    assert report.p == report.p_values[report.metric] == report.to_json()["p"]
    task = task_from({"name": "classify", "several": "no"})
    answers, examples = answered()
    never = [Answer(None if a.answer == "c" else a.answer, 0.5) for a in answers]
    first, second = (task.measure(some, examples, LABELS) for some in (answers, never))
    found = differences_p(first, second)
    assert found == compare_tasks(first, second, "other").p


def test_of_many_slices_the_lowest_is_not_called_weak_by_chance():
    draw, weak = random.Random(0), 0
    whole, slices = Figure(0, 0, 0), list[Slice]()
    for _ in range(40):  # 20 slices that are all like the whole
        right = [[draw.random() < 0.8 for _ in range(20)] for _ in range(20)]
        slices = [
            Slice("shop", str(n), 20, mean_of("accuracy", np.array(some)).figure()) for n, some in enumerate(right)
        ]
        whole = mean_of("accuracy", np.concatenate(right)).figure()
        report = TaskReport("classify", "test", 400, {"accuracy": whole}, slices=tuple(slices))
        weak += weakest(report) is not None
    assert weak <= 4  # of 40, at 2.5 %
    bad = Slice("shop", "bad", 20, mean_of("accuracy", np.arange(20) < 8).figure())
    few = Slice("shop", "few", 5, mean_of("accuracy", np.zeros(5)).figure())
    found = weakest(TaskReport("classify", "test", 400, {"accuracy": whole}, slices=(*slices, bad)))
    assert found is bad
    half = TaskReport("classify", "test", 400, {"accuracy": Figure(0.5, 0.45, 0.55)}, slices=(*slices, few))
    assert weakest(half) is None


def test_parallel_files_are_still_there(trained, tmp_path: Path):
    for name in ("en", "de"):
        (tmp_path / name).write_text(f"a {name}\nb {name}\n", "utf-8")
    made = TaskModel(task_from("translate"), trained.model.model)
    made.about = {"config": {"data": f"en={tmp_path / 'en'},de={tmp_path / 'de'}", "valid": 0.0, "test": 0.0}}
    data, notes = training_data(made)
    assert notes == []
    assert data is not None
    assert len(data.splits["train"]) == 2


def test_other_labels_are_other_training_data(tmp_path: Path):
    task, file = task_from("classify"), write_reviews(tmp_path / "t.tsv", 60)
    found = [fingerprint(read_data(task, file, valid=0, test=0))]
    lines = file.read_text("utf-8").splitlines()
    for changed in ([lines[0], *reversed(lines[1:])], [lines[0], lines[1].rpartition("\t")[0] + "\tfine", *lines[2:]]):
        file.write_text("\n".join(changed) + "\n", "utf-8")
        found.append(fingerprint(read_data(task, file, valid=0, test=0)))
    assert found[0] == found[1] != found[2]
