"""What training leaves beside the model for people: report.json, report.html, and README.md, the model card.

The card says what Mitchell et al. 2019 ask a model card to say, as far as it is known here.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cutaway import __version__
from cutaway.evaluation.significance import Figure
from cutaway.files import write_atomic, write_json
from cutaway.tasks.data import TaskData
from cutaway.tasks.report.report import TaskReport, calibration_line, p_of, spelled, weakest
from cutaway.tasks.trained import TaskModel

REPORT, PAGE, CARD = "report.json", "report.html", "README.md"
NAMED = ("seed", "batch", "epochs", "minutes", "lr", "optimizer")  # settings that the card tells
MOST_LABELS, CELL = 40, 60  # labels of a table; characters of a cell


def write_report(
    folder: Path, made: TaskModel, data: TaskData, report: TaskReport | None, *, notes: Sequence[str] = ()
) -> None:
    """Write the report and the model card into a model's folder.

    Args:
        folder: that exists.
        made: the model.
        data: what it was made from.
        report: what was measured; None where nothing was held out.
        notes: the choices of the training and their reasons.
    """
    if report is not None:
        write_json(folder / REPORT, report.to_json())
        write_atomic(folder / PAGE, report.to_html())
    write_atomic(folder / CARD, model_card(made, data, report, notes))


def model_card(made: TaskModel, data: TaskData, report: TaskReport | None, notes: Sequence[str] = ()) -> str:
    """The model card, as Markdown."""
    parts = [*_head(made, data), *_figures(made, report), *_labels(report), *_data(data), *_training(made, notes)]
    return "\n".join([*parts, *_limits(data, report), *_use(made), *_versions()]) + "\n"


def _head(made: TaskModel, data: TaskData) -> Iterator[str]:
    config = made.about.get("config", {})
    network = made.model.config
    parameters = sum(parameter.numel() for parameter in made.model.network.parameters())
    start = config.get("start")
    yield f"# {made.task.name}: {made.task.summary}"
    yield ""
    how = {"full": "all weights", "head": "the head alone", "lora": "a LoRA adapter", "dora": "a DoRA adapter"}
    learned = how.get(config.get("how", "full"), config.get("how", ""))
    named = Path(start).name if Path(start).exists() else start  # where it lay here is of no use to who reads the card
    origin = f"begun from `{named}` ({learned} learned)" if start else "trained from fresh weights"
    article = "An" if network.kind[0] in "aeiou" else "A"
    count = len(data.splits["train"])
    yield f"{article} {network.kind} of {parameters:,} parameters, {origin} on {count:,} examples with Cutaway."
    reads = ", ".join(role.what for role in made.task.roles if not role.answer)
    yield f"It reads {reads}" + (f" and knows {len(made.labels)} labels." if made.labels else ".")
    yield ""


def _figures(made: TaskModel, report: TaskReport | None) -> Iterator[str]:
    yield "## How good it is"
    yield ""
    if report is None:
        yield "Nothing was held out, so nothing is known of how good it is. Measure it with:"
        yield "`cutaway task evaluate THIS-FOLDER test.csv`."
        yield ""
        return
    yield f"On {report.examples:,} examples ({report.split}) that it has not learned from:"
    yield ""
    base = report.baseline
    yield "| figure | model |" + (f" {report.baseline_name} | p |" if base else "")
    yield "|---|---|" + ("---|---|" if base else "")
    for name, figure in report.figures.items():
        beside = " | |" if base else ""
        if base and name in base:
            beside = f" {spelled(base[name])} | {p_of(report.p_values[name])} |"
        yield f"| {name.replace('_', ' ')} | {spelled(figure)} |{beside}"
    yield ""
    yield "In brackets: 95 % intervals (bootstrap over examples)."
    if base:
        yield "p is of no difference to the baseline (paired bootstrap, two-sided)."
    for split, figure in made.about.get("over_seeds", {}).items():
        count = len(made.about.get("seeds", ()))
        yield f"Over {count} seeds, {split}: {spelled(Figure(**figure))} on average (Student's t)."
    if report.calibration:
        yield f"Its probabilities: {calibration_line(report.calibration)}."
    yield f"All of it, with the errors and what they are owed to: `{PAGE}`."
    yield ""


def _labels(report: TaskReport | None) -> Iterator[str]:
    found = next((table for table in report.tables if table[0] == "By label"), None) if report else None
    if found is None:
        return
    _, columns, rows = found
    yield "## By label"
    yield ""
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows[:MOST_LABELS]:
        yield f"| {' | '.join(_cell(value) for value in row)} |"
    if len(rows) > MOST_LABELS:
        yield ""
        yield f"({len(rows) - MOST_LABELS} more in `{PAGE}`.)"
    yield ""


def _data(data: TaskData) -> Iterator[str]:
    yield "## Data"
    yield ""
    yield "| split | examples | from |"
    yield "|---|---|---|"
    for name, examples in data.splits.items():
        files = Counter(Path(example.source.rpartition(":")[0]).name for example in examples)
        yield f"| {name} | {len(examples):,} | {_cell(', '.join(files))} |"
    yield ""
    if data.columns:
        yield "Columns: " + ", ".join(f"{role} from `{_cell(column)}`" for role, column in data.columns.items()) + "."
    yield ""
    yield from (f"- {_cell(note, 400)}" for note in data.notes)
    yield ""


def _training(made: TaskModel, notes: Sequence[str]) -> Iterator[str]:
    config, training = made.about.get("config", {}), made.about.get("training", {})
    yield "## Training"
    yield ""
    told = {name: config[name] for name in NAMED if config.get(name)}
    told |= {name: training[name] for name in ("steps", "ended") if name in training}
    yield ", ".join(f"{name} {value}" for name, value in told.items()) + (". " if told else "")
    yield "Every setting stands in `task.json` under about.config, every step in `run/metrics.jsonl`."
    yield ""
    of_data = set(made.about.get("data", {}).get("notes", ()))
    yield from (f"- {_cell(note, 400)}" for note in notes if note not in of_data)
    yield ""


def _limits(data: TaskData, report: TaskReport | None) -> Iterator[str]:
    yield "## Intended use and limits"
    yield ""
    yield "- It is for texts like those it was trained on; on others the figures above do not hold. Measure it first."
    if data.labels:
        yield "- It knows its labels alone, and gives every text one of them or what its settings say."
    yield "- A probability is that of answers like this one; it is no promise about one text."
    if report and (weak := weakest(report)):
        yield f"- It is weakest where {weak.by} is {_cell(weak.value)}: {spelled(weak.figure)}."
    if report and report.suspected:
        yield f"- {report.suspected:,} training examples may have a wrong label (see `{PAGE}`)."
    truths = (e.truth if isinstance(e.truth, tuple) else (e.truth,) for e in data.splits["train"])
    rare = Counter(label for truth in truths for label in truth if isinstance(label, str))
    few = [str(label) for label, count in rare.items() if count < 10 and label in data.labels]
    if few:
        yield f"- Fewer than 10 training examples have the labels {_cell(', '.join(few[:10]), 300)}."
    yield "- Whoever uses it where decisions concern people should let a person look at them."
    yield ""


def _use(made: TaskModel) -> Iterator[str]:
    roles = [role.name for role in made.task.roles if not role.answer]
    given = '"…"' if len(roles) == 1 else "{" + ", ".join(f'"{role}": "…"' for role in roles) + "}"
    yield "## How to use it"
    yield ""
    yield "```text"
    yield "cutaway task predict THIS-FOLDER new.csv --json"
    yield "cutaway task evaluate THIS-FOLDER test.csv --html report.html"
    yield f"cutaway task why THIS-FOLDER {given if len(roles) == 1 else repr(given)}"
    yield "cutaway serve THIS-FOLDER"
    yield "```"
    yield ""
    yield "```python"
    yield "from cutaway.tasks import open_task"
    yield ""
    yield 'model = open_task("THIS-FOLDER")'
    yield f"model.predict([{given}])[0].answer"
    yield "```"
    yield ""


def _versions() -> Iterator[str]:
    found = {"Cutaway": __version__, "Python": platform.python_version()}
    for package in ("torch", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    made = ", ".join(f"{name} {number}" for name, number in found.items())
    yield f"Made with {made}, on {os.cpu_count()} {platform.machine()} cores ({platform.system()})."


def _cell(value: Any, most: int = CELL) -> str:
    """A value in a cell of a table: in one line, and without what Markdown or HTML would read."""
    text = f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    text = " ".join(text.split())
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(f"\\{c}" if c in "|`<>[]*_\\" else c for c in text)
