"""docs/parameters.md is what the code says, and the code takes a stand on every parameter of OpenAI's."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from serving import serving, tiny_talker

from cutaway.serve import Settings
from cutaway.serve.parameters import page
from cutaway.serve.schema.chat import ChatRequest
from cutaway.serve.schema.completions import CompletionRequest
from cutaway.serve.schema.foreign import FOREIGN, HARMLESS

PAGE = Path(__file__).parents[2] / "docs" / "parameters.md"
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "tiny", "prompt": "x"},
    "/v1/chat/completions": {"model": "tiny", "messages": [{"role": "user", "content": "x"}]},
}
MODELS = {"/v1/completions": CompletionRequest, "/v1/chat/completions": ChatRequest}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(Settings(models={"tiny": tiny_talker(tmp_path_factory.mktemp("models") / "tiny")})) as served:
        yield served.url


def test_the_page_is_what_the_code_says():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m cutaway.serve.parameters docs/parameters.md"
    names = set(re.findall(r"^\| `(\w+)` \|", page(), re.MULTILINE))
    assert names >= {*CompletionRequest.model_fields, *ChatRequest.model_fields, *FOREIGN} - {"json_", "schema_"}
    assert all(f"`{name}`" in page() for name in HARMLESS)


@pytest.mark.parametrize(
    ("params", "path"),
    [
        (completion_create_params.CompletionCreateParamsStreaming, "/v1/completions"),
        (chat_create_params.CompletionCreateParamsStreaming, "/v1/chat/completions"),
    ],
)
def test_every_parameter_of_the_openai_client_is_taken_or_refused_by_name(params: type, path: str):
    theirs = set(get_type_hints(params))
    assert len(theirs) >= 15
    fields = set(MODELS[path].model_fields)
    assert theirs <= fields | set(FOREIGN)
    assert not fields & set(FOREIGN)


@pytest.mark.parametrize("path", BODIES)
def test_every_parameter_is_refused_by_its_name_if_it_is_no_such_thing(url: str, path: str):
    for name in MODELS[path].model_fields:
        for wrong in ([[{}, 1, "x", True]], {"x": [{}]}, -(2**70), "\x00" * 600_000):
            body = {**BODIES[path], name: wrong}
            answer = httpx.post(url + path, json=body, verify=False)
            if isinstance(wrong, str) and answer.status_code == 404 and name == "model":
                continue
            assert answer.status_code == 400, (name, wrong)
            assert re.split(r"[.[]", answer.json()["error"]["param"])[0] == name
