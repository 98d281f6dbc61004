"""A task's training as it was begun: the config and the checksums of the data, written first, so that it can go on.

    out/
      plan.json     written before anything else
      run/          what is being learned, with its checkpoints; its own manifest is not the folder's
      task.json …   the model, whole: all of it appears at the end, task.json last

What ends well has a task.json; what has a plan alone can be continued.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cutaway import __version__
from cutaway.errors import ConfigError, CutawayError, DamagedFile, InputError, Interrupted, NonFinite
from cutaway.files import MANIFEST, disk_errors, holds, inside, read_json, seal, sha256, sync_folder, write_json
from cutaway.models.model import CHECKPOINTS
from cutaway.settings import build, to_dict
from cutaway.tasks.config import TaskConfig
from cutaway.tasks.task import task_to_dict
from cutaway.tasks.trained import TASK
from cutaway.text.parallel import parallel_files

PLAN, RUN, ROOM = "plan.json", "run", ".made"
FORMAT = 1
OF_MODELS = (".safetensors", ".json", ".gguf", ".txt", ".model")  # files that a checkpoint's meaning hangs on


def config_to_dict(config: TaskConfig) -> dict[str, Any]:
    """Plain data; `build(TaskConfig, …)` leads back."""
    return {**to_dict(config), "task": task_to_dict(config.task)}


def begin_plan(config: TaskConfig) -> None:
    """Write what is going to be done.

    Raises:
        InputError: the folder holds something already, or a file is missing.
    """
    out = Path(config.out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose another place for the model's folder")
    if holds(out, TASK):
        raise InputError(f"{out} holds a task's model already; choose another folder, or remove it")
    if holds(out, PLAN):
        raise InputError(
            f"{out} holds a training that has not ended; continue it with: {resume_command(out)}, or choose another "
            "folder"
        )
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; choose another folder for the model")
    files = checksums(config)
    plain = config_to_dict(config)
    for name in ("data", "valid", "test", "start", "out"):
        plain[name] = placed(plain[name])
    plain["domain"] = [str(Path(path).resolve()) for path in config.domain]
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_json(out / PLAN, {"format": FORMAT, "cutaway": __version__, "config": plain, "files": files})


def placed(given: Any) -> Any:
    """A path, or several with names, so that it leads to the same from anywhere; what is none stays as it is."""
    if not isinstance(given, str) or not given:
        return given
    if files := parallel_files(given):
        return ",".join(f"{name}={path.resolve()}" for name, path in files.items())
    return str(Path(given).resolve()) if Path(given).exists() else given


def read_plan(out: Path) -> TaskConfig:
    """What was going to be done, if all that it is made from is still as it was.

    Raises:
        InputError: the folder holds no plan, or has ended.
        ConfigError: made by another version, or a file has changed.
        DamagedFile: it cannot be read.
    """
    if holds(out, TASK):
        raise InputError(f"{out} is finished, so there is nothing to continue; use it with: cutaway task predict {out}")
    if not holds(out, PLAN):
        raise InputError(f"{out} holds no {PLAN}, so no training of a task was begun there; leave --resume out")
    record = read_json(inside(out, PLAN))
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise DamagedFile(f"{out / PLAN} is no plan; remove {out} and begin anew")
    if record.get("format") != FORMAT:
        raise ConfigError(f"{out} was begun by Cutaway {record.get('cutaway')}; continue it with that version")
    config = replace(build(TaskConfig, record["config"], where=str(out / PLAN)), out=str(out))
    then, now = record.get("files"), checksums(config)
    if then != now:
        before = then if isinstance(then, dict) else {}
        changed = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
        raise ConfigError(
            f"{', '.join(changed[:3])} changed since {out} was begun, so going on would make something that is neither "
            "the one nor the other; restore it, or begin anew in another folder"
        )
    return config


def checksums(config: TaskConfig) -> dict[str, str]:
    """The SHA-256 of every file that a training reads, by its path.

    Raises:
        InputError: one of the data's is not there.
    """
    given = [config.data, config.valid, config.test, *config.domain]
    found: dict[str, str] = {}
    named = (path for one in given if isinstance(one, str) for path in (parallel_files(one).values() or [Path(one)]))
    for path in named:
        if not path.exists():
            raise InputError(f"{path} does not exist")
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            found[str(file.resolve())] = sha256(file)
    start = Path(config.start) if config.start else None
    if start is not None and start.exists():
        files = [start] if start.is_file() else sorted(p for p in start.iterdir() if p.suffix in OF_MODELS)
        found |= {str(file.resolve()): sha256(file) for file in files}
    return found


def resume_command(out: Path) -> str:
    """What continues a training."""
    return f"cutaway task train --resume {shlex.quote(str(out))}"


def tidy(run: Path) -> None:
    """Remove the checkpoints of runs that nothing goes on from any more."""
    for checkpoint in run.rglob(f"{CHECKPOINTS}/*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


@contextmanager
def continuable(out: Path) -> Iterator[None]:
    """Say how a training goes on that is interrupted inside; leave no folder behind where nothing was learned yet.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, with the command that continues.
        NonFinite: with what to do about it.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        stopped = str(error).split(". Continue")[0] if isinstance(error, Interrupted) else "stopped by Ctrl-C"
        code = error.exit_code if isinstance(error, Interrupted) else 130
        raise Interrupted(f"{stopped}. Continue with: {resume_command(out)}", code) from error
    except NonFinite as error:
        happened = str(error).split(". Continue")[0]
        raise NonFinite(f"{happened}. Begin anew in another folder with a smaller rate (--set lr=…)") from error
    except CutawayError:
        if not any((out / RUN).rglob("config.json")):  # the next try, with what was wrong put right, finds it free
            shutil.rmtree(out / RUN, ignore_errors=True)
            (out / PLAN).unlink(missing_ok=True)
            with disk_errors(out):
                if out.is_dir() and not any(out.iterdir()):
                    out.rmdir()
        raise


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, whose files stand in `out` when the block has ended well, task.json as the last.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    room = out / ROOM
    with disk_errors(out):
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir(parents=True)
        try:
            yield room
            seal(room)
            order = sorted(room.iterdir(), key=lambda path: (path.name == TASK, path.name == MANIFEST, path.name))
            for path in order:
                place = out / path.name
                if place.is_dir():
                    shutil.rmtree(place)
                os.replace(path, place)
            room.rmdir()
        except BaseException:
            shutil.rmtree(room, ignore_errors=True)
            raise
        sync_folder(out)
