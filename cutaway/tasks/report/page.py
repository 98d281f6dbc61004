"""The report as one page that opens offline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cutaway.evaluation.significance import RESAMPLES, Figure
from cutaway.tasks.report.report import (
    TaskReport,
    calibration_line,
    differences,
    p_of,
    spelled,
    told,
    weakest,
)

MOST_SLICES = 40  # of one kind: the weakest
COURSE = ("loss", "valid_loss")  # lines of the training that share an axis
Part = dict[str, Any]


def page_of(report: TaskReport) -> str:
    """The page."""
    from cutaway.interp.pictures.page import page

    return page([_head(report), *_parts(report)], report, title=f"{report.task} on {report.split}")


def _head(report: TaskReport) -> Part:
    first, metric = report.figures[report.metric], report.metric.replace("_", " ")
    named = f"the model {report.model}" if report.model else "the model"  # a path is no word to begin a sentence with
    notes = [f"{named} on {report.examples:,} examples of {report.split}: {metric} {spelled(first)}."]
    if report.baseline is not None and report.p is not None:
        base, much = report.baseline[report.metric], _differ(report.p)
        notes.append(f"{report.baseline_name} reaches {spelled(base)} on the same examples; {much}.")
    if report.compared:
        notes.append(f"Less {report.compared.model}: {'; '.join(differences(report.compared))}.")
    if report.calibration:
        notes.append(f"{calibration_line(report.calibration).capitalize()}.")
    if weak := weakest(report):
        notes.append(
            f"It is weakest where {weak.by} is {weak.value}: {spelled(weak.figure)} on {weak.examples:,} examples."
        )
    notes = [f"{note[:1].upper()}{note[1:]}" for note in [*notes, *(f"{note}." for note in report.notes)]]
    figures = {name.replace("_", " "): figure.value for name, figure in report.figures.items()}
    title = f"{report.task}: {report.split}"
    return {"picture": "panel", "title": title, "notes": notes, "figures": figures, "parts": {}}


def _differ(p: float) -> str:
    if p < 0.05:
        return f"the difference is more than chance (p {p_of(p)})"
    return f"the difference may be chance (p {p_of(p)})"


def _parts(report: TaskReport) -> Iterator[Part]:
    yield _figures(report)
    square = [table for table in report.tables if _square(*table[1:])]
    for what, columns, rows in square:
        labels, counts = [row[0] for row in rows], [row[1:] for row in rows]
        yield {"picture": "confusion", "what": what, "labels": labels, "columns": columns[1:], "counts": counts}
    if report.calibration:
        found = report.calibration
        lines = {"as told": found.curve}
        if found.curve_before:
            lines = {"before calibration": found.curve_before, **lines}
        yield {"picture": "reliability", "what": calibration_line(found), "of": found.of, "lines": lines}
    for table in report.tables:
        if table not in square:
            yield _table(*table)
    yield from _slices(report)
    if report.misses:
        rows = [_miss(one) for one in report.misses]
        yield {"picture": "misses", "wrong": report.wrong, "examples": report.examples, "rows": rows}
    yield from _suspects(report)
    yield from _curves(report)
    if report.aside:
        rows = [[one.source, one.reason] for one in report.aside]
        yield _table("Rows that were set aside", ["row", "reason"], rows)


def _interval(label: str, figure: Figure, **more: Any) -> dict[str, Any]:
    made = {"label": label, "value": figure.value, "low": figure.low, "high": figure.high}
    return made | {"tone": 0, "note": None, "other": None} | more


def _figures(report: TaskReport) -> Part:
    others = [("this model", report.figures)]
    if report.compared:
        others.append((report.compared.model, report.compared.figures))
    if report.baseline is not None:
        others.append((report.baseline_name, report.baseline))
    groups = [
        {
            "name": name.replace("_", " "),
            "rows": [
                _interval(who, figures[name], tone=tone)
                for tone, (who, figures) in enumerate(others)
                if name in figures
            ],
        }
        for name in report.figures
    ]
    about = f"Each figure with its 95 % interval ({RESAMPLES:,} bootstrap resamples over examples)."
    return {"picture": "intervals", "what": "Figures", "about": about, "groups": groups, "whole": None}


def _slices(report: TaskReport) -> Iterator[Part]:
    whole = report.figures[report.metric]
    groups = []
    for by in dict.fromkeys(one.by for one in report.slices):
        some = [one for one in report.slices if one.by == by]
        cut = len(some) - MOST_SLICES
        if by != "length":
            some = sorted(some, key=lambda one: one.figure.value)[:MOST_SLICES]
        rows = [_interval(one.value, one.figure, note=f"{one.examples:,}", other=one.baseline) for one in some]
        groups.append({"name": f"by {by}" + (f" (the weakest; {cut} more)" if cut > 0 else ""), "rows": rows})
    if groups:
        metric = report.metric.replace("_", " ")
        about = f"The {metric} on parts of the examples, with how many they are; the line is the whole"
        about += ", the small mark the baseline." if report.baseline is not None else "."
        what = "Where it is weak"
        yield {"picture": "intervals", "what": what, "about": about, "groups": groups, "whole": whole.value}


def _miss(one: Any) -> dict[str, Any]:
    why = None if one.why is None else one.why.page_data()
    texts = one.texts
    roles = list(texts) if len(texts) > 1 else [""] * len(texts)
    return {
        "source": one.source,
        "given": list(zip(roles, texts.values(), strict=True)),
        "truth": told(one.truth, texts),
        "answer": told(one.answer),
        "probability": one.probability,
        "right": one.right,
        "why": why,
    }


def _suspects(report: TaskReport) -> Iterator[Part]:
    if report.suspected:
        rows = [
            [one.source, one.text, one.label, one.likely, round(one.of_label, 3), round(one.probability, 3)]
            for one in report.suspects
        ]
        what = (
            f"Labels in doubt: {report.suspected:,} training examples that a model which has not seen them calls other"
        )
        yield _table(what, ["row", "text", "label", "likely", "p of the label", "p of the likely"], rows)


def _curves(report: TaskReport) -> Iterator[Part]:
    if len(report.curve) > 1:
        at = [float(point.examples) for point in report.curve]
        names = list(report.curve[-1].figures)
        lines = {
            name.replace("_", " "): [p.figures[name].value if name in p.figures else None for p in report.curve]
            for name in names
        }
        yield _curve(
            "Learning curve: what more examples are worth", "training examples", "figure on the test", at, lines
        )
    course = report.course
    losses = {name: course[name] for name in COURSE if len(course.get(name, ())) > 1}
    if losses:
        yield _lines("How the training went", "loss", losses)
    metric = {name: line for name, line in course.items() if name in report.figures or name == "accuracy"}
    if metric := {name: line for name, line in metric.items() if len(line) > 1}:
        yield _lines("What it reached on validation examples", "figure", metric)


def _lines(what: str, y: str, lines: dict[str, list[tuple[int, float]]]) -> Part:
    at = sorted({step for line in lines.values() for step, _ in line})
    known = {name: dict(line) for name, line in lines.items()}
    if all(len(line) < len(at) for line in lines.values()) or len(lines) > 1:  # each at its own steps: join the dots
        known = {name: _filled(line, at) for name, line in known.items()}
    made = {name.replace("_", " "): [line.get(step) for step in at] for name, line in known.items()}
    return _curve(what, "step", y, [float(step) for step in at], made)


def _filled(line: dict[int, float], at: list[int]) -> dict[int, float]:
    """The line with what lies between its points, which the picture would leave open."""
    steps = sorted(line)
    made = {}
    for step in at:
        if steps[0] <= step <= steps[-1]:
            after = next(one for one in steps if one >= step)
            before = max(one for one in steps if one <= step)
            share = (step - before) / (after - before) if after > before else 0.0
            made[step] = line[before] + share * (line[after] - line[before])
    return made


def _curve(what: str, x: str, y: str, at: list[float], lines: dict[str, list[float | None]]) -> Part:
    return {"picture": "curve", "what": what, "x": x, "y": y, "at": at, "lines": lines}


def _table(what: str, columns: list[str], rows: list[list[Any]]) -> Part:
    return {"picture": "table", "what": what, "columns": columns, "rows": rows}


def _square(columns: list[str], rows: list[list[Any]]) -> bool:
    """Whether a table counts labels by labels."""
    return bool(rows) and columns[0] == "" and all(row[0] in columns[1:] for row in rows)
