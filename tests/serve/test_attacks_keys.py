"""T10: keys that are guessed, replayed, expired, stolen from the disk, used up; and what the log says of it."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from attacking import guard_of
from serving import Served, serving, tiny_talker

from cutaway.cli import main
from cutaway.errors import ConfigError, CutawayError, DamagedFile, InputError
from cutaway.serve import Settings, keys
from cutaway.serve.errors import ApiError
from cutaway.serve.keys import Caller, Key, Keys, Meter, Window, add_key, new_key, read_keys, remove_key, write_keys
from cutaway.serve.limits import ADDRESSES, WAITING, WRONG, Failures

ASKED = {"model": "tiny", "prompt": "The", "max_tokens": 4, "temperature": 0}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def served(source: str, file: Path) -> Iterator[Served]:
    add_key(file, "somebody")
    with serving(Settings(models={"tiny": source}, keys=file)) as made:
        yield made


def ask(served: Served, key: str, **changes: Any) -> httpx.Response:
    return httpx.post(
        f"{served.url}/v1/completions", json={**ASKED, **changes}, headers={"authorization": f"Bearer {key}"}
    )


# T10: on disk, and compared


def test_t10_a_key_is_random_and_nowhere_but_with_its_holder(file: Path) -> None:
    made = [add_key(file, f"n{number}") for number in range(20)]
    assert len(set(made)) == 20
    assert all(key.startswith("sk-cutaway-") and len(key) == len("sk-cutaway-") + 43 for key in made)  # 256 bits
    text = file.read_text()
    for key in made:
        assert key not in text
        assert key.removeprefix("sk-cutaway-") not in text
        assert hashlib.sha256(key.encode()).hexdigest() not in text  # each has a salt of its own
    stored = read_keys(file)
    assert len({key.salt for key in stored}) == len({key.id for key in stored}) == 20
    assert stored[3].hash == hashlib.sha256(stored[3].salt.encode() + made[3].encode()).hexdigest()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_t10_a_file_that_others_may_read_is_refused(file: Path, source: str) -> None:
    add_key(file, "anna")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for mode in (0o644, 0o640, 0o604, 0o660, 0o601):
        file.chmod(mode)
        with pytest.raises(InputError, match="chmod 600"):
            read_keys(file)
        with pytest.raises(InputError, match="chmod 600"):
            Keys(file)
    file.chmod(0o600)
    remove_key(file, "anna")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", '{"keys": {}}', '{"keys": [{}]}', '{"keys": [], "more": 1}', '{"keys": [{"name": "a"}]}',
        '{"keys": [{"name": "a", "id": "b", "salt": "c", "hash": 1}]}',
        '{"keys": [{"name": "a", "id": "b", "salt": "c", "hash": "d", "admin": true}]}',
        '{"keys": [{"name": "a", "id": "b", "salt": "c", "hash": "d", "scopes": ["root"]}]}',
        '{"keys": [{"name": "a", "id": "b", "salt": "c", "hash": "d", "scopes": "infer"}]}',
        '{"keys": [{"name": "a", "id": "b", "salt": "c", "hash": "d", "tokens_per_day": 1e9}]}',
        '{"keys": [{"name": "a", "id": "b", "salt": "c", "hash": "d", "tokens_per_day": -1}]}',
        '{"keys": [{"name": "a", "id": "b", "salt": "c", "hash": "d", "expires": "never"}]}',
        '{"keys": [{"name": "a\\n", "id": "b", "salt": "c", "hash": "d"}]}',
        '{"keys": [{"name": "a", "id": "b", "salt": "c", "hash": "\u00e9"}]}',
        '{"keys": [{"name": "a", "id": "b", "salt": "\\ud800", "hash": "d"}]}',
        json.dumps({"keys": [{"name": "a", "id": id, "salt": "", "hash": ""} for id in "bc"]}),
        json.dumps({"keys": [{"name": name, "id": "b", "salt": "", "hash": ""} for name in "ac"]}),
    ],
)  # fmt: skip
def test_t10_a_file_that_is_damaged_lets_nobody_in(text: str, file: Path) -> None:
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(DamagedFile):
        read_keys(file)


def test_t10_every_key_is_compared_and_in_constant_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever fits, and whether one does: the same number of comparisons, each of digests of one length."""
    made = [add_key(file, f"n{number}") for number in range(5)]
    compared: list[tuple[str, str]] = []
    real = hmac.compare_digest

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    store = Keys(file)
    for secret in (made[0], made[4], "sk-cutaway-wrong", "", "x"):
        compared.clear()
        assert (store.find(secret.encode()) is not None) == (secret in made)
        assert len(compared) == 5
        assert {len(part) for pair in compared for part in pair} == {64}
    compared.clear()
    assert store.find(b"x" * 10_000) is None
    assert not compared  # so long is no key: nothing is hashed


