"""What an evaluation found: one typed result, as tables for people, plain data for machines, and a page.

The JSON is version 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cutaway.evaluation.compare import Difference
from cutaway.evaluation.evaluate import Group, Scores
from cutaway.evaluation.perplexity import Perplexity
from cutaway.evaluation.significance import RESAMPLES, Figure
from cutaway.tokenizers.tokenizer import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

VERSION = 1
Cell = str | float | int | None


@dataclass(frozen=True)
class Results:
    """Of one model, or of two beside each other.

    Attributes:
        models: what was evaluated: one or two.
        computed: what computed, and why, for each.
        suites: of each suite the scores of each model.
        texts: of each text the perplexity of each model.
        differences: between two models.
        seconds: that it took.
    """

    models: tuple[str, ...]
    computed: tuple[str, ...]
    suites: tuple[tuple[Scores, ...], ...]
    texts: tuple[tuple[Perplexity, ...], ...]
    differences: tuple[Difference, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain data, without the single items."""
        return {
            "version": VERSION,
            "models": list(self.models),
            "computed": list(self.computed),
            "suites": [[_plain(one, "answers") for one in scores] for scores in self.suites],
            "texts": [[_plain(one, "pieces") for one in found] for found in self.texts],
            "differences": [asdict(one) for one in self.differences],
            "resamples": RESAMPLES,
            "seconds": self.seconds,
        }

    def items(self) -> Iterator[dict[str, Any]]:
        """What was made of each question, as plain data."""
        for scores in self.suites:
            for model, one in zip(self.models, scores, strict=True):
                for answer in one.answers:
                    yield {
                        "model": model,
                        "suite": one.name,
                        "where": answer.item.where,
                        "groups": dict(answer.item.groups),
                        "logprobs": [choice.logprob for choice in answer.choices],
                        "answer": answer.item.answer,
                        "right": answer.right,
                    }

    def to_html(self) -> str:
        """One page that holds everything and asks for nothing: no other file, no network."""
        from cutaway.interp.pictures.page import page

        title = " and ".join(self.models)
        notes = [*self._notes(), f"intervals are of 95 %: {RESAMPLES:,} bootstrap resamples over items"]
        head = {"picture": "panel", "title": title, "notes": notes, "figures": self._headline(), "parts": {}}
        tables = [{"picture": "table", "what": what, "columns": c, "rows": rows} for what, c, rows in self._tables()]
        return page([head, *tables], self, title=f"Evaluation of {title}")

    def _headline(self) -> dict[str, float]:
        if len(self.models) > 1:
            return {}
        return {
            f"{one.name}: {name}": figure.value
            for (one,) in (*self.suites, *self.texts)
            for name, figure in one.figures.items()
        }

    def _notes(self) -> list[str]:
        found = [note for several in (*self.suites, *self.texts) for one in several for note in one.notes]
        return [*dict.fromkeys(found)]

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[Cell]]]]:
        """Title, columns and rows of all tables."""
        rows: list[list[Cell]] = []
        for scores in self.suites:
            for model, one in zip(self.models, scores, strict=True):
                rows += [[one.name, model, *_figure(name, figure), one.items] for name, figure in one.figures.items()]
        for found in self.texts:
            for model, one in zip(self.models, found, strict=True):
                rows += [[one.name, model, *_figure(name, figure), one.tokens] for name, figure in one.figures.items()]
        columns = ["of", "model", "figure", "value", "from", "to", "items"]
        if self.models[1:]:
            yield "Figures", columns, rows
        else:  # its name, which may be a long path, once and whole
            alone = [row[:1] + row[2:] for row in rows]
            yield f"Figures of {self.models[0]}", columns[:1] + columns[2:], alone
        if self.differences:
            rows = [
                [d.name, d.metric, d.difference.value, d.difference.low, d.difference.high, d.p, d.mcnemar]
                for d in self.differences
            ]
            what = f"{self.models[1]} minus {self.models[0]}"
            yield what, ["of", "figure", "difference", "from", "to", "p (bootstrap)", "p (McNemar)"], rows
        for scores in self.suites:
            for level in dict.fromkeys(group.level for group in scores[0].groups):
                of_each = [[group for group in one.groups if group.level == level] for one in scores]
                if len(of_each[0]) > 1:
                    rows = [_group(groups) for groups in zip(*of_each, strict=True)]
                    names = ["acc"] if len(scores) == 1 else [f"acc of {model}" for model in self.models]
                    yield f"{scores[0].name} by {level}", [level, *names, "items"], rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table

        for what, columns, rows in self._tables():
            table = Table(title=_shown(what), title_justify="left", box=None, pad_edge=False)
            for number, name in enumerate(columns):
                table.add_column(name, justify="right" if rows and not isinstance(rows[0][number], str) else "left")
            for row in rows:
                table.add_row(*map(_shown, row))
            yield table
            yield ""
        for note in self._notes():
            yield f"[dim]note:[/dim] {_shown(note)}"


def _plain(result: Scores | Perplexity, without: str) -> dict[str, Any]:
    made = {name: value for name, value in vars(result).items() if name != without}
    made["figures"] = {name: asdict(figure) for name, figure in result.figures.items()}
    if isinstance(result, Scores):
        made["groups"] = [{**asdict(group), "accuracy": group.accuracy} for group in result.groups]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in made.items()}


def _figure(name: str, figure: Figure) -> list[Cell]:
    return [name, figure.value, figure.low, figure.high]


def _group(groups: Sequence[Group]) -> list[Cell]:
    return [groups[0].name, *(group.accuracy for group in groups), groups[0].items]


def _shown(cell: Cell) -> str:
    from rich.markup import escape

    if cell is None:
        return "–"
    if isinstance(cell, str):  # which may stand in a stranger's file
        return escape(printable(cell.encode("utf-8", "replace")))
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}"
