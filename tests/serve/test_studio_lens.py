"""Lenses, patching and edits over HTTP: what is sent is what Python computes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from serving import Served, serving, tiny_talker

from cutaway import load_model
from cutaway.interp import lens_difference, lens_ranks, logit_lens, patch_map, rome
from cutaway.models import Model
from cutaway.serve import Settings

TEXT, OTHER = "hello, how are", "hello, who are"
TEXTS = ["hello, how are you?", "The quick brown fox", "jumps over the lazy dog", "how are you, fox?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: str) -> Model:
    return load_model(folder)


@pytest.fixture(scope="module")
def served(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(Settings(models={"tiny": folder}, studio=tmp_path_factory.mktemp("studio"))) as running:
        yield running


def answer(served: Served, page: str, **asked: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The progress that was told, and the last frame: a result unpacked, or the error."""
    given = {"model": "tiny", **asked}
    data = httpx.post(f"{served.url}/studio/{page}", json=given, timeout=60).content
    reports, last = [], None
    while data:
        size = struct.unpack_from("<I", data, 1)[0]
        kind, body, data = chr(data[0]), data[5 : 5 + size], data[5 + size :]
        if kind == "p":
            reports.append(json.loads(body))
        else:
            last = unpacked(body) if kind == "r" else json.loads(body)
    assert last is not None
    return reports, last


def unpacked(data: bytes) -> Any:
    """As studio/src/lib/wire.ts does."""
    size = struct.unpack_from("<I", data)[0]
    behind = 4 + size + -(4 + size) % 8

    def read(value: dict[str, Any]) -> Any:
        if (head := value.get("$tensor")) is None:
            return value
        count = int(np.prod(head["shape"]))
        numbers = np.frombuffer(data, np.dtype(f"<{head['dtype']}"), count, behind + head["at"])
        return torch.from_numpy(numbers.reshape(head["shape"]).copy())

    return json.loads(data[4 : 4 + size], object_hook=read)


def test_the_table_is_sent_as_tensors(served: Served, model: Model):
    _, open_ = answer(served, "lens", text=TEXT, top=3, token="h")
    sent, made = open_["result"], logit_lens(model, TEXT, top=3, token="h")
    assert sent["picture"] == "lens"
    assert torch.equal(sent["ids"], made.ids)
    assert torch.equal(sent["ranks"], made.ranks)
    for name in ("probabilities", "entropies", "logits", "chances"):
        torch.testing.assert_close(sent[name], getattr(made, name), rtol=1e-5, atol=1e-5)
    assert sent["words"] == {str(id_): word for id_, word in made.words.items()}
    assert "cells" not in sent


def test_tokens_are_followed(served: Served, model: Model):
    _, open_ = answer(served, "lens/ranks", text=TEXT, tokens=["h", 5], position=3)
    made = lens_ranks(model, TEXT, tokens=["h", 5], position=3)
    assert open_["result"]["parts"]["rank"]["lines"] == made["rank"].lines


def test_two_texts_are_compared(served: Served, model: Model):
    _, open_ = answer(served, "lens/difference", text=TEXT, other={"model": "tiny", "text": OTHER})
    made = lens_difference(model, TEXT, other_text=OTHER)
    torch.testing.assert_close(open_["result"]["values"], made.values, atol=1e-5, rtol=1e-4)
    assert open_["result"]["parted"] == made.parted


def test_a_lens_is_fitted_and_then_read(served: Served):
    reports, open_ = answer(served, "lens/fit", kind="tuned", texts=TEXTS, steps=8)
    assert reports
    assert reports[0]["stage"] == "training the lens"
    assert "lens" not in open_["result"]
    assert set(open_["result"]["lines"]) == {"logit", "tuned"}
    _, table = answer(served, "lens", text=TEXT, lens=open_["id"])
    _, plain = answer(served, "lens", text=TEXT)
    assert torch.equal(table["result"]["ids"][-1], plain["result"]["ids"][-1])
    assert not torch.equal(table["result"]["logits"][0], plain["result"]["logits"][0])
    _, wrong = answer_error(served, "lens", text=TEXT, lens=table["id"])
    assert wrong["error"]["message"] == "this result is no fitted lens"


def answer_error(served: Served, page: str, **asked: Any) -> tuple[int, Any]:
    found = httpx.post(f"{served.url}/studio/{page}", json={"model": "tiny", **asked}, timeout=60)
    return found.status_code, found.json()


def test_a_map_is_an_analysis_with_a_second_text(served: Served, model: Model):
    options = {"corrupt": OTHER, "token": "h", "minus": "w"}
    reports, open_ = answer(served, "analyse", text=TEXT, analysis="patch_map", options=options)
    made = patch_map(model, TEXT, OTHER, token="h", minus="w")
    torch.testing.assert_close(open_["result"]["patched"], made.patched, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(open_["result"]["estimate"], made.estimate, atol=1e-4, rtol=1e-4)
    assert reports


def test_an_edit_leaves_the_model_as_it_is(served: Served, model: Model):
    before = answer(served, "lens", text="hello fox")[1]["result"]["logits"]
    asked = {
        "prompt": "hello fox",
        "subject": "fox",
        "target": "h",
        "texts": TEXTS,
        "neighbours": ["hello dog"],
        "steps": 6,
    }
    _, open_ = answer(served, "edit", **asked)
    made = rome(
        model, "hello fox", subject="fox", target="h", texts=TEXTS, neighbours=["hello dog"], steps=6, contexts=2,
        shared=True,
    )  # fmt: skip
    for sent, own in zip(open_["result"]["rows"], made.rows, strict=True):
        assert sent[:2] == own[:2]
        assert sent[2:4] == pytest.approx(own[2:4], rel=1e-2)
    assert open_["result"]["receipt"]["bytes"] == made.receipt.bytes
    assert torch.equal(before, answer(served, "lens", text="hello fox")[1]["result"]["logits"])


@pytest.mark.parametrize("analysis", ["tuned_lens", "jacobian_lens"])
def test_no_option_names_a_file(served: Served, tmp_path: Path, analysis: str):
    asked = {"text": TEXT, "analysis": analysis, "options": {"lens": str(tmp_path / "lens.safetensors")}}
    status, told = answer_error(served, "analyse", **asked)
    assert status == 400
    assert told["error"]["message"] == "lens is no option of requests: it may name a file"
