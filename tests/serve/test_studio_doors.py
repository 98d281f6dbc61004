"""The studio opens no door that the server keeps shut: names, origins, its token, its policy, limits, paths.

Each test bears the number of its promise (docs/security.md).
"""

from __future__ import annotations

import dataclasses
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import serving, tiny_talker

from cutaway.cli.studio import studio as studio_command
from cutaway.interp.analyses import ANALYSES, options_of
from cutaway.serve import Settings
from cutaway.serve.lifecycle import page_url
from cutaway.serve.studio import pages
from cutaway.serve.studio.look import FILES

INDEX = b'<!doctype html><script type="module" src="/assets/index-abc.js"></script>'
PAGES = ("/", "/favicon.svg", "/example.bin", "/assets/index-abc.js")
SECRET = "s3cret-of-the-studio"


@dataclass
class Opened:
    """A studio of a model "tiny" in a folder, and a client of it."""

    client: httpx.Client
    folder: Path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What holds the studio's folder, its pages and, beside them, secrets."""
    return tmp_path_factory.mktemp("doors")


@pytest.fixture(scope="module")
def static(root: Path) -> Iterator[Path]:
    """Pages as the build leaves them, whether or not there was one here; a secret lies beside them."""
    made = root / "static"
    (made / "assets").mkdir(parents=True)
    (made / "index.html").write_bytes(INDEX)
    for name in ("favicon.svg", "example.bin", "assets/index-abc.js", "sources.sha256"):
        (made / name).write_text("0")
    (root / "secret.js").write_text(SECRET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "_folder", lambda: made)
        yield made


@pytest.fixture(scope="module")
def settings(root: Path) -> Settings:
    folder = root / "models"
    tiny_talker(folder / "tiny")
    (root / "outside").mkdir()
    (root / "outside" / "secret.txt").write_text(SECRET)
    return Settings(models={}, studio=folder, max_body=1 << 20)


@pytest.fixture(scope="module")
def opened(settings: Settings, static: Path) -> Iterator[Opened]:
    assert settings.studio is not None
    with serving(settings) as served, httpx.Client(base_url=served.url) as client:
        assert [one["name"] for one in client.get("/studio/models").json()["models"]] == ["tiny"]
        yield Opened(client, settings.studio)


def routes(client: httpx.Client) -> list[tuple[str, str]]:
    """Every method and path of the studio."""
    paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, kinds in paths.items() if path.startswith("/studio/") for method in kinds]


