"""The studio's tables, answers, probes, features and graphs: what is sent is what Python computes; no path is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from serving import TEXT as LETTERS
from serving import Served, serving, tiny_talker

import cutaway
from cutaway import load_model
from cutaway.interp import attribution_graph, erase, feature_dashboard, graph_intervention, probe
from cutaway.interp.features import load_features
from cutaway.models import EncoderConfig, Model, build_network
from cutaway.serve import Settings
from cutaway.tasks import answer_rows
from cutaway.tasks.report import labelling_model
from cutaway.tokenizers import train_tokenizer

WORDS = ["hello", "quick fox", "lazy dog", "how are you", "the brown fox", "jumps", "over the dog", "are you lazy"]
ROWS = [{"text": f"{word} {n}", "label": ("good", "bad", "neither")[n % 3]} for n, word in enumerate(WORDS * 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    tiny_talker(folder / "tiny")
    tokenizer = train_tokenizer([LETTERS * 9], "char", 300)
    torch.manual_seed(0)
    labels: dict[str, Any] = {"head": "sequence_classification", "labels": ("good", "bad", "neither")}
    network = build_network(EncoderConfig(tokenizer.vocab_size, layers=2, width=24, heads=3, **labels)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    cutaway.save_model(Model(network, tokenizer, "labels"), folder / "labels")
    models = {"tiny": str(folder / "tiny"), "labels": str(folder / "labels")}
    with serving(Settings(models=models, studio=folder / "studio")) as running:
        yield running


def last(served: Served, page: str, **asked: Any) -> tuple[str, Any]:
    """The last frame's kind, and its head."""
    answer = httpx.post(f"{served.url}/studio/{page}", json=asked, timeout=60)
    data, kind, body = answer.content, "e", answer.content
    while answer.status_code == 200 and data:
        size = struct.unpack_from("<I", data, 1)[0]
        kind, body, data = chr(data[0]), data[5 : 5 + size], data[5 + size :]
    return kind, json.loads(body[4 : 4 + struct.unpack_from("<I", body)[0]] if kind == "r" else body)


def made(served: Served, page: str, **asked: Any) -> Any:
    kind, told = last(served, page, **asked)
    assert kind == "r", told
    return told


def refused(served: Served, page: str, **asked: Any) -> str:
    kind, told = last(served, page, **asked)
    assert kind == "e", told
    return told["error"]["message"]


def test_a_table_is_read_as_text_and_never_as_a_path(served: Served, folder: Path) -> None:
    told = httpx.post(f"{served.url}/studio/table", json={"table": "text,label\na b,good\n\nc,bad,more\n"}).json()
    assert told["columns"] == ["text", "label"]
    assert [row["values"] for row in told["rows"]] == [{"text": "a b", "label": "good"}]
    assert told["skipped"] == ["rows:4: more fields than the table has columns (3, not 2)"]
    (folder / "secret.csv").write_text("text,label\nsecret,good\n")
    answer = httpx.post(f"{served.url}/studio/table", json={"table": str(folder / "secret.csv")})
    assert "secret,good" not in answer.text
    assert answer.status_code == 200
    assert answer.json()["rows"] == [{"source": "rows:1", "values": {"1": str(folder / "secret.csv")}}]
    empty = httpx.post(f"{served.url}/studio/table", json={"table": " \n"})
    assert (empty.status_code, "there is nothing in rows" in empty.text) == (400, True)


def test_rows_are_answered_as_python_answers_them(served: Served, folder: Path) -> None:
    told = made(served, "answers", model="labels", rows=ROWS)["result"]
    found = answer_rows(load_model(folder / "labels"), ROWS)
    assert [row["answer"] for row in told["rows"]] == [row.answer for row in found.rows]
    chances = [row["probability"] for row in told["rows"]]
    assert chances == pytest.approx([row.probability for row in found.rows], abs=1e-5)
    assert told["figures"] == pytest.approx(found.figures)
    assert told["cells"] == [list(cell) for cell in found.cells]
    assert sum(len(rows) for *_, rows in told["cells"]) == len(ROWS)
    assert [(row["by"], row["value"]) for row in told["slices"]] == [(one.by, one.value) for one in found.slices]
    why = made(served, "why", model="labels", given={"text": "quick fox"})["result"]
    wanted = labelling_model(load_model(folder / "labels")).why("quick fox")
    assert why["scores"] == pytest.approx(wanted.scores, abs=1e-5)
    assert "gives texts no labels" in refused(served, "answers", model="tiny", rows=ROWS)
    assert "unknown column 'nowhere'" in refused(
        served, "answers", model="labels", rows=ROWS, columns={"text": "nowhere"}
    )
    assert refused(served, "answers", model="labels", rows=[])
    assert made(served, "answers", model="labels", rows=ROWS[:1])["result"]["figures"]["rows"] == 1


