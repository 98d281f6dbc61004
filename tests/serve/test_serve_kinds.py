"""Completions and chat of every kind of network: what writes answers, and what does not is told so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from serving import TEMPLATE, TEXT, serving
from speaking import CHAT, PROMPT, ask, events, refused

from cutaway import Model, load_model
from cutaway.models import EncoderConfig, RecurrentConfig, Seq2SeqConfig, build_network, save_model
from cutaway.serve import Settings
from cutaway.tokenizers import train_tokenizer

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer([TEXT * 9], "char", 300)
    tokenizer.chat_template = TEMPLATE
    size = tokenizer.vocab_size
    configs: dict[str, Any] = {
        "recurrent": RecurrentConfig(size, width=16, hidden=16, layers=1),
        "translator": Seq2SeqConfig(size, layers=1, width=16, heads=2),
        "reader": EncoderConfig(size, layers=1, width=16, heads=2),
    }
    found = {}
    for name, config in configs.items():
        torch.manual_seed(0)
        found[name] = str(save_model(Model(build_network(config), tokenizer), folder / name))
    return found


def test_a_recurrent_network_and_a_translator_write_as_in_python(sources: dict[str, str], tmp_path: Path):
    with serving(Settings(models=sources)) as served:
        for name in ("recurrent", "translator"):
            model = load_model(sources[name])
            asked: dict[str, Any] = {"model": name, "prompt": "The quick", "max_tokens": 9, "seed": 1, "logprobs": 1}
            answer = ask(served.url, PROMPT, **asked)
            alone: Any = model.generate("The quick", max_new_tokens=9, seed=1, logprobs=1)
            (choice,) = answer["choices"]
            assert choice["text"] == alone.text
            assert choice["logprobs"]["token_logprobs"] == alone.logprobs
            told = events(served.url, PROMPT, **asked)
            assert "".join(one["choices"][0]["text"] for one in told) == alone.text
            assert answer["usage"]["prompt_tokens"] == 9
            ids = model.tokenizer.encode("The quick")
            assert ask(served.url, PROMPT, **{**asked, "prompt": ids})["choices"][0]["text"] == alone.text
        talk = ask(served.url, CHAT, model="recurrent", messages=HELLO, max_tokens=7, seed=1)
        assert talk["usage"]["completion_tokens"] <= 7
        echoed = ask(served.url, PROMPT, model="recurrent", prompt="The", max_tokens=0, echo=True, logprobs=1)
        assert echoed["choices"][0]["text"] == "The"
        error = refused(served.url, PROMPT, {"model": "translator", "prompt": "The", "echo": True})
        assert error["param"] == "echo"
        for path, name in ((CHAT, "translator"), (CHAT, "reader"), (PROMPT, "reader")):
            body = {"model": name, **({"messages": HELLO} if path == CHAT else {"prompt": "The"})}
            error = refused(served.url, path, body)
            assert error["param"] == "model"
            assert "needs a model that predicts the next token" in error["message"]
            assert str(tmp_path.parent) not in error["message"]
