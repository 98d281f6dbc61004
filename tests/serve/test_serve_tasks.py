"""/v1/tasks: the answers that the task's model gives in Python, what they are owed to, and what is refused."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from readers import bert
from serving import Served, serving, tiny_talker

from cutaway.models import Decoder, DecoderConfig, Encoder, EncoderConfig, Model, Seq2Seq, Seq2SeqConfig, save_model
from cutaway.serve import Settings
from cutaway.tasks import TaskModel, open_task
from cutaway.tasks.classify import Classify
from cutaway.tasks.start import from_checkpoint, learning
from cutaway.tasks.summarise import Summarise
from cutaway.tasks.tag import Tag
from cutaway.tasks.trained import write_task
from cutaway.tasks.translate import Translate
from cutaway.tokenizers import train_tokenizer

TEXTS = ["The river is wide.", "A hill of wine. The stone gate is old. We go.", "No."]
WORDS = " ".join(TEXTS)
LABELS = ("bad", "good")
TAGS = ("O", "B-PER", "I-PER")


def write(folder: Path, made: TaskModel) -> str:
    folder.mkdir()
    write_task(made, folder)
    return str(folder)


def network(kind: str, **fields: Any) -> Model:
    tokenizer = train_tokenizer([WORDS * 3], "bpe", 262)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"context": 48, "layers": 2, "width": 32, "heads": 4, **fields}
    if kind == "seq2seq":
        return Model(Seq2Seq(Seq2SeqConfig(tokenizer.vocab_size, **sizes)), tokenizer)
    if kind == "decoder":
        return Model(Decoder(DecoderConfig(tokenizer.vocab_size, **sizes)), tokenizer)
    return Model(Encoder(EncoderConfig(tokenizer.vocab_size, **sizes)), tokenizer)


def adapter(root: Path) -> str:
    """Of a task that was learned by an adapter; its base lies elsewhere."""
    task, base = Classify(several="no"), str(save_model(network("encoder"), root / "base"))
    model = learning(from_checkpoint(task, base, LABELS), "lora", rank=2)
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_()
    return write(root / "adapter", TaskModel(task, model, LABELS, base=base))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("tasks")
    labels: dict[str, Any] = {"head": "sequence_classification", "labels": LABELS, "pooling": "mean"}
    several = {**labels, "labelling": "several"}
    tags: dict[str, Any] = {"head": "token_classification", "labels": TAGS}
    scored: dict[str, Any] = {"head": "token_classification", "labels": ("summary",), "head_activation": "none"}
    return {
        "labels": write(
            root / "labels",
            TaskModel(Classify(several="no"), network("encoder", **labels), LABELS, {"temperature": 0.05}),
        ),
        "unsure": write(
            root / "unsure", TaskModel(Classify(several="no", abstain=1.0), network("encoder", **labels), LABELS)
        ),
        "several": write(
            root / "several",
            TaskModel(Classify(several="yes"), network("encoder", **several), LABELS, {"thresholds": [0.0, 1.1]}),
        ),
        "tags": write(root / "tags", TaskModel(Tag(), network("encoder", **tags), ("PER",))),
        "summary": write(
            root / "summary", TaskModel(Summarise(sentences=1), network("encoder", **scored), ("summary",))
        ),
        "writer": write(root / "writer", TaskModel(Summarise(way="written", max_new_tokens=6), network("decoder"))),
        "adapter": adapter(root),
        "translator": write(
            root / "translator", TaskModel(Translate(beams=2), network("seq2seq", context=12, source_context=48))
        ),
        "plain": bert(root / "plain", num_labels=2),
        "talker": tiny_talker(root / "talker"),
    }


@pytest.fixture(scope="module")
def served(folders: dict[str, str]) -> Iterator[Served]:
    with serving(Settings(models=folders, max_inputs=20, max_prompt=2000, max_tokens=40)) as found:
        yield found


def ask(served: Served, path: str = "/v1/tasks/predict", **asked: Any) -> httpx.Response:
    return httpx.post(f"{served.url}{path}", json=asked, timeout=60)


def same(first: Any, second: Any) -> bool:
    """Equal, but for what rounding in another batch does to numbers."""
    if isinstance(first, float) and isinstance(second, float):
        return first == pytest.approx(second, abs=1e-4)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.mark.parametrize("name", ["labels", "unsure", "several", "tags", "summary", "writer", "adapter"])
def test_answers_are_those_of_the_tasks_model(served: Served, folders: dict[str, str], name: str):
    said = ask(served, model=name, inputs=TEXTS).json()
    made = open_task(folders[name])
    assert said["task"] == made.task.name
    for number, (one, answer) in enumerate(zip(said["data"], made.predict(TEXTS), strict=True)):
        assert one["index"] == number
        told = json.loads(json.dumps(answer.to_json()))
        assert same({"answer": one["answer"], "probability": one["probability"], **one["more"]}, told)
        assert one["why"] is None
    assert said["usage"]["prompt_tokens"] > 0
    assert (said["usage"]["completion_tokens"] > 0) == (name == "writer")
    assert said["usage"]["total_tokens"] == said["usage"]["prompt_tokens"] + said["usage"]["completion_tokens"]


@pytest.mark.parametrize("name", ["labels", "summary"])
def test_why_is_what_the_tasks_model_says(served: Served, folders: dict[str, str], name: str):
    said = ask(served, model=name, inputs=[TEXTS[1], {"text": TEXTS[0]}], why=True).json()
    made = open_task(folders[name])
    for one, text in zip(said["data"], (TEXTS[1], TEXTS[0]), strict=True):
        found = made.why(text).to_json()
        assert one["why"]["tokens"] == found["tokens"]
        assert one["why"]["scores"] == pytest.approx(found["scores"], abs=1e-4)
        assert "/" not in one["why"]["receipt"]["source"]


def test_tasks_are_listed_with_what_they_read(served: Served):
    found = httpx.get(f"{served.url}/v1/tasks").json()["data"]
    assert [one["id"] for one in found] == [
        "labels",
        "unsure",
        "several",
        "tags",
        "summary",
        "writer",
        "adapter",
        "translator",
    ]
    cards = {one["id"]: one for one in found}
    assert cards["labels"]["labels"] == list(LABELS)
    assert [(one["name"], one["needed"]) for one in cards["summary"]["roles"]] == [("text", True), ("title", False)]


def test_a_model_that_is_not_loaded_is_listed_too(folders: dict[str, str]):
    with serving(Settings(models={"talker": folders["talker"], "labels": folders["labels"]})) as found:
        loaded = found.server.models.loaded.pop("labels")
        try:
            (card,) = httpx.get(f"{found.url}/v1/tasks").json()["data"]
        finally:
            found.server.models.loaded["labels"] = loaded
    assert (card["id"], card["task"], card["labels"]) == ("labels", "classify", list(LABELS))


@pytest.mark.parametrize(
    ("asked", "status", "code", "words"),
    [
        ({"model": "nothing", "inputs": ["a"]}, 404, "model_not_found", "nothing"),
        ({"model": "plain", "inputs": ["a"]}, 400, "model_not_suitable", "/v1/tasks"),
        ({"model": "talker", "inputs": ["a"]}, 400, "model_not_suitable", "is of no task"),
        ({"model": "labels", "inputs": []}, 400, None, "inputs"),
        ({"model": "labels", "inputs": "a"}, 400, None, "inputs"),
        ({"model": "labels", "inputs": ["a", " "]}, 400, "invalid_value", "input 2: the text is empty"),
        ({"model": "labels", "inputs": ["a", {"txt": "b"}]}, 400, "invalid_value", "input 2 gives 'txt'"),
        ({"model": "labels", "inputs": [{"text": "b", "label": "bad"}]}, 400, "invalid_value", "input 1 gives 'label'"),
        ({"model": "labels", "inputs": [{"text": 3}]}, 400, "invalid_value", "input 1: the text must be text"),
        ({"model": "labels", "inputs": [["a"]]}, 400, None, "role -> value"),
        ({"model": "labels", "inputs": ["a"] * 21}, 400, "too_many_inputs", "20"),
        ({"model": "labels", "inputs": ["a" * 2001]}, 400, "string_above_max_length", "2,000"),
        ({"model": "labels", "inputs": [{"text": "a", "b" * 1999: "c"}]}, 400, "string_above_max_length", "2,005"),
        ({"model": "labels", "inputs": ["a"] * 9, "why": True}, 400, "too_many_inputs", "8 at most"),
        ({"model": "labels", "inputs": ["a b"], "why": True, "method": "magic"}, 400, "invalid_value", "'magic'"),
        ({"model": "labels", "inputs": ["a"], "why": 1}, 400, None, "why"),
        ({"model": "labels", "inputs": ["a"], "part": -1}, 400, None, "part"),
        ({"model": "labels", "inputs": ["a"], "temperature": 1}, 400, None, "temperature"),
        ({"model": "writer", "inputs": ["a"] * 7}, 400, "too_many_inputs", "40 tokens"),
    ],
)
def test_what_is_wrong_is_said(served: Served, asked: dict[str, Any], status: int, code: str | None, words: str):
    answer = ask(served, **asked)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert words in f"{error['message']} {error['param']}"
    assert code is None or error["code"] == code


def test_many_at_once_are_answered_as_alone(served: Served, folders: dict[str, str]):
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS.split(), k=draw.randint(1, 9))) for _ in range(24)]
    names = [("labels", "tags", "summary", "writer")[n % 4] for n in range(24)]
    alone = {name: open_task(folders[name]) for name in set(names)}
    with ThreadPoolExecutor(12) as pool:
        found = list(
            pool.map(lambda one: ask(served, model=one[0], inputs=[one[1]]).json(), zip(names, texts, strict=True))
        )
    for name, text, said in zip(names, texts, found, strict=True):
        (answer,) = alone[name].predict([text])
        assert same(said["data"][0]["answer"], json.loads(json.dumps(answer.answer))), name
    assert not served.server.works


def test_translations_are_written_by_the_servers_engine(folders: dict[str, str]):
    texts = [f"The gate {number} is old." for number in range(5)]  # so many that a program of its own makes an engine
    with serving(Settings(models={"translator": folders["translator"]})) as found:
        said = ask(found, model="translator", inputs=texts[:3]).json()
        alone = open_task(folders["translator"]).predict(texts[:3])
        assert [one["answer"] for one in said["data"]] == [answer.answer for answer in alone]
        (loaded,) = found.server.models.loaded.values()
        before = loaded.engine.written
        many = ask(found, model="translator", inputs=texts)
        assert many.status_code == 200
        assert loaded.engine.written - before >= many.json()["usage"]["completion_tokens"] > 0


def test_a_deadline_ends_what_runs_and_gives_everything_back(served: Served):
    late = httpx.post(
        f"{served.url}/v1/tasks/predict",
        json={"model": "writer", "inputs": [WORDS * 5] * 3},
        headers={"Cutaway-Deadline": "0.001"},
        timeout=60,
    )
    assert late.status_code == 504
    assert ask(served, model="writer", inputs=["The gate."]).status_code == 200
    assert not served.server.works
    assert all(not one.users for one in served.server.models.loaded.values())


def test_classify_answers_with_the_tasks_calibration(served: Served, folders: dict[str, str]):
    said = ask(served, "/v1/classify", model="labels", input=TEXTS).json()
    for one, answer in zip(said["data"], open_task(folders["labels"]).predict(TEXTS), strict=True):
        assert one["label"] == answer.answer
        assert one["probs"] == pytest.approx([answer.more["probabilities"][label] for label in LABELS], abs=1e-4)
    unsure = ask(served, "/v1/classify", model="unsure", input=TEXTS[0]).json()["data"][0]
    assert (unsure["label"], unsure["said"]) == (None, [])
    several = ask(served, "/v1/classify", model="several", input=TEXTS[0]).json()["data"][0]
    assert several["said"] == ["bad"]  # by thresholds that no probability would reach, and that any does
    assert ask(served, "/v1/classify", model="labels", input=[[1, 2]]).json()["error"]["code"] == "unsupported_value"
    assert ask(served, "/v1/classify", model="tags", input="a").json()["error"]["code"] == "model_not_suitable"


def test_tag_answers_with_the_tasks_spans(served: Served, folders: dict[str, str]):
    texts = [*TEXTS, WORDS * 4]  # the last is longer than the network sees
    said = ask(served, "/v1/tag", model="tags", input=texts).json()
    for one, answer in zip(said["data"], open_task(folders["tags"]).predict(texts), strict=True):
        assert [(s["start"], s["end"], s["label"]) for s in one["spans"]] == [
            (s["start"], s["end"], s["label"]) for s in answer.answer
        ]
        assert one["tokens"] == []
