"""What was measured of a task's model when it was trained, read from the report in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutaway.errors import DamagedFile, InputError
from cutaway.evaluation.significance import Figure
from cutaway.files import holds, inside, read_json
from cutaway.tasks.report.report import VERSION

REPORT = "report.json"


@dataclass(frozen=True)
class StoredFigure:
    """A figure of a report.

    Attributes:
        name: such as "accuracy"; the task's metric is the first.
        figure: with its 95 % interval.
        baseline: the baseline's on the same examples; None without one.
        p: of no difference to the baseline, two-sided; None where it is not known.
    """

    name: str
    figure: Figure
    baseline: Figure | None
    p: float | None


@dataclass(frozen=True)
class StoredReport:
    """What a report says in its first lines; `report.html` beside it shows all of it.

    Attributes:
        task: its name.
        split: that was measured on.
        examples: how many.
        wrong: how many of the answers are not wholly right.
        trained_on: training examples; None where that is not known.
        baseline_name: what the baseline is; "": there is none.
        figures: the task's metric first.
        calibration: the expected calibration error of what is told; None where there are no probabilities.
        notes: for people.
    """

    task: str
    split: str
    examples: int
    wrong: int
    trained_on: int | None
    baseline_name: str
    figures: tuple[StoredFigure, ...]
    calibration: float | None
    notes: tuple[str, ...]


def stored_report(folder: str | Path) -> StoredReport:
    """Read the report that training a task has left.

    Args:
        folder: as `train_task` wrote it.

    Raises:
        InputError: there is no report, or it is of another version.
        DamagedFile: it is none.
    """
    folder = Path(folder)
    if not folder.is_dir() or not holds(folder, REPORT):
        raise InputError(f"{folder} holds no {REPORT}; cutaway task train and cutaway task evaluate write one")
    found = read_json(inside(folder, REPORT))
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise InputError(f"the {REPORT} of {folder} is of another version of Cutaway; evaluate the model again")
    try:
        baseline = found["baseline"] or {}
        metric = next(iter(found["figures"]))
        values = found.get("p_values") or {metric: found["p"]}
        figures = tuple(
            StoredFigure(name, _figure(one), _figure(baseline[name]) if name in baseline else None, values.get(name))
            for name, one in found["figures"].items()
        )
        calibration = found["calibration"] and float(found["calibration"]["after"])
        return StoredReport(
            str(found["task"]), str(found["split"]), int(found["examples"]), int(found["wrong"]), found["trained_on"],
            str(found["baseline_name"]), figures, calibration, tuple(map(str, found["notes"])),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise DamagedFile(f"the {REPORT} of {folder} lacks what a report is made of ({error})") from error


def _figure(value: Mapping[str, Any]) -> Figure:
    return Figure(float(value["value"]), float(value["low"]), float(value["high"]))
