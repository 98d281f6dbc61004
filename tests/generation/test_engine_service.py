"""What a server needs of the engine: fairness, an end at once, nothing done while there is nothing to do, numbers."""

import importlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cutaway.errors import Closed
from cutaway.generation import Engine, Request, Ticket
from cutaway.models import Decoder, DecoderConfig, EncoderConfig, Model, build_network
from cutaway.tokenizers import train_tokenizer


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = train_tokenizer(["the cat sat on the mat and a dog " * 9], "char", 300)
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=4096, layers=1, width=32, heads=2)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return Model(network, tokenizer, "a test")


def steps_until(engine: Engine, done: Any) -> int:
    steps = 0
    while not done():
        assert engine.step()
        steps += 1
    return steps


def test_of_two_tenants_the_one_with_one_request_is_next(model: Model):
    engine = Engine(model, max_batch=4)
    many = [engine.submit(Request("the cat", max_new_tokens=9, seed=i, tenant="many")) for i in range(60)]
    engine.step()
    one = engine.submit(Request("a dog", max_new_tokens=3, tenant="one"))
    # places become free when the first four have ended, and the first of these is its
    steps_until(engine, lambda: sum(ticket.ended for ticket in many) == 4)
    engine.step()
    assert one.news
    assert sum(ticket.news for ticket in many) == 4 + 3
    third = [engine.submit(Request("a", max_new_tokens=2, tenant=f"{i}")) for i in range(3)]
    assert steps_until(engine, lambda: all(ticket.news for ticket in third)) <= 12
    assert sum(ticket.ended for ticket in many) <= 8


def test_nobody_waits_for_a_huge_prompt_nor_it_for_them(model: Model):
    engine = Engine(model, chunk=64)
    huge = engine.submit(Request([1] * 4000, max_new_tokens=1, tenant="huge"))
    engine.step()
    small = engine.submit(Request([2] * 30, max_new_tokens=1, tenant="small"))
    assert steps_until(engine, lambda: small.news) <= 2
    # whoever comes, it goes on: it has at least every second piece
    coming: list[Ticket] = []

    def more() -> bool:
        coming.append(engine.submit(Request([3] * 60, max_new_tokens=1, tenant="others")))
        return huge.news

    assert steps_until(engine, more) <= 2 * 4000 // 64 + 4
    steps_until(engine, lambda: all(ticket.ended for ticket in coming))


def test_what_is_cancelled_during_a_step_has_no_other(model: Model, monkeypatch: pytest.MonkeyPatch):
    for kind in ("native", "torch"):
        engine = Engine(model, backend=kind)
        began, go_on, computed = threading.Event(), threading.Event(), []
        step = engine.backend.step

        def slow(batch: Any, step: Any = step, computed: Any = computed, began: Any = began, go_on: Any = go_on) -> Any:
            computed.append([rows.sequence for rows in batch])
            if len(computed) == 3:
                began.set()
                assert go_on.wait(60)
            return step(batch)

        monkeypatch.setattr(engine.backend, "step", slow)
        gone = engine.submit(Request("the cat", max_new_tokens=100))
        stays = engine.submit(Request("the cat", max_new_tokens=6))
        thread = threading.Thread(target=engine.run)
        thread.start()
        assert began.wait(60)
        gone.cancel()
        go_on.set()
        stays.results()
        engine.close()
        thread.join(60)
        assert [len(some) for some in computed] == [2, 2, 2, 1, 1, 1]


def test_a_closed_engine_ends_what_runs_and_refuses_what_comes(model: Model):
    for kind in ("native", "torch"):
        engine = Engine(model, backend=kind)
        runs, waits = (engine.submit(Request("the cat", max_new_tokens=900)) for _ in range(2))
        lazy = engine.submit(Request("the cat", max_new_tokens=9), lazy=True)
        for _ in range(4):
            engine.step()
        backend = engine.backend
        engine.close()
        engine.close()
        for ticket in (runs, waits, lazy):
            with pytest.raises(Closed, match="closed"):
                ticket.results()
        with pytest.raises(Closed):
            engine.submit(Request("the cat"))
        assert engine.idle
        assert not engine.step()
        if kind == "native":
            with pytest.raises(RuntimeError, match="ended"):
                backend.step([])
    reader = Model(
        build_network(EncoderConfig(model.config.vocab_size, context=64, layers=1, width=16, heads=2)), model.tokenizer
    )
    engine = Engine(reader)
    reading = engine.read(["a cat"] * 999)
    engine.close()
    with pytest.raises(Closed):
        reading.results()
    with pytest.raises(Closed):
        engine.read(["a cat"])


def test_a_close_waits_for_the_step_and_a_server_thread_ends(model: Model):
    engine = Engine(model)
    thread = threading.Thread(target=engine.run)
    thread.start()
    ticket = engine.submit(Request("the cat", max_new_tokens=100_000))
    next(iter(ticket))
    engine.close()
    thread.join(60)
    assert not thread.is_alive()
    with pytest.raises(Closed):
        ticket.results()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not say what threads do")
