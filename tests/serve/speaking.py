"""What the tests of completions and chat share: asking, and reading events."""

from __future__ import annotations

import json
from typing import Any

import httpx

from cutaway.serve.schema.chat import ChatChunk, ChatCompletion
from cutaway.serve.schema.completions import Completion, CompletionChunk

WHOLE = {"/v1/completions": Completion, "/v1/chat/completions": ChatCompletion}
CHUNK = {"/v1/completions": CompletionChunk, "/v1/chat/completions": ChatChunk}
PROMPT, CHAT = "/v1/completions", "/v1/chat/completions"


def ask(url: str, path: str, **asked: Any) -> Any:
    """A whole answer, which is as the schema says."""
    answer = httpx.post(url + path, json={"model": "tiny", **asked}, timeout=60, verify=False)
    assert answer.status_code == 200, answer.text
    WHOLE[path].model_validate(answer.json())
    return answer.json()


def events(url: str, path: str, **asked: Any) -> list[Any]:
    """The events of an answer, each as the schema says, to the last one."""
    answer = httpx.post(url + path, json={"model": "tiny", "stream": True, **asked}, timeout=60, verify=False)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *told, done, empty = answer.text.split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    read = [json.loads(line.removeprefix("data: ")) for line in told if not line.startswith(":")]
    for one in read:
        if "error" not in one:
            CHUNK[path].model_validate(one)
    return read


def refused(url: str, path: str, body: Any, status: int = 400) -> Any:
    """The error of an answer."""
    given = (
        {"content": body, "headers": {"content-type": "application/json"}}
        if isinstance(body, bytes)
        else {"json": body}
    )
    answer = httpx.post(url + path, timeout=60, verify=False, **given)
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error
