"""The command line as users meet it: help without weight, one sentence per error, codes, near matches."""

import errno
import io
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cutaway.cli import VERBS, help_page, main
from cutaway.cli._frame import command_of
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


WAYS = [  # of calling: a verb, or one of its actions
    words
    for verb in VERBS
    for words in [(verb,), *((verb, action) for action in getattr(import_module(f"cutaway.cli.{verb}"), "ACTIONS", ()))]
]


def command_at(way: tuple[str, ...]) -> Any:
    """The command of a verb, or of its action."""
    command = command_of(way[0])
    return command if len(way) == 1 else command.commands[way[1]]


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_every_verb_explains_itself(way: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    assert main([*way, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"cutaway {' '.join(way)}" in shown
    actions = getattr(command_at(way), "commands", None)
    assert "--json" in shown or (actions and all(action in shown for action in actions))


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_the_examples_of_a_verb_stand_on_lines_of_their_own_and_parse(
    way: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    assert main([*way, "--help"]) == 0
    examples = re.findall(r"^ +(cutaway .+)$", capsys.readouterr().out, flags=re.M)
    command = command_at(way)
    written = (
        import_module(f"cutaway.cli.{way[0]}").__doc__ if hasattr(command, "commands") else command.callback.__doc__
    )
    assert examples == re.findall(r"^ +(cutaway .+)$", written or "", flags=re.M)
    assert examples
    for example in examples:
        program, *words = shlex.split(example, comments=True)
        words = words[: words.index(">")] if ">" in words else words  # the rest is the shell's
        assert (program, words[0]) == ("cutaway", way[0])
        command_of(way[0]).make_context(f"cutaway {way[0]}", words[1:])  # an error if an option is unknown or wrong
        if hasattr(command_of(way[0]), "commands"):
            command_at((way[0], words[1])).make_context(" ".join(words[:2]), words[2:])


def test_version(capsys: pytest.CaptureFixture[str]):
    from cutaway import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cutaway {__version__}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "unknown verb 'trian'; did you mean train"),
        (["--hlep"], "unknown option '--hlep'; did you mean --help"),
        (["generate"], "Missing argument 'model'"),
        (["generate", "nowhere"], "nowhere does not exist"),
        (["generate", "nowhere", "--temprature", "1"], "--temperature"),
        (["generate", "nowhere", "--temperature", "warm"], "Invalid value for '--temperature'"),
        (["generate", "nowhere", "--top-k", "1.5"], "Invalid value for '--top-k'"),
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
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 2),
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
    assert {choice["name"] for choice in found["choices"]} == {
        "device",
        "training dtype",
        "float32 products",
        "kernels",
        "threads",
    }
    assert all(choice["reason"] for choice in found["choices"])
    assert main(["doctor"]) == 0
    assert "GFLOP/s" in capsys.readouterr().out


def test_doctor_names_what_is_missing_and_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import cutaway.doctor as module

    lines = ["a-library>=1; extra == 'documents'", "torch>=2.9", "numpy; extra == 'pictures'", "other; extra == 'dev'"]
    monkeypatch.setattr(module, "requires", lambda package: lines)
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["extras"] == {"documents": ["a-library"], "pictures": []}
    assert found["commands"] == {"documents": "pip install 'cutaway[documents]'"}
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor"]) == 0
    assert "a-library; pip install 'cutaway[documents]'" in capsys.readouterr().out


def test_ctrl_c_at_any_moment_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    import cutaway.cli

    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cutaway.cli, "_answer", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "cutaway: stopped by Ctrl-C\n"


@pytest.mark.parametrize("redirection", ["| head -0", ">&-"])
@pytest.mark.parametrize("words", ["--help", "doctor"])
def test_a_closed_output_is_no_error(words: str, redirection: str):
    command = f"{sys.executable} -m cutaway {words} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(("words", "sentence"), [("--help", "No space left"), ("doctor --json", "the disk is full")])
def test_a_full_output_is_one_sentence(words: str, sentence: str):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cutaway", *words.split()], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_output_that_stays_full_is_told_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """The verb has failed to write and said so; what it left in the buffer fails once more at the end."""
    import cutaway.cli

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def fileno(self) -> int:
            return os.open(os.devnull, os.O_WRONLY)

    monkeypatch.setattr(cutaway.cli, "_answer", lambda words: 2)
    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["doctor"]) == 2
    assert capfd.readouterr().err == ""
