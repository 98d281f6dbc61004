"""The studio's tokens, chances and writing: what is sent is what Python computes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from saved_page import Page, give_script
from serving import TEXT as LETTERS
from serving import Served, serving, tiny_talker

from cutaway import load_model
from cutaway.generation import Generation
from cutaway.interp import chances, generation_tree, surprisal, tokens_of
from cutaway.models import Model, Seq2SeqConfig, build_network, save_model
from cutaway.serve import Settings
from cutaway.tokenizers import train_tokenizer

TEXT = "hello, how are"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def served(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(Settings(models={"tiny": folder}, studio=tmp_path_factory.mktemp("studio"))) as running:
        yield running


def frames_of(data: bytes) -> list[tuple[str, bytes]]:
    """As studio/src/lib/wire.ts reads them."""
    found = []
    while data:
        size = struct.unpack_from("<I", data, 1)[0]
        found.append((chr(data[0]), data[5 : 5 + size]))
        data = data[5 + size :]
    return found


def head(data: bytes) -> Any:
    return json.loads(data[4 : 4 + struct.unpack_from("<I", data)[0]])


def post(served: Served, page: str, **asked: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/studio/{page}", json=asked, timeout=60)


def analysed(served: Served, analysis: str, options: dict[str, Any] | None = None, **asked: Any) -> Any:
    asked = {"model": "tiny", "text": TEXT, "analysis": analysis, "options": options or {}, **asked}
    kind, body = frames_of(post(served, "analyse", **asked).content)[-1]
    assert kind == "r", body
    return head(body)


def test_chips_are_told_with_bytes_and_surprise(served: Served, folder: str) -> None:
    told = analysed(served, "tokens_of")["result"]
    found = tokens_of(load_model(folder), TEXT)
    assert (told["tokens"], told["ids"], told["spelled"]) == (found.tokens, found.ids, found.spelled)
    assert told["scores"][1:] == pytest.approx(found.scores[1:])
    assert told["mean"] == pytest.approx(found.mean)


def test_ids_are_read_in_place_of_a_text(served: Served, folder: str) -> None:
    model = load_model(folder)
    ids = [*model.ids(TEXT)[0].tolist()[:5], 7, 9]
    told = analysed(served, "chances", {"shown": 6}, ids=ids)["result"]
    found = chances(model, ids, shown=6)
    assert told["ids"] == ids
    assert [one["logit"] for one in told["candidates"]] == pytest.approx([one.logit for one in found.candidates])
    tree = analysed(served, "generation_tree", {"depth": 2}, ids=ids)["result"]["root"]
    own = generation_tree(model, ids, depth=2).root
    assert [(one["id"], one["share"]) for one in tree["branches"]] == [
        (one.id, pytest.approx(one.share)) for one in own.branches
    ]
    wrong = post(served, "analyse", model="tiny", text="", ids=[10**6], analysis="chances", options={})
    kind, body = frames_of(wrong.content)[-1]
    assert kind == "e"
    assert "token ids must lie in" in json.loads(body)["error"]["message"]


def test_sliders_are_followed_without_another_run(
    served: Served, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_script(tmp_path, monkeypatch)
    made = analysed(served, "chances", {"position": 3})
    how = {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.02}
    answer = post(served, "redraw", id=made["id"], shown=9, **how)
    told = head(answer.content)
    found = chances(load_model(folder), TEXT, position=3, shown=9, **how)
    assert told["id"] == made["id"]
    assert [one["left"] for one in told["result"]["candidates"]] == pytest.approx(
        [one.left for one in found.candidates], abs=1e-6
    )
    assert [step["kept"] for step in told["result"]["steps"]] == [step.kept for step in found.steps]
    assert "model" not in told["result"]
    assert "logits" not in told["result"]
    (saved,) = Page(post(served, "page", id=made["id"]).text).parts  # what is saved is what the sliders show
    assert {"name": "top_k", "value": 20}.items() <= next(s for s in saved["steps"] if s["name"] == "top_k").items()


def test_what_is_written_is_what_python_writes(served: Served, folder: str) -> None:
    model = load_model(folder)
    ids = model.ids(TEXT)[0].tolist()
    asked = {"temperature": 0.9, "top_k": 30, "seed": 11, "max_tokens": 12}
    found = frames_of(post(served, "write", model="tiny", text=TEXT, ids=ids, **asked).content)
    pieces = [json.loads(body) for kind, body in found if kind == "d"]
    own = model.generate(ids, max_new_tokens=12, seed=11, temperature=0.9, top_k=30, top_p=1.0, min_p=0.0)
    assert isinstance(own, Generation)
    assert [piece["id"] for piece in pieces] == own.ids
    assert "".join(piece["text"] for piece in pieces) == own.text
    told = head(found[-1][1])["result"]
    assert told["ids"] == own.ids
    bits = surprisal(model, [*ids, *own.ids]).scores[len(ids) :]
    assert [piece["bits"] for piece in pieces] == pytest.approx(bits, abs=1e-3)
    assert told["scores"] == pytest.approx(bits, abs=1e-3)
    assert len(pieces[0]["likely"]) == 5
    assert pieces[0]["likely"][0]["share"] == pytest.approx(chances(model, ids).candidates[0].share, abs=1e-5)


def test_a_text_is_begun(served: Served) -> None:
    found = frames_of(post(served, "write", model="tiny", text="", max_tokens=3).content)
    assert [kind for kind, _ in found].count("d") <= 3
    assert found[-1][0] == "r"


def test_a_target_goes_on(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([LETTERS * 9], "char", 300)
    torch.manual_seed(0)
    network = build_network(Seq2SeqConfig(tokenizer.vocab_size, layers=1, width=16, heads=2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    folder = save_model(Model(network, tokenizer), tmp_path / "translator")
    with serving(Settings(models={"tiny": str(folder)}, studio=tmp_path / "studio")) as served:
        model = load_model(folder)
        ids = model.ids("he")[0].tolist()
        asked = {"source": "hello", "text": "he", "ids": ids, "max_tokens": 4, "temperature": 0}
        found = frames_of(post(served, "write", model="tiny", **asked).content)
        own = model.generate("hello", target=ids[1:], max_new_tokens=4, temperature=0)
        assert isinstance(own, Generation)
        assert [json.loads(body)["id"] for kind, body in found if kind == "d"] == own.ids
        assert analysed(served, "tokens_of", source="hello")["result"]["source"]


def test_the_text_of_tokens_is_without_what_stands_for_none(served: Served, folder: str) -> None:
    tokenizer = load_model(folder).tokenizer
    ids = [*tokenizer.encode(TEXT), tokenizer.end_of_text]
    assert post(served, "text", model="tiny", ids=ids).json() == {"text": TEXT}
    answer = post(served, "text", model="tiny", ids=[10**6])
    assert answer.status_code == 400
    assert "0 …" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("page", "asked", "status", "word"),
    [
        ("redraw", {"id": "none"}, 404, "no longer open"),
        ("redraw", {"id": "x", "temperature": -1}, 400, "temperature"),
        ("redraw", {"id": "x", "top_p": 0}, 400, "top_p"),
        ("write", {"model": "none", "text": "x"}, 404, "none"),
        ("write", {"model": "tiny", "text": "x", "max_tokens": 0}, 400, "max_tokens"),
        ("write", {"model": "tiny", "text": "x" * 300}, 400, "256"),
        ("write", {"model": "tiny", "text": "x", "ids": [10**6]}, 400, "0 …"),
    ],
)
def test_what_is_wrong_is_told(served: Served, page: str, asked: dict[str, Any], status: int, word: str) -> None:
    answer = post(served, page, **asked)
    assert answer.status_code == status
    assert word in answer.json()["error"]["message"] + str(answer.json()["error"]["param"])


def test_only_chances_are_redrawn(served: Served) -> None:
    made = analysed(served, "surprisal")
    answer = post(served, "redraw", id=made["id"])
    assert answer.status_code == 400
    assert "no chances" in answer.json()["error"]["message"]
