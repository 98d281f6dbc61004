"""What quantising cost: one typed result, as a table for people, as plain data for machines, and in a file.

The file is quantisation.json, version 1, beside the model; `read_report` reads it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.files import inside, read_json
from cutaway.generation.quantize.measure import Quality, Worst
from cutaway.settings import build

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

REPORT, VERSION = "quantisation.json", 1
SHOWN, BAR = 10, 24


@dataclass(frozen=True)
class MatrixCost:
    """One matrix.

    Attributes:
        name: its name.
        kind: of its blocks.
        error: ‖W - Q‖ / ‖W‖.
        kl: nats per token that it costs alone; None where that was not measured.
    """

    name: str
    kind: str
    error: float
    kl: float | None = None


@dataclass(frozen=True)
class Passage:
    """A place where the two models differ most, to be read.

    Attributes:
        kl: of the prediction, in nats.
        before: the text before it.
        float_says: the token that the float model finds likeliest.
        quantised_says: and the quantised one.
    """

    kl: float
    before: str
    float_says: str
    quantised_says: str


@dataclass(frozen=True)
class Report:
    """What quantising cost.

    Attributes:
        kind: that was asked for.
        method: "nearest", "gptq" or "awq".
        bytes_before: of the weights as they were opened.
        bytes_after: of the weights now.
        seconds: that quantising took.
        notes: what is not as it was asked for, and why.
        matrices: those of the largest cost, or error, first.
        tokens: predictions compared; 0: nothing was measured, and what follows is empty.
        perplexity: of the float model.
        perplexity_quantised: of the quantised one.
        growth: of the perplexity, in percent.
        agreement: share of the predictions with the same likeliest token.
        kl_mean: divergence of the predictions, in nats per token.
        kl_median: the same.
        kl_max: the same.
        distance: relative distance of the outputs.
        worst: where the divergence is largest.
        free: greedy tokens that are the same before the first difference, of some prompts.
        free_length: how many there could be.
    """

    kind: str
    method: str
    bytes_before: int
    bytes_after: int
    seconds: float
    notes: tuple[str, ...] = ()
    matrices: tuple[MatrixCost, ...] = ()
    tokens: int = 0
    perplexity: float | None = None
    perplexity_quantised: float | None = None
    growth: float | None = None
    agreement: float | None = None
    kl_mean: float | None = None
    kl_median: float | None = None
    kl_max: float | None = None
    distance: float | None = None
    worst: tuple[Passage, ...] = ()
    free: tuple[int, ...] = ()
    free_length: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"version": VERSION, **asdict(self)}

    def lines(self) -> list[tuple[str, str]]:
        """What is worth knowing, name and value."""
        ratio = self.bytes_before / max(1, self.bytes_after)
        found = [
            (
                "weights",
                f"{self.bytes_before / 1e6:,.1f} MB -> {self.bytes_after / 1e6:,.1f} MB, {ratio:.1f} x smaller",
            ),
            ("kind", f"{self.kind}, {self.method}, {self.seconds:.1f} s"),
        ]
        if not self.tokens:
            return [*found, ("measured", "nothing, as there was no text to measure on; give some with --text")]
        if self.perplexity is not None and self.growth is not None:
            sign = "+" if self.growth >= 0 else ""
            found.append(
                ("perplexity", f"{self.perplexity:.3f} -> {self.perplexity_quantised:.3f} ({sign}{self.growth:.2f} %)")
            )
        if self.agreement is not None and self.kl_mean is not None:
            found.append(
                ("same likeliest token", f"{_bar(self.agreement)} {100 * self.agreement:.1f} % of {self.tokens:,}")
            )
            found.append(
                ("KL per token", f"mean {self.kl_mean:.2g}, median {self.kl_median:.2g}, most {self.kl_max:.2g} nats")
            )
        elif self.distance is not None:
            found.append(("outputs differ by", f"{100 * self.distance:.2f} %, of {self.tokens:,}"))
        if self.free:
            mean = sum(self.free) / len(self.free)
            whole = sum(length >= self.free_length for length in self.free)
            same = f"{mean:.0f} of {self.free_length} tokens the same on average"
            found.append(("running freely", f"{same}; {whole} of {len(self.free)} texts whole"))
        return found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim")
        table.add_column()
        for name, value in self.lines():
            table.add_row(name, value)
        yield table
        if self.matrices:
            yield self._matrices()
        if self.worst:
            yield self._worst()
        for note in self.notes:
            yield f"[dim]note:[/dim] {_plain(note)}"

    def _matrices(self) -> Any:
        from rich.table import Table

        measured = any(matrix.kl is not None for matrix in self.matrices)
        title = (
            "What costs most: each matrix quantised alone, in nats per token"
            if measured
            else "Relative errors of the matrices"
        )
        table = Table(title=title, box=None, title_justify="left", pad_edge=False)
        for name in ("matrix", "kind", "error", *["nats", ""] * measured):
            table.add_column(name, justify="right" if name in ("error", "nats") else "left")
        most = max((matrix.kl or 0.0 for matrix in self.matrices), default=0.0)
        for matrix in self.matrices[:SHOWN]:
            own = (
                [f"{matrix.kl:.2g}", _bar(matrix.kl / most if most else 0.0, BAR // 2)] if matrix.kl is not None else []
            )
            table.add_row(matrix.name, matrix.kind, f"{100 * matrix.error:.2f} %", *own)
        return table

    def _worst(self) -> Any:
        from rich.table import Table

        table = Table(title="Where the two differ most", box=None, title_justify="left", pad_edge=False)
        for name in ("nats", "after", "float says", "quantised says"):
            table.add_column(name, justify="right" if name == "nats" else "left")
        for one in self.worst[:SHOWN]:
            table.add_row(f"{one.kl:.2f}", *map(_plain, (one.before, one.float_says, one.quantised_says)))
        return table


def _bar(share: float, width: int = BAR) -> str:
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def report_of(
    head: Mapping[str, Any],
    quality: Quality | None,
    errors: Mapping[str, float],
    costs: Mapping[str, float],
    kinds: Mapping[str, str],
    decode: Any,
) -> Report:
    """Put a report together.

    Args:
        head: the fields of Report up to `notes`.
        quality: from `compare`; None: nothing was measured.
        errors: name of a matrix -> its relative error.
        costs: name -> nats per token.
        kinds: name -> kind.
        decode: ids -> text.
    """
    order = sorted(errors, key=lambda name: (-costs.get(name, -1.0), -errors[name]))
    matrices = tuple(MatrixCost(name, kinds[name], errors[name], costs.get(name)) for name in order)
    if quality is None:
        return Report(**head, matrices=matrices)
    names = ("tokens", "perplexity", "perplexity_quantised", "agreement", "kl_mean", "kl_median", "kl_max", "distance")
    figures = {name: getattr(quality, name) for name in (*names, "free", "free_length")}
    worst = tuple(_passage(one, decode) for one in quality.worst)
    return Report(**head, matrices=matrices, **figures, growth=quality.growth, worst=worst)


def _passage(one: Worst, decode: Any) -> Passage:
    return Passage(one.kl, *(decode(ids) for ids in (one.before, [one.float_says], [one.quantised_says])))


def read_report(folder: Path) -> Report | None:
    """The report beside a quantised model; None where there is none.

    Raises:
        ConfigError: a key that this version does not know.
        DamagedFile: it is no report.
    """
    if not (folder / REPORT).is_file():
        return None
    values = read_json(inside(folder, REPORT))
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if key != "version"}
        for key, cls in (("matrices", MatrixCost), ("worst", Passage)):
            if isinstance(values.get(key), Sequence):
                values[key] = tuple(build(cls, one, where=f"{key} of {folder / REPORT}") for one in values[key])
    return build(Report, values, where=str(folder / REPORT))
