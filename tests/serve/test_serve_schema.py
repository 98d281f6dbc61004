"""What schemathesis makes of the server's own OpenAPI schema: no 5xx, nothing that the schema does not say."""

from __future__ import annotations

from pathlib import Path

from fuzz_api import fuzz, models
from serving import serving

from cutaway.serve import Settings


def test_generated_requests_are_answered_as_the_schema_says(tmp_path: Path) -> None:
    """A few for each page, right and wrong; `make fuzz` sends ten thousand."""
    with serving(Settings(models=models(tmp_path))) as served:
        found = fuzz(served, each=5, seed=1, phases="examples,fuzzing")
    assert not found.stopped, found.text
    assert found.faults == 0, found.text
    assert found.requests >= 50


def test_every_bound_of_the_schema_is_one(tmp_path: Path) -> None:
    """Some two thousand requests: every bound of every field, kept and broken."""
    with serving(Settings(models=models(tmp_path))) as served:
        found = fuzz(served, each=1, seed=1, phases="coverage")
    assert not found.stopped, found.text
    assert found.faults == 0, found.text
    assert found.requests >= 1000
