"""Downloads, against a small hub on this machine."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch

from cutaway import load_model, save_model
from cutaway.cli import main
from cutaway.errors import InputError
from cutaway.models import DecoderConfig, Model, build_network
from cutaway.models.hub import fetch, is_repository
from cutaway.tokenizers import load_tokenizer, train_tokenizer

BESIDE = ("vocab.txt", "merges.txt", "spiece.model", "source.spm", "added_tokens.json", "chat_template.jinja")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/tiny"


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that a download asks for. `files` and `log` are set on a subclass."""

    files: dict[str, bytes]
    log: list[tuple[str, str, str]]  # method, path, range
    broken_after: dict[str, int]  # file -> bytes after which the connection breaks, once

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, *, send: bool):
        path = unquote(urlsplit(self.path).path)
        self.log.append((self.command, path, self.headers.get("Range", "")))
        parts = path.strip("/").split("/")
        if parts[:4] == ["api", "models", *NAME.split("/")]:
            if len(parts) > 4 and parts[4] == "tree":
                return self.data([self.entry(name) for name in self.files])
            if len(parts) > 5 and parts[5] not in ("main", COMMIT):
                return self.refuse("RevisionNotFound")
            siblings = [{"rfilename": name} for name in self.files]
            return self.data({"id": NAME, "modelId": NAME, "sha": COMMIT, "private": False, "siblings": siblings})
        if path.startswith(f"/{NAME}/resolve/") and "/".join(parts[4:]) in self.files:
            return self.file("/".join(parts[4:]), send=send)
        return self.refuse("RepoNotFound" if not path.startswith(f"/{NAME}/") else "EntryNotFound")

    def entry(self, name: str) -> dict:
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": self.etag(name)}

    def etag(self, name: str) -> str:
        return hashlib.sha1(self.files[name]).hexdigest()

    def data(self, value: object):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, code: str):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def file(self, name: str, *, send: bool):
        content, start = self.files[name], 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{self.etag(name)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if send:
            if (stop := self.broken_after.pop(name, None)) is not None:
                self.wfile.write(content[start:stop])
                self.wfile.flush()
                self.connection.shutdown(2)
                return
            self.wfile.write(content[start:])

    def log_message(self, format: str, *args: object):
        pass


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("source") / "m"
    tokenizer = train_tokenizer(["the cat sat on the mat"], "char", 300)
    torch.manual_seed(0)
    network = build_network(DecoderConfig(vocab_size=tokenizer.vocab_size, context=32, layers=2, width=32, heads=4))
    save_model(Model(network, tokenizer), folder, "huggingface")
    made = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    made |= {name: b"{}" if name.endswith(".json") else f"this is {name}".encode() for name in BESIDE}
    made["additional_chat_templates/rag.jinja"] = b"{{ messages }}"
    made["large.gguf"] = bytes(range(256)) * 100_000
    return made | {"pytorch_model.bin": b"\x80never asked for", "modeling_tiny.py": b"raise SystemExit('never run')"}


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("ThisHub", (Hub,), {"files": files, "log": [], "broken_after": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def cutaway(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command line: huggingface_hub reads its environment when it is imported."""
    command = [sys.executable, "-m", "cutaway", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | changes, timeout=120)


def test_a_model_is_fetched_used_and_found_again(hub: type[Hub], files: dict[str, bytes]):
    done = cutaway("generate", NAME, "--prompt", "the", "-n", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["ids"]) == 3
    asked = {path.rpartition("/")[2] for method, path, _ in hub.log if method == "GET" and "/resolve/" in path}
    assert asked >= {"model.safetensors", "generation_config.json", "rag.jinja", *BESIDE}
    assert not asked & {"pytorch_model.bin", "modeling_tiny.py"}
    hub.log.clear()
    again = cutaway("get", NAME, "--offline", "--json")
    assert again.returncode == 0, again.stderr
    assert not hub.log
    folder = Path(json.loads(again.stdout)["path"])
    for name in ("model.safetensors", *BESIDE):
        assert (folder / name).read_bytes() == files[name]
    assert load_tokenizer(folder).chat_template == {"default": "this is chat_template.jinja", "rag": "{{ messages }}"}
    assert load_model(folder).logits("the").shape[-1] == load_model(folder).config.vocab_size


def test_a_broken_download_goes_on_where_it_stopped(hub: type[Hub], files: dict[str, bytes]):
    hub.broken_after["large.gguf"] = 22_000_000  # huggingface_hub writes 10 MB at a time
    words = ("get", NAME, "--file", "large.gguf", "--json")
    done = cutaway(*words)
    if done.returncode:
        done = cutaway(*words)
    assert done.returncode == 0, done.stderr
    assert [r for method, path, r in hub.log if r.startswith("bytes=") and int(r[6:-1]) >= 10_000_000]
    assert Path(json.loads(done.stdout)["path"]).read_bytes() == files["large.gguf"]


def test_one_file_alone(hub: type[Hub], files: dict[str, bytes]):
    done = cutaway("get", NAME, "--file", "tokenizer.json", "--revision", COMMIT, "--json")
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["path"]).read_bytes() == files["tokenizer.json"]
    assert not [path for method, path, _ in hub.log if method == "GET" and path.endswith("model.safetensors")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("someone/else",), "no repository someone/else"),
        ((NAME, "--revision", "v9"), "no revision 'v9'"),
        (("someone/other", "--offline"), "is not in the cache, and the network is not used"),
        ((NAME, "--file", "model-Q4.gguf"), "has no file model-Q4.gguf"),
        ((NAME, "--file", "../../etc/passwd"), "is not a file that Cutaway opens"),
        ((NAME, "--file", "pytorch_model.bin"), "is not a file that Cutaway opens"),
        (("not a name",), "is no name of a repository"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    hub: type[Hub], words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["get", *words]) == 2
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.count("\n") == 1


def test_a_hub_that_cannot_be_reached(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["get", "someone/other"]) == 2
    shown = capsys.readouterr().err
    assert "cannot be reached" in shown
    assert shown.count("\n") == 1


def test_a_token_is_never_shown(hub: type[Hub], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    assert main(["get", "someone/else"]) == 2
    assert "secretsecret" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", ["a", "../b", "a/b/c", "a/../b", "/a/b", "a/b ", "a\\b/c", ""])
def test_names_that_are_no_repositories(name: str):
    assert not is_repository(name)
    with pytest.raises(InputError, match="owner/name"):
        fetch(name)


class Elsewhere(BaseHTTPRequestHandler):
    """Another host, to which the hub sends for large files; it keeps what it was told."""

    content: bytes
    told: list[dict[str, str]]

    def do_GET(self):
        self.told.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, format: str, *args: object):
        pass


def test_t11_a_token_is_not_sent_on_to_another_host(hub: type[Hub], files: dict[str, bytes]):
    """CVE-2025-51471: whoever is redirected to gets the bytes asked for, and no token."""
    content, asked = files["tokenizer.json"], []
    other = type("Other", (Elsewhere,), {"content": content, "told": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), other)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    def redirect(self: Hub, name: str, *, send: bool):
        asked.append(self.headers.get("Authorization"))
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{server.server_address[1]}/blob")  # the hub is 127.0.0.1
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{self.etag(name)}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    hub.file = redirect  # type: ignore[method-assign]
    done = cutaway("get", NAME, "--file", "tokenizer.json", "--json", HF_TOKEN="hf_secretsecret")
    server.shutdown()
    server.server_close()
    thread.join()
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["path"]).read_bytes() == content
    assert "Bearer hf_secretsecret" in asked  # the hub itself is told
    assert other.told
    assert not [told for told in other.told if "authorization" in told or "secretsecret" in str(told)]
