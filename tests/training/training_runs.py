"""Runs in processes that can be killed, and what they left."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.process import BaseProcess
from pathlib import Path

from cutaway.files import sha256
from cutaway.models.model import checkpoints
from cutaway.training import Run, TrainConfig, loop
from cutaway.training import resume as resume_run
from cutaway.training import train as train_run


def weights(run: str | Path) -> dict[str, str]:
    """The checksums of a run's newest weights and optimiser state."""
    newest = checkpoints(Path(run))[0]
    return {name: sha256(newest / name) for name in ("model.safetensors", "optimizer.safetensors")}


def child(config: TrainConfig, resumed: bool, environment: dict[str, str]) -> None:
    """What a killable process runs: a run to its end, or to a signal."""
    os.environ.update(environment)
    loop.matmul_rate = lambda dtype: 1e11  # it only serves a figure for people
    os._exit(carry_out(config, resumed))


def carry_out(config: TrainConfig, resumed: bool) -> int:
    """Train or resume; returns the exit code that the command line would give."""
    from cutaway.errors import CutawayError

    try:
        go(config, resumed)
    except CutawayError as error:
        return getattr(error, "exit_code", 2)
    return 0


def go(config: TrainConfig, resumed: bool) -> Run:
    """Train, or resume if the run has begun."""
    return resume_run(config.out) if resumed else train_run(config)


class Processes:
    """Starts runs in processes that are forked from one that has torch loaded: a start costs milliseconds."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["cutaway.training", "cutaway.generation", "torch"])

    def start(self, config: TrainConfig, *, rank: int = 0, world: int = 1, port: int = 0) -> BaseProcess:
        """Begin the run, or continue it where it has begun."""
        environment = {"OMP_NUM_THREADS": "1"}
        if world > 1:
            environment |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        resumed = (Path(config.out) / "config.json").exists()
        process = self.context.Process(target=child, args=(config, resumed, environment))
        process.start()
        return process

    def finish(self, process: BaseProcess) -> int:
        """Wait; returns the exit code."""
        process.join(60)
        if process.exitcode is None:
            process.kill()
            raise AssertionError("the run did not end within a minute")
        return process.exitcode
