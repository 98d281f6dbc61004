"""What all verbs share: running one with typer, turning errors into one sentence, and the live display of progress."""

import errno
import gc
import importlib
import inspect
import io
import json
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from cutaway.errors import CutawayError
from cutaway.progress import OnProgress, Progress

UsageError = typer.BadParameter.__bases__[0]  # typer brings its own click along, or uses the installed one
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
EPILOG = "--debug shows the traceback of an error."
NO_MEMORY = "there is not enough memory; use a smaller batch, context or model"
EVERY = 5.0  # seconds between lines where the output is not a terminal


def run_verb(verb: str, words: list[str]) -> int:
    """Run one verb; an error a user can meet ends as one sentence on stderr (JSON with --json) and a code."""
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal of another encoding shows escapes for what it lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command = command_of(verb)
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        with command.make_context(f"cutaway {verb}", words[:]) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        raise
    except BaseException as error:
        code, sentence = explain(error, verb)
        if debug and sentence:
            traceback.print_exc()
        if sentence and "--json" in words:
            print(json.dumps({"error": sentence}, ensure_ascii=False), file=sys.stderr)
        elif sentence:
            print(f"cutaway {verb}: {sentence}", file=sys.stderr)
        return code


def command_of(verb: str) -> Any:
    """What parses a verb's words and calls its function: a click command, made from the function's signature.

    A verb of several actions names the home of each in ACTIONS; adding one is a file with a function and a line there.
    """
    module = importlib.import_module(f"cutaway.cli.{verb}")
    actions = getattr(module, "ACTIONS", None)
    text = _help(module if actions else getattr(module, verb))
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=SETTINGS)
    if actions is None:
        app.command(name=verb, help=text, epilog=EPILOG)(getattr(module, verb))
        return typer.main.get_command(app)
    app.callback(help=text, epilog=EPILOG)(lambda: None)
    for name, home in actions.items():
        function = getattr(importlib.import_module(home), name.replace("-", "_"))
        app.command(name=name, help=_help(function), epilog=EPILOG)(function)
    return typer.main.get_command(app)


def _help(what: Any) -> str:
    # \b on a line of its own keeps click from running the lines of a paragraph together
    return re.sub("^Examples?:$", "\b\n\\g<0>", inspect.getdoc(what) or "", flags=re.M)


def explain(error: BaseException, verb: str) -> tuple[int, str]:
    """The exit code and the sentence for an error; what is our own bug is raised again.

    >>> explain(KeyboardInterrupt(), "train")
    (130, 'stopped by Ctrl-C')
    """
    match error:
        case CutawayError():
            return getattr(error, "exit_code", 2), str(error)
        case typer.Abort() | KeyboardInterrupt():
            return 130, "stopped by Ctrl-C"
        case typer.Exit():
            return error.exit_code, ""
        case SystemExit(__context__=BrokenPipeError()):  # rich says so; `cutaway … | head` has read enough
            return 0, ""
        case _ if isinstance(error, UsageError):
            return 2, f"{error.format_message().rstrip('.')}. See: cutaway {verb} --help"  # pyright: ignore
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return 2, "the disk is full; free some space or write elsewhere (what was there before is unchanged)"
        case OSError() if error.filename:
            return 2, f"{error.filename}: {error.strerror}"
        case MemoryError():
            return 2, NO_MEMORY
        case RuntimeError() if type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error):
            return 2, NO_MEMORY  # torch's way of saying it
    raise error


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """Text for a terminal: control characters, with which a model could command it, are spelled out.

    >>> harmless("one\\ttwo\\x1b[2J")
    'one\\ttwo\\\\x1b[2J'
    """
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


@contextmanager
def live_progress(*, quiet: bool = False) -> Iterator[OnProgress | None]:
    """A display of progress for a library call: bars on a terminal, a line now and then elsewhere, nothing if quiet.

    with live_progress(quiet=json) as progress:
        prepare(…, progress=progress)
    """
    if quiet:
        yield None
        return
    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console) as progress:
            yield progress
    else:
        yield _Lines()


@contextmanager
def _bars(console: Console) -> Iterator[OnProgress]:
    columns = (TextColumn("{task.description:<12}"), BarColumn(24), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, TextColumn("{task.fields[figures]}", markup=False), console=console) as bars:
        tasks: dict[str, TaskID] = {}
        speeds = _Speeds()

        def show(progress: Progress) -> None:
            shown = {**progress.figures, **speeds(progress)}
            figures = "  ".join(f"{name} {value}" for name, value in shown.items())
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total, figures=figures)
            bars.update(tasks[progress.stage], completed=progress.done, total=progress.total, figures=figures)

        yield show


class _Speeds:
    """How fast each stage that counts bytes is, from its first report on."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, float]] = {}

    def __call__(self, progress: Progress) -> dict[str, str]:
        if progress.unit != "bytes":
            return {}
        now = time.monotonic()
        start, done = self._began.setdefault(progress.stage, (now, progress.done))
        if progress.done < done:  # the same stage of another piece of work
            start, done = self._began[progress.stage] = now, progress.done
        return {"MB/s": f"{(progress.done - done) / 1e6 / (now - start):.1f}"} if now - start > 0.5 else {}


class _Lines:
    """Progress as plain lines: the first and last report of a stage, and one every few seconds between."""

    def __init__(self) -> None:
        self.stage, self.next, self.speeds = "", 0.0, _Speeds()

    def __call__(self, progress: Progress) -> None:
        now, speed = time.monotonic(), self.speeds(progress)
        last = progress.total is not None and progress.done >= progress.total
        if progress.stage == self.stage and now < self.next and not last:
            return
        self.stage, self.next = progress.stage, now + EVERY
        share = f" {100 * progress.done / progress.total:3.0f} %" if progress.total else ""
        figures = "".join(f"  {name} {value}" for name, value in {**progress.figures, **speed}.items())
        print(f"{progress.stage}{share}{figures}", file=sys.stderr, flush=True)
