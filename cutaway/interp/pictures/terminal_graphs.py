"""Graphs, trees, chances and panels in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from cutaway.interp.pictures.marks import NEGATIVE, POSITIVE, fit, heading, number, percent, show
from cutaway.interp.results import Branch, Graph, Panel, Tree

if TYPE_CHECKING:
    from cutaway.interp.text.chances import Chances

MOST_EDGES, MOST_BRANCHES = 24, 60


def graph(made: Graph, width: int, colour: bool) -> Iterator[Text]:
    """The strongest edges, each with a bar."""
    yield heading(made.what, f"{len(made.nodes):,} nodes, {len(made.edges):,} edges, in {made.unit}")
    labels = {node.name: f"{node.name} {show(node.label)}".strip() for node in made.nodes}
    edges = made.strongest(MOST_EDGES)
    most = max((abs(edge.weight) for edge in edges), default=0) or 1.0
    bar = max(4, min(16, width // 5))
    side = (width - bar - 16) // 2
    for edge in edges:
        full = max(1, round(bar * abs(edge.weight) / most))
        line = Text(
            fit(labels.get(edge.source, edge.source), side) + " → " + fit(labels.get(edge.target, edge.target), side)
        )
        line.append(f" {number(float(f'{edge.weight:.3g}')):>9} ")
        yield line.append("█" * full, NEGATIVE if edge.weight < 0 else POSITIVE)
    if len(made.edges) > len(edges):
        yield Text(f"{len(made.edges) - len(edges):,} weaker edges", "dim")


def tree(made: Tree, width: int, colour: bool) -> Iterator[Text]:
    """Branches with their share of the one before, and of the whole."""
    yield heading(made.what, "share of the branch before it, and of the whole")
    lines = list(_branches(made.root, "", True, True))
    for stem, branch in lines[:MOST_BRANCHES]:
        words = fit(stem + show(branch.label), max(8, width - 14))
        yield Text(words).append(f"{percent(branch.share):>6} {percent(branch.total):>6}", "dim")
    if len(lines) > MOST_BRANCHES:
        yield Text(f"{len(lines) - MOST_BRANCHES} more branches", "dim")


def _branches(branch: Branch, indent: str, last: bool, root: bool) -> Iterator[tuple[str, Branch]]:
    yield ("" if root else indent + ("└ " if last else "├ ")), branch
    below = indent if root else indent + ("  " if last else "│ ")
    for i, next_ in enumerate(branch.branches):
        yield from _branches(next_, below, i == len(branch.branches) - 1, False)


def chances(made: Chances, width: int, colour: bool) -> Iterator[Text]:
    """Candidates with their probability, and what temperature and the like leave of it."""
    yield heading(made.what, f"{made.entropy:.2f} bits to be expected")
    drops = [step for step in made.steps if step.share < 1 or step.kept < len(made.logits)]
    narrowed = made.steps[-1].kept < len(made.logits) or made.steps[0].value != 1
    if narrowed:
        said = ", ".join(f"{step.name} {step.value:g} leaves {step.kept:,}" for step in drops if step.value is not None)
        yield Text(f"{said or 'temperature'}; after it {made.entropy_left:.2f} bits".strip(), "dim")
    most = max(max(one.share, one.left) for one in made.candidates) or 1.0
    side = min(20, max(4, width // 4))
    bar = max(4, width - side - 18)
    for one in made.candidates:
        mark = "→" if made.came is not None and made.came.id == one.id else " "
        value = one.left if narrowed else one.share
        line = Text(mark + fit(show(one.token), side - 1) + " ", "bold" if mark == "→" else "")
        line.append(fit("█" * round(bar * value / most), bar), POSITIVE if colour else "")
        line.append(f"{percent(one.share):>7}", "dim")
        if narrowed:
            line.append(f" {percent(one.left) if one.dropped is None else '–':>7}")
        yield line
    rest = f" {percent(made.others_left):>7}" if narrowed else ""
    yield Text(" " + fit("all others", side - 1) + " " + " " * bar + f"{percent(made.others):>7}" + rest, "dim")


def panel(made: Panel, width: int, colour: bool) -> Iterator[Text]:
    """The head of a panel: its title, what it found, and the numbers that matter."""
    yield Text(made.title, "bold")
    yield from (Text(note) for note in made.notes)
    if made.figures:
        side = max(map(cell_len, made.figures))
        for name, value in made.figures.items():
            yield Text(fit(f"{fit(name, min(side, width - 12))}  {number(value)}", width).rstrip())
