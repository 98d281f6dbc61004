"""T8, T9, T11, T12: who comes in. Foreign hosts and origins, routes without a key, and nothing fetched for anybody."""

from __future__ import annotations

import ast
import asyncio
import gzip
import re
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from attacking import app_of, guard_of, post, say
from fastapi.routing import APIRoute
from serving import Served, serving, tiny_talker
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

from cutaway.errors import ConfigError
from cutaway.serve import Settings
from cutaway.serve.app import create_app
from cutaway.serve.doors import check_doors
from cutaway.serve.guard import OPEN, Guard
from cutaway.serve.keys import add_key

ROOT = Path(__file__).parents[2]
PAGE = "https://app.example.org"
ASKED = {"model": "tiny", "prompt": "The", "max_tokens": 2, "temperature": 0}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def served(source: str) -> Iterator[Served]:
    with serving(Settings(models={"tiny": source}, hosts=("models.example.org",), origins=(PAGE,))) as made:
        yield made


# T8: names, origins, content types


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example",
        "localhost@evil.example", "evil.example#localhost", "localhost:80:80", "localhost:port", "127.0.0.2", "0.0.0.0",
        "0", "[::]", "[::1", "2130706433", "0x7f000001", "localhost.", "", " ", "localhost,evil.example",
        "models.example.org.evil", "localhost/..", "localhost\t",
    ],
)  # fmt: skip
def test_t8_another_host_is_refused(host: str, served: Served) -> None:
    for request in (post(b"{}", host=host.encode()), b"GET /health HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n"):
        said = say(served, request, wait=0.01)
        good = host.strip() == "localhost"  # space around a value is none of it
        assert said.status in ((200, 400) if good else (421,)), said


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:80",
             "models.example.org", "Models.Example.Org:443"],
)  # fmt: skip
def test_t8_its_own_names_are_let_in(host: str, served: Served) -> None:
    assert httpx.get(f"{served.url}/health", headers={"host": host}).status_code == 200


def test_t8_hosts_are_checked_where_others_reach_it_too(source: str, tmp_path: Path) -> None:
    """What is bound to all addresses answers to the one that a request came to, and to names that were given."""
    add_key(tmp_path / "keys.json", "anna")
    settings = Settings(models={"tiny": source}, host="0.0.0.0", keys=tmp_path / "keys.json", hosts=("ours.test",))
    app = Guard(JSONResponse({}), settings)
    said = {}
    for host in ("192.0.2.7", "ours.test:80", "192.0.2.8", "0.0.0.0", "evil.example"):
        said[host] = _ask(app, host, server=("192.0.2.7", 8000))
    assert said == {"192.0.2.7": 200, "ours.test:80": 200, "192.0.2.8": 421, "0.0.0.0": 421, "evil.example": 421}


def _ask(app: Any, host: str, server: tuple[str, int]) -> int:
    """A request by ASGI alone, which came to that address."""
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/health",
        "raw_path": b"/health", "query_string": b"", "root_path": "", "scheme": "http", "server": server,
        "client": ("198.51.100.1", 4), "headers": [(b"host", host.encode())],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return said[0]["status"]


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://app.example.org.evil", "http://app.example.org", "file://", "*",
               "https://app.example.org:444", "http://localhost:3000", ""],
)  # fmt: skip
def test_t8_another_origin_is_refused_by_every_method(origin: str, served: Served) -> None:
    with httpx.Client(base_url=served.url, headers={"origin": origin}) as client:
        for method in METHODS:
            said = client.request(method, "/health", headers={"access-control-request-method": "POST"})
            assert said.status_code == 403
            assert not [name for name in said.headers if name.startswith("access-control")]
        assert client.post("/v1/completions", json=ASKED).status_code == 403


def test_t8_a_page_that_may_is_told_so_by_its_name(served: Served) -> None:
    asked = {"origin": PAGE, "access-control-request-method": "POST"}
    allowed = httpx.options(
        f"{served.url}/v1/completions",
        headers={**asked, "access-control-request-headers": "authorization, content-type, x-stainless-os"},
    )
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert "x-stainless-os" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in allowed.headers
    said = httpx.post(f"{served.url}/v1/completions", json=ASKED, headers={"origin": PAGE})
    assert (said.status_code, said.headers["access-control-allow-origin"]) == (200, PAGE)
    wrong = httpx.post(f"{served.url}/v1/completions", json={}, headers={"origin": PAGE})
    assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (400, PAGE)
    for answer in (allowed, said, wrong, httpx.get(f"{served.url}/health")):
        assert answer.headers["vary"] == "Origin"
        assert "*" not in str(answer.headers)
    odd = httpx.options(served.url, headers={**asked, "access-control-request-headers": "a\tb, <script>"})
    assert odd.headers["access-control-allow-headers"] == "authorization, content-type"


