"""/tokenize, /detokenize and /tokenizer_info: what vLLM's clients expect, and what nobody may send."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serving import TEMPLATE, Served, serving, smollm2, tiny_talker
from transformers import PreTrainedTokenizerFast

from cutaway import load_model
from cutaway.serve import Settings
from cutaway.tokenizers.chat import chat_ids

HELLO = {"role": "user", "content": "hello"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def served(folder: str) -> Iterator[Served]:
    with serving(Settings(models={"tiny": folder}, max_prompt=1000)) as running:
        yield running


def post(served: Served, page: str, **asked: Any) -> Any:
    return httpx.post(f"{served.url}/{page}", json=asked)


def test_a_text_is_cut_as_the_model_reads_it(served: Served, folder: str) -> None:
    model, text = load_model(folder), "hello, 猫"
    said = post(served, "tokenize", model="tiny", prompt=text, return_token_strs=True).json()
    assert said["tokens"] == model.ids(text)[0].tolist()
    assert said["count"] == len(said["tokens"])
    assert said["max_model_len"] == 256
    assert "".join(said["token_strs"]) == text
    assert post(served, "detokenize", tokens=said["tokens"]).json() == {"prompt": text}


def test_a_conversation_is_cut_as_its_template_says(served: Served, folder: str) -> None:
    model = load_model(folder)
    messages = [{"role": "user", "content": "hello <|endoftext|>"}]
    for begins in (True, False):
        said = post(served, "tokenize", messages=messages, add_generation_prompt=begins).json()
        assert said["tokens"] == chat_ids(model, messages, add_generation_prompt=begins)
    assert model.tokenizer.end_of_text not in said["tokens"]


def test_special_tokens_are_asked_for_by_name_and_never_read_out_of_a_text(served: Served, folder: str) -> None:
    end = load_model(folder).tokenizer.end_of_text
    info = httpx.get(f"{served.url}/tokenizer_info").json()
    assert post(served, "tokenize", prompt=info["eos_token"], add_special_tokens=False).json()["tokens"] == [end]
    assert end not in post(served, "tokenize", prompt=f"x{info['eos_token']}").json()["tokens"]
    assert post(served, "detokenize", tokens=[end]).json()["prompt"] == info["eos_token"]


def test_the_tokenizer_is_told_as_transformers_would_load_it(served: Served, folder: str) -> None:
    info = httpx.get(f"{served.url}/tokenizer_info", params={"model": "tiny"}).json()
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    for key in ("bos_token", "eos_token", "pad_token", "mask_token"):
        assert info[key] == getattr(theirs, key)
    assert info["vocab_size"] == len(theirs)
    assert info["chat_template"] == TEMPLATE


def test_smollm2_is_cut_as_its_own_library_does() -> None:
    """The ids of whole texts, with what begins a text where the file asks for it, and nothing where it does not."""
    with serving(Settings(models={"small": smollm2()})) as served:
        info = httpx.get(f"{served.url}/tokenizer_info").json()
        assert (info["bos_token"], info["eos_token"]) == ("<|im_start|>", "<|im_end|>")
        assert post(served, "tokenize", prompt="<|im_start|>").json()["tokens"] == [1]
        text = "Round trips: naïve 猫 \t\n  x" * 20
        ids = post(served, "tokenize", prompt=text).json()["tokens"]
        assert post(served, "detokenize", tokens=ids).json()["prompt"] == text


@pytest.mark.parametrize(
    ("page", "asked", "status", "param", "word"),
    [
        ("tokenize", {}, 400, "prompt", "missing"),
        ("tokenize", {"prompt": "x", "messages": []}, 400, "messages", "at least 1"),
        ("tokenize", {"prompt": "x", "lang": "en"}, 400, "lang", "no parameter"),
        ("tokenize", {"prompt": 7}, 400, "prompt", "text"),
        ("tokenize", {"prompt": "x", "add_special_tokens": 0}, 400, "add_special_tokens", "true or false"),
        ("tokenize", {"messages": [], "add_special_tokens": 0}, 400, "messages", "at least 1"),
        ("tokenize", {"messages": [HELLO], "add_special_tokens": 0}, 400, "add_special_tokens", "must be false"),
        ("tokenize", {"messages": [HELLO], "continue_final_message": True}, 400, "continue_final_message", "false"),
        ("tokenize", {"prompt": "x" * 1001}, 400, "prompt", "1,000"),
        ("tokenize", {"prompt": "\ud800"}, 400, "prompt", "surrogate"),
        ("tokenize", {"model": "tinny", "prompt": "x"}, 404, "model", "tiny"),
        ("tokenize", {"messages": [{"role": "user", "content": "x" * 1001}]}, 400, "messages", "1,000"),
        ("tokenize", {"messages": [{"role": "root", "content": "x"}]}, 400, "messages[0]", "system"),
        ("detokenize", {"tokens": [-1]}, 400, "tokens[0]", "at least 0"),
        ("detokenize", {"tokens": [10**6]}, 400, None, "0 …"),
        ("detokenize", {"tokens": [2**70]}, 400, "tokens[0]", "below"),
        ("detokenize", {"tokens": [1.5]}, 400, "tokens[0]", "whole number"),
        ("detokenize", {"tokens": [1] * 1001}, 400, "tokens", "1,000"),
    ],
)
def test_what_is_wrong_is_told(
    served: Served, page: str, asked: dict[str, Any], status: int, param: str | None, word: str
) -> None:
    content = json.dumps(asked)  # escapes what httpx cannot write
    answer = httpx.post(f"{served.url}/{page}", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["param"] == param
    assert word in error["message"]


def test_with_several_models_one_must_be_named(folder: str) -> None:
    with serving(Settings(models={"one": folder, "two": folder})) as served:
        answer = post(served, "tokenize", prompt="x")
        assert answer.status_code == 400
        assert "one, two" in answer.json()["error"]["message"]
        assert post(served, "tokenize", model="two", prompt="x").status_code == 200


def test_a_text_without_spaces_takes_time_in_proportion_to_its_length() -> None:
    """T13: a quadratic tokenizer (CVE-2025-46560) would take 256 times as long for 16 times the text.

    Counted is the processor's time of this thread, which other work does not change.
    """
    model = load_model(smollm2(), quantised=True)

    def seconds(length: int) -> float:
        text = "ab" * (length // 2)
        times = []
        for _ in range(3):
            started = time.thread_time()
            assert len(model.tokenizer.encode(text)) > length // 32
            times.append(time.thread_time() - started)
        return min(times)

    seconds(1000)
    assert seconds(800_000) < 64 * seconds(50_000)
