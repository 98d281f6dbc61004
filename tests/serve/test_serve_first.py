"""The way of a request, once through."""

from pathlib import Path

import httpx
import pytest
from serving import serving, tiny_talker

from cutaway import load_model
from cutaway.serve import Settings


def test_a_prompt_is_continued_as_by_the_model_itself(tmp_path: Path) -> None:
    source = tiny_talker(tmp_path / "tiny")
    with serving(Settings(models={"tiny": source})) as served:
        asked = {"model": "tiny", "prompt": "The quick", "max_tokens": 12, "temperature": 0}
        said = httpx.post(f"{served.url}/v1/completions", json=asked).json()
        alone = load_model(source).generate("The quick", max_new_tokens=12, temperature=0)
        assert said["choices"][0]["text"] == alone.text
        assert said["usage"]["completion_tokens"] == len(alone.ids)


@pytest.mark.parametrize(
    ("asked", "status", "code", "word"),
    [
        ({"model": "tinny", "prompt": "x"}, 404, "model_not_found", "tiny"),
        ({"model": "tiny", "prompt": "x", "temprature": 1}, 400, "unknown_parameter", "temprature"),
        ({"model": "tiny", "prompt": "x" * 999}, 400, "context_length_exceeded", "256"),
    ],
)
def test_a_bad_request_is_told_so(tmp_path: Path, asked: dict[str, object], status: int, code: str, word: str) -> None:
    with serving(Settings(models={"tiny": tiny_talker(tmp_path / "tiny")})) as served:
        answer = httpx.post(f"{served.url}/v1/completions", json=asked)
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["code"] == code
        assert word in error["message"]