def test_t10_there_is_no_other_comparison_of_secrets() -> None:
    text = Path(keys.__file__).read_text("utf-8")
    assert text.count("compare_digest") == 1
    assert "== secret" not in text
    assert ".hash ==" not in text


def test_t10_parts_of_a_key_and_others_alike_are_none(served: Served, file: Path) -> None:
    key = add_key(file, "anna")

    async def at_once(seconds: float) -> None:
        pass

    guard_of(served).pause = at_once
    assert ask(served, key).status_code == 200
    stored = read_keys(file)[-1]
    parts = [stored.hash, stored.salt, stored.id, stored.salt + key, "anna", "*", "null", "undefined"]
    for wrong in (key[:-1], key + "a", key.swapcase(), key[::-1], *parts):
        said = ask(served, wrong)
        assert (said.status_code, said.json()["error"]["code"]) == (401, "invalid_api_key")
    for line in (key, f"Basic {key}", f"Bearer{key}", f"Token {key}", "Bearer"):
        said = httpx.post(f"{served.url}/v1/completions", json=ASKED, headers={"authorization": line})
        assert said.status_code == 401
    for said in (
        httpx.post(f"{served.url}/v1/completions?api_key={key}", json=ASKED),
        httpx.post(f"{served.url}/v1/completions", json=ASKED, headers={"x-api-key": key}),
        httpx.post(f"{served.url}/v1/completions", json=ASKED, cookies={"key": key}),
    ):
        assert said.status_code == 401


def test_t10_a_key_that_was_taken_away_is_none_at_once(served: Served, file: Path) -> None:
    """Replayed: the server reads the file again without a restart."""
    key = add_key(file, "anna")
    assert ask(served, key).status_code == 200
    remove_key(file, "anna")
    assert ask(served, key).status_code == 401
    again = add_key(file, "anna")  # of the same name, but another
    assert (ask(served, key).status_code, ask(served, again).status_code) == (401, 200)


def test_t10_a_key_expires(served: Served, file: Path) -> None:
    key = add_key(file, "anna", days=1)
    assert ask(served, key).status_code == 200
    stored = read_keys(file)
    write_keys(
        file, tuple(Key(**{**vars(one), "expires": time.time() - 1}) if one.name == "anna" else one for one in stored)
    )
    assert ask(served, key).status_code == 401


def test_t10_a_file_that_goes_bad_lets_nobody_in(served: Served, file: Path) -> None:
    key = add_key(file, "anna")
    assert ask(served, key).status_code == 200
    good = file.read_bytes()

    def broken() -> None:
        said = ask(served, key)
        assert said.status_code == 503
        assert str(file) not in said.text
        assert said.json()["error"]["message"] == "keys cannot be checked now; the server's log says why"

    file.write_bytes(good[:-10])
    broken()
    file.write_bytes(good)
    assert ask(served, key).status_code == 200
    file.chmod(0o644)
    broken()
    file.unlink()
    broken()
    file.write_bytes(good)
    file.chmod(0o600)
    assert ask(served, key).status_code == 200


# guessing


