"""The studio's routes of ledgers: a number, its terms, the way down to the input, and what they refuse."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Served, serving, tiny_talker

import cutaway
from cutaway.interp import ledger
from cutaway.models import Model
from cutaway.serve import Settings

TEXT = "hello, how are you"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("studio")
    tiny_talker(found / "m")
    return found


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return cutaway.load_model(folder / "m")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(Settings(models={"m": str(folder / "m")}, studio=folder)) as served:
        yield served


def unpacked(body: bytes) -> Any:
    """The head of an answer, which holds all of a ledger."""
    size = struct.unpack_from("<I", body)[0]
    return json.loads(body[4 : 4 + size])


def ask(served: Served, route: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/studio/{route}", json=body, timeout=60)


def result(answer: httpx.Response) -> Any:
    """What the last frame holds, or the error that it tells."""
    at, body = 0, answer.content
    while True:
        kind, size = body[at : at + 1], struct.unpack_from("<I", body, at + 1)[0]
        held, at = body[at + 5 : at + 5 + size], at + 5 + size
        if kind == b"r":
            return unpacked(held)
        if kind == b"e":
            return json.loads(held)


def rows(level: Any) -> list[tuple[str, float]]:
    return [(term["name"], term["value"]) for term in level["terms"]]


def test_a_number_and_its_levels_are_those_of_python(served: Served, model: Model):
    opened = result(ask(served, "ledger", model="m", text=TEXT, options={"token": "e", "position": 3}))
    whole = ledger(model, TEXT, token="e", position=3)
    assert rows(opened["result"]) == [(term.name, pytest.approx(term.value)) for term in whole.terms]
    assert opened["result"]["error"] == pytest.approx(whole.error, abs=1e-6)
    path: list[str] = []
    level = whole
    for _ in range(3):
        name = next(term.name for term in level.top() if term.opens)
        path, level = [*path, name], level.expand(name)
        answer = unpacked(ask(served, "expand", id=opened["id"], path=path).content)["result"]
        assert rows(answer) == [(term.name, pytest.approx(term.value)) for term in level.terms]
        assert answer["what"] == level.what


def test_the_largest_is_followed_from_any_level(served: Served, model: Model):
    opened = result(ask(served, "ledger", model="m", text=TEXT, options={}))
    whole = ledger(model, TEXT)
    head = next(term.name for term in whole.terms if ".head." in term.name)
    for start, below in (([], whole), ([head], whole.expand(head))):
        traced = unpacked(ask(served, "trace", id=opened["id"], path=start).content)
        steps = below.follow()
        assert traced["path"] == [*start, *(term.name for term, _ in steps)]
        levels = [level for _, level in steps if level is not None]
        assert [level["what"] for level in traced["levels"]] == [level.what for level in levels]
        assert rows(traced["levels"][-1]) == [(t.name, pytest.approx(t.value)) for t in levels[-1].terms]


def test_a_ledger_does_not_wait_for_what_is_being_computed(served: Served):
    """Of a text that was recorded: its numbers open while another analysis has the studio's thread."""
    result(ask(served, "ledger", model="m", text=TEXT, options={}))
    going = threading.Event()
    studio = served.server.studio
    assert studio is not None

    def long() -> None:
        going.wait(30)

    studio.submit(long)
    try:
        assert result(ask(served, "ledger", model="m", text=TEXT, options={"token": "o"}))["result"]["terms"]
    finally:
        going.set()


def test_what_is_not_there_is_refused_in_a_sentence(served: Served):
    opened = result(ask(served, "ledger", model="m", text=TEXT, options={}))
    leaf = ask(served, "expand", id=opened["id"], path=["embed"])
    assert leaf.status_code == 400
    assert "embed is a leaf of this ledger" in leaf.json()["error"]["message"]
    unknown = ask(served, "trace", id=opened["id"], path=["layers.9.mlp"])
    assert "unknown term 'layers.9.mlp'" in unknown.json()["error"]["message"]
    gone = ask(served, "expand", id="never", path=[])
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "result_gone")
    other = result(ask(served, "analyse", model="m", text=TEXT, analysis="surprisal", options={}))
    assert "no ledger" in ask(served, "trace", id=other["id"], path=[]).json()["error"]["message"]
    wrong = result(ask(served, "ledger", model="m", text=TEXT, options={"token": "two words"}))
    assert "not one token" in wrong["error"]["message"]
