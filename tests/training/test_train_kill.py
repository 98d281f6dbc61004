"""A run that is killed at any moment and resumed ends with the same bits as one that was not."""

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from training_runs import Processes, weights

from cutaway.files import verify
from cutaway.models import load_model
from cutaway.models.model import checkpoints
from cutaway.training import TrainConfig, train
from cutaway.training.metrics import read_metrics

Tiny = Callable[..., TrainConfig]
OFTEN = {"steps": 60, "save_every": 1, "eval_every": 10, "keep": 2}


def losses(run: Path) -> list[tuple[int, float]]:
    return [(r["step"], r["loss"]) for r in read_metrics(run) if "loss" in r]


def half_written(run: Path) -> list[Path]:
    return list((run / "checkpoints").glob(".step-*"))


def check_kills(tiny: Tiny, processes: Processes, kills: int) -> None:
    unbroken, broken = tiny("unbroken", **OFTEN), tiny("broken", **OFTEN)
    out, draw = Path(broken.out), random.Random(kills)
    begun = time.monotonic()
    train(unbroken)
    length = time.monotonic() - begun
    in_save = 0
    for number in range(kills):
        process = processes.start(broken)
        if number % 2:  # wait for a save, then strike inside it
            reached = {p.name for p in half_written(out)}
            while process.is_alive() and not {p.name for p in half_written(out)} - reached:
                pass
            time.sleep(draw.uniform(0, 0.004))
        else:
            time.sleep(draw.uniform(0, 2 * length / kills))
        process.kill()
        process.join()
        in_save += bool(half_written(out))
        if checkpoints(out):
            load_model(out)  # the newest intact one, whatever was cut short
    while processes.finish(process := processes.start(broken)):
        assert process.exitcode == 0
    assert weights(broken.out) == weights(unbroken.out)
    assert losses(out) == losses(Path(unbroken.out))
    assert not half_written(out)
    assert in_save, "no kill fell inside a save: the test has not tested that"


def test_six_kills(tiny: Tiny, processes: Processes):
    check_kills(tiny, processes, 6)


@pytest.mark.slow
def test_fifty_kills(tiny: Tiny, processes: Processes):
    check_kills(tiny, processes, 50)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_first(tiny: Tiny, processes: Processes, number: int, code: int):
    settings = {"steps": 150, "save_every": 1000, "eval_every": 1000}
    config, unbroken = tiny(**settings), tiny("unbroken", **settings)
    process = processes.start(config)
    while not losses(Path(config.out)):
        time.sleep(0.001)
    assert process.pid
    os.kill(process.pid, number)
    assert processes.finish(process) == code
    [saved] = checkpoints(Path(config.out))
    verify(saved)
    at = int(saved.name.removeprefix("step-"))
    assert 0 < at < 150
    assert losses(Path(config.out))[-1][0] == at  # nothing was taken that is not saved
    assert processes.finish(processes.start(config)) == 0
    train(unbroken)
    assert weights(config.out) == weights(unbroken.out)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_killed_and_resumed(tiny: Tiny, processes: Processes):
    settings = {"steps": 40, "save_every": 4, "eval_every": 20, "network": {"layers": 1, "width": 16, "heads": 2}}
    unbroken, broken, single = (tiny(name, **settings) for name in ("unbroken", "broken", "single"))

    def pair(config: TrainConfig) -> list:
        port = free_port()
        return [processes.start(config, rank=rank, world=2, port=port) for rank in (0, 1)]

    assert [processes.finish(p) for p in pair(unbroken)] == [0, 0]
    both = pair(broken)
    while len(checkpoints(Path(broken.out))) < 2 and both[0].is_alive():
        time.sleep(0.001)
    for process in both:
        process.kill()
        process.join()
    assert checkpoints(Path(broken.out))[0].name < "step-00000040"
    assert [processes.finish(p) for p in pair(broken)] == [0, 0]
    assert weights(broken.out) == weights(unbroken.out)
    # the same global batches as one process takes, summed in another order
    train(single)
    assert [loss for _, loss in losses(Path(broken.out))] == pytest.approx(
        [loss for _, loss in losses(Path(single.out))], rel=1e-3
    )
