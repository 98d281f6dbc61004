"""/v1/classify and /v1/tag: what transformers makes of the same folders, and what is refused."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import torch
import transformers
from readers import TEXTS, bert, theirs
from serving import Served, serving, tiny_talker

from cutaway.serve import Settings

LABELS = {0: "good", 1: "bad", 2: "neither"}
TAGS = dict(enumerate(["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]))
BACK = {"label2id": {name: i for i, name in LABELS.items()}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("readers")
    labels = {"id2label": LABELS, **BACK}
    return {
        "one": bert(root / "one", **labels),
        "several": bert(root / "several", **labels, problem_type="multi_label_classification"),
        "yes": bert(root / "yes", num_labels=1),
        "number": bert(root / "number", num_labels=1, problem_type="regression"),
        "tags": bert(root / "tags", "BertForTokenClassification", id2label=TAGS),
        "talker": tiny_talker(root / "talker"),
    }


@pytest.fixture(scope="module")
def served(folders: dict[str, str]) -> Iterator[Served]:
    with serving(Settings(models=folders, max_inputs=20, max_prompt=2000)) as found:
        yield found


def ask(served: Served, path: str = "/v1/classify", **asked: Any) -> httpx.Response:
    return httpx.post(f"{served.url}{path}", json=asked, timeout=60)


@pytest.mark.parametrize("name", ["one", "several", "yes"])
def test_probabilities_are_those_of_transformers(served: Served, folders: dict[str, str], name: str):
    said = ask(served, model=name, input=TEXTS).json()
    network, tokenizer = theirs(folders[name])
    pipeline: Any = transformers.pipeline("text-classification", model=network, tokenizer=tokenizer, device="cpu")
    expected = pipeline(TEXTS, top_k=None)
    names = list(network.config.id2label.values())
    assert said["labels"] == names
    assert said["labelling"] == ("several" if name == "several" else "one")
    for row, found in zip(said["data"], expected, strict=True):
        scores = {one["label"]: one["score"] for one in found}
        assert row["probs"] == pytest.approx([scores[label] for label in names], abs=1e-5)
        assert row["label"] == max(scores, key=lambda label: scores[label])
        assert row["num_classes"] == len(names)
    counted = sum(len(ids) for ids in tokenizer(TEXTS)["input_ids"])
    assert said["usage"] == {"prompt_tokens": counted, "total_tokens": counted}


def test_one_text_ids_and_the_other_path_are_the_same(served: Served, folders: dict[str, str]):
    ids = theirs(folders["one"])[1](TEXTS[0])["input_ids"]
    found = [ask(served, model="one", input=given).json()["data"][0] for given in (TEXTS[0], [TEXTS[0]], ids, [ids])]
    found.append(ask(served, "/classify", model="one", input=TEXTS[0]).json()["data"][0])
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize(
    ("asked", "code", "param", "word"),
    [
        ({"input": []}, "invalid_value", "input", "none of them empty"),
        ({"input": [[]]}, "invalid_value", "input", "none of them empty"),
        ({"input": [-1]}, "invalid_value", "input", "token ids"),
        ({"input": [True]}, "invalid_value", "input", "token ids"),
        ({"input": [1, "a"]}, "invalid_value", "input", "a list of texts"),
        ({"input": [10**6]}, "invalid_value", "input", "1000000"),
        ({}, "missing_parameter", "input", "missing"),
        ({"input": "a " * 40}, "context_length_exceeded", "input", "42 tokens, but this model reads 32"),
        ({"input": ["a"] * 21}, "too_many_inputs", "input", "21 texts, but this server reads 20"),
        ({"input": "a" * 2001}, "string_above_max_length", "input", "2,001 characters"),
        ({"input": "a", "softmax": True}, "unknown_parameter", "softmax", "softmax"),
        ({"input": "a", "model": "number"}, "model_not_suitable", "model", "says a number"),
        ({"input": "a", "model": "tags"}, "model_not_suitable", "model", "is an encoder with a head for token"),
        ({"input": "a", "model": "talker"}, "model_not_suitable", "model", "is a decoder with a head for causal_lm"),
    ],
)
def test_what_cannot_be_classified(served: Served, asked: Any, code: str, param: str, word: str):
    answer = ask(served, **{"model": "one", **asked})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
    assert word in error["message"]


def test_many_at_once_are_as_they_are_alone(served: Served):
    alone = [ask(served, model="one", input=text).json()["data"][0]["probs"] for text in TEXTS]
    together = ask(served, model="one", input=TEXTS).json()["data"]
    torch.testing.assert_close(torch.tensor(alone), torch.tensor([row["probs"] for row in together]))


def test_requests_that_come_while_others_are_read_are_read_together(served: Served):
    assert ask(served, model="one", input="a").status_code == 200
    network = served.server.models.loaded["one"].model.network
    read: list[int] = []

    def slow(module: Any, given: Any, made: torch.Tensor) -> None:
        read.append(len(made))
        time.sleep(0.05)

    hook = network.register_forward_hook(slow)
    try:
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda text: ask(served, model="one", input=text), TEXTS * 4))
    finally:
        hook.remove()
    assert all(answer.status_code == 200 for answer in answers)
    assert sum(read) == len(answers)
    assert len(read) <= len(answers) / 2  # far fewer steps than requests
    first = answers[: len(TEXTS)]
    for number, answer in enumerate(answers):
        expected = first[number % len(TEXTS)].json()["data"][0]["probs"]
        assert answer.json()["data"][0]["probs"] == pytest.approx(expected, abs=1e-6)


def test_spans_are_those_of_transformers(served: Served, folders: dict[str, str]):
    said = ask(served, "/v1/tag", model="tags", input=TEXTS).json()
    network, tokenizer = theirs(folders["tags"], "AutoModelForTokenClassification")
    pipeline: Any = transformers.pipeline(
        "token-classification", model=network, tokenizer=tokenizer, aggregation_strategy="simple", device="cpu"
    )
    seen = set()
    for text, found in zip(TEXTS, said["data"], strict=True):
        expected = pipeline(text)
        assert [(s["start"], s["end"], s["label"]) for s in found["spans"]] == [
            (one["start"], one["end"], one["entity_group"]) for one in expected
        ]
        assert [s["score"] for s in found["spans"]] == pytest.approx([one["score"] for one in expected], abs=1e-5)
        assert all(text[s["start"] : s["end"]] == s["text"] for s in found["spans"])
        assert len(found["tokens"]) == len(tokenizer(text, add_special_tokens=False)["input_ids"])
        seen |= {(s["label"], s["end"] - s["start"] > 4) for s in found["spans"]}
    assert len(seen) > 2  # or this shows little
    assert ask(served, "/v1/tag", model="one", input="a").json()["error"]["code"] == "model_not_suitable"
    assert ask(served, "/v1/tag", model="tags", input="").status_code == 200