@pytest.mark.parametrize("model", ["tiny", "labels"])
def test_probes_and_their_controls(served: Served, folder: Path, model: str) -> None:
    texts, labels = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
    told = made(served, "probe", model=model, texts=texts, labels=labels)["result"]
    found = probe(load_model(folder / model), texts, labels)
    rows, wanted = told["parts"]["numbers"]["rows"], found["numbers"].rows
    assert [row[0] for row in rows] == [row[0] for row in wanted]
    assert rows[0][1:] == pytest.approx(wanted[0][1:], abs=1e-4)
    gone = made(served, "erase", model=model, texts=texts, labels=labels, names=[rows[0][0]])["result"]
    asked = erase(load_model(folder / model), texts, labels, [rows[0][0]])
    assert gone["parts"]["numbers"]["rows"][0] == pytest.approx(asked["numbers"].rows[0], abs=1e-4)
    assert "as many labels" in refused(served, "probe", model=model, texts=texts, labels=labels[:-1])


def test_features_are_learned_kept_shown_and_changed(served: Served, folder: Path) -> None:
    assert httpx.post(f"{served.url}/studio/features/list", json={"model": "tiny"}).json()["features"] == []
    how = {"activation": "layers.0.mlp", "transcoder": True, "width": 16, "k": 4, "samples": 1024, "batch": 16}
    told = made(served, "features/learn", model="tiny", name="one", texts=WORDS * 4, **how)["result"]
    place = folder / "studio" / "features" / "tiny" / "one"
    features, model = load_features(place), load_model(folder / "tiny")
    assert features.config.name == "layers.0.mlp"
    (listed,) = httpx.post(f"{served.url}/studio/features/list", json={"model": "tiny"}).json()["features"]
    assert listed == {
        "name": "one", "activation": "layers.0.mlp", "width": 16, "kind": "topk", "k": 4, "transcoder": True,
    }  # fmt: skip
    number = told["parts"]["features"]["rows"][0][0]
    board = made(served, "features/dashboard", model="tiny", name="one", texts=WORDS, feature=number)["result"]
    wanted = feature_dashboard(model, features, WORDS, feature=number, top=6)
    assert board["figures"] == pytest.approx(wanted.figures, abs=1e-5)
    shown = board["parts"]["promoted"]["rows"]
    assert [row[0] for row in shown] == [row[0] for row in wanted["promoted"].rows]
    asked: dict[str, Any] = {"model": "tiny", "text": "hello, how", "names": ["one"], "neurons": 12}
    graph = made(served, "features/graph", **asked)
    found = attribution_graph(model, "hello, how", [features], neurons=12, keep_edges=0.95)
    names = [node["name"] for node in graph["result"]["parts"]["graph"]["nodes"]]
    assert names == [node.name for node in found["graph"].nodes]
    node = next(name for name in names if name.startswith("layers.") and ".error" not in name)
    moved = made(served, "features/intervene", id=graph["id"], factors={node: 0.0})["result"]
    there = graph_intervention(found, {node: 0.0})
    assert moved["predicted"] == pytest.approx(there.predicted, abs=1e-4)
    assert moved["actual"] == pytest.approx(there.actual, abs=1e-4)
    other = made(served, "analyse", model="tiny", text="hello", analysis="surprisal", options={})
    assert "no attribution graph" in refused(served, "features/intervene", id=other["id"], factors={node: 0.0})


def test_a_dictionary_has_a_plain_name(served: Served, folder: Path) -> None:
    for name in ("../../out", "a/b", "", ".hidden", "a" * 65, "nul\0"):
        asked: dict[str, Any] = {"model": "tiny", "name": name, "texts": WORDS, "activation": "layers.0.resid_post"}
        assert "name" in refused(served, "features/learn", **asked)
        assert "name" in refused(served, "features/dashboard", model="tiny", name=name, texts=WORDS)
    assert not (folder / "out").exists()
    assert "unknown dictionary" in refused(served, "features/overview", model="tiny", name="none", texts=WORDS)


def test_texts_are_changed_in_place(served: Served) -> None:
    options = {"changes": [[1, "a"], [2, None]], "method": "occlusion"}
    asked: dict[str, Any] = {"model": "tiny", "text": "hello", "analysis": "counterfactual", "options": options}
    told = made(served, "analyse", **asked)["result"]
    assert told["tokens"] == ["h", "a", "l", "o"]
    assert told["figures"]["change"] == pytest.approx(told["after"] - told["before"])
