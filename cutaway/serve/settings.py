"""What a server is told at its start. Every limit that a request meets is a field here, and has a test.

Sizes are bytes, times seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cutaway.errors import ConfigError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a server listens, whom it lets in, and what it allows.

    Attributes:
        models: name in requests -> source, as `load_model` takes it; the first is loaded before the server answers.
        adapters: name in requests -> folder of a LoRA adapter in PEFT's format, on the first model; or folder@model.
        host: address to listen on; beyond this machine only with keys.
        port: to listen on; 0: a free one.
        hosts: names that a Host header may have, beside the address itself and localhost.
        origins: of pages that a browser may let use the server; none by default.
        keys: file of keys; None: no key is asked for, which a server that others can reach refuses to be.
        memory: most bytes of weights, caches and work space of all models together; None: most of what is free.
        cache_memory: most bytes of keys and values of one model; None: a share of `memory`.
        max_batch: sequences of one model that are computed at a time.
        queue: requests that may wait for their turn beyond those that are computed; more are refused with 429.
        deadline: a request's answer must be complete in this time.
        drain: after the signal to stop, how long running requests may take.
        idle: a connection that says nothing, or a body or header that does not come on, is closed after this.
        send: a reader who does not take what is sent is given up after this.
        ping: a stream in which nothing was said for this long says that its answer still comes.
        max_body: of a request.
        max_bodies: of all requests that are being answered together; more are told to come again.
        max_audio: of an uploaded recording.
        max_audio_seconds: of it, when decoded.
        max_recordings: recordings that are heard at a time; more are refused with 429.
        max_header: all header lines of a request together.
        max_connections: open at a time.
        max_prompt: characters of a prompt, or of all messages together.
        max_inputs: prompts, texts or documents in one request.
        max_tokens: tokens written for one request, over all its continuations.
        max_n: continuations of a prompt.
        max_stops: stop strings of a request.
        max_stop: characters of each.
        max_bias: tokens in a logit_bias.
        max_logprobs: alternatives told beside a token.
        studio: folder whose runs and models the studio shows, and that it trains into; None: there is no studio.
        token: what the studio's pages show to be let in, where others can reach them; None: no token is asked for.
        log_texts: whether prompts and answers may stand in the log.
        matryoshka: names of models whose vectors may be cut to fewer dimensions, as they were trained for it.
        chat_format: how conversations are written for models without a chat template: "template" refuses them, "plain"
            writes User: and Assistant:.
        engine: options of every engine (cache, threads, rounding, backend).
        dequantise: make float32 weights of blocks.
    """

    models: Mapping[str, str]
    adapters: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    keys: Path | None = None
    memory: int | None = None
    cache_memory: int | None = None
    max_batch: int = 64
    queue: int = 64
    deadline: float = 600.0
    drain: float = 30.0
    idle: float = 20.0
    send: float = 30.0
    ping: float = 15.0
    max_body: int = 8 << 20
    max_bodies: int = 64 << 20
    max_audio: int = 32 << 20
    max_audio_seconds: float = 3600.0
    max_recordings: int = 4
    max_header: int = 32 << 10
    max_connections: int = 1024
    max_prompt: int = 2_000_000
    max_inputs: int = 2048
    max_tokens: int = 131_072
    max_n: int = 16
    max_stops: int = 16
    max_stop: int = 256
    max_bias: int = 1024
    max_logprobs: int = 20
    studio: Path | None = None
    token: str | None = None
    log_texts: bool = False
    matryoshka: tuple[str, ...] = ()
    chat_format: str = "template"
    engine: Mapping[str, object] = field(default_factory=dict)
    dequantise: bool = False


def size(text: str) -> int:
    """A size in bytes as people write it.

    Raises:
        ConfigError: it is none.

    >>> size("4GB"), size("512 MiB"), size("1000")
    (4000000000, 536870912, 1000)
    """
    number = text.strip().rstrip("BbIiKkMmGg").strip()
    unit = text.strip()[len(number) :].strip().upper()
    try:
        return int(float(number) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise ConfigError(f"a size must be a number with kB, MB, GB, MiB or GiB behind it, not {text!r:.40}") from None
