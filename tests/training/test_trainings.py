"""Trainings in processes of their own: begun, watched, stopped, killed, resumed, refused; and none is left behind."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cutaway.errors import ConfigError, InputError
from cutaway.files import sha256
from cutaway.models.model import checkpoints
from cutaway.tokenizers.pipeline import prepare
from cutaway.training import Order, Training, Trainings, suggest_order
from cutaway.training.launched import NO_ROOM, ended
from cutaway.training.watching import Tail, corpora

pytestmark = pytest.mark.filterwarnings("error")


def story() -> str:
    """Words without much sense, the same each time."""
    draw = random.Random(1)
    words = ["".join(draw.choice("abcdefgh") for _ in range(draw.randint(2, 7))) for _ in range(200)]
    return ". ".join(" ".join(draw.choice(words) for _ in range(9)).capitalize() for _ in range(300))


TEXT = story()
SMALL = Order(size=1, context=16, steps=24, vocab_size=280, clean=False, save_every=8)
LONG = replace(SMALL, steps=100_000, save_every=100_000)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus, so that runs begin at once."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "story.txt").write_text(TEXT, "utf-8")
    return prepare([str(folder / "story.txt")], folder / "made", vocab_size=280, steps=(), workers=1).folder


@pytest.fixture
def trainings(tmp_path: Path) -> Iterator[Trainings]:
    """An owner whose trainings end with the test."""
    made = Trainings(tmp_path / "trainings")
    yield made
    made.close()


def until(trainings: Trainings, name: str, wanted: Callable[[Training], bool], seconds: float = 90) -> Training:
    """Wait for a state."""
    end = time.monotonic() + seconds
    while not wanted(found := trainings.state(name)):
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


def begun(state: Training) -> bool:
    """Whether steps were taken."""
    return not state.running or (state.stage == "training" and state.done > 2)


def weights(trainings: Trainings, name: str) -> str:
    """The checksum of the newest weights."""
    return sha256(checkpoints(trainings.folder / name)[0] / "model.safetensors")


def test_a_training_from_texts_tells_how_far_it_is_and_keeps_its_steps(trainings: Trainings) -> None:
    trainings.start("story", SMALL, texts={"a.txt": TEXT[: len(TEXT) // 2], "b.txt": TEXT[len(TEXT) // 2 :]})
    assert trainings.running() is not None
    tail = Tail(trainings.folder / "story")
    assert tail.read() == (False, [])
    with pytest.raises(InputError, match="story is being trained, and one runs at a time"):
        trainings.start("other", SMALL, texts={"a.txt": TEXT})
    state = until(trainings, "story", lambda one: not one.running)
    assert (state.state, state.message, state.planned, state.steps) == ("finished", "", 24, [8, 16, 24])
    assert state.settings["kind"] == "decoder"
    assert state.settings["layers"] == 1
    again, records = tail.read()
    assert again
    assert [one["step"] for one in records if "loss" in one] == list(range(1, 25))
    assert [one["step"] for one in records if "sample" in one] == [8, 16, 24]
    assert tail.read() == (False, [])
    assert list(corpora(trainings.folder.parent)) == ["trainings/story/corpus"]
    with pytest.raises(InputError, match="there is something called story already"):
        trainings.start("story", SMALL, texts={"a.txt": TEXT})
    with pytest.raises(InputError, match="has taken all its 24 steps"):
        trainings.resume("story")
    trainings.resume("story", steps=32)
    state = until(trainings, "story", lambda one: not one.running)
    assert (state.state, state.planned, state.steps[-1]) == ("finished", 32, 32)


@pytest.mark.slow
def test_stopped_and_killed_runs_end_with_the_bits_of_one_that_was_not(trainings: Trainings, corpus: Path) -> None:
    order = replace(SMALL, steps=60, save_every=20)
    trainings.start("whole", order, corpus=corpus)
    until(trainings, "whole", lambda one: not one.running)

    trainings.start("broken", order, corpus=corpus)
    until(trainings, "broken", begun)
    trainings.stop("broken")
    state = until(trainings, "broken", lambda one: not one.running)
    assert state.state == "stopped"
    assert state.steps, "a stop saves a checkpoint"
    stopped_at = state.steps[-1]
    with pytest.raises(InputError, match="broken does not run"):
        trainings.stop("broken")

    other = Trainings(trainings.folder)  # a server that was started anew
    try:
        assert other.state("broken").state == "stopped"
        other.resume("broken")
        until(other, "broken", lambda one: begun(one) and (one.done > stopped_at or not one.running))
        process = other._processes["broken"]
        process.kill()
        process.wait()
        state = other.state("broken")
        if state.state != "finished":  # it may have been faster
            assert (state.state, state.code) == ("interrupted", "killed")
            assert "exit code -9" in state.message
            other.resume("broken")
        assert until(other, "broken", lambda one: not one.running).state == "finished"
    finally:
        other.close()
    assert weights(trainings, "broken") == weights(trainings, "whole")


def test_closing_stops_what_runs_after_saving(trainings: Trainings, corpus: Path) -> None:
    trainings.start("run", LONG, corpus=corpus)
    until(trainings, "run", begun)
    process = trainings._processes["run"]
    trainings.close()
    assert process.poll() == 0
    state = trainings.state("run")
    assert state.state == "stopped"
    assert len(state.steps) == 1


OWNER = """
import sys, time
from pathlib import Path
from cutaway.training import Order, Trainings
made = Trainings(sys.argv[1])
made.start("run", Order(size=1, context=16, steps=100000, save_every=100000), corpus=Path(sys.argv[2]))
while not (made.state("run").stage == "training" and made.state("run").done > 2):
    time.sleep(0.05)
