"""Conversations as one text or as ids, by the template that a checkpoint brings (in jinja2's language).

A template is a program of somebody else's. It is never run at load, and when it is, then in a sandbox in a process of
its own, with limits of memory and time (see chat_worker.py). What a user wrote is data: `chat_ids` never reads a
control token out of it, so nobody can end their turn and begin the system's.
"""

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.tokenizers.tokenizer import ROLES, ChatTemplate, Tokenizer, check_text

LARGEST_TEMPLATE = 2**20  # characters; published ones have at most some 30,000
LARGEST_REQUEST = 32 * 2**20  # bytes of messages and template together
SPEAKERS = ("system", "developer", "user", "assistant", "model", "tool", "function", "ipython")
WORKER = Path(__file__).with_name("chat_worker.py")
PATIENCE = 60.0  # seconds for the worker to start and answer, on however slow a machine
# Two noncharacters, which no text has a use for: one breaks a control token's name in a message, one makes it real.
BROKEN, REAL, REPLACEMENT = "\U0010fffe", "\U0010ffff", "\ufffd"

Message = Mapping[str, Any]


class Speaks(Protocol):
    """A model: it has a tokenizer."""

    @property
    def tokenizer(self) -> Tokenizer: ...


def render_chat(
    model: Tokenizer | Speaks,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    """A conversation as the text that the model was trained to continue.

    Args:
        model: a tokenizer with a chat template, or a model with such a tokenizer.
        messages: {"role": "user", "content": "…"} and the like, plain data, in their order.
        tools: descriptions of tools, as JSON schemas.
        add_generation_prompt: end with what begins the model's answer.
        variables: what else the template reads, such as enable_thinking.

    Raises:
        ConfigError: there is no template, or it failed: its own complaint, a limit, or what the sandbox refused.
        InputError: messages that are no messages.
    """
    tokenizer = model if isinstance(model, Tokenizer) else model.tokenizer
    given = _plain({"messages": list(messages), "tools": None if tools is None else list(tools), **variables})
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in given["messages"]):
        raise InputError('each message must be a dict with a "role", such as {"role": "user", "content": "Hello"}')
    given |= {"add_generation_prompt": bool(add_generation_prompt)}
    return _render(_chosen(tokenizer.chat_template, tools is not None), _special(tokenizer) | given)


def chat_ids(
    model: Tokenizer | Speaks,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> list[int]:
    """The ids of a conversation, in which only the template writes control tokens, never a message.

    A control token's name in a message (or a tool's description) is spelled with ordinary tokens. How: such names are
    broken by a character that no text has, the template is rendered, the names in what it wrote become real, and the
    broken ones whole.

    What this cannot do: a template that looks for a control token's name in a message, or escapes what is not ASCII,
    does not find or show it as it was; and a template that makes a control token's name out of parts of messages
    could be led to do so (hence roles must be among SPEAKERS). Tokens that the tokenizer does not call special
    ("<think>" of some) are found in any text, here too.

    Raises:
        ConfigError: as `render_chat`; or the tokenizer is one that cannot tell its control tokens from text.
        InputError: messages that are no messages, or a role that is not known.
    """
    tokenizer = model if isinstance(model, Tokenizer) else model.tokenizer
    guard = _Guard(tokenizer)
    for message in messages:
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in SPEAKERS:
            raise InputError(f"a message's role must be one of {', '.join(SPEAKERS)}, but {role!r} was given")
    data = _plain({"messages": list(messages), "tools": None if tools is None else list(tools), **variables})
    text = render_chat(
        tokenizer,
        guard.broken(data.pop("messages")),
        tools=guard.broken(data.pop("tools")),
        add_generation_prompt=add_generation_prompt,
        **guard.broken(data),
    )
    return tokenizer.encode_guarded(guard.whole(text))


class _Guard:
    """Breaks the names of control tokens in what others wrote, and makes those real that a template wrote."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        names = "|".join(map(re.escape, sorted(tokenizer.special, key=len, reverse=True)))
        self._begins = re.compile(f"(?=(?:{names}))(.)", re.DOTALL) if names else None
        self._names = re.compile(f"({names})") if names else None

    def broken(self, value: Any) -> Any:
        """Plain data, in which no text holds a control token's name."""
        if isinstance(value, str):
            value = value.replace(BROKEN, REPLACEMENT).replace(REAL, REPLACEMENT)
            return self._begins.sub(rf"\1{BROKEN}", value) if self._begins else value
        if isinstance(value, list):
            return [self.broken(item) for item in value]
        if isinstance(value, dict):
            return {self.broken(key): self.broken(item) for key, item in value.items()}
        return value

    def whole(self, text: str) -> str:
        """A rendered text, with the names in it that are whole made real, and the broken ones whole."""
        text = text.replace(REAL, REPLACEMENT)
        text = self._names.sub(rf"{REAL}\1", text) if self._names else text
        return text.replace(BROKEN, "")


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """A copy as JSON has it: a template never gets hold of an object of Python's."""
    try:
        text = json.dumps(value, allow_nan=False)
        check_text(json.dumps(value, ensure_ascii=False), "a message")
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"messages and tools must be plain data as JSON has it ({error})") from error
    if len(text) > LARGEST_REQUEST:
        raise InputError(f"the messages have {len(text):,} bytes; there may be at most {LARGEST_REQUEST:,}")
    return json.loads(text)


