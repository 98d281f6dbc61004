"""A task's training that is stopped or killed goes on, bit for bit; one whose data changed does not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from task_toys import write_base, write_reviews

from cutaway.errors import ConfigError, InputError
from cutaway.files import sha256
from cutaway.tasks import TaskConfig, open_task, resume_task, train_task
from cutaway.tasks.plan import placed

SETTINGS = ["epochs=6", "batch=8", "evaluations=12", "dropout=0.1", "threads=1", "size=1", "vocab_size=320"]


def command(*words: str) -> subprocess.Popen:
    main = [sys.executable, "-c", "import sys; from cutaway.cli import main; sys.exit(main())", "task", "train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*main, *words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def words(folder: Path, out: str, how: str) -> list[str]:
    begin = ["--from", str(folder / "base"), "--how", how] if how else []
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return ["classify", "--data", str(folder / "reviews.tsv"), "--out", str(folder / out), *begin, *settings]


def config(folder: Path, out: str, how: str) -> TaskConfig:
    values: dict[str, Any] = {key: json.loads(value) for key, value in (setting.split("=") for setting in SETTINGS)}
    begin: dict[str, Any] = {"start": str(folder / "base"), "how": how} if how else {}
    return TaskConfig("classify", str(folder / "reviews.tsv"), str(folder / out), **begin, **values)


def weights(out: Path) -> dict[str, str]:
    """The checksums of all that is computed with."""
    found = {path.name: sha256(path) for path in out.rglob("*.safetensors") if "run" not in path.parts}
    return found | {"calibration": str(json.loads((out / "task.json").read_text())["calibration"])}


def until_a_checkpoint(process: subprocess.Popen, out: Path, count: int = 1) -> None:
    limit = time.monotonic() + 120
    while len(list((out / "run" / "checkpoints").glob("step-*"))) < count:
        assert process.poll() is None, process.stderr.read()  # pyright: ignore[reportOptionalMemberAccess]
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.mark.parametrize(("how", "number"), [("lora", signal.SIGKILL), ("", signal.SIGINT)])
def test_what_was_killed_goes_on_to_the_same_bits(how: str, number: int, tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.tsv")
    if how:
        write_base(tmp_path / "base", "bert")
    train_task(config(tmp_path, "unbroken", how))
    out = tmp_path / "broken"
    process = command(*words(tmp_path, "broken", how))
    until_a_checkpoint(process, out)
    os.kill(process.pid, number)
    _, told = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    if number == signal.SIGINT:
        assert json.loads(told)["error"].endswith(f"Continue with: cutaway task train --resume {out}")
    assert not (out / "task.json").exists()
    with pytest.raises(InputError, match="holds a training that has not ended"):
        train_task(config(tmp_path, "broken", how))
    if number == signal.SIGINT:
        process = command("--resume", str(out))
        told, error = process.communicate()
        assert process.returncode == 0, error
        assert json.loads(told)["report"]["examples"] == 24
    else:  # what changed is refused, and nothing is lost
        data = tmp_path / "reviews.tsv"
        before = data.read_text("utf-8")
        data.write_text(before + "one more\tgood\n", "utf-8")
        with pytest.raises(ConfigError, match=r"reviews.tsv changed since .* was begun"):
            resume_task(out)
        data.write_text(before, "utf-8")
        out = out.rename(tmp_path / "moved")
        assert resume_task(out).report is not None
    assert weights(out) == weights(tmp_path / "unbroken")
    assert not list((out / "run").rglob("optimizer.safetensors"))  # what nobody goes on from is let go
    with pytest.raises(InputError, match="is finished"):
        resume_task(out)
    with pytest.raises(InputError, match="holds a task's model already"):
        train_task(config(tmp_path, out.name, how))
    assert open_task(out).predict(["the film was superb"])


def test_a_mistake_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "reviews.tsv").write_text("text\tlabel\nfine\tgood\nbad\tgood\n", "utf-8")
    with pytest.raises(InputError):
        train_task(config(tmp_path, "out", ""))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="no training of a task was begun"):
        resume_task(tmp_path)


def test_what_a_plan_names_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.en", "b.de", "t.csv"):
        Path(name).write_text("x\n", "utf-8")
    assert placed("en=a.en,de=b.de") == f"en={tmp_path / 'a.en'},de={tmp_path / 'b.de'}"
    assert placed("t.csv") == str(tmp_path / "t.csv")
    assert [placed(one) for one in ("someone/model", "", 0.1)] == ["someone/model", "", 0.1]
