"""Every kind of result: its faces are whole, keep to their width, and lose no number."""

import io
import json
import math
import re
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from saved_page import Page, give_script

from cutaway.interp import (
    Attention,
    Branch,
    Candidate,
    Chances,
    Curve,
    Edge,
    Graph,
    Lens,
    Matrix,
    Node,
    Panel,
    Receipt,
    Result,
    Step,
    Table,
    TokenScores,
    Tree,
)

RECEIPT = Receipt(0.0, 1.5, 10, "float32", "a test", 3, 1e-7, "import cutaway\n")
WIDE = ["The", " 中文分词很长很长很长", "</script><b>", "x" * 60]


def made() -> dict[str, Result]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 50, generator=generator)
    values[3, 4] = math.nan
    patterns = torch.rand(2, 3, 4, 6, generator=generator).softmax(-1)
    keys = [*WIDE, "e", "f"]
    square = torch.rand(2, 3, 4, 4, generator=generator).softmax(-1)
    ids = torch.arange(4, dtype=torch.int32).expand(2, 4)[..., None].contiguous()
    halves = torch.full((2, 4, 1), 0.5)
    tree = Branch("The", 1, 1, tuple(Branch(word, 0.25, 0.25, (Branch(" end", 1.0, 0.25),)) for word in WIDE))
    nodes = [Node(f"n.{i}", word, 0.1 * i, i // 2) for i, word in enumerate(WIDE)]
    parts: dict[str, Result] = {
        "scores": TokenScores(
            "attribution", "logits", WIDE, [1, 2, 3, 4], [0.5, -2e-5, None, 3], True, receipt=RECEIPT
        ),
        "matrix": Matrix(
            "effect",
            "share",
            [f"layer {i}" for i in range(40)],
            WIDE * 12 + ["a", "b"],
            values,
            "layer",
            "token",
            receipt=RECEIPT,
        ),
        "small matrix": Matrix("effect", "share", ["a"], ["b"], torch.zeros(1, 1), receipt=RECEIPT),
        "curve": Curve(
            "dose", "strength", "log-probability", [0, 1, 2], {w: [1.0, None, -2.5] for w in WIDE}, receipt=RECEIPT
        ),
        "flat curve": Curve("dose", "strength", "y", [1], {"one": [2.0]}, receipt=RECEIPT),
        "table": Table(
            "neighbours",
            ["token", "cosine", "same", *WIDE],
            [[w, 0.1, True, None, 1, "x" * 200, w] for w in WIDE],
            receipt=RECEIPT,
        ),
        "empty table": Table("nothing", ["token"], [], receipt=RECEIPT),
        "graph": Graph(
            "circuit", "logits", nodes, [Edge("n.0", "n.2", 0.5), Edge("n.1", "n.3", -0.1)], receipt=RECEIPT
        ),
        "tree": Tree("next words", tree, receipt=RECEIPT),
        "cross": Attention(WIDE, patterns, keys=keys, causal=False, receipt=RECEIPT),
        "both sides": Attention(WIDE, square, causal=False, receipt=RECEIPT),
        "lens": Lens(
            WIDE,
            ["embedding", "layer 0"],
            ids=ids,
            logits=halves,
            probabilities=halves,
            entropies=halves[..., 0],
            words=dict(enumerate(WIDE)),
            chosen=ids[0, :, 0],
            ranks=ids[..., 0] + 1,
            chances=halves[..., 0],
            receipt=RECEIPT,
        ),
        "chances": Chances(
            "what may come after “The”",
            WIDE,
            [1, 2, 3, 4],
            0,
            False,
            [Candidate(i, w, "20", i + 1, -1.5, 0.2, 0.5, "top_p" if i else None) for i, w in enumerate(WIDE)],
            0.2,
            0.0,
            Candidate(1, WIDE[1], "20", 2, -1.5, 0.2, 0.5, "top_p"),
            [Step("temperature", 1.0, 9, 1.0), Step("top_p", 0.5, 1, 0.2)],
            2.0,
            0.0,
            logits=torch.zeros(9),
            model=None,  # pyright: ignore[reportArgumentType]  # only asked by `under`
            asked={},
            receipt=RECEIPT,
        ),
    }
    return parts | {"panel": Panel("All of them", parts, ["A note."], {"figure": 0.25}, receipt=RECEIPT)}


@pytest.fixture(params=made())
def result(request: pytest.FixtureRequest) -> Result:
    return made()[request.param]


def printed(result: Result, width: int, colour: bool, wrap: bool) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="truecolor" if colour else None
    )
    console.print(result, soft_wrap=not wrap)
    assert isinstance(console.file, io.StringIO)
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_picture_keeps_to_its_width(result: Result, width: int, colour: bool):
    """Sentences may wrap; what is drawn fits as it is."""
    assert all(cell_len(line) <= width for line in printed(result, width, colour, wrap=True))
    drawn = set("█▌▐│├└●○")
    for line in printed(result, width, colour, wrap=False):
        assert cell_len(line) <= width or not set(line) & drawn or line.startswith("share "), line


def test_the_data_is_plain_and_the_page_holds_it(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    give_script(tmp_path, monkeypatch)
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert data["receipt"]["gap"] == 1e-7
    page = Page(result.to_html())
    assert page.held["receipt"]["gap"] == 1e-7
    assert page.pictures == [result.picture]
    assert [tag for tag, _ in page.elements if tag in ("b", "script")] == ["script", "script"]
    assert "<b>" not in page.inside["data"]
    assert result._repr_html_().startswith("<iframe sandbox=")


def test_the_largest_numbers_of_a_matrix_come_first():
    matrix = made()["matrix"]
    assert isinstance(matrix, Matrix)
    found = [abs(value) for _, _, value in matrix.top(2000)]
    assert len(found) == 1999  # one has no number
    assert found == sorted(found, reverse=True)
    row, column, value = matrix.top(1)[0]
    line = matrix.values[matrix.rows.index(row)]
    assert float(line[~line.isnan()].abs().max()) == abs(value)
    assert column in matrix.columns