def _chosen(template: ChatTemplate, tools: bool) -> str:
    """The template: of several, the one for tools if there are any, else the default."""
    if isinstance(template, Mapping):
        known = ", ".join(template)
        template = template.get("tool_use" if tools and "tool_use" in template else "default")
        if template is None:
            raise ConfigError(f"the tokenizer has chat templates named {known}, but no default; set chat_template")
    if not template:
        raise ConfigError("the tokenizer has no chat template; set its chat_template, or write the prompt yourself")
    if not isinstance(template, str) or len(template) > LARGEST_TEMPLATE:
        raise DamagedFile(f"a chat template must be text of at most {LARGEST_TEMPLATE:,} characters")
    return template


def _special(tokenizer: Tokenizer) -> dict[str, Any]:
    """The names of special tokens that templates read: bos_token, eos_token …"""
    names = {id: name for name, id in tokenizer.special.items()}
    found = {key: names.get(getattr(tokenizer, role)) for role, key in ROLES.items()}
    unk = tokenizer.spec["model"].get("unk_token")
    return {key: name for key, name in (found | {"unk_token": unk}).items() if name}


def _render(template: str, variables: dict[str, Any]) -> str:
    answer = _worker().ask({"template": template, "variables": variables})
    if "text" not in answer:
        raise ConfigError(f"the chat template cannot be rendered: {answer.get('error')}")
    return answer["text"]


class Worker:
    """A process that does work of others: started when first needed, kept warm, started anew when it has died.

    Args:
        script: what it runs.
        work: what it does, for messages.
        patience: seconds for it to start and answer.
    """

    def __init__(self, script: Path, work: str, patience: float) -> None:
        self._script, self._work, self._patience = script, work, patience
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that started it; one forked from that one starts its own

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Its answer, or {"error": …} if it died of the request or took too long."""
        data = json.dumps(request).encode()
        with self._lock:
            if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
                self.stop()
                self._process, self._owner = _start(self._script), os.getpid()
            process = self._process
            alarm = threading.Timer(self._patience, process.kill)
            alarm.start()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(len(data).to_bytes(8, "little") + data)
                process.stdin.flush()
                size = int.from_bytes(process.stdout.read(8), "little")
                return json.loads(process.stdout.read(size))
            except (OSError, ValueError):
                self.stop()
                return {"error": f"the process that {self._work} ended; try again"}
            finally:
                alarm.cancel()

    def stop(self) -> None:
        """End the process, if this one started it, and let go of its pipes."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._owner == os.getpid():
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()


def _start(script: Path) -> subprocess.Popen[bytes]:
    kept = ("SYSTEMROOT", "TZ", "LANG", "LC_ALL", "LC_TIME")
    return subprocess.Popen(
        [sys.executable, "-I", str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in kept if name in os.environ},
    )


@cache
def worker(script: Path, work: str, patience: float) -> Worker:
    """One for this process. It ends with it, and if that is killed too: the worker reads until its input is closed."""
    made = Worker(script, work, patience)
    atexit.register(made.stop)
    _workers().append(made)
    return made


@cache
def _workers() -> list[Worker]:
    """All that were asked for."""
    return []


def stop_workers() -> None:
    """End all processes that work for this one; whoever needs one later starts it anew."""
    for one in _workers():
        one.stop()


def _worker() -> Worker:
    return worker(WORKER, "renders templates", PATIENCE)
