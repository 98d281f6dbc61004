"""A report is read back as it was written."""

import json
from pathlib import Path

import pytest

from cutaway.errors import DamagedFile, InputError
from cutaway.evaluation.significance import Figure
from cutaway.tasks import TaskReport, stored_report


def written(folder: Path) -> TaskReport:
    report = TaskReport(
        "classify", "test", 40, {"accuracy": Figure(0.9, 0.8, 0.975), "macro_f1": Figure(0.88, 0.7, 0.95)},
        "TF-IDF", {"accuracy": Figure(0.85, 0.7, 0.95)}, {"accuracy": 0.31}, trained_on=320, wrong=4, notes=("small",),
    )  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report.to_json()))
    return report


def test_figures_stand_beside_the_baselines(tmp_path: Path):
    report = written(tmp_path)
    found = stored_report(tmp_path)
    assert (found.task, found.split, found.examples, found.wrong, found.trained_on) == ("classify", "test", 40, 4, 320)
    assert [one.name for one in found.figures] == ["accuracy", "macro_f1"]
    first, second = found.figures
    assert report.baseline is not None
    assert (first.figure, first.baseline, first.p) == (report.figures["accuracy"], report.baseline["accuracy"], 0.31)
    assert (second.baseline, second.p) == (None, None)
    assert found.calibration is None
    assert found.notes == ("small",)


def test_what_is_no_report_is_told(tmp_path: Path):
    with pytest.raises(InputError, match=r"holds no report\.json"):
        stored_report(tmp_path)
    written(tmp_path)
    place = tmp_path / "report.json"
    whole = json.loads(place.read_text())
    place.write_text(json.dumps(whole | {"version": 1}))
    with pytest.raises(InputError, match="another version"):
        stored_report(tmp_path)
    place.write_text(json.dumps(whole | {"figures": {}}))
    with pytest.raises(DamagedFile, match="lacks what a report is made of"):
        stored_report(tmp_path)
