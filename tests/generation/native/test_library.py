"""The library is found, and what computes is what the environment asks for, or one sentence says why not."""

import pytest

from cutaway.cli import main
from cutaway.errors import ConfigError
from cutaway.generation.native import library
from cutaway.generation.native.library import NAME, SETS, available, find, instruction_set, load


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch):
    """Each test loads anew, and leaves nothing chosen behind."""
    monkeypatch.delenv("CUTAWAY_KERNELS", raising=False)
    best = instruction_set()
    load.cache_clear()
    yield
    monkeypatch.undo()
    load.cache_clear()
    load().ctw_choose_instruction_set(best.encode())


def test_the_best_is_chosen_with_its_reason():
    works, reason = available()
    assert works
    assert "best" in reason
    assert instruction_set() in SETS


@pytest.mark.parametrize("name", SETS)
def test_each_set_is_used_or_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUTAWAY_KERNELS", name)
    if load_or_none() is None:
        with pytest.raises(ConfigError, match=f"{name}.*does not have; best here: "):
            available()
        assert name != "portable"
    else:
        assert available() == (True, "CUTAWAY_KERNELS asks for them")
        assert instruction_set() == name


def load_or_none() -> object:
    try:
        return load()
    except ConfigError:
        return None


def test_torch_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUTAWAY_KERNELS", "torch")
    assert available() == (False, "CUTAWAY_KERNELS asks for torch")


def test_a_wrong_name_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUTAWAY_KERNELS", "avx3")
    with pytest.raises(ConfigError, match=r"CUTAWAY_KERNELS: unknown instruction set 'avx3'; did you mean avx2"):
        available()


def test_without_a_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(library, "find", lambda: None)
    assert available() == (
        False,
        "Cutaway was installed without a C++17 compiler; install one and Cutaway again",
    )
    monkeypatch.setenv("CUTAWAY_KERNELS", "portable")
    with pytest.raises(ConfigError, match="without its native kernels"):
        available()


def test_a_file_that_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("CUTAWAY_NATIVE", str(tmp_path / "missing.so"))
    with pytest.raises(ConfigError, match=r"which is no file; build it with: make native"):
        find()
    (tmp_path / NAME).write_bytes(b"not a library")
    monkeypatch.setenv("CUTAWAY_NATIVE", str(tmp_path / NAME))
    with pytest.raises(ConfigError, match="cannot be used: "):
        available()


def test_the_command_line_refuses_in_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("CUTAWAY_KERNELS", "nonsense")
    assert main(["doctor"]) == 2
    assert "unknown instruction set 'nonsense'" in capsys.readouterr().err
