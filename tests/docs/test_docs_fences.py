"""Blocks of code in the documentation begin and end, so that no prose is taken for code."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_is_closed_before_another_begins(page: Path) -> None:
    opened = 0
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if not line.lstrip().startswith("```"):
            continue
        if not opened:
            opened = number
        else:
            assert line.strip() == "```", f"line {number} begins a block inside the one of line {opened}"
            opened = 0
    assert not opened, f"the block of line {opened} has no end"
