"""Trainings through the studio's API: begun, watched, stopped, resumed, looked into; bad orders refused in words."""

from __future__ import annotations

import json
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from saved_page import Page, give_script
from serving import Served, serving

from cutaway.interp import over_training, ridgelines
from cutaway.serve import Settings
from cutaway.training.metrics import read_metrics

DRAW = random.Random(2)
WORDS = ["".join(DRAW.choice("abcdefgh") for _ in range(DRAW.randint(2, 7))) for _ in range(200)]
TEXT = ". ".join(" ".join(DRAW.choice(WORDS) for _ in range(9)).capitalize() for _ in range(250))
ORDER: dict[str, Any] = {"size": 1, "context": 16, "vocab_size": 280, "clean": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(Settings(models={}, studio=folder)) as running:
        yield running


def post(served: Served, page: str, **asked: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/studio/train/{page}", json=asked, timeout=120)


def frames_of(data: bytes) -> list[tuple[str, bytes]]:
    found = []
    while data:
        size = struct.unpack_from("<I", data, 1)[0]
        found.append((chr(data[0]), data[5 : 5 + size]))
        data = data[5 + size :]
    return found


def result(data: bytes) -> Any:
    """The head of the packed result that an answer in frames ends with."""
    kind, body = frames_of(data)[-1]
    assert kind == "r", body
    return json.loads(body[4 : 4 + struct.unpack_from("<I", body)[0]])


def refused(answer: httpx.Response, said: str, status: int = 400) -> None:
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]


def test_bad_orders_are_refused_in_words(served: Served, folder: Path) -> None:
    good = {**ORDER, "name": "x", "steps": 5, "texts": {"a.txt": TEXT}}
    refused(post(served, "start", **{**good, "texts": {"a.txt": " "}}), "the text is empty")
    refused(post(served, "start", **{**good, "texts": None}), "give texts or a corpus")
    refused(post(served, "start", **{**good, "steps": None}), "give minutes or steps")
    refused(post(served, "start", **{**good, "texts": None, "corpus": "../x"}), "there is no corpus called")
    for name in ("../x", "a/b", ".x", "x" * 49, ""):
        assert post(served, "start", **{**good, "name": name}).status_code == 400
    for wrong in (
        {"size": 99},
        {"context": 10**9},
        {"steps": 0},
        {"minutes": -1.0},
        {"out": "/tmp/x"},
        {"kind": "cnn"},
    ):
        assert post(served, "start", **{**good, **wrong}).status_code == 400
    for page in ("stop", "resume", "watch", "read", "heads", "ridges", "report"):
        assert post(served, page, run="../..").status_code == 400
        refused(post(served, page, run="nobody"), "called 'nobody'")
    assert not (folder / "trainings").exists()
    names = [one["name"] for one in post(served, "suggest", size=1000).json()["suggestions"]]
    assert names == ["vocab_size", "size", "context", "minutes"]


def test_a_training_is_begun_watched_stopped_resumed_and_looked_into(
    served: Served, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_script(tmp_path, monkeypatch)
    begun = post(served, "start", name="story", steps=40, texts={"a.txt": TEXT}, **ORDER)
    assert begun.json()["state"] == "running", begun.text
    refused(post(served, "start", name="other", steps=5, texts={"a.txt": TEXT}, **ORDER), "one runs at a time")
    with httpx.stream("POST", f"{served.url}/studio/train/watch", json={"run": "story"}, timeout=120) as news:
        left = next(news.iter_bytes())  # whoever watches may go away
    assert left[:1] == b"d"
    end = time.monotonic() + 90
    while not (now := post(served, "read", run="story").json())["records"]:
        assert time.monotonic() < end, now["state"]
        time.sleep(0.1)
    post(served, "stop", run="story")
    watched = post(served, "watch", run="story")  # until it has ended
    last = result(watched.content)["state"]
    assert last["state"] in ("stopped", "finished")  # it may have been faster
    assert last["steps"]
    if last["state"] == "stopped":
        assert post(served, "resume", run="story").json()["state"] == "running"
        last = result(post(served, "watch", run="story").content)["state"]
    assert (last["state"], last["steps"][-1], last["planned"]) == ("finished", 40, 40)

    place = folder / "trainings" / "story"
    told = [json.loads(body) for kind, body in frames_of(post(served, "watch", run="story").content) if kind == "d"]
    records = [record for one in told for record in one["records"]]
    assert records == read_metrics(place)
    assert [one["step"] for one in records if "loss" in one] == list(range(1, 41))

    listed = httpx.get(f"{served.url}/studio/train").json()
    assert [one["name"] for one in listed["runs"]] == ["story"]
    assert listed["corpora"] == ["trainings/story/corpus"]
    model = listed["runs"][0]["model"]
    first, newest = last["steps"][0], last["steps"][-1]
    for step in (first, newest):
        opened = httpx.post(f"{served.url}/studio/open", json={"model": model, "step": step}, timeout=60)
        assert opened.status_code == 200, opened.text

    shown = result(post(served, "heads", run="story").content)["result"]
    python = over_training(place, scores=("previous", "induction", "duplicate"), lens=False)
    assert shown["parts"]["best heads"]["lines"] == python["best heads"].lines
    shown = result(post(served, "ridges", run="story").content)["result"]
    assert shown["parts"]["gradient norms"]["lines"]["all"] == pytest.approx(
        ridgelines(place)["gradient norms"].lines["all"], rel=1e-6
    )
    report = result(post(served, "report", run="story", text="abc fed").content)
    page = Page(httpx.post(f"{served.url}/studio/page", json={"id": report["id"]}, timeout=60).text)
    assert "the training of story" in str(page.parts)
    assert "validation loss" in str(page.parts)


def test_a_server_that_stops_stops_its_training_after_saving(tmp_path: Path) -> None:
    with serving(Settings(models={}, studio=tmp_path)) as served:
        post(served, "start", name="long", steps=100_000, texts={"a.txt": TEXT}, **ORDER)
        end = time.monotonic() + 90
        while not post(served, "read", run="long").json()["records"]:
            assert time.monotonic() < end
            time.sleep(0.1)
    with serving(Settings(models={}, studio=tmp_path)) as served:
        [run] = httpx.get(f"{served.url}/studio/train").json()["runs"]
        assert run["state"] == "stopped"
        assert len(run["steps"]) == 1
        assert post(served, "resume", run="long").json()["state"] == "running"
        post(served, "stop", run="long")
        assert result(post(served, "watch", run="long").content)["state"]["state"] == "stopped"
