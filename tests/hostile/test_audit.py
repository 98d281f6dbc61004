"""The audit fails where something is vulnerable, and says so where it cannot know."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[1] / "audit.py"
VULNERABLE = {"jinja2": ["3.1.2"], "sample": ["1.0"]}


class Advisories(BaseHTTPRequestHandler):
    """The one answer of OSV's server that pip-audit asks for."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, version = asked["package"]["name"].lower(), asked["version"]
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]
        entry = {
            "id": f"TEST-{name}", "summary": "a test", "published": "2026-01-01T00:00:00Z", "aliases": [],
            "affected": [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges, "versions": [version]}],
        }  # fmt: skip
        body = json.dumps({"vulns": [entry]} if version in VULNERABLE.get(name, ()) else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def advisories() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
    server.shutdown()
    server.server_close()
    thread.join()


def audit(tmp_path: Path, lines: str, *options: str) -> tuple[int, str]:
    file = tmp_path / "listed.txt"
    file.write_text(lines)
    command = [sys.executable, str(AUDIT), "--requirements", str(file), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_a_version_that_is_known_to_be_vulnerable_fails(tmp_path: Path, advisories: str) -> None:
    code, said = audit(tmp_path, "Jinja2==3.1.5\nstarlette==1.0\n", "--osv-url", advisories)
    assert code == 1
    assert "jinja2 3.1.5 has CVE-2025-27516" in said
    assert "starlette" not in said


def test_what_the_server_of_advisories_knows_fails(tmp_path: Path, advisories: str) -> None:
    code, said = audit(tmp_path, "sample==1.0\nother==2.0+cpu\n", "--osv-url", advisories)
    assert (code, "sample 1.0 has TEST-sample" in said) == (1, True), said
    code, said = audit(tmp_path, "sample==1.1\nother==2.0+cpu\n", "--osv-url", advisories)
    assert (code, "pip-audit: 0 vulnerabilities" in said) == (0, True), said


def test_where_advisories_cannot_be_reached_it_says_so(tmp_path: Path) -> None:
    for options, expected in (((), 0), (("--require",), 1)):
        code, said = audit(tmp_path, "sample==1.0\n", "--osv-url", "http://127.0.0.1:9/", *options)
        assert (code, "NOT AUDITED" in said) == (expected, True), said