def test_t8_the_studios_pages_and_routes_know_their_own_names_alone(opened: Opened) -> None:
    found = routes(opened.client)
    assert len(found) > 10
    for method, path in [*found, *(("GET", page) for page in PAGES)]:
        answer = opened.client.request(method, path, headers={"host": "evil.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "unknown_host"), path


def test_t8_a_foreign_page_reaches_no_route_of_the_studio(opened: Opened) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        for method, path in [*routes(opened.client), ("GET", "/")]:
            answer = opened.client.request(method, path, headers={"origin": origin}, json={})
            assert answer.status_code == 403, (origin, path)
            assert "access-control-allow-origin" not in answer.headers


def test_t8_no_form_of_a_page_reaches_the_studio(opened: Opened) -> None:
    for method, path in routes(opened.client):
        if method == "POST":
            answer = opened.client.post(path, content=b"{}", headers={"content-type": "text/plain"})
            assert answer.status_code == 415, path


def test_t8_the_studios_page_may_load_and_ask_nobody_but_its_server(opened: Opened) -> None:
    answer = opened.client.get("/")
    assert answer.content == INDEX
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    for kind in ("script-src", "style-src", "connect-src", "font-src"):
        assert policy[kind] == "'self'"  # nothing inline, no eval, no other host
    assert not re.search(r"unsafe|https?:|\*", answer.headers["content-security-policy"])
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_t8_results_to_keep_are_no_pages_of_the_studio(opened: Opened) -> None:
    """A saved page has inline scripts: were it opened from the server, it would be of its origin."""
    asked = {"model": "tiny", "text": "hello", "analysis": "surprisal", "options": {}}
    body = opened.client.post("/studio/analyse", json=asked).content
    found = re.search(rb'"id": ?"([\w-]+)"', body)
    assert found is not None
    answer = opened.client.post("/studio/page", json={"id": found[1].decode()})
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert opened.client.get(f"/studio/page?id={found[1].decode()}").status_code == 405  # no address leads to it


def test_t9_other_hosts_need_the_studios_token_for_everything_but_its_pages(settings: Settings, static: Path) -> None:
    with (
        serving(dataclasses.replace(settings, token=SECRET)) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        for page in PAGES:
            assert client.get(page).status_code == 200
        key = {"authorization": f"Bearer {SECRET}"}
        paths = client.get("/openapi.json", headers=key).json()["paths"]
        asked = [(kind.upper(), path) for path, kinds in paths.items() for kind in kinds if path != "/health"]
        assert len(asked) > 20
        for method, path in asked:
            for headers in ({}, {"authorization": "Bearer x"}, {"authorization": f"Bearer {SECRET[:-1]}"}):
                answer = client.request(method, path, json={}, headers=headers)
                assert answer.status_code == 401, (path, headers)
            assert client.request(method, f"{path}?token={SECRET}", json={}).status_code == 401  # logs hold addresses
        assert client.get("/studio/models", headers=key).status_code == 200


def test_t9_the_token_stands_behind_the_number_sign_which_is_never_sent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        shown = page_url(listener, dataclasses.replace(settings, token=SECRET))
        assert shown.endswith(f"/#token={SECRET}")
        assert "token" not in page_url(listener, settings)
    given: list[Settings] = []
    monkeypatch.setattr("cutaway.serve.lifecycle.serve", lambda made, **_: given.append(made) or 0)
    for host in ("127.0.0.1", "0.0.0.0", "0.0.0.0"):
        with pytest.raises(Exception):  # noqa: B017 (typer's Exit, with the server's exit code)
            studio_command(
                [], folder=tmp_path, host=host, port=0, allow_host=None, memory=None, browser=False, json=True
            )
    here, there, again = given
    assert here.token is None
    assert there.token is not None
    assert again.token is not None
    assert len(there.token) >= 32  # 192 bits
    assert there.token != again.token


def test_t13_bodies_texts_and_lists_of_the_studio_are_limited(opened: Opened) -> None:
    for method, path in routes(opened.client):
        if method == "POST":
            answer = opened.client.post(path, json={"model": "x" * (1 << 20)})
            assert answer.status_code == 413, path
    wrong = [
        ("/studio/analyse", {"model": "tiny", "text": "a" * 200_001, "analysis": "surprisal", "options": {}}),
        ("/studio/analyse", {"model": "tiny", "text": "a", "analysis": "a" * 65, "options": {}}),
        (
            "/studio/analyse",
            {"model": "tiny", "text": "a", "analysis": "look", "options": {str(i): 1 for i in range(33)}},
        ),
        ("/studio/expand", {"id": "a", "path": ["a"] * 65}),
        ("/studio/tile", {"id": "a", "field": "a", "index": [0], "rows": 5000, "columns": 1}),
        ("/studio/open", {"model": "tiny", "step": -1}),
        ("/studio/open", {"model": "tiny", "step": 10**30}),
        ("/studio/open", {"model": "tiny", "path": "/etc"}),
        ("/studio/hub", {"hub": "a" * 201}),
    ]
    for path, body in wrong:
        answer = opened.client.post(path, json=body)
        assert answer.status_code in (400, 404), (path, body)
        assert len(answer.content) < 2000


STRANGE = ["/etc/passwd", "../outside", "..", "tiny/../../outside", "file:///etc/passwd", "~/.ssh", "tiny\x00", "C:\\x"]


@pytest.mark.parametrize("name", STRANGE)
def test_t7_no_request_of_the_studio_names_a_path(name: str, opened: Opened) -> None:
    about = {"text": "hello"}
    for path, body in (
        ("/studio/open", {"model": name}),
        ("/studio/open", {"model": f"tiny.{name}", "step": 0}),
        ("/studio/analyse", {"model": name, **about, "analysis": "surprisal", "options": {}}),
        ("/studio/ledger", {"model": name, **about, "options": {}}),
    ):
        answer = opened.client.post(path, json=body)
        assert answer.status_code in (400, 404), (path, body, answer.text)
        assert SECRET not in answer.text
        assert str(opened.folder) not in answer.text
    assert opened.client.post("/studio/hub", json={"hub": name}).status_code == 400


@pytest.mark.parametrize(
    "address",
    ["/assets/../secret.js", "/assets/..%2Fsecret.js", "/assets/%2e%2e/secret.js", "/assets//etc/passwd",
     "/assets/..\\secret.js", "/sources.sha256", "/secret.js", "/index.html", "/assets/", "/assets/.gz"],
)  # fmt: skip
def test_t7_an_address_of_the_studio_leads_to_no_other_file(address: str, opened: Opened) -> None:
    answer = opened.client.get(httpx.URL(str(opened.client.base_url)).copy_with(raw_path=address.encode()))
    assert answer.status_code in (400, 404)
    assert SECRET not in answer.text


def test_t7_the_studio_lists_no_link_and_nothing_outside_its_folder(opened: Opened, root: Path) -> None:
    tiny_talker(root / "outside" / "model")
    (opened.folder / "linked").symlink_to(root / "outside" / "model")
    (opened.folder / "up").symlink_to(root / "outside")
    listed = opened.client.get("/studio/models").text
    assert [one["name"] for one in json.loads(listed)["models"]] == ["tiny"]
    assert str(root) not in listed


def test_t7_an_option_of_an_analysis_names_no_file(opened: Opened) -> None:
    for option in ("lens", "transcoders"):
        body = {"model": "tiny", "text": "a", "analysis": "logit_lens", "options": {option: "/etc/passwd"}}
        answer = opened.client.post("/studio/analyse", json=body)
        assert answer.status_code == 400
        assert "it may name a file" in answer.text


def test_t12_the_studio_fetches_no_address(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    server, look_up = (opened.client.base_url.host, opened.client.base_url.port), socket.getaddrinfo

    def watched(*given: Any, **more: Any) -> Any:
        """Looks up nothing but the server itself, should its client have to connect again."""
        return look_up(*given, **more) if given[:2] == server else asked.append(given) or []

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    for name in ("http://127.0.0.1:1/x", "https://evil.example/a", "evil.example", "a/b/c", "//a/b"):
        assert opened.client.post("/studio/hub", json={"hub": name}).status_code == 400
        assert opened.client.post("/studio/open", json={"model": name}).status_code in (400, 404)
    assert asked == []


def test_t14_code_of_a_result_tells_a_path_to_this_machines_users_alone(settings: Settings, static: Path) -> None:
    asked = {"model": "tiny", "text": "hello", "analysis": "surprisal", "options": {}}
    for token in (None, SECRET):
        with (
            serving(dataclasses.replace(settings, token=token)) as served,
            httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {token}"} if token else {}) as client,
        ):
            client.get("/studio/models")
            found = re.search(rb'"id": ?"([\w-]+)"', client.post("/studio/analyse", json=asked).content)
            assert found is not None
            code = client.post("/studio/code", json={"id": found[1].decode()}).json()["code"]
            assert ("surprisal(model, 'hello')" in code) is True
            assert (str(settings.studio) in code) is (token is None)


def test_every_option_that_may_name_a_file_is_refused():
    """Of sources a Path alone is opened, and JSON has none; other options open what a text names."""
    named = {
        option
        for name in ANALYSES
        for option, hint in options_of(name).items()
        if "Path" in str(hint) and not option.endswith("source")
    }
    assert named == FILES
