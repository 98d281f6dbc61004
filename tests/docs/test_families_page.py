"""docs/families.md is what the family files say."""

from pathlib import Path

from cutaway.models.families._page import page


def test_the_page_is_written_from_the_files():
    shown = (Path(__file__).parents[2] / "docs" / "families.md").read_text("utf-8")
    assert shown == page(), "write it anew: python -m cutaway.models.families > docs/families.md"
