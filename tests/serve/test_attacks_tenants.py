"""T18, T20: two keys never share what was computed, and nobody writes into the log but the server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from attacking import guard_of, post, say
from serving import Served, serving, tiny_talker

from cutaway.serve import Settings
from cutaway.serve.keys import add_key
from cutaway.serve.lifecycle import Plain

SECRET = "the launch code is 4711"
PROMPT = (SECRET + ". ") * 9  # more than three pages of 64 tokens


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Served, str, str]]:
    file = tmp_path / "keys.json"
    victim, prober = (add_key(file, name) for name in ("victim", "prober"))
    source = tiny_talker(tmp_path / "tiny", context=512)
    with serving(Settings(models={"tiny": source}, keys=file)) as served:
        yield served, victim, prober


def ask(served: Served, key: str, prompt: str) -> tuple[int, int, Any]:
    """Tokens of a prompt that were computed, those that were found computed, and the answer.

    The first number is what the time to the first token is made of.
    """
    counts = served.server.metrics.tokens
    before = {kind: counts["tiny", kind] for kind in ("read", "cached")}
    said = httpx.post(
        f"{served.url}/v1/completions",
        json={"model": "tiny", "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 3},
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert said.status_code == 200, said.text
    computed, found = (counts["tiny", kind] - before[kind] for kind in ("read", "cached"))
    return computed, found, said.json()["choices"]


def new_probe(served: Served) -> str:
    """A key that has asked nothing yet."""
    store = guard_of(served).keys
    assert store is not None
    return add_key(store.path, f"probe{len(store.path.read_text())}")


def test_t18_a_key_learns_nothing_of_what_another_has_asked(two: tuple[Served, str, str]) -> None:
    """Prefix probing (CVE-2025-46570): prefixes of what the victim asked, and of what nobody did, cost the same."""
    served, victim, prober = two
    whole, found, answer = ask(served, victim, PROMPT)
    beside = whole - len(PROMPT)
    assert (beside, found) in ((0, 0), (1, 0))
    warm, cached, again = ask(served, victim, PROMPT)
    assert cached >= 128  # for the same key there is something to find
    assert (warm, again) == (whole - cached, answer)
    for length in (64, 65, 128, 192, len(PROMPT)):
        right, wrong = PROMPT[:length], PROMPT.replace("4711", "8".zfill(4))[:length]
        # a new key each time: his own tries warm nothing for the prober either
        costs = [ask(served, new_probe(served), guess)[:2] for guess in (right, wrong)]
        assert costs == [(length + beside, 0)] * 2
    assert ask(served, prober, PROMPT) == (whole, 0, answer)  # and the answer is the same, cold or warm


def test_t18_tenants_are_made_of_nothing_that_is_secret(two: tuple[Served, str, str], tmp_path: Path) -> None:
    served, victim, _ = two
    store = guard_of(served).keys
    assert store is not None
    caller = store.find(victim.encode())
    assert caller is not None
    stored = json.loads((tmp_path / "keys.json").read_text())["keys"][0]
    assert caller.tenant == stored["id"]
    assert caller.tenant not in victim
    assert caller.tenant != ""  # which is everybody's where there are no keys


ATTACKS = [
    "\r\n2026-01-01 INFO forged", "\n", "\x1b[2J\x1b[31m", "\x1b]0;title\x07", "\u202ereversed", "\u2028line",
    "\x85next", "\x00", "\x9b2J",
    "%s%n%(asctime)s", "{0}{record}", "${jndi:ldap://x}",
]  # fmt: skip


def test_t20_no_line_of_the_log_is_forged_and_no_secret_stands_in_it(
    two: tuple[Served, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Everything a client can choose, at the most talkative level: a line a record, printable, no key, no text."""
    served, victim, _ = two

    async def at_once(seconds: float) -> None:
        pass

    guard_of(served).pause = at_once
    with caplog.at_level(logging.DEBUG):
        for attack in ATTACKS:
            raw = attack.encode("utf-8", "surrogatepass")
            key = {"authorization": f"Bearer {victim}"}
            body = {"model": attack, "prompt": SECRET, "user": attack, attack: attack}
            with httpx.Client(base_url=served.url, headers=key, timeout=60) as client:
                client.post("/v1/completions", json=body)
                client.post(
                    "/v1/completions", json={"model": "tiny", "prompt": SECRET, "stop": [attack], "max_tokens": 1}
                )
                client.post("/v1/completions", json={"model": "tiny", "prompt": SECRET, "max_tokens": attack})
                client.get("/v1/models/" + "".join(f"%{byte:02x}" for byte in raw))
                client.get("/nowhere", params={"key": victim, "q": SECRET, "a": attack})
            for line in (
                b"User-Agent: ",
                b"Host: ",
                b"Origin: ",
                b"Authorization: Bearer ",
                b"X-Request-Id: ",
                b"Cookie: ",
            ):
                say(served, b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + line + raw + b"\r\n\r\n", wait=0.01)
            say(served, b"GET /" + raw + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", wait=0.01)
            say(served, raw + post(b"{}"), wait=0.01)
    records = [record for record in caplog.records if record.name.startswith(("cutaway", "uvicorn"))]
    assert len(records) > 50
    formatter = Plain("%(asctime)s %(levelname)s %(message)s")
    for record in records:
        text = formatter.format(record)
        assert text.isprintable(), text
        assert victim not in text
        assert victim.removeprefix("sk-cutaway-") not in text
        assert "4711" not in text


def test_t20_an_error_of_several_lines_is_told_apart_from_the_next_record() -> None:
    formatter = Plain("%(asctime)s %(levelname)s %(message)s")
    try:
        raise ValueError("x\n2026-01-01 00:00:00,000 INFO forged\x1b[2J")
    except ValueError as error:
        record = logging.LogRecord("cutaway", logging.ERROR, "", 1, "failed\nforged", (), (ValueError, error, None))
    first, *rest = formatter.format(record).split("\n")
    assert "failed\\nforged" in first
    assert all(line.startswith("| ") and line.isprintable() for line in rest)
    assert any("forged" in line for line in rest)
