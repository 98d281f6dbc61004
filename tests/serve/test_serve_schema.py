"""What schemathesis makes of the server's own OpenAPI schema: no 5xx, nothing that the schema does not say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz_api import fuzz, models
from pydantic import TypeAdapter
from serving import serving

from cutaway.serve import Settings
from cutaway.serve.routes import ROUTERS


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


def test_t13_a_list_of_wrong_entries_is_one_error_and_not_a_million() -> None:
    """Else a body of 8 MB holds up everybody for as long as it takes to say of each entry what is wrong: 40 s."""
    routes = [route for router in ROUTERS for route in router.routes]
    bodies = {str(route.path): route.body_field for route in routes if getattr(route, "body_field", None)}  # pyright: ignore[reportAttributeAccessIssue]
    assert len(bodies) > 8
    found = [
        (path, one)
        for path, body in bodies.items()
        for one in _lists(TypeAdapter(body.field_info.annotation).core_schema)
    ]
    assert len(found) > 20
    assert not [(path, one) for path, one in found if not one.get("fail_fast") and one.get("max_length", 99) > 1]


def _lists(schema: Any) -> Iterator[Any]:
    """All lists within a schema of pydantic's core."""
    if isinstance(schema, dict) and schema.get("type") == "list":
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list | tuple) else ():
        yield from _lists(part)