def test_t8_a_page_of_its_own_is_no_foreign_one(served: Served) -> None:
    assert httpx.get(f"{served.url}/health", headers={"origin": served.url}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["*", "app.example.org", "https://app.example.org/", "https://*.example.org", "null"]
)
def test_t8_origins_are_named_exactly(origin: str, source: str) -> None:
    with pytest.raises(ConfigError, match="no origin of a page"):
        create_app(Settings(models={"tiny": source}, origins=(origin,)))


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "",
             "application/json; charset=utf-16", "application/jsonx", "text/plain; application/json",
             "application/json, text/plain"],
)  # fmt: skip
def test_t8_a_simple_request_of_a_page_is_refused(kind: str, served: Served) -> None:
    """These need no leave of the browser: a form of any page could send them."""
    said = httpx.post(f"{served.url}/v1/completions", content=b"{}", headers={"content-type": kind})
    assert said.status_code == 415


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
def test_t8_json_is_let_in(kind: str, served: Served) -> None:
    said = httpx.post(f"{served.url}/v1/completions", content=b"{}", headers={"content-type": kind})
    assert said.status_code == 400


def test_t6_packed_bodies_are_never_unpacked(served: Served) -> None:
    """A gzip bomb: ten megabytes in ten thousand bytes."""
    bomb = gzip.compress(b" " * 10_000_000)
    for coding, body in (
        ("gzip", bomb),
        ("deflate", zlib.compress(b" " * 10_000_000)),
        ("br", b"x"),
        ("gzip, gzip", bomb),
    ):
        said = httpx.post(
            f"{served.url}/v1/completions",
            content=body,
            headers={"content-type": "application/json", "content-encoding": coding},
        )
        assert said.status_code == 415
    plain = httpx.post(f"{served.url}/v1/completions", content=bomb, headers={"content-type": "application/json"})
    assert plain.status_code == 400


def test_t8_every_answer_has_headers_that_keep_browsers_from_guessing(served: Served) -> None:
    answers = [
        httpx.get(f"{served.url}/health"),
        httpx.get(f"{served.url}/nowhere"),
        httpx.get(f"{served.url}/health", headers={"host": "evil.example"}),
        httpx.post(f"{served.url}/v1/completions", json=ASKED),
        httpx.post(f"{served.url}/v1/completions", json={}),
    ]
    for said in answers:
        assert said.headers["x-content-type-options"] == "nosniff"
        assert said.headers["cache-control"] == "no-store"
        assert said.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert len({said.headers["x-request-id"] for said in answers}) == len(answers)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "", "models.example.org", "2001:db8::1"])
