"""Whole files of every kind, made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import make_specimens


@pytest.fixture(scope="session")
def specimens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_specimens(tmp_path_factory.mktemp("hostile") / "specimens")


@pytest.fixture
def copy(specimens: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a specimen, such as "cutaway/gru", to damage."""

    def make(name: str) -> Path:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(specimens / name, folder))

    return make
