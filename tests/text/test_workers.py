"""Children that share out work: order, errors, deaths and interrupts."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cutaway.errors import ConfigError, InputError
from cutaway.text.workers import Job, Tell, Workers


def work(job: Job, tell: Tell) -> object:
    print("noise on standard output is no answer")
    tell(1)
    match job["do"]:
        case "sleep":
            time.sleep(job["for"])
            return [job["number"], os.getpid()]
        case "wrong":
            raise ConfigError("wrong: " + job["text"])
        case "bug":
            return 1 // 0
        case "threads":
            return os.environ.get("OMP_NUM_THREADS")
        case _:
            os._exit(7)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(work, "__module__", Path(__file__).stem)


def test_answers_come_in_order_from_several_processes() -> None:
    ticks: list[int] = []
    jobs = [{"do": "sleep", "for": 0.3 * (number == 0), "number": number} for number in range(12)]
    with Workers(2, work) as pool:
        answers = list(pool.map(jobs, ticks.append))
        assert [number for number, _ in answers] == list(range(12))
        pids = {pid for _, pid in answers}
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert next(pool.map([{"do": "threads"}])) == "1"
    assert ticks == sorted(ticks)
    assert 1 <= ticks[-1] <= 12


def test_one_worker_is_this_process() -> None:
    with Workers(1, work) as pool:
        assert list(pool.map([{"do": "sleep", "for": 0, "number": 3}])) == [[3, os.getpid()]]


@pytest.mark.parametrize("count", [1, 2])
def test_errors_arrive_as_what_they_are(count: int) -> None:
    with Workers(count, work) as pool:
        with pytest.raises(ConfigError, match=r"wrong: 中\\ud800"):
            list(pool.map([{"do": "wrong", "text": "中\ud800"}]))
        with pytest.raises((RuntimeError, ZeroDivisionError), match=r"division|ZeroDivisionError"):
            list(pool.map([{"do": "bug"}]))


def test_a_killed_child_is_an_error_and_not_a_wait() -> None:
    with Workers(2, work) as pool, pytest.raises(InputError, match=r"exit code 7.*fewer workers"):
        list(pool.map([{"do": "die"}] * 5))


def test_children_end_with_their_parent() -> None:
    """Killed without a chance to clean up, the parent leaves no child behind."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from {Path(__file__).stem} import work, Workers\n"
        "with Workers(2, work) as pool:\n"
        "    print(*(child.pid for child in pool._children), flush=True)\n"
        "    import time; time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pids = list(map(int, parent.stdout.readline().split()))
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while alive := [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and _runs(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