def test_t10_guessing_is_slowed_and_the_log_tells_without_the_key(
    served: Served, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, waited = add_key(file, "anna"), []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    guard_of(served).pause = note
    with caplog.at_level(logging.DEBUG):
        for number in range(WRONG + 15):
            assert ask(served, f"sk-cutaway-guess{number}").status_code == 401
        assert waited == [1.0] * 15
        assert ask(served, key).status_code == 200  # who has one is let in, a second later
        assert len(waited) == 16
    assert "guess" not in caplog.text
    assert key not in caplog.text
    told = [record.getMessage() for record in caplog.records if "wrong key" in record.getMessage()]
    assert len(told) == WRONG  # and a guesser does not fill the log either
    assert told[0] == "a wrong key came from 127.0.0.1, the 1. in this minute"


def test_t10_who_guesses_shuts_out_nobody_behind_his_address(served: Served, file: Path) -> None:
    key, go, guard = add_key(file, "anna"), threading.Event(), guard_of(served)
    paused = threading.Semaphore(0)

    async def hold(seconds: float) -> None:
        paused.release()
        while not go.is_set():
            await asyncio.sleep(0.01)

    guard.pause = hold
    for _ in range(WRONG):
        assert ask(served, "sk-cutaway-guess").status_code == 401
    with ThreadPoolExecutor(WAITING) as pool:
        guesses = [pool.submit(ask, served, "sk-cutaway-guess") for _ in range(WAITING)]
        for _ in guesses:
            assert paused.acquire(timeout=20)
        assert ask(served, "sk-cutaway-guess").status_code == 429
        assert ask(served, key).status_code == 200
        go.set()
        assert {one.result().status_code for one in guesses} == {401}


def test_failures_are_counted_by_address_and_forgotten() -> None:
    now = [0.0]
    failures = Failures(lambda: now[0])
    for _ in range(WRONG):
        failures.add("192.0.2.1")
    assert failures.many("192.0.2.1")
    assert not failures.many("192.0.2.2")
    for number in range(WRONG):
        failures.add(f"[2001:db8::{number:x}]".strip("[]"))
    assert failures.many("2001:db8::ffff")  # who has one address of them has all
    assert not failures.many("2001:db8:1::1")
    for _ in range(WAITING):
        failures.enter("192.0.2.1")
    with pytest.raises(ApiError) as caught:
        failures.enter("192.0.2.1")
    assert caught.value.status == 429
    failures.leave("192.0.2.1")
    failures.enter("192.0.2.1")
    now[0] = 61.0
    assert not failures.many("192.0.2.1")
    for number in range(2 * ADDRESSES):
        failures.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures._wrong) == ADDRESSES  # memory is bounded; then everybody waits
    assert failures.many("192.0.2.9")


# quotas


def test_a_window_counts_from_its_first_use() -> None:
    now = [100.0]
    window = Window(10, 60.0, lambda: now[0])
    assert (window.left, window.reset) == (10, 0.0)
    window.spend(4)
    now[0] = 130.0
    window.spend(8)
    assert (window.left, window.reset) == (0, 30.0)
    now[0] = 160.0
    assert (window.left, window.reset) == (10, 0.0)


def test_requests_a_minute_are_limited_and_told(served: Served, file: Path) -> None:
    key = add_key(file, "anna", requests_per_minute=3)
    said = [ask(served, key) for _ in range(4)]
    assert [one.status_code for one in said] == [200, 200, 200, 429]
    assert [one.headers["x-ratelimit-remaining-requests"] for one in said] == ["2", "1", "0", "0"]
    assert said[0].headers["x-ratelimit-limit-requests"] == "3"
    assert 0 < int(said[3].headers["retry-after"]) <= 60
    assert said[3].headers["x-ratelimit-reset-requests"].endswith("s")
    assert said[3].json()["error"]["code"] == "rate_limit_exceeded"
    other = add_key(file, "bert", requests_per_minute=3)
    assert ask(served, other).status_code == 200  # each has its own


def test_changing_the_file_does_not_begin_a_quota_anew(file: Path) -> None:
    key = add_key(file, "anna", requests_per_minute=3)
    store = Keys(file)
    first = store.find(key.encode())
    assert first is not None
    assert first.meter is not None
    assert first.meter.requests is not None
    first.meter.requests.spend(3)
    add_key(file, "bert")
    second = store.find(key.encode())
    assert second is not None
    assert second.meter is not None
    assert second.meter.full() is not None


def test_a_quota_that_is_changed_in_the_file_holds_at_once(file: Path) -> None:
    key = add_key(file, "anna", requests_per_minute=3, tokens_per_day=100)
    store = Keys(file)
    caller = store.find(key.encode())
    assert caller is not None
    assert caller.meter is not None
    caller.spend(50)
    (stored,) = read_keys(file)
    write_keys(file, (dataclasses.replace(stored, requests_per_minute=None, tokens_per_minute=9, tokens_per_day=40),))
    changed = store.find(key.encode())
    assert changed is not None
    assert changed.meter is not None
    assert changed.meter.requests is None
    assert changed.meter.full() == ("40 tokens a day", pytest.approx(86_400, abs=60))
    caller.spend(9)  # of a request that began before
    assert changed.meter.full() == ("9 tokens a minute", pytest.approx(60, abs=60))


@pytest.mark.parametrize("limit", ["tokens_per_minute", "tokens_per_day"])
def test_tokens_are_charged_when_a_request_ends(limit: str, served: Served, file: Path) -> None:
    key = add_key(file, "anna", **{limit: 10})
    first = ask(served, key)
    assert (first.status_code, first.headers["x-ratelimit-remaining-tokens"]) == (200, "10")
    used = first.json()["usage"]["total_tokens"]
    assert 0 < used < 10
    second = ask(served, key)
    assert (second.status_code, second.headers["x-ratelimit-remaining-tokens"]) == (200, str(10 - used))
    third = ask(served, key)
    assert third.status_code == 429
    assert third.headers["x-ratelimit-remaining-tokens"] == "0"
    assert "tokens a" in third.json()["error"]["message"]


