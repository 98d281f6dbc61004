"""The report on a task's model: what was found, as a typed result that prints, becomes JSON, and a page.

The JSON is version 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from cutaway.evaluation.significance import Figure
from cutaway.tasks.data import Aside

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from cutaway.interp.results import Result

VERSION = 2
SHOWN = 5  # slices, errors and suspects of a terminal
TAIL = 0.025  # of chance, on either side of a 95 % interval
CUT = 90  # characters of a text in a terminal


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities are how often answers are right.

    Attributes:
        of: what has a probability: "answers", or "labels" where several may hold of one example.
        count: how many have one.
        temperature: that validation examples taught; None: none was learned.
        before: the expected calibration error of what the network says itself, in 15 bins; None: nothing was learned.
        after: the error of what is told.
        curve_before: of each of ten bins that holds any (how sure on average, how often right, how many).
        curve: the same of what is told.
    """

    of: str
    count: int
    temperature: float | None
    before: float | None
    after: float
    curve_before: tuple[tuple[float, float, int], ...]
    curve: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Slice:
    """The task's metric on some of the examples.

    Attributes:
        by: what they have in common: "label", "length", "file", or a column of the file.
        value: which.
        examples: how many.
        figure: with its interval.
        baseline: the baseline's; None without one.
    """

    by: str
    value: str
    examples: int
    figure: Figure
    baseline: float | None = None


@dataclass(frozen=True)
class Miss:
    """An answer that is wrong, or partly.

    Attributes:
        source: file and line.
        given: role -> what was asked, cut where it is long.
        truth: what is right.
        answer: what was said.
        probability: how sure.
        right: how right, 0 … 1.
        why: which parts of the example the answer is owed to: a result of `interp`; None where it was not asked.
    """

    source: str
    given: dict[str, Any]
    truth: Any
    answer: Any
    probability: float | None
    right: float
    why: Result | None = None

    @property
    def texts(self) -> dict[str, str]:
        """What was asked, to be read."""
        return {role: value for role, value in self.given.items() if isinstance(value, str) and value}


@dataclass(frozen=True)
class Suspect:
    """A training example whose label may be wrong.

    Attributes:
        source: file and line.
        text: what it says, cut where it is long.
        label: given.
        likely: the label that a model which has not seen the row finds likeliest.
        probability: of that one.
        of_label: of the label given.
    """

    source: str
    text: str
    label: str
    likely: str
    probability: float
    of_label: float


@dataclass(frozen=True)
class Point:
    """Of a learning curve: what a model made of fewer training examples reaches.

    Attributes:
        examples: that it learned from.
        figures: name -> figure on the same test examples.
    """

    examples: int
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Compared:
    """Another model on the same examples.

    Attributes:
        model: its name.
        figures: its figures.
        differences: of each figure, this model's less the other's, with the interval of pairs.
        p: of no difference in each figure, by the paired bootstrap, two-sided.
        only_this: examples that this model alone has right.
        only_other: examples that the other alone has right.
        mcnemar: the exact p value of McNemar's test on those two; None where answers can be partly right.
    """

    model: str
    figures: dict[str, Figure]
    differences: dict[str, Figure]
    p: dict[str, float]
    only_this: int
    only_other: int
    mcnemar: float | None


