"""The types of the pages are made of studio/openapi.json, which says what the server does."""

import importlib.util
from pathlib import Path

STUDIO = Path(__file__).parents[2] / "studio"


def test_the_studios_schema_is_the_servers() -> None:
    spec = importlib.util.spec_from_file_location("studio_openapi", STUDIO / "openapi.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    kept = (STUDIO / "openapi.json").read_text("utf-8")
    assert kept == made.schema(), "run 'python studio/openapi.py'"