def test_a_meter_tells_the_scarcer_of_two_quotas() -> None:
    _, key = new_key("a", tokens_per_minute=100, tokens_per_day=50)
    caller = Caller("a", meter=Meter(key))
    caller.spend(20)
    assert caller.meter is not None
    assert caller.meter.headers() == {
        "x-ratelimit-limit-tokens": "50", "x-ratelimit-remaining-tokens": "30", "x-ratelimit-reset-tokens": "86400s"
    }  # fmt: skip


def test_a_key_for_some_models_gets_no_others(source: str, file: Path) -> None:
    key = add_key(file, "anna", models=("tiny",))
    with serving(Settings(models={"tiny": source, "other": source}, keys=file)) as served:
        assert ask(served, key).status_code == 200
        said = ask(served, key, model="other")
        assert (said.status_code, said.json()["error"]["code"]) == (403, "model_not_allowed")
        assert ask(served, key, model="nowhere").status_code == 403  # nor what there is
        listed = httpx.get(f"{served.url}/v1/models", headers={"authorization": f"Bearer {key}"}).json()
        assert [card["id"] for card in listed["data"]] == ["tiny"]
        for name in ("other", "nowhere"):
            card = httpx.get(f"{served.url}/v1/models/{name}", headers={"authorization": f"Bearer {key}"})
            assert card.status_code == 404


# the command


def test_the_command_makes_lists_and_takes_away(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["keys", "add", str(file), "anna", "--tokens-per-day", "1000", "--expires", "30", "--model", "tiny"]) == 0
    )
    said = capsys.readouterr()
    key = said.out.strip()
    assert "shown once" in said.err
    assert main(["keys", "add", str(file), "watch", "--scope", "metrics"]) == 0
    capsys.readouterr()
    store = Keys(file)
    caller = store.find(key.encode())
    assert caller is not None
    assert (caller.name, caller.scopes, caller.models) == ("anna", {"infer"}, {"tiny"})
    assert main(["keys", "list", str(file)]) == 0
    listed = capsys.readouterr().out
    assert "anna  infer  model tiny  1,000 tokens per day  until 20" in listed
    assert key not in listed
    assert main(["keys", "list", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["keys"]
    assert [(one["name"], one["tokens_per_day"]) for one in told] == [("anna", 1000), ("watch", None)]
    assert not {"salt", "hash"} & set(told[0])
    assert main(["keys", "remove", str(file), "anna"]) == 0
    assert store.find(key.encode()) is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["add", "FILE"], "need the name of a key"),
        (["list", "FILE", "anna"], "list' takes none"),
        (["remove", "FILE", "nobody"], "unknown key 'nobody'"),
        (["add", "FILE", "somebody"], "has a key somebody already"),
        (["add", "FILE", "../x"], "no name of a key"),
        (["add", "FILE", "a b"], "no name of a key"),
        (["add", "FILE", "x", "--scope", "root"], "unknown scope 'root'"),
        (["add", "FILE", "x", "--expires", "0"], "expire after 0 days"),
        (["add", "FILE", "x", "--expires", "nan"], "expire after nan days"),
        (["add", "FILE", "x", "--tokens-per-day", "0"], "--tokens-per-day"),
        (["remove", "FILE", "somebody", "--expires", "3"], "takes no options"),
        (["list", "NOWHERE"], "there is no file of keys"),
        (["change", "FILE"], "change"),
    ],
)
def test_the_command_says_what_is_wrong(
    words: list[str], sentence: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_key(file, "somebody")
    places = {"FILE": str(file), "NOWHERE": str(file) + "x"}
    assert main(["keys", *[places.get(word, word) for word in words]]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_keys_added_at_once_are_all_valid_files(file: Path) -> None:
    """A reader sees the old file or the new one, whatever is being written."""
    add_key(file, "first")
    over, broken = threading.Event(), []

    def look() -> None:
        store = Keys(file)
        while not over.is_set():
            try:
                store.refresh()
            except CutawayError as error:
                broken.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(60):
        add_key(file, f"n{number}")
    over.set()
    thread.join()
    assert not broken
    assert len(json.loads(file.read_text())["keys"]) == 61


def test_names_of_scopes_are_closed() -> None:
    with pytest.raises(ConfigError, match="unknown scope"):
        new_key("a", scopes=("infer", "everything"))
