"""/v1/rerank: by a cross-encoder as transformers scores, by vectors as the cosine says."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch
from readers import TEXTS, bert, minilm, theirs
from serving import Served, serving, tiny_talker

from cutaway import load_model
from cutaway.models import embed
from cutaway.serve import Settings

QUERY = "where is the cat?"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("rankers")
    return {
        "cross": bert(root / "cross", num_labels=1),
        "number": bert(root / "number", num_labels=1, problem_type="regression"),
        "minilm": minilm(),
        "labels": bert(root / "labels", num_labels=3),
        "talker": tiny_talker(root / "talker"),
    }


@pytest.fixture(scope="module")
def served(folders: dict[str, str]) -> Iterator[Served]:
    with serving(Settings(models=folders)) as found:
        yield found


def ask(served: Served, path: str = "/v1/rerank", **asked: Any) -> httpx.Response:
    return httpx.post(f"{served.url}{path}", json={"query": QUERY, "documents": TEXTS, **asked}, timeout=60)


@pytest.mark.parametrize("name", ["cross", "number"])
@torch.no_grad()
def test_pairs_are_scored_as_by_transformers(served: Served, folders: dict[str, str], name: str):
    network, tokenizer = theirs(folders[name])
    pairs = tokenizer([QUERY] * len(TEXTS), TEXTS, padding=True, return_tensors="pt")
    assert pairs["token_type_ids"].any()
    expected = network(**pairs).logits[:, 0]
    without = network(input_ids=pairs["input_ids"], attention_mask=pairs["attention_mask"]).logits[:, 0]
    assert (expected - without).abs().max() > 0.01  # which text a token is of matters
    expected = expected if name == "number" else expected.sigmoid()
    said = ask(served, model=name).json()
    assert said["scored_by"] == "cross_encoder"
    assert [one["index"] for one in said["results"]] == expected.argsort(descending=True).tolist()
    for one in said["results"]:
        assert one["relevance_score"] == pytest.approx(float(expected[one["index"]]), abs=1e-5)
        assert one["document"] == {"text": TEXTS[one["index"]]}
    assert said["usage"]["total_tokens"] == int(pairs["attention_mask"].sum())


def test_vectors_rank_by_their_cosine(served: Served, folders: dict[str, str]):
    texts = ["Bread rises by yeast.", "Cats sleep on mats.", "A cat is under the table."]
    said = ask(served, model="minilm", query="Where is the cat?", documents=[{"text": text} for text in texts]).json()
    vectors = embed(load_model(folders["minilm"]), ["Where is the cat?", *texts])
    expected = vectors[1:] @ vectors[0]
    assert said["scored_by"] == "cosine"
    assert [one["index"] for one in said["results"]] == expected.argsort(descending=True).tolist() == [2, 1, 0]
    for one in said["results"]:
        assert one["relevance_score"] == pytest.approx(float(expected[one["index"]]), abs=1e-5)


def test_the_best_alone_and_without_their_texts(served: Served):
    whole = ask(served, model="cross").json()["results"]
    said = ask(served, "/rerank", model="cross", top_n=2, return_documents=False).json()["results"]
    assert said == [{key: one[key] for key in ("index", "relevance_score")} for one in whole[:2]]
    assert len(ask(served, model="cross", top_n=99).json()["results"]) == len(TEXTS)


@pytest.mark.parametrize(
    ("asked", "code", "param", "word"),
    [
        ({"documents": []}, "invalid_value", "documents", "at least 1"),
        ({"top_n": 0}, "invalid_value", "top_n", "at least 1"),
        ({"documents": ["a " * 30]}, "context_length_exceeded", "documents", "tokens together with the query"),
        ({"documents": [{"text": "a", "image": "b"}]}, "invalid_value", "documents[0]", '"text"'),
        ({"model": "minilm", "query": "a " * 300}, "context_length_exceeded", "query", "302 tokens"),
        ({"model": "labels"}, "model_not_suitable", "model", "does neither"),
        ({"model": "talker"}, "model_not_suitable", "model", "does neither"),
        ({"max_chunks_per_doc": 2}, "unsupported_parameter", "max_chunks_per_doc", "read whole"),
        ({"max_chunks": 2}, "unknown_parameter", "max_chunks", "max_chunks"),
    ],
)
def test_what_cannot_be_ranked(served: Served, asked: Any, code: str, param: str | None, word: str):
    answer = ask(served, **{"model": "cross", **asked})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code)
    assert param is None or error["param"] == param
    assert word in error["message"]
