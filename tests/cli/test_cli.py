"""The command line as users meet it: help without weight, one sentence per error, codes, near matches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cutaway.cli import VERBS, help_page, main
from cutaway.errors import InputError, Interrupted


def run(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "cutaway", *words], capture_output=True, text=True, **options)


def imported_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sorted(sys.modules), file=sys.stderr)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stderr.split())


def test_importing_cutaway_imports_nothing_heavy():
    assert not imported_by("import cutaway") & {"torch", "numpy", "tokenizers", "typer", "rich", "click"}


def test_help_imports_nothing_heavy():
    heavy = imported_by("from cutaway.cli import main\nmain(['--help'])") & {"torch", "numpy", "typer", "rich", "click"}
    assert not heavy


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]):
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        assert capsys.readouterr().out == help_page()
    assert all(verb in help_page() for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"cutaway {verb}" in shown
    assert "--json" in shown


def test_version(capsys: pytest.CaptureFixture[str]):
    from cutaway import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cutaway {__version__}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "unknown verb 'trian'; did you mean train"),
        (["generate"], "Missing argument 'model'"),
        (["generate", "nowhere"], "nowhere does not exist"),
        (["generate", "nowhere", "--temprature", "1"], "--temperature"),
        (["generate", "nowhere", "--temperature", "warm"], "Invalid value for '--temperature'"),
        (["look", "nowhere", "text"], "nowhere does not exist"),
    ],
)
def test_errors_are_one_sentence_with_code_2(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_errors_are_json_when_json_is_asked_for(capsys: pytest.CaptureFixture[str]):
    assert main(["generate", "nowhere", "--json"]) == 2
    assert "nowhere does not exist" in json.loads(capsys.readouterr().err)["error"]


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]):
    assert main(["generate", "nowhere", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_our_own_bugs_are_not_dressed_up(monkeypatch: pytest.MonkeyPatch):
    import cutaway.cli.doctor as module

    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "doctor", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["doctor"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (Interrupted("x"), 130),
        (Interrupted("x", 143), 143),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device"), 2),
        (PermissionError(13, "Permission denied", "/there"), 2),
        (MemoryError(), 2),
    ],
)
def test_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    import cutaway.cli.doctor as module

    def fails() -> None:
        raise error

    monkeypatch.setattr(module, "doctor", fails)
    assert main(["doctor"]) == code
    assert capsys.readouterr().err.startswith("cutaway doctor: ")


def test_doctor(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cores"] >= 1
    assert found["rates"]["fp32_gflops"] > 0
    assert {choice["name"] for choice in found["choices"]} == {"device", "training dtype", "threads"}
    assert main(["doctor"]) == 0
    assert "GFLOP/s" in capsys.readouterr().out


def test_a_closed_pipe_is_no_error(tmp_path: Path):
    done = subprocess.run(
        f"{sys.executable} -m cutaway doctor | head -0", shell=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