def test_t8_no_server_without_keys_that_others_reach(host: str, source: str) -> None:
    with pytest.raises(ConfigError, match="so keys are needed"):
        check_doors(Settings(models={"tiny": source}, host=host))
    with pytest.raises(ConfigError, match="so keys are needed"):
        create_app(Settings(models={"tiny": source}, host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_t8_on_this_machine_alone_keys_may_be_missing(host: str, source: str) -> None:
    check_doors(Settings(models={"tiny": source}, host=host))


def test_t8_it_says_so_before_it_listens(source: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cutaway", "serve", source, "--host", "0.0.0.0", "--port", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert re.fullmatch(r"cutaway serve: other machines can reach 0\.0\.0\.0, so keys are needed.*\n", done.stderr)


# T9: every route asks for a key


def routes(app: Any) -> list[tuple[str, str]]:
    """All (method, path) of the application, names in a path filled in."""
    found: list[tuple[str, str]] = []

    def walk(listed: list[BaseRoute]) -> None:
        for route in listed:
            inner = getattr(getattr(route, "original_router", route), "routes", None)
            if inner:
                walk(inner)
            for method in getattr(route, "methods", None) or ():
                found.append((method, re.sub(r"\{\w+(:\w+)?\}", "tiny", route.path)))  # type: ignore[attr-defined]

    walk(app.routes)
    return sorted(set(found))


@pytest.fixture(scope="module")
def keyed(source: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[str, str]]]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = {name: add_key(path, name, scopes=(name,)) for name in ("infer", "metrics")}
    with serving(Settings(models={"tiny": source}, keys=path)) as made:
        yield made, keys


def test_t9_every_route_but_health_asks_for_a_key(keyed: tuple[Served, dict[str, str]]) -> None:
    served, _ = keyed
    app, guard = app_of(served), guard_of(served)

    async def at_once(seconds: float) -> None:
        pass

    guard.pause = at_once  # wrong keys are slowed, which test_t10 tries
    listed = routes(app)
    paths = set(app.openapi()["paths"]) | {route.path for route in app.routes if isinstance(route, APIRoute)}
    assert {re.sub(r"\{\w+\}", "tiny", path) for path in paths} <= {path for _, path in listed}
    assert ("POST", "/v1/completions") in listed
    assert ("GET", "/openapi.json") in listed
    others = [("GET", path) for path in ("/", "/docs", "/redoc", "/nowhere", "/health/", "//health", "/v1/../health")]
    others += [("GET", path) for path in ("/health/../metrics", "/%68ealth/..", "/HEALTH", "/health;x", "/health%00")]
    for method, path in [*listed, *others]:
        if path in OPEN:
            continue
        for key in (None, "", "sk-cutaway-wrong"):
            line = [] if key is None else [b"Authorization: Bearer " + key.encode()]
            served_by = b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", *line, b"", b""])
            said = say(served, served_by, wait=0.01)
            assert said.status == 401, (method, path, said)
            assert said.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{served.url}/health").status_code == 200


def test_t9_scopes_open_what_they_name(keyed: tuple[Served, dict[str, str]]) -> None:
    served, keys = keyed
    bearer = {name: {"authorization": f"Bearer {key}"} for name, key in keys.items()}
    for path in ("/metrics", "/ready"):
        assert httpx.get(served.url + path, headers=bearer["infer"]).status_code == 403
        assert httpx.get(served.url + path, headers=bearer["metrics"]).status_code not in (401, 403)
    for path in ("/v1/models", "/openapi.json", "/nowhere"):
        assert httpx.get(served.url + path, headers=bearer["metrics"]).status_code == 403
        assert httpx.get(served.url + path, headers=bearer["infer"]).status_code not in (401, 403)
    assert httpx.post(f"{served.url}/v1/completions", json=ASKED, headers=bearer["metrics"]).status_code == 403
    assert httpx.post(f"{served.url}/v1/completions", json=ASKED, headers=bearer["infer"]).status_code == 200


# T11, T12: nothing is fetched


def test_t12_nothing_of_the_server_can_fetch() -> None:
    """No client of HTTP, and no socket that could connect, is imported where requests are answered."""
    clients = {
        "httpx",
        "requests",
        "urllib3",
        "aiohttp",
        "httpcore",
        "http",
        "ftplib",
        "socket",
        "websockets",
        "smtplib",
    }
    found = []
    for path in sorted((ROOT / "cutaway" / "serve").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.split(".")[0] in clients or name.startswith(("urllib.request", "cutaway.models.hub")):
                    found.append(f"{path.name}: {name}")
    # one listens; the other fetches what the command line names, before anything is answered
    assert set(found) <= {"lifecycle.py: socket", "models.py: cutaway.models.hub"}


class Watch:
    """A listener that must not be asked for anything."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.asked = self.socket.getsockname()[1], 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.socket.accept()[0].close()
                self.asked += 1
            except OSError:
                return


def test_t12_no_address_of_a_request_is_fetched(served: Served, tmp_path: Path) -> None:
    watch = Watch()
    secret = tmp_path / "secret.txt"
    secret.write_text("do not tell")
    here = f"127.0.0.1:{watch.port}"
    addresses = [f"http://{here}/x.png", f"http://localhost:{watch.port}/x.wav", f"ftp://{here}/", str(secret)]
    addresses += [f"file://{secret}", "file-abc123", f"data:image/png;base64,{'A' * 40}"]
    for address in addresses:
        parts = [
            [{"type": "image_url", "image_url": {"url": address}}],
            [{"type": "input_audio", "input_audio": {"data": address, "format": "wav"}}],
            [{"type": "file", "file": {"file_id": address}}],
            [{"type": "audio_url", "audio_url": {"url": address}}],
        ]
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": part}]})
            for part in parts
        ]
        bodies += [(path, {"model": address, "prompt": "x"}) for path in ("/v1/completions",)]
        bodies += [
            ("/v1/completions", {**ASKED, name: address})
            for name in (
                "prompt_url",
                "file",
                "lora",
                "adapter",
                "grammar_url",
                "chat_template",
                "response_format",
                "suffix",
            )
        ]
        bodies += [("/v1/chat/completions", {"model": address, "messages": [{"role": "user", "content": "x"}]})]
        bodies += [("/v1/embeddings", {"model": "tiny", "input": {"url": address}})]
        bodies += [("/v1/completions", {**ASKED, "response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"$ref": address}}}})]  # fmt: skip
        for path, body in bodies:
            said = httpx.post(served.url + path, json=body, timeout=60)
            assert 400 <= said.status_code < 500, (path, body, said.text)
            assert "do not tell" not in said.text
    assert watch.asked == 0
    with socket.create_connection(("127.0.0.1", watch.port)):
        pass
    for _ in range(100):
        if watch.asked:
            break
        threading.Event().wait(0.02)
    assert watch.asked == 1  # it would have noticed
    watch.socket.close()
