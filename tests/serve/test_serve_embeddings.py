"""/v1/embeddings with OpenAI's client: MiniLM's vectors, in both encodings, and what is refused."""

import base64
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from readers import bert, minilm
from serving import Served, serving, tiny_talker

from cutaway import load_model
from cutaway.models import Model, embed
from cutaway.serve import Settings
from cutaway.serve.bridge import MANY
from cutaway.serve.routes import embeddings

TEXTS = [
    "Which city is the seat of the French government?",
    "Paris is the capital of France.",
    "Bread rises.",
    "猫",
    "",
]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(minilm())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("embedders")
    models = {
        "minilm": minilm(),
        "cut": minilm(),
        "masked": bert(root / "masked", "BertForMaskedLM"),
        "talker": tiny_talker(root / "talker"),
    }
    with serving(Settings(models=models, matryoshka=("cut",))) as found:
        yield found


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def ask(served: Served, **asked: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/v1/embeddings", json=asked, timeout=60)


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_vectors_are_the_models_own(client: openai.OpenAI, model: Model, encoding: Any):
    asked = {} if encoding is None else {"encoding_format": encoding}  # None: the client asks for base64 by itself
    said = client.embeddings.create(model="minilm", input=TEXTS, **asked)
    told: list[Any] = [one.embedding for one in said.data]
    if encoding == "base64":
        told = [np.frombuffer(base64.b64decode(text), "<f4").tolist() for text in told]
    torch.testing.assert_close(torch.tensor(told), embed(model, TEXTS), rtol=0, atol=1e-6)
    assert [one.index for one in said.data] == list(range(len(TEXTS)))
    counted = sum(len(model.ids(text)[0]) for text in TEXTS if text) + 2
    assert (said.usage.prompt_tokens, said.usage.total_tokens) == (counted, counted)


def test_a_text_and_its_ids_are_the_same(client: openai.OpenAI, model: Model):
    ids = model.ids(TEXTS[0])[0].tolist()
    given: list[Any] = [TEXTS[0], [TEXTS[0]], ids, [ids]]
    found = [client.embeddings.create(model="minilm", input=one, user="somebody").data[0].embedding for one in given]
    assert all(one == found[0] for one in found)


def test_fewer_dimensions_only_where_they_mean_something(served: Served, model: Model):
    whole = embed(model, TEXTS[:1])[0]
    said = ask(served, model="cut", input=TEXTS[0], dimensions=64).json()["data"][0]["embedding"]
    torch.testing.assert_close(torch.tensor(said), whole[:64] / whole[:64].norm(), rtol=0, atol=1e-6)
    assert len(ask(served, model="minilm", input=TEXTS[0], dimensions=384).json()["data"][0]["embedding"]) == 384
    for name, count, word in (("minilm", 64, "--matryoshka"), ("cut", 385, "384"), ("cut", 0, "at least")):
        error = ask(served, model=name, input="a", dimensions=count).json()["error"]
        assert error["param"] == "dimensions"
        assert word in error["message"]


@pytest.mark.parametrize(
    ("asked", "status", "code", "word"),
    [
        ({"model": "talker"}, 400, "model_not_suitable", "is a decoder with a head for causal_lm"),
        ({"model": "masked"}, 400, "model_not_suitable", "is an encoder with a head for masked_lm"),
        ({"model": "minilm", "input": ["ok", "coral " * 300]}, 400, "context_length_exceeded", "reads 256 at once"),
        ({"model": "minilm", "input": [[30522]]}, 400, "invalid_value", "30522"),
        ({"model": "minilm", "encoding_format": "hex"}, 400, "invalid_value", "'float' or 'base64'"),
        ({"model": "minilm", "input": None}, 400, "invalid_value", "list of texts"),
        ({"model": "minilm", "truncate": True}, 400, "unsupported_parameter", "never cut in silence"),
        ({"model": "mini"}, 404, "model_not_found", "minilm"),
    ],
)
def test_what_cannot_be_embedded(served: Served, asked: dict[str, Any], status: int, code: str, word: str):
    answer = ask(served, **{"input": "a", **asked})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert word in answer.json()["error"]["message"]


def test_long_texts_of_one_do_not_hold_up_another(served: Served):
    def busy() -> None:
        ask(served, model="minilm", input=["coral " * 200] * 32)

    thread = threading.Thread(target=busy)
    thread.start()
    said = ask(served, model="minilm", input="short")
    assert thread.is_alive()  # thirty-two long ones take many batches
    assert said.status_code == 200
    thread.join()


def test_a_client_that_goes_away_is_read_for_no_longer(served: Served):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{served.url}/v1/embeddings", json={"model": "minilm", "input": ["coral " * 200] * 512}, timeout=0.3
        )
    assert ask(served, model="minilm", input="short").status_code == 200
    until = time.monotonic() + 10
    while served.server.works and time.monotonic() < until:
        time.sleep(0.01)
    assert not served.server.works
    assert served.server.bridge.running == 0
    assert served.server.models.loaded["minilm"].engine.idle


def test_many_texts_keep_no_other_request_waiting(served: Served, monkeypatch: pytest.MonkeyPatch):
    """Looked through, and told, beside the event loop; few are not worth a thread."""
    engine = served.server.models.loaded["minilm"].engine
    read, told, threads = engine.read, embeddings.told, []

    def noted(real: Any) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            threads.append(threading.current_thread().name.startswith("beside"))
            return real(*given, **more)

        return call

    monkeypatch.setattr(engine, "read", noted(read))
    monkeypatch.setattr(embeddings, "told", noted(told))
    first = ask(served, model="minilm", input=["Bread rises."]).json()["data"][0]["embedding"]
    assert threads == [False, False]
    many = ask(served, model="minilm", input=["Bread rises.", *["a b c"] * (MANY // 5)]).json()["data"]
    assert threads[2:] == [True, True]
    assert [one["index"] for one in many] == list(range(len(many)))
    assert many[0]["embedding"] == pytest.approx(first, abs=1e-6)


def test_many_texts_are_not_read_for_a_client_that_has_gone(served: Served, monkeypatch: pytest.MonkeyPatch):
    engine = served.server.models.loaded["minilm"].engine
    read, here, go, made = engine.read, threading.Event(), threading.Event(), []

    def slow(*given: Any, **more: Any) -> Any:
        here.set()
        assert go.wait(20)
        made.append(read(*given, **more))
        return made[0]

    monkeypatch.setattr(engine, "read", slow)
    asked = {"model": "minilm", "input": [[101] * 100] * (MANY // 50)}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{served.url}/v1/embeddings", json=asked, timeout=httpx.Timeout(20, read=0.3))
    assert here.wait(20)
    until = time.monotonic() + 10
    while served.server.works and time.monotonic() < until:
        time.sleep(0.01)
    assert not served.server.works
    go.set()
    while not (made and made[0].ended and engine.idle) and time.monotonic() < until:
        time.sleep(0.01)
    assert made[0].ended
    assert made[0].missing > MANY // 100