@dataclass(frozen=True)
class TaskReport:
    """Figures of a task's model, and where they come from.

    Attributes:
        task: its name.
        split: that was measured on, or the file.
        examples: how many.
        figures: name -> with its 95 % interval; the task's metric first.
        baseline_name: what the baseline is; "": there is none.
        baseline: its figures on the same examples.
        p_values: of no difference to the baseline in each figure, by the paired bootstrap, two-sided.
        tables: (title, columns, rows).
        model: where it lies.
        trained_on: how many training examples the baseline, and where it is known the model, has learned from.
        compared: another model on the same examples.
        calibration: of the probabilities; None where there are none.
        slices: the metric on parts of the examples.
        wrong: how many answers are not wholly right.
        misses: the worst of those: the surest first.
        suspects: training examples whose label may be wrong, the likeliest first.
        suspected: how many there are of those in all; None where they were not looked for.
        curve: the learning curve.
        course: of the training: what -> (step, value).
        aside: rows of a file that could not be measured on.
        notes: for people.
    """

    task: str
    split: str
    examples: int
    figures: dict[str, Figure]
    baseline_name: str = ""
    baseline: dict[str, Figure] | None = None
    p_values: dict[str, float] = field(default_factory=dict)
    tables: tuple[tuple[str, list[str], list[list[Any]]], ...] = ()
    model: str = ""
    trained_on: int | None = None
    compared: Compared | None = None
    calibration: Calibration | None = None
    slices: tuple[Slice, ...] = ()
    wrong: int = 0
    misses: tuple[Miss, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    suspected: int | None = None
    curve: tuple[Point, ...] = ()
    course: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    aside: tuple[Aside, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """The name of the figure that says most."""
        return next(iter(self.figures))

    @property
    def p(self) -> float | None:
        """Of no difference to the baseline in the figure that says most; None without a baseline."""
        return self.p_values.get(self.metric)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        from cutaway.interp.receipt import plain

        made: dict[str, Any] = {"p": self.p}
        made |= {one.name: plain(getattr(self, one.name)) for one in fields(self) if one.name != "misses"}
        made["misses"] = [
            {name: plain(value) for name, value in vars(miss).items() if name != "why"}
            | {"why": miss.why and {"picture": miss.why.picture, **miss.why.to_json()}}
            for miss in self.misses
        ]
        return {"version": VERSION, **made}

    def to_html(self) -> str:
        """One page that holds everything and asks for nothing: no other file, no network."""
        from cutaway.tasks.report.page import page_of

        return page_of(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        yield Text.assemble((f"{self.task}", "bold"), f"  {self.split}, {self.examples:,} examples", style="")
        table = Table(box=None, pad_edge=False)
        columns = list(self._columns())
        table.add_column("")
        for name, *_ in columns:
            table.add_column(printable(name), min_width=19)
        if self.p_values:
            table.add_column("p")
        for name in self.figures:
            cells = [spelled(found[name]) if name in found else "" for _, found in columns]
            p = [p_of(self.p_values[name]) if name in self.p_values else ""] if self.p_values else []
            table.add_row(name.replace("_", " "), *cells, *p)
        yield table
        if other := self.compared:
            yield Text.assemble(f"this less {printable(other.model)}: ", (", ".join(differences(other)), "bold"))
        if self.calibration:
            yield Text(calibration_line(self.calibration))
        for line in self._found():
            yield Text(line, "dim")
        for note in self.notes:
            yield Text.assemble(("note: ", "dim"), printable(note))

    def _columns(self) -> Iterator[tuple[str, dict[str, Figure]]]:
        """Name and figures of each that was measured."""
        yield "model", self.figures
        if self.compared:
            yield self.compared.model, self.compared.figures
        if self.baseline is not None:
            yield self.baseline_name, self.baseline

    def _found(self) -> Iterator[str]:
        if weak := weakest(self):
            figure = f"{spelled(weak.figure)}, {weak.examples:,} examples"
            yield f"weakest where {weak.by} is {shortened(weak.value)}: {figure}"
        for miss in self.misses[:SHOWN]:
            sure = "" if miss.probability is None else f" ({100 * miss.probability:.0f} %)"
            said, true = told(miss.answer), told(miss.truth, miss.texts)
            yield f"wrong: {miss.source}: {shortened(' | '.join(miss.texts.values()))} → {said}{sure}, not {true}"
        for one in self.suspects[:SHOWN]:
            yield f"label in doubt: {one.source}: {shortened(one.text)} is {one.label}, likely {one.likely}"


def spelled(figure: Figure) -> str:
    """A figure with its interval.

    >>> spelled(Figure(0.98765, 0.97, 0.99))
    '0.988 (0.970–0.990)'
    """
    digits = 3 if abs(figure.value) < 10 else 1
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f}–{figure.high:.{digits}f})"


def p_of(p: float) -> str:
    """A p value as it is read.

    >>> p_of(0.0004), p_of(0.25)
    ('< 0.001', '0.25')
    """
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def told(value: Any, texts: Mapping[str, str] | None = None) -> str:
    """A truth or an answer for people.

    Args:
        value: in the task's own form.
        texts: what was asked, the first of which spans are places in.

    >>> told(("a", "b")), told(None), told([(0, 3, "PER")], {"text": "Ada met Bo"}), told([0.25, -1.0])
    ('a, b', '(none)', 'Ada (PER)', 'a vector of 2 numbers')
    """
    if value is None or value in ((), []):
        return "(none)"
    if isinstance(value, list) and isinstance(value[0], float):
        return f"a vector of {len(value):,} numbers"
    parts = value if isinstance(value, list | tuple) else [value]
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # one named tuple
        parts = [value]
    text = next(iter((texts or {}).values()), "")
    return shortened(", ".join(_part(part, text) for part in parts), 4 * CUT)


def _part(value: Any, asked: str) -> str:
    """A label, a span with its text, or what else is a part of an answer."""
    if isinstance(value, Mapping):
        text, label = value.get("text"), value.get("label")
        return f"{text} ({label})" if text and label else str(text or label or dict(value))
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[2], str):
        return f"{asked[value[0] : value[1]]} ({value[2]})"
    return str(getattr(value, "text", value))


def printable(text: str) -> str:
    """A text for a terminal, which control characters in it cannot command."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shortened(text: str, most: int = CUT) -> str:
    """A text in one line."""
    text = printable(" ".join(text[: 8 * most].split()))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def calibration_line(found: Calibration) -> str:
    """What a calibration says, in one sentence."""
    if found.before is None:
        return f"calibration error {found.after:.3f}, over {found.count:,} {found.of}"
    by = "calibration" if found.temperature is None else f"temperature {found.temperature:.2f}"
    changed = f"{found.before:.3f} before, {found.after:.3f} after {by}"
    return f"calibration error {changed}, over {found.count:,} {found.of}"


def differences(other: Compared) -> Iterator[str]:
    """Each figure's difference with its interval and p."""
    for name, one in other.differences.items():
        yield f"{name.replace('_', ' ')} {one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f}), p {p_of(other.p[name])}"


def weakest(report: TaskReport) -> Slice | None:
    """The slice that is worse than the whole by more than chance, if there is one: the lowest of those.

    Of many slices one is low by chance, and a few examples agree by chance: so the bound is one for all slices together
    (Bonferroni), and a slice's spread at least that of as many examples that are like the whole.
    """
    whole, some = report.figures[report.metric].value, [one for one in report.slices if one.by != "label"]
    far = NormalDist().inv_cdf(1 - TAIL / max(1, len(some)))
    weak = []
    for one in some:
        spread = (one.figure.high - one.figure.low) / (2 * NormalDist().inv_cdf(1 - TAIL))
        if one.figure.value + far * max(spread, sqrt(max(0.0, whole * (1 - whole)) / one.examples)) < whole:
            weak.append(one)
    return min(weak, key=lambda one: one.figure.value, default=None)
