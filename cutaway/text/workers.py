"""Child interpreters that share out work: jobs and answers are lines of JSON, answers come back in the order of the
jobs.

Why not multiprocessing: a fork copies a process whose threads (torch, tokenizers) it does not, and may then wait for
them for ever; a spawn imports the user's script again, which breaks every script without a `__main__` guard. A child
started by subprocess does neither, on every system. It ends when its input does, so none is left behind when the
parent is killed.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Self

from cutaway import errors
from cutaway.errors import CutawayError, InputError

Job = dict[str, Any]  # plain data
Tell = Callable[[int], None]  # how a job reports that so much more of its work is done
Work = Callable[[Job, Tell], Any]

AHEAD = 2  # jobs that may be finished and waiting for their turn, per worker
TICK = 0.1  # seconds between two looks at the progress


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """`count` children that each run `work`, the module-level function "package.module:function"; one works in this
    process.

    Use as a context manager: leaving it, by an exception too, ends the children.
    """

    def __init__(self, count: int, work: Work) -> None:
        self.count = count
        self._work = work
        self._children: list[subprocess.Popen[str]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(max(1, count))
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in __exit__
        self._done, self._lock = 0, threading.Lock()

    def __enter__(self) -> Self:
        if self.count > 1:
            for _ in range(self.count):
                self._start()
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.communicate()
        self._threads.shutdown(cancel_futures=True)
        self._complaints.close()

    def map(self, jobs: Iterable[Job], tick: Callable[[int], None] | None = None) -> Iterator[Any]:
        """Each job's answer, in order. A few jobs are worked on ahead, so memory and disk stay bounded.

        Args:
            jobs: plain data that JSON can hold.
            tick: called now and then, in this thread, with how much has been told as done since the call of `map`.

        Raises:
            CutawayError: what a job raised, here.
            InputError: a child was killed.
        """
        jobs, self._done = iter(jobs), 0
        if self.count <= 1:
            for job in jobs:
                yield self._work(job, lambda amount: self._tell(amount, tick))
            return
        waiting: deque[Future[Any]] = deque()
        while True:
            waiting.extend(
                self._threads.submit(self._ask, job) for job in islice(jobs, self.count * AHEAD - len(waiting))
            )
            if not waiting:
                return
            while not waiting[0].done():
                try:
                    waiting[0].exception(timeout=TICK)
                except TimeoutError:
                    pass
                finally:
                    if tick:
                        tick(self._done)
            yield waiting.popleft().result()

    def _tell(self, amount: int, tick: Callable[[int], None] | None = None) -> None:
        with self._lock:
            self._done += amount
        if tick:
            tick(self._done)

    def _start(self) -> None:
        threads = ("OMP", "OPENBLAS", "MKL", "RAYON")  # one each: there is a child per core
        environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in threads}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        module, name = self._work.__module__, self._work.__name__
        child = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                f"from cutaway.text.workers import serve; from {module} import {name}; serve({name})",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            encoding="ascii",
            env=environment,
        )
        self._children.append(child)
        self._idle.put(child)

    def _ask(self, job: Job) -> Any:
        """Give a job to an idle child and wait for its answer."""
        child = self._idle.get()
        assert child.stdin
        assert child.stdout
        try:
            print(json.dumps(job), file=child.stdin, flush=True)
            while line := child.stdout.readline():
                answer = json.loads(line)
                if "told" in answer:
                    self._tell(answer["told"])
                    continue
                if "result" in answer:
                    return answer["result"]
                known = getattr(errors, answer["error"], RuntimeError)
                raise known(answer["message"])
        except BrokenPipeError:
            pass
        finally:
            self._idle.put(child)
        self._complaints.seek(0)
        said = self._complaints.read().strip().splitlines()
        raise InputError(
            f"a worker process ended without an answer (exit code {child.wait()}); it may have been killed for want of "
            f"memory, so try fewer workers. {said[-1] if said else ''}".strip()
        )


def serve(work: Work) -> None:
    """The child's side: answer every line of the input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its children
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever a library prints is no answer

    def send(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    for line in sys.stdin:
        try:
            send({"result": work(json.loads(line), lambda amount: send({"told": amount}))})
        except CutawayError as error:
            send({"error": type(error).__name__, "message": str(error)})
        except Exception:
            send({"error": "", "message": traceback.format_exc()})
