"""Heads over HTTP: the parts that are sent are those of Python's matrices, whatever the length of the text."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from serving import Served, serving, tiny_talker

from cutaway import load_model
from cutaway.interp import attention, attention_overview
from cutaway.interp.pictures.wire import tile
from cutaway.serve import Settings

TEXT = "hello, how are you? the quick brown fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def served(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(Settings(models={"tiny": folder}, studio=tmp_path_factory.mktemp("studio"))) as running:
        yield running


def post(served: Served, page: str, **asked: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/studio/{page}", json=asked, timeout=60)


def tensors(data: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a packed answer, by name."""
    size = struct.unpack_from("<I", data)[0]
    behind = -(-(4 + size) // 8) * 8
    found = {}
    for name, value in json.loads(data[4 : 4 + size]).items():
        told = value["$tensor"]
        numbers = np.frombuffer(data, f"<{told['dtype']}", int(np.prod(told["shape"])), behind + told["at"])
        found[name] = torch.from_numpy(numbers.reshape(told["shape"]).copy())
    return found


@pytest.fixture(scope="module")
def overview(served: Served) -> dict[str, Any]:
    asked = {"model": "tiny", "text": TEXT, "analysis": "attention_overview", "options": {}}
    data, kind, body = post(served, "analyse", **asked).content, "", b""
    while data:
        size = struct.unpack_from("<I", data, 1)[0]
        kind, body, data = chr(data[0]), data[5 : 5 + size], data[5 + size :]
    assert kind == "r", body
    return json.loads(body[4 : 4 + struct.unpack_from("<I", body)[0]])


def test_an_overview_tells_all_but_the_patterns(overview: dict[str, Any], folder: str) -> None:
    made, found = overview["result"], attention_overview(load_model(folder), TEXT)
    assert made["picture"] == "heads"
    assert made["name"] == "layers.*.attn.pattern"
    assert made["tokens"] == found.tokens
    assert made["shown"] == list(found.shown)
    assert [[kind for kind, _ in row] for row in made["kinds"]] == [[kind for kind, _ in row] for row in found.kinds()]
    assert made["small"]["$tensor"]["shape"] == list(found.small.shape)
    assert made["small"]["$tensor"]["dtype"] == "u1"
    assert made["checkable"]
    assert "patterns" not in made


def test_a_head_is_sent_in_as_many_cells_as_were_asked_for(
    overview: dict[str, Any], served: Served, folder: str
) -> None:
    pattern = attention(load_model(folder), TEXT).patterns[1, 0]
    asked = {"id": overview["id"], "layer": 1, "head": 0}
    whole = tensors(post(served, "head", rows=4096, columns=4096, **asked).content)["tile"]
    assert torch.equal(whole, pattern)
    coarse = tensors(post(served, "head", rows=7, columns=5, **asked).content)["tile"]
    assert torch.equal(coarse, tile(pattern, (), 7, 5))
    part = tensors(post(served, "head", rows=9, columns=9, window=[3, 9, 0, 4], **asked).content)["tile"]
    assert torch.equal(part, pattern[3:9, :4])
    scores = tensors(post(served, "head", rows=99, columns=99, by="score", **asked).content)["tile"]
    torch.testing.assert_close(scores.nan_to_num(-torch.inf).softmax(-1), pattern)


def test_a_row_tells_every_number_of_a_query(overview: dict[str, Any], served: Served, folder: str) -> None:
    row = tensors(post(served, "head/row", id=overview["id"], layer=0, head=1, query=8).content)
    expected = attention_overview(load_model(folder), TEXT).row(0, 1, 8)
    assert set(row) == {"weight", "output", "score"}
    for name, numbers in expected.items():
        torch.testing.assert_close(row[name], numbers, equal_nan=True)


def test_lines_are_the_strongest_of_every_query(overview: dict[str, Any], served: Served, folder: str) -> None:
    patterns = attention(load_model(folder), TEXT).patterns
    asked = {"id": overview["id"], "layer": 1, "each": 3}
    every = tensors(post(served, "head/lines", **asked).content)
    assert every["key"].shape == every["weight"].shape == (patterns.shape[1], patterns.shape[2], 3)
    assert torch.equal(patterns[1].gather(-1, every["key"].long()), every["weight"])
    assert torch.equal(every["weight"], patterns[1].sort(-1, descending=True).values[..., :3])
    one = tensors(post(served, "head/lines", head=1, **asked).content)
    assert torch.equal(one["weight"], every["weight"][1:2])
    few = tensors(post(served, "head/lines", id=overview["id"], layer=0, each=16).content)
    assert few["weight"].shape[-1] == min(16, patterns.shape[-1])


@pytest.mark.parametrize(
    ("page", "changed", "status", "said"),
    [
        ("head", {"layer": 9}, 400, "layer 9 head 0 is not there"),
        ("head", {"window": [0, 999, 0, 2]}, 400, "is no part of a picture"),
        ("head", {"window": [0, 2]}, 400, "window"),
        ("head", {"by": "heat"}, 400, "by"),
        ("head", {"id": "gone"}, 404, "no longer open"),
        ("head/row", {"query": 999}, 400, "query 999 is not there"),
        ("head/lines", {"head": 99}, 400, "layer 0 head 99 is not there"),
        ("head/lines", {"each": 17}, 400, "each"),
    ],
)
def test_what_is_not_there_is_told(
    page: str, changed: dict[str, Any], status: int, said: str, overview: dict[str, Any], served: Served
) -> None:
    shape = {"head": {"rows": 9, "columns": 9}, "head/row": {"query": 0}, "head/lines": {}}[page]
    answer = post(served, page, **{"id": overview["id"], "layer": 0, "head": 0, **shape, **changed})
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_another_result_has_no_heads(served: Served) -> None:
    asked = {"model": "tiny", "text": TEXT, "analysis": "surprisal", "options": {}}
    body = post(served, "analyse", **asked).content[-5000:]
    name = body[body.index(b'"id": "') + 7 :].partition(b'"')[0].decode()
    answer = post(served, "head", id=name, layer=0, head=0, rows=9, columns=9)
    assert answer.status_code == 400
    assert "no overview of attention" in answer.json()["error"]["message"]
