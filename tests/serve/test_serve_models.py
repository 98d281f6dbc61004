"""Models that come and go within a budget."""

import asyncio
import errno
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import process
from serving import Served, serving, smollm2, tiny_talker

from cutaway.errors import InputError
from cutaway.serve import Settings
from cutaway.serve.errors import ApiError
from cutaway.serve.models import Loaded, Models

MB = 1 << 20


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three models of about the same size, with texts of their own."""
    folder = tmp_path_factory.mktemp("models")
    return {name: tiny_talker(folder / name, context=1024, layers=2 + n) for n, name in enumerate("abc")}


def asked(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "The quick", "max_tokens": 8, "temperature": 0, **more}


def ask(served: Served, model: str, **more: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/v1/completions", json=asked(model, **more), timeout=60)


def loaded(served: Served) -> set[str]:
    return set(served.server.models.loaded)


@contextmanager
def room_for_two(sources: dict[str, str], **more: Any) -> Iterator[Served]:
    """A server of three models of which two fit."""
    first = Models(Settings(models={"a": sources["a"]}, cache_memory=16 * MB))
    one = first._opened("a", Path(sources["a"]), 1 << 40).sizes.total
    models = Models(Settings(models=sources, cache_memory=16 * MB, **more))
    models.budget = int(2.5 * one)  # what is told as `memory` holds this process too, whose size other tests change
    with serving(models.settings, models) as served:
        yield served


def in_loop(served: Served, make: Callable[[], Any]) -> Any:
    """Run a coroutine where the server runs."""
    return asyncio.run_coroutine_threadsafe(make(), served.server.bridge._loop).result(60)


def test_those_that_fit_are_loaded_and_the_one_not_used_for_longest_makes_room(sources: dict[str, str]) -> None:
    with room_for_two(sources) as served:
        assert loaded(served) == {"a", "b"}  # in the order that was given
        texts = {name: ask(served, name).json()["choices"][0]["text"] for name in ("a", "b", "c")}
        assert loaded(served) == {"b", "c"}
        ask(served, "b")
        assert ask(served, "a").json()["choices"][0]["text"] == texts["a"]
        assert loaded(served) == {"a", "b"}
        assert len(set(texts.values())) == 3
        models = served.server.models
        assert models.free >= 0
        assert sum(one.sizes.total for one in models.loaded.values()) <= models.budget


def test_a_model_in_use_stays_and_who_finds_no_room_is_told_so(sources: dict[str, str]) -> None:
    with room_for_two(sources) as served:
        models = served.server.models
        held: list[Loaded] = [in_loop(served, lambda name=name: models.use(name)) for name in ("a", "b")]
        late = httpx.post(
            f"{served.url}/v1/completions", json=asked("c"), headers={"cutaway-deadline": "0.3"}, timeout=20
        )
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "no_room"
        assert int(late.headers["retry-after"]) >= 1
        assert loaded(served) == {"a", "b"}
        waiting: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: waiting.append(ask(served, "c")))
        thread.start()
        time.sleep(0.2)
        assert not waiting
        served.server.bridge._loop.call_soon_threadsafe(models.release, held[1])
        thread.join(30)
        assert waiting[0].status_code == 200
        assert loaded(served) == {"a", "c"}
        served.server.bridge._loop.call_soon_threadsafe(models.release, held[0])


def test_all_who_ask_for_a_model_wait_for_one_loading(sources: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with room_for_two(sources) as served:
        models, count = served.server.models, 0
        opened = models._opened

        def counted(*arguments: Any) -> Loaded:
            nonlocal count
            count += 1
            time.sleep(0.2)
            return opened(*arguments)

        monkeypatch.setattr(models, "_opened", counted)
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(served, "c"))) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [one.status_code for one in answers] == [200] * 12
        assert count == 1


def test_a_model_goes_on_loading_for_others_when_the_first_who_asked_leaves(
    sources: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with room_for_two(sources) as served:
        models = served.server.models
        opened, begun, go = models._opened, threading.Event(), threading.Event()

        def slow(*arguments: Any) -> Loaded:
            begun.set()
            assert go.wait(20)
            return opened(*arguments)

        monkeypatch.setattr(models, "_opened", slow)
        first = httpx.post(
            f"{served.url}/v1/completions", json=asked("c"), headers={"cutaway-deadline": "2"}, timeout=20
        )
        assert first.status_code == 503
        assert begun.is_set()
        go.set()
        assert ask(served, "c").status_code == 200
        assert ask(served, "b").status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/secret/path"), 503, "disk is full"),
        (MemoryError(), 503, "not enough memory"),
        (InputError("/secret/path: the hub did not answer"), 503, "log says why"),
        (ZeroDivisionError("/secret/path"), 500, "log says why"),
    ],
)
def test_a_load_that_fails_is_told_leaves_the_others_and_is_tried_again(
    sources: dict[str, str], monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, word: str
) -> None:
    monkeypatch.setattr("cutaway.serve.models.AGAIN", 0.5)
    with room_for_two(sources) as served:
        models, tries = served.server.models, 0
        opened = models._opened

        def failing(*arguments: Any) -> Loaded:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise error
            return opened(*arguments)

        monkeypatch.setattr(models, "_opened", failing)
        for _ in range(3):  # it is not tried for each of them
            failed = ask(served, "c")
            assert failed.status_code == status
            assert word in failed.json()["error"]["message"]
            assert "secret" not in failed.text
            assert int(failed.headers["retry-after"]) >= 1
        assert tries == 1
        assert ask(served, "b").status_code == 200
        time.sleep(0.6)
        assert ask(served, "c").status_code == 200
        assert models.failed == {}


def test_what_is_found_while_models_are_loaded_at_the_start_waits_to_be_asked_for(sources: dict[str, str]) -> None:
    first = Models(Settings(models={"a": sources["a"], "b": sources["b"]}, cache_memory=16 * MB))
    opened = first._opened

    def finding(name: str, *more: Any) -> Loaded:
        first.sources.setdefault("c", sources["c"])  # as the studio does when its list is asked for
        return opened(name, *more)

    first._opened = finding  # pyright: ignore[reportAttributeAccessIssue]
    with serving(first.settings, first) as served:
        assert loaded(served) == {"a", "b"}
        assert ask(served, "c").status_code == 200


def test_a_file_cut_short_or_gone_is_told_without_its_place(sources: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "secret"
    shutil.copytree(sources["b"], broken)
    with room_for_two(sources | {"c": str(broken)}) as served:
        weights = broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        cut = ask(served, "c")
        assert cut.status_code == 500
        assert "damaged" in cut.json()["error"]["message"]
        assert "secret" not in cut.text
        assert ask(served, "a").status_code == 200
        served.server.models.failed.clear()
        shutil.rmtree(broken)
        gone = ask(served, "c")
        assert gone.status_code == 503
        assert "secret" not in gone.text
        assert ask(served, "b").status_code == 200


def test_names_that_are_not_there_are_404_and_open_nothing(sources: dict[str, str]) -> None:
    with serving(Settings(models={"a": sources["a"]}, cache_memory=16 * MB)) as served:
        for name in ("b", "../a", sources["a"], "owner/name", "A", "a\x00", "/etc/passwd"):
            assert ask(served, name).status_code == 404
        assert loaded(served) == {"a"}


def test_the_memory_of_a_model_that_is_unloaded_is_given_back() -> None:
    """But for what the libraries keep that opened it, again and again."""
    program = Path(__file__).with_name("unloading.py")
    found = json.loads(subprocess.run([sys.executable, program], capture_output=True, check=True, timeout=300).stdout)
    (begun, first, _), *_ = found
    assert first > 90 * MB  # it was there
    assert all(taken <= stated for _, taken, stated in found)
    ends = [before for before, *_ in found[1:]]
    assert ends[0] - begun < 0.2 * first  # with what stays of libraries that were used for the first time
    assert all(after - before < 0.1 * first for before, after in itertools.pairwise(ends))


def test_what_is_stated_holds_under_load(tmp_path: Path) -> None:
    """All places taken, prompts long, pages used up: the process stays within what it said."""
    words = (f"m={smollm2()}", "--memory", "1400MB", "--max-batch", "16")
    with process(*words, folder=tmp_path) as server:
        most = server.said["memory_bytes"]["most"]
        assert most <= 1_400_000_000
        failed = []

        def work(number: int) -> None:
            for turn in range(2):
                body = asked("m", prompt=f"{number} {turn} " + "once upon a time " * 120, max_tokens=24, n=2)
                body |= {"temperature": 0.8, "logprobs": 5}
                status, said, _ = server.ask("/v1/completions", body, 200)
                if status != 200:
                    failed.append((status, said))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert server.memory("VmHWM") <= most
        assert server.memory("VmRSS") > 300e6  # and it did take some


def test_a_disk_that_is_full_while_a_model_is_fetched(sources: dict[str, str], tmp_path: Path) -> None:
    """A process whose hub sends a model, and whose disk takes none of it; then there is room."""
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "import cutaway.models.hub as hub\n"
        "def fetch(name, **options):\n"
        f"    if os.path.exists({str(tmp_path / 'room')!r}):\n"
        f"        return Path({sources['b']!r})\n"
        "    with open('/dev/full', 'wb', buffering=0) as file:\n"
        "        file.write(b'x')\n"
        "hub.fetch = fetch\n"
        "from cutaway.cli import main\n"
        "sys.exit(main())\n"
    )
    with process(f"a={sources['a']}", "b=owner/name", "--memory", "4GB", folder=tmp_path, runner=str(runner)) as server:
        (_, second) = server.said["models"]
        assert not second["loaded"]
        assert "disk is full" in second["why"]
        status, body, headers = server.ask("/v1/completions", asked("b"))
        assert status == 503
        assert "disk is full" in json.loads(body)["error"]["message"]
        assert int(headers["retry-after"]) >= 1
        assert server.ask("/v1/completions", asked("a"))[0] == 200
        (tmp_path / "room").touch()
        until = time.monotonic() + 40
        while (status := server.ask("/v1/completions", asked("b"))[0]) == 503 and time.monotonic() < until:
            time.sleep(0.5)
        assert status == 200
        server.signal()
        assert server.end() == 0


def test_a_model_that_can_never_fit_is_refused_at_the_start(sources: dict[str, str]) -> None:
    models = Models(Settings(models=sources, memory=1 << 20))
    with pytest.raises(InputError, match="more with --memory"):
        models.check_sources()


def test_who_may_use_one_model_is_told_of_no_other(sources: dict[str, str]) -> None:
    from cutaway.serve.keys import Caller

    models = Models(Settings(models=sources))
    caller = Caller(models=frozenset({"a"}))
    models.check("a", caller)
    with pytest.raises(ApiError) as told:
        models.check("b", caller)
    assert told.value.status == 404
    assert "Known: a" in told.value.message
