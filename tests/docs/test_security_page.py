"""docs/security.md names tests that exist, and every promise has one."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_names_tests_that_exist():
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", path.read_text("utf-8"))
    }
    promises = re.findall(r"^\| \*\*(T\d+)\. (.*)$", page, re.M)
    assert [number for number, _ in promises] == [f"T{n}" for n in range(1, 21)]
    for number, row in promises:
        named = re.findall(r"`(test_\w+)`", row)
        assert any(name.startswith(f"test_{number.lower()}_") for name in named)
        assert set(named) <= defined
