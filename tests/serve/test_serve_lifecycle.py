"""From the start of the process to its end."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from processes import Process, gone, process
from serving import tiny_talker

from cutaway.cli import main
from cutaway.cli.serve import named
from cutaway.errors import ConfigError, InputError
from cutaway.serve import Settings
from cutaway.serve.lifecycle import bound, check_settings, notify
from cutaway.serve.settings import size

LINUX = sys.platform.startswith("linux")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_talker(tmp_path_factory.mktemp("life") / "tiny", context=8192)


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "The quick", "max_tokens": 8, "temperature": 0, **more}


def slow(port: int, tokens: int) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A stream that has begun."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps(asked(max_tokens=tokens, stream=True))
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.readline().startswith(b"data: ")
    return connection, answer


# before it listens


def test_a_port_in_use_is_one_sentence_and_exit_code_2(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", source, "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"port {port} of 127.0.0.1 cannot be used: address already in use" in said
    bound("127.0.0.1", port).close()  # and nobody holds it now


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/no/such/model"], "/no/such/model does not exist"),
        (["a=x", "a=y"], "two models are called a"),
        (["so bad=x/y"], "cannot be the name of a model"),
        (["x" * 65 + "=x/y"], "cannot be the name of a model"),
        (["m=x/y", "--adapter", "m=z"], "a model and an adapter are both called m"),
        (["m=x/y", "--adapter", "a=/no/such/folder"], "/no/such/folder is no folder"),
        (["m=x/y", "--host", "0.0.0.0"], "keys are needed"),
        (["m=x/y", "--host", "203.0.113.7", "--keys", "no.json"], "no file of keys no.json"),
        (["m=x/y", "--adapter", "a=."], "holds no adapter_config.json"),
        (["m=x/y", "--matryoshka", "n"], "unknown model of --matryoshka: 'n'. Known: m"),
        (["m=x/y", "--memory", "much"], "a size must be a number"),
        (["m=x/y", "--chat-format", "free"], "template or plain"),
        (["=x"], "names no model"),
    ],
)
def test_what_is_wrong_is_said_before_it_listens(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "listen", lambda *_: None)
    assert main(["serve", *words, "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_model_larger_than_the_memory_is_refused(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", source, "--port", "0", "--memory", "100MB"]) == 2
    told = capsys.readouterr().err
    found = re.search(r"are there for models; give at least ([\d.]+) ([MG])B more with --memory", told)
    assert found
    more = float(found[1]) * (1000 if found[2] == "G" else 1)  # this process holds what other tests left, too
    enough = f"{100 + int(1.2 * more) + 1}MB"
    assert main(["serve", source, "--port", "0", "--memory", enough, "--adapter", "a=/no/such/folder"]) == 2
    assert "is no folder" in capsys.readouterr().err  # which is looked at when there is room for the model


def test_a_limit_of_bodies_grows_with_that_of_one(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_bodies"):
        check_settings(Settings(models={"tiny": source}, max_body=1 << 30))
    with process(f"tiny={source}", "--max-body", "100MB", "--max-audio", "70MB", folder=tmp_path) as server:
        assert server.said["limits"]["max_body_bytes"] == 100_000_000
        assert server.said["memory_bytes"]["requests"] == 400_000_000  # four times what may come in together


def test_sizes_as_people_write_them() -> None:
    for text, bytes in {"4GB": 4 * 10**9, "1.5 GiB": 3 * 2**29, "100": 100, "64kb": 64_000, "2MiB": 2**21}.items():
        assert size(text) == bytes
    for text in ("", "GB", "4XB", "-", "1e999", "nan"):
        with pytest.raises(ConfigError):
            size(text)


def test_names_come_from_the_source_or_before_the_mark() -> None:
    assert named(["a/b/model.gguf", "x=owner/name", "run/"]) == {
        "model.gguf": "a/b/model.gguf",
        "x": "owner/name",
        "run": "run/",
    }
    with pytest.raises(ConfigError, match="two"):
        named(["a/m", "b/m"])
    check_settings(Settings(models={"模型.gguf": "x"}))  # letters of any script
    for name in ("a b", "a/b", "a\n", ""):
        with pytest.raises(ConfigError, match="cannot be the name of a model"):
            check_settings(Settings(models={name: "x"}))
    with pytest.raises(ConfigError):
        check_settings(Settings(models={}))


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        assert heard.recv(100) == b"READY=1"
    notify("READY=1")  # nobody listens: a line in the log, and no more
    monkeypatch.setenv("NOTIFY_SOCKET", "no socket")
    notify("READY=1")


# a process


@pytest.fixture(scope="module")
def running(source: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("running")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(folder / "notify"))
        heard.settimeout(60)
        with process(f"tiny={source}", folder=folder, NOTIFY_SOCKET=str(folder / "notify")) as made:
            assert heard.recv(100) == b"READY=1"
            yield made
            made.signal()
            assert heard.recv(100) == b"STOPPING=1"
            assert made.end() == 0


def test_it_says_once_what_there_is(running: Process) -> None:
    said = running.said
    (model,) = said["models"]
    assert model["name"] == "tiny"
    assert model["computed_by"].split()[0] in ("native", "torch")
    assert model["because"]
    assert model["context"] == 8192
    memory = said["memory_bytes"]
    parts = ("program", "requests", "weights", "pages", "work")
    assert memory["most"] == sum(memory[part] for part in parts)
    assert memory["now"] < memory["most"]
    assert said["limits"]["queue"] == 64
    assert said["keys"] is False
    command = said["try"]
    found = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)["choices"][0]["message"]["role"] == "assistant"


def test_it_answers_and_tells_the_log_nothing_of_texts(running: Process) -> None:
    status, body, _ = running.ask("/v1/completions", asked(prompt="hello, how are you?", max_tokens=5))
    assert status == 200
    assert json.loads(body)["usage"]["completion_tokens"] == 5
    status, *_ = running.ask("/v1/completions?%0aevil=1", asked(model="evil\n\x1b[2J"))
    assert status == 404
    lines = running.errors.splitlines()
    mine = [line for line in lines if "/v1/completions 200" in line]
    assert mine
    assert "tokens of tiny" in mine[0]
    assert "hello, how" not in running.errors
    assert "evil" not in running.errors
    assert all(line.isprintable() for line in lines)


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_an_idle_server_computes_nothing_and_takes_no_more_than_it_said(running: Process) -> None:
    running.ask("/v1/completions", asked())
    time.sleep(0.3)
    began, at = time.monotonic(), running.computed()
    time.sleep(2.5)
    assert (running.computed() - at) / (time.monotonic() - began) < 0.01
    assert running.memory() < running.said["memory_bytes"]["most"]


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_signal_lets_answers_finish_refuses_others_and_leaves_nothing(source: str, tmp_path: Path) -> None:
    with process(f"tiny={source}", folder=tmp_path) as server:
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        assert server.ask("/v1/chat/completions", chat)[0] == 200
        children = server.children
        assert children, "templates are rendered by a process of its own"
        streams = [slow(server.port, 4000) for _ in range(3)]
        server.signal()
        until = time.monotonic() + 10
        while (ready := server.ask("/ready"))[0] == 200 and time.monotonic() < until:
            time.sleep(0.01)
        assert json.loads(ready[1]) == {"status": "stopping"}
        assert ready[2]["connection"] == "close"
        status, body, headers = server.ask("/v1/completions", asked())
        assert (status, json.loads(body)["error"]["code"]) == (503, "stopping")
        assert int(headers["retry-after"]) >= 1
        for connection, answer in streams:
            rest = answer.read()
            assert rest.endswith(b"data: [DONE]\n\n")
            assert b"error" not in rest
            connection.close()
        assert server.end() == 0
        assert all(gone(child) for child in children)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_does_not_finish_in_time_is_told_so(source: str, tmp_path: Path, number: int, code: int) -> None:
    with process(f"tiny={source}", "--drain", "0.2", folder=tmp_path) as server:
        connection, answer = slow(server.port, 8000)
        whole: list[tuple[int, bytes, dict[str, str]]] = []
        asking = threading.Thread(target=lambda: whole.append(server.ask("/v1/completions", asked(max_tokens=8000))))
        asking.start()
        time.sleep(0.1)
        server.signal(number)
        events = answer.read().split(b"\n\n")
        assert json.loads(events[-3].removeprefix(b"data: "))["error"]["code"] == "stopping"
        connection.close()
        asking.join(20)
        assert whole[0][0] == 503
        assert json.loads(whole[0][1])["error"]["code"] == "stopping"
        assert server.end() == code
        assert "2 requests were broken off" in server.errors


def test_a_second_signal_ends_it_at_once(source: str, tmp_path: Path) -> None:
    with process(f"tiny={source}", "--drain", "600", folder=tmp_path) as server:
        connection, _ = slow(server.port, 8000)
        server.signal()
        time.sleep(0.1)
        began = time.monotonic()
        server.signal()
        assert server.end() == 143
        assert time.monotonic() - began < 8  # not the ten minutes that it may take to drain
        connection.close()


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_killed_it_leaves_no_process_either(source: str, tmp_path: Path) -> None:
    with process(f"tiny={source}", folder=tmp_path) as server:
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        server.ask("/v1/chat/completions", chat)
        children = server.children
        assert children
        os.kill(server.pid, signal.SIGKILL)
        assert server.end() == -signal.SIGKILL
        assert all(gone(child) for child in children)


def test_a_first_model_that_is_cut_short_ends_the_start(source: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(source, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with process(f"m={broken}", folder=tmp_path) as server:
        assert server.end() == 2
        assert server.said == {}
        (line,) = server.errors.splitlines()
        assert "broken" in json.loads(line)["error"]


def test_an_address_must_be_one_of_this_machine() -> None:
    with pytest.raises(InputError, match="no address"):
        bound("no such host", 0)


# while it loads


@pytest.fixture
def loading(source: str, tmp_path: Path) -> Any:
    """A process that listens and whose model takes a minute to open; its port."""
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import sys, time\n"
        "import cutaway.serve.models as models\n"
        "models.load_model = lambda *given, **options: time.sleep(60)\n"
        "from cutaway.cli import main\n"
        "sys.exit(main())\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(runner), "serve", f"tiny={source}", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 60
        while time.monotonic() < until and running.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with closing(connection), suppress(ConnectionError):
                connection.request("GET", "/health")
                assert connection.getresponse().status == 200
                break
            time.sleep(0.05)
        yield running, port
        running.kill()


def test_while_models_are_loaded_it_lives_and_does_not_answer_and_can_be_stopped(loading: Any) -> None:
    running, port = loading
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/ready")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (503, {"status": "loading"})
    connection.request("POST", "/v1/completions", json.dumps(asked()), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(answer.read())["error"]["code"] == "loading"
    connection.close()
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 0  # not the minute that the model takes


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limit")
def test_as_many_connections_as_it_says_though_the_system_allows_few_files(source: str, tmp_path: Path) -> None:
    import resource

    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, usual[1]))  # which the server inherits
    try:
        with process(f"tiny={source}", "--max-connections", "100", folder=tmp_path) as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
            held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(90)]
            try:
                assert server.ask("/health", timeout=5)[0] == 200
            finally:
                for one in held:
                    one.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
