"""Matrices, curves and tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.text import Text

from cutaway.interp.pictures.marks import BLUES, NEGATIVE, ORANGES, POSITIVE, SHADES, fit, heading, number, show
from cutaway.interp.results import Curve, Matrix, Table

MOST_ROWS, MOST_LINES = 48, 40
HEIGHT = 12  # rows of a curve
INKS = (POSITIVE, NEGATIVE, "#7fb35a", "#a98bd6", "#d9728a", "#999999")
POINTS = "●○▲△■□"


def plate(share: float) -> str:
    """The plate of a number from -1 to 1: orange above zero, blue below, darker near it."""
    return (BLUES if share < 0 else ORANGES)[min(4, int(5 * abs(share) ** 0.5))]


def matrix(made: Matrix, width: int, colour: bool) -> Iterator[Text]:
    """A plate for each number where they fit, then the largest ones in words."""
    yield heading(made.what, _axes(made))
    rows = [show(name) for name in made.rows]
    side = min(14, max(map(cell_len, rows), default=0))
    values = made.values.double()
    known = values[~values.isnan()].abs()  # a place without a number stays bare
    most = (float(known.max()) if len(known) else 0.0) or 1.0
    columns = len(made.columns)
    cell = max(2, min(5, (width - side - 1) // max(1, columns)))
    count = min(columns, (width - side - 1) // cell)
    if cell > 3 or all(cell_len(show(name)) <= cell for name in made.columns):
        line = Text(" " * (side + 1), "dim")
        for name in made.columns[:count]:
            line.append(fit(show(name), cell - 1) + " " if cell > 2 else fit(show(name), cell))
        yield line
    for name, row in list(zip(rows, values.tolist(), strict=True))[:MOST_ROWS]:
        line = Text(fit(name, side) + " ")
        for value in row[:count]:
            line.append(*_cell(value, most, cell, colour))
        yield line
    left = [f"{len(made.columns) - count} more columns"] * (count < columns)
    left += [f"{len(rows) - MOST_ROWS} more rows"] * (len(rows) > MOST_ROWS)
    if left:
        yield Text(f"not shown: {' and '.join(left)}", "dim")
    for row, column, value in made.top(5):
        words = f"{_named(made.row_axis, row)}, {_named(made.column_axis, column)}"
        yield Text(fit(f"{number(value):>10}  {words}", width).rstrip())


def _named(axis: str, name: str) -> str:
    return show(name) if not axis or name.startswith(axis) else f"{axis} {show(name)}"


def _axes(made: Matrix) -> str:
    axes = [axis for axis in (made.row_axis, made.column_axis) if axis]
    return f"{made.unit}, by {' and '.join(axes)}" if axes else made.unit


def _cell(value: float, most: float, width: int, colour: bool) -> tuple[str, str]:
    """What stands for a number, and its plate."""
    if value != value:
        return " " * width, ""
    if colour:
        return " " * width, plate(value / most)
    shade = SHADES[min(4, int(5 * abs(value / most) ** 0.5))]
    return ("−" if value < 0 and shade != " " else " ") + shade * (width - 1), ""


def curve(made: Curve, width: int, colour: bool) -> Iterator[Text]:
    """Points over an axis, each line with a mark of its own."""
    yield heading(made.what, f"{made.y} over {made.x}")
    known = [y for line in made.lines.values() for y in line if y is not None]
    if not known:
        return
    low, high = min(known), max(known)
    labels = [number(float(f"{value:.3g}")) for value in (high, (low + high) / 2, low)]
    side = max(map(cell_len, labels)) + 1
    across = max(8, min(width - side - 2, 72))
    left, right = min(made.at), max(made.at)
    dots: dict[tuple[int, int], int] = {}
    for n, line in enumerate(made.lines.values()):
        for x, y in zip(made.at, line, strict=True):
            if y is not None:
                column = round((across - 1) * (x - left) / ((right - left) or 1))
                row = round((HEIGHT - 1) * (high - y) / ((high - low) or 1))
                dots.setdefault((row, column), n)
    for row in range(HEIGHT):
        label = {0: labels[0], HEIGHT // 2: labels[1], HEIGHT - 1: labels[2]}.get(row, "")
        line = Text.assemble((fit(label, side, right=True) + "│", "dim"))
        for column in range(across):
            n = dots.get((row, column))
            line.append(" " if n is None else POINTS[n % 6], INKS[n % 6] if colour and n is not None else "")
        line.rstrip()
        yield line
    yield Text(" " * side + "└" + "─" * across, "dim")
    ends = fit(number(left), across // 2) + fit(number(right), across - across // 2, right=True)
    yield Text(" " * (side + 1) + ends, "dim")
    key = Text()
    for n, name in enumerate(made.lines):
        if key and key.cell_len + cell_len(name) + 4 > width:
            yield key
            key = Text()
        key.append(f"{POINTS[n % 6]} ", INKS[n % 6] if colour else "")
        key.append(fit(name, min(cell_len(name), width - 4)) + "  ")
    yield key


def table(made: Table, width: int, colour: bool) -> Iterator[Text]:
    """Columns, numbers to the right."""
    yield heading(made.what, f"{len(made.rows):,} rows")
    cells = [[_word(cell) for cell in row] for row in made.rows[:MOST_LINES]]
    sizes = [max([cell_len(name), *(cell_len(row[j]) for row in cells)]) for j, name in enumerate(made.columns)]
    room = width - 2 * (len(sizes) - 1)
    while sizes and sum(sizes) > room and max(sizes) > 4:  # the widest give way
        sizes[sizes.index(max(sizes))] -= 1
    numeric = [all(isinstance(row[j], int | float | None) for row in made.rows) for j in range(len(sizes))]

    def line(words: list[str], style: str = "") -> Text:
        fitted = [fit(word, size, right=n) for word, size, n in zip(words, sizes, numeric, strict=True)]
        return Text(fit("  ".join(fitted), width).rstrip(), style)

    yield line(made.columns, "dim")
    for row in cells:
        yield line(row)
    if len(made.rows) > MOST_LINES:
        yield Text(f"{len(made.rows) - MOST_LINES} more rows", "dim")


def _word(cell: str | int | float | bool | None) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return show(cell).replace("\n", "\\n") if isinstance(cell, str) else number(cell)
