"""The display of progress: lines where the output is no terminal, bars where it is, nothing when quiet."""

import io

import pytest
from rich.console import Console

import cutaway.cli._frame as frame
from cutaway.progress import Progress


def reports(stage: str, total: float | None = 4) -> list[Progress]:
    return [Progress(stage, done, total, "files", {"kept": f"[{done}]"}) for done in range(5)]


def test_lines_are_the_first_and_the_last_of_a_stage(capsys: pytest.CaptureFixture[str]):
    with frame.live_progress() as progress:
        assert progress is not None
        for report in reports("reading") + reports("storing", total=None):
            progress(report)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["reading   0 %  kept [0]", "reading 100 %  kept [4]", "storing  kept [0]"]


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    times = iter([0.0, 2.0, 5.5, 6.0, 7.0])
    monkeypatch.setattr(frame.time, "monotonic", lambda: next(times))
    lines = frame._Lines()
    for report in reports("training", total=100):
        lines(report)
    assert [line.split("kept ")[1] for line in capsys.readouterr().err.splitlines()] == ["[0]", "[2]"]


def test_a_stage_that_begins_anew_has_no_speed_below_zero(monkeypatch: pytest.MonkeyPatch):
    seconds = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(frame.time, "monotonic", lambda: next(seconds))
    speeds = frame._Speeds()
    told = [speeds(Progress("learning", done, 8e6, "bytes")) for done in (4e6, 0.0, 5e6)]
    assert told == [{}, {}, {"MB/s": "0.5"}]


def test_stages_that_count_bytes_show_their_speed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    seconds = iter([0.0, 0.0, 10.0, 10.0, 20.0, 20.0])  # each report asks twice
    monkeypatch.setattr(frame.time, "monotonic", lambda: next(seconds))
    lines = frame._Lines()
    for done in (1e6, 4e6, 8e6):
        lines(Progress("reading", done, 8e6, "bytes"))
    assert capsys.readouterr().err.splitlines() == [
        "reading  12 %",
        "reading  50 %  MB/s 0.3",
        "reading 100 %  MB/s 0.3",
    ]


def test_quiet_is_quiet():
    with frame.live_progress(quiet=True) as progress:
        assert progress is None


def test_bars_show_stages_shares_and_figures(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(frame, "Console", lambda **options: terminal)
    with frame.live_progress() as progress:
        assert progress is not None
        for report in reports("reading") + reports("storing", total=None):
            progress(report)
    lines = screen.getvalue().splitlines()
    reading = next(line for line in reversed(lines) if "reading" in line)
    storing = next(line for line in reversed(lines) if "storing" in line)
    assert "100%" in reading
    assert "kept [4]" in reading  # figures are text, not markup
    assert "%" not in storing  # nobody knows the whole