print(made._processes["run"].pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_owner_leaves_no_orphan_but_a_checkpoint(tmp_path: Path, corpus: Path) -> None:
    folder = tmp_path / "trainings"
    command = [sys.executable, "-c", OWNER, str(folder), str(corpus)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.send_signal(signal.SIGKILL)
    seen = Trainings(folder)
    state = until(seen, "run", lambda one: not one.running)
    assert (state.state, len(state.steps)) == ("stopped", 1)
    end = time.monotonic() + 30
    while _lives(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_bad_texts_fail_in_words_and_the_name_is_free_again(trainings: Trainings) -> None:
    for text, said in ((" \n", "the text is empty"), ("", "the text is empty")):
        with pytest.raises(InputError, match=said):
            trainings.start("bad", SMALL, texts={"a.txt": text})
    trainings.start("bad", replace(SMALL, clean=True), texts={"a.txt": "the same words again and again " * 400})
    state = until(trainings, "bad", lambda one: not one.running)
    assert (state.state, state.code) == ("failed", "input")
    assert "nothing is left after cleaning" in state.message
    trainings.start("bad", replace(SMALL, clean=False), texts={"a.txt": TEXT})
    assert until(trainings, "bad", lambda one: not one.running).state == "finished"


@pytest.mark.slow
def test_numbers_that_are_none_end_a_run_which_goes_on_with_a_smaller_rate(trainings: Trainings, corpus: Path) -> None:
    trainings.start("wild", replace(SMALL, lr=1e38, steps=60, save_every=2), corpus=corpus)
    state = until(trainings, "wild", lambda one: not one.running)
    assert (state.state, state.code) == ("failed", "non_finite"), state
    assert "training stopped" in state.message
    assert str(trainings.folder) not in state.message
    trainings.resume("wild", calmer=True)
    until(trainings, "wild", lambda one: not one.running or one.stage == "training")
    from cutaway.training.checkpoint import read_config

    assert read_config(trainings.folder / "wild")[0].lr == pytest.approx(1e38 / 3)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a" * 49, "naïve", "a b", "a\n"])
def test_names_that_could_lead_elsewhere_are_refused(trainings: Trainings, name: str) -> None:
    for act in (trainings.place, trainings.stop, trainings.resume):
        with pytest.raises(InputError, match="cannot name a training"):
            act(name)
    with pytest.raises(InputError, match="cannot name a training"):
        trainings.start(name, SMALL, texts={"a.txt": TEXT})
    assert not trainings.folder.exists()


def test_links_and_strange_folders_are_left_alone(trainings: Trainings, tmp_path: Path, corpus: Path) -> None:
    trainings.folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (trainings.folder / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        trainings.start("link", SMALL, corpus=corpus)
    (trainings.folder / "mine").mkdir()
    (trainings.folder / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match="something called mine already"):
        trainings.start("mine", SMALL, corpus=corpus)
    assert (trainings.folder / "mine" / "notes.txt").read_text() == "keep"
    with pytest.raises(InputError, match="no corpus that cutaway prepare made"):
        trainings.start("new", SMALL, corpus=tmp_path / "elsewhere")
    assert trainings.all() == []


def test_what_a_run_ended_with_in_words() -> None:
    assert ended(OSError(28, "No space left on device"))["code"] == "disk"
    assert ended(InputError("cannot write x: the disk is full; free some space"))["code"] == "disk"
    assert ended(MemoryError())["code"] == "memory"
    assert "training.log" in ended(RuntimeError("?"))["message"]


@pytest.mark.slow
def test_a_disk_too_full_to_tell_is_told_by_the_exit_code(trainings: Trainings, corpus: Path) -> None:
    trainings.start("run", LONG, corpus=corpus)
    process = trainings._processes["run"]
    until(trainings, "run", begun)
    (trainings.folder / "run" / "training.json.new").mkdir()  # nothing can be written there any more
    trainings.stop("run")
    assert process.wait(60) == NO_ROOM
    state = trainings.state("run")
    assert (state.state, state.code) == ("interrupted", "killed")
    assert "the disk is full" in state.message


def test_orders_and_what_suits_a_text() -> None:
    for wrong in ({"size": 0}, {"context": 4}, {"steps": None}, {"minutes": 1.0}, {"vocab_size": 10}, {"kind": "cnn"}):
        with pytest.raises(ConfigError):
            replace(SMALL, **wrong)
    gru = replace(SMALL, kind="gru").config("corpus", "run")
    assert gru.network == {"kind": "recurrent", "width": 64, "hidden": 128}
    for size in (0, 10_000, 100_000, 10_000_000):
        found = {one.name: one.value for one in suggest_order(size)}
        assert found.keys() == {"vocab_size", "size", "context", "minutes"}
        Order(size=int(found["size"]), context=int(found["context"]), minutes=found["minutes"])
    assert [suggest_order(n)[0].value for n in (1000, 100_000, 10_000_000)] == [512, 1024, 4096]