def test_nobody_wakes_while_there_is_nothing_to_do(model: Model):
    others = {task.name for task in Path("/proc/self/task").iterdir()}  # of what this process did before
    engine = Engine(model, threads=2)
    thread = threading.Thread(target=engine.run)
    thread.start()
    for _ in range(3):
        engine.submit(Request("the cat", max_new_tokens=20)).results()
    time.sleep(0.3)  # native threads stay awake for a moment

    def wakes() -> dict[str, int]:
        found = {}
        for task in Path("/proc/self/task").iterdir():
            if task.name in others:
                continue
            lines = (task / "status").read_text("ascii", "replace").splitlines()
            found[task.name] = sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
        return found

    before = wakes()
    time.sleep(1)
    after = wakes()
    engine.close()
    thread.join(60)
    assert thread.native_id is not None
    assert {name: count for name, count in after.items() if count != before.get(name)} == {}


def test_numbers_say_what_was_done(model: Model):
    engine = Engine(model, max_batch=3)
    tickets = [engine.submit(Request([1] * 200, {"temperature": 0}, max_new_tokens=5)) for _ in range(5)]
    assert engine.counts()["waiting"] == 5
    engine.step()
    assert {name: engine.counts()[name] for name in ("running", "waiting", "batch", "sequences")} == {
        "running": 3,
        "waiting": 2,
        "batch": 3,
        "sequences": 3,
    }
    for ticket in tickets:
        ticket.results()
    engine.step()
    counts = engine.counts()
    assert (counts["running"], counts["waiting"], counts["batch"], counts["used"]) == (0, 0, 0, 0)
    assert counts["written"] == 25
    assert counts["cached"] == sum(ticket.cached_tokens for ticket in tickets) > 0
    assert counts["read"] + counts["cached"] == 5 * 200


MEMORY = """
import gc, sys, torch
from pathlib import Path
from cutaway.generation import Engine, Request
from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.tokenizers import train_tokenizer

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def trim():
    import ctypes
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)

torch.set_num_threads(1)
tokenizer = train_tokenizer(["the cat sat on the mat and a dog " * 9], "char", 300)
def make(layers):
    config = DecoderConfig(tokenizer.vocab_size, context=2048, layers=layers, width=768, heads=8)
    return Model(Decoder(config).eval(), tokenizer)
def use(engine):
    tickets = [engine.submit(Request([i] * 300, max_new_tokens=4, n=4, prompt_logprobs=1)) for i in range(8)]
    for ticket in tickets:
        ticket.results()
small = Engine(make(1), backend=sys.argv[1], memory=1 << 20)
small.submit(Request([1], max_new_tokens=1)).results()  # what is loaded once
small.close()
del small
trim()
before = resident()
model = make(4)
engine = Engine(model, backend=sys.argv[1], memory=64 << 20)
use(engine)
most = resident()
said = engine.memory()
engine.close()
trim()
closed = resident()
print(before, most, closed, said.weights, said.cache, said.cache_most, said.work)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_memory_is_no_more_than_it_says_and_comes_back(backend: str):
    made = subprocess.run([sys.executable, "-c", MEMORY, backend], capture_output=True, text=True, check=True)
    before, most, closed, weights, cache, cache_most, work = map(int, made.stdout.split())
    assert weights >= 4 * 12 * 768**2 * 4
    assert 0 < cache <= cache_most <= 64 << 20
    assert most - before <= weights + cache_most + work
    assert closed - before <= 1.15 * weights + (8 << 20)


@pytest.mark.parametrize("place", ["prepare", "make_choosers"])
def test_an_engine_may_be_closed_while_a_request_is_prepared(model: Model, place: str, monkeypatch: pytest.MonkeyPatch):
    module = importlib.import_module("cutaway.generation.engine")
    plain = getattr(module, place)
    engine = Engine(model)
    monkeypatch.setattr(module, place, lambda *given: (engine.close(), plain(*given))[1])  # another thread does
    ticket = engine.submit(Request("the cat"))
    assert isinstance(ticket.error, Closed)
    with pytest.raises(Closed):
        engine.submit(Request("the cat"))


def test_what_is_asked_while_the_engine_is_closed_ends_though_nobody_steps(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    engine = Engine(model)
    monkeypatch.setattr(engine, "_fits", lambda *_: engine.close())  # another thread does, at just this moment
    ticket = engine.submit(Request("the cat"))
    assert ticket.ended
    assert isinstance(ticket.error, Closed)


@pytest.mark.parametrize(("backend", "first"), [("native", 62), ("torch", 64)])
def test_a_tenant_gives_its_pages_back_in_the_midst_of_its_prompt(model: Model, backend: str, first: int):
    engine = Engine(model, backend=backend, pages=4, chunk=64)
    asked = [Request([1] * first, max_new_tokens=100, tenant="one"), Request([2] * 180, max_new_tokens=2, tenant="two")]
    tickets = [engine.submit(request) for request in asked]
    for request, ticket in zip(asked, tickets, strict=True):
        assert ticket.result() == Engine(model, backend=backend).submit(request).result()
