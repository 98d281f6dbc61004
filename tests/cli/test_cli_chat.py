"""`cutaway chat`: line by line from a pipe, and at a terminal."""

import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from cutaway.cli import _look, main
from cutaway.cli._frame import harmless
from cutaway.cli._look import percent
from cutaway.generation.conversation import Conversation
from cutaway.generation.engine import Engine
from cutaway.generation.hindsight import Weighed
from cutaway.models import Decoder, DecoderConfig, Model, load_model, save_model
from cutaway.tokenizers import train_tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}|{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
OPTIONS: dict[str, Any] = {"max_new_tokens": 12, "seed": 1}
WORDS = ["-n", "12", "--seed", "1"]
Answer = tuple[int, str, str]  # exit code, stdout, stderr
Pipe = Callable[..., Answer]


def saved(folder: Path, template: str | None, context: int = 96, seed: int = 0) -> str:
    tokenizer = train_tokenizer(["<user>hello, how are you?|<assistant><system>\\ \n 猫 \x1b[2J\r" * 9], "char", 300)
    tokenizer.chat_template = template
    torch.manual_seed(seed)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=context, layers=1, width=16, heads=2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return str(save_model(Model(network, tokenizer), folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("models") / "talker", TEMPLATE)


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pipe:
    """The verb, with its input from a pipe."""

    def run(folder: str, said: bytes, *words: str) -> Answer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said), encoding="utf-8"))
        code = main(["chat", folder, *WORDS, *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def answers(folder: str, *texts: str, **options: str) -> list[str]:
    talk = Conversation(Engine(load_model(folder)), **{**OPTIONS, **options})
    return ["".join(token.text for token in talk.say(text)).strip() for text in texts]


def test_every_line_of_a_pipe_is_answered_in_a_line(folder: str, piped: Pipe):
    code, out, err = piped(folder, "hello\n\nhow are you?\n猫".encode(), "--system", "you")
    expected = answers(folder, "hello", "how are you?", "猫", system="you")
    assert any(harmless(answer) != answer for answer in expected)  # or this shows nothing
    spelled = [harmless(answer.replace("\\", "\\\\").replace("\n", "\\n")) for answer in expected]
    assert (code, out.split("\n")) == (0, [*spelled, ""])
    assert "\x1b" not in err


def test_json_is_an_object_a_line(folder: str, piped: Pipe):
    said = ["hello", "how are you?", "hello, hello", "are you?", "hello"]
    code, out, _ = piped(folder, "\n".join(said).encode(), "--json")
    shown = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [one["text"] for one in shown] == answers(folder, *said)
    assert {one["finish_reason"] for one in shown} <= {"length", "end"}
    assert 0 < shown[1]["speed"]["new_tokens"] <= 12
    assert shown[0]["forgotten"] == 0
    assert shown[-1]["forgotten"] > 0


def test_what_was_forgotten_is_said(folder: str, piped: Pipe):
    _, out, err = piped(folder, b"hello, how are you?\n" * 4)
    assert "messages are forgotten)" in err
    assert out.count("\n") == 4


def test_what_cannot_be_said(folder: str, tmp_path: Path, piped: Pipe):
    bare = saved(tmp_path / "bare", None)
    strict = saved(tmp_path / "strict", "{{ raise_exception('only one turn') }}")
    for model, said, sentence in (
        (folder, b"hello\nhow\xff\n", "a line of the input is not UTF-8: invalid start byte at byte 3"),
        (folder, b"hello " * 40, "tokens, but this model's context is 96"),
        (bare, b"hello\n", "has no chat template"),
        (strict, b"hello\n", "only one turn"),
    ):
        code, _, err = piped(model, said)
        assert code == 2
        assert sentence in err
        assert err.count("\n") == 1
    assert piped(bare, b"hello\n", "--format", "plain")[0] == 0


@pytest.mark.parametrize("width", [40, 100])
@pytest.mark.parametrize("colour", [False, True])
def test_a_look_keeps_to_its_width_with_wide_characters_and_control_ones(folder: str, width: int, colour: bool):
    model = load_model(folder)
    ids = [model.tokenizer.id(text) for text in ("猫", "h", "\x1b", "猫")]
    top = tuple((id, math.log(0.2)) for id in ids[:3])
    tokens = [Weighed(id, math.log(0.2), 1 + number % 3, top) for number, id in enumerate(ids)]
    file = io.StringIO()
    console = Console(
        file=file, width=width, highlight=False, force_terminal=colour, color_system="truecolor" if colour else None
    )
    _look.table(model, tokens, console)
    _look.opened(model, 1, tokens[0], console)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    assert "\x1b" not in plain
    lines = [line for line in plain.splitlines() if "/look 1 FILE" not in line]
    assert all(cell_len(line) <= width for line in lines)
    head, *rows = lines[:5]
    place = cell_len(head[: head.index("probability")]) + len("probability")
    for row in rows:
        if width == 100:
            assert cell_len(row[: row.index("20.0%")]) + len("20.0%") == place
    assert colour == (file.getvalue() != plain)


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
class TestTerminal:
    """Typed at a pseudo-terminal."""

    @pytest.fixture
    def typed(self, folder: str) -> Iterator["Terminal"]:
        terminal = Terminal(folder)
        yield terminal
        terminal.end()

    def test_a_conversation(self, typed: "Terminal", folder: str, tmp_path: Path):
        first, second = answers(folder, "hello", "how\nare you?")
        typed.write("hello\r", shows=harmless(first))
        typed.write('"""how\rare you?"""\r', shows=harmless(second))
        typed.write(f"/save {tmp_path}/talk.json\r", shows="saved in ")
        kept = json.loads((tmp_path / "talk.json").read_text("utf-8"))
        assert [message["content"] for message in kept] == ["hello", first, "how\nare you?", second]
        typed.write("/system you\r", shows="> ")
        typed.write("/reset\r", shows="> ")
        typed.write("/undo\r", shows="> ")
        typed.write(f"/save {tmp_path}/talk.json\r", shows="saved in ")
        assert json.loads((tmp_path / "talk.json").read_text("utf-8")) == [{"role": "system", "content": "you"}]
        typed.write("/help\r", shows="/save FILE")
        typed.write("/sav x\r", shows="did you mean /save?")
        typed.write("/save\r", shows="name the file")
        typed.write(f"/save {tmp_path}\r", shows="cutaway chat: ")
        typed.write("/speed\r", shows="new tokens in")
        assert b"\x1b[2J" not in typed.shown
        typed.write("/quit\r")
        assert typed.process.wait(20) == 0

    def test_a_look_at_the_last_answer(self, typed: "Terminal", folder: str, tmp_path: Path):
        typed.write("/look\r", shows="nothing was said yet")
        talk = Conversation(Engine(load_model(folder)), **OPTIONS)
        tokens = list(talk.say("hello"))
        likely = [percent(math.exp(token.logprob)) for token in tokens]
        typed.write("hello\r", shows="> ")
        typed.write("/look\r", shows="likeliest others\n")
        for number, share in enumerate(likely, 1):
            typed.wait_for(f"{number:>2}  ")
            typed.wait_for(share.rjust(11))
        typed.wait_for(f"{len(tokens)} tokens, ")
        typed.write("/look 2\r", shows="token 2  ")
        typed.wait_for("→ ")
        typed.wait_for(likely[1])
        typed.wait_for("all others")
        typed.write("/look 99\r", shows=f"1 … {len(tokens)}, but '99' was given")
        typed.write(f"/look 3 {tmp_path}/page.html\r", shows="wrote ")
        assert "<html" in (tmp_path / "page.html").read_text("utf-8")
        typed.write(f"/save {tmp_path}/talk.md\r", shows="saved in ")
        answer = "".join(token.text for token in tokens).strip()
        assert (tmp_path / "talk.md").read_text("utf-8") == f"## user\n\nhello\n\n## assistant\n\n{answer}\n"

    def test_another_model_goes_on(self, typed: "Terminal", folder: str, tmp_path: Path):
        other, bare = saved(tmp_path / "other", TEMPLATE, seed=1), saved(tmp_path / "bare", None)
        talk = Conversation(Engine(load_model(folder)), **OPTIONS)
        first = "".join(token.text for token in talk.say("hello")).strip()
        going = talk.with_engine(Engine(load_model(other)))
        second = "".join(token.text for token in going.say("猫")).strip()
        third = "".join(token.text for token in going.with_engine(talk.engine).say("are you?")).strip()
        assert second != "".join(token.text for token in talk.say("猫")).strip()
        typed.write("hello\r", shows=harmless(first))
        typed.write(f"/model {bare}\r", shows="has no chat template")
        typed.write("/model nowhere\r", shows="does not exist")
        typed.write(f"/model {other}\r", shows="→ other")
        typed.write("猫\r", shows=harmless(second))
        typed.write("/model talker\r", shows="→ talker")
        typed.wait_for("  other")
        typed.write("are you?\r", shows=harmless(third))
        typed.write("/model\r", shows="→ talker")

    def test_what_was_typed_is_kept_where_a_file_is_named(self, folder: str, tmp_path: Path):
        history = tmp_path / "typed"
        for shows in ("> ", "hello"):  # the second time, the arrow finds what the first one typed
            typed = Terminal(folder, "--history", str(history), "--json")
            try:
                if shows == "hello":
                    typed.write("\x1b[A\x1b[A", shows=shows)
                    typed.write("\r", shows='{"text"')
                    typed.write("/look 1\r", shows='{"tokens": [{"number": 1, "id"')
                else:
                    typed.write("hello\r", shows='{"text"')
                typed.wait_for("> ")
                typed.write("/quit\r")
                assert typed.process.wait(20) == 0
            finally:
                typed.end()
        assert history.stat().st_mode & 0o077 == 0
        assert "hello" in history.read_text("utf-8")

    def test_ctrl_c_stops_the_answer_and_ctrl_d_the_chat(self, tmp_path: Path):
        typed = Terminal(saved(tmp_path / "long", TEMPLATE, context=100_000), "-n", "90000", "--temperature", "0")
        try:
            typed.write("hello\r", shows="hello\n")
            time.sleep(0.5)  # it is answering
            typed.press_until("\x03", shows="(stopped)\n> ")  # while it is at work at first
            typed.press_until("\x03", shows="/quit or Ctrl-D")
            typed.write("/speed\r", shows="new tokens in")
            typed.wait_for("> ")  # or the end of the input is typed while nobody reads
            typed.write("\x04")
            assert typed.process.wait(20) == 0
        finally:
            typed.end()


class Terminal:
    """`cutaway chat` at a pseudo-terminal; `shown` is all that it wrote."""

    def __init__(self, folder: str, *words: str) -> None:
        import pty

        self.ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "cutaway", "chat", folder, *WORDS, *words]
        environment = os.environ | {"TERM": "dumb"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(theirs)
        self.shown, self.seen = b"", 0
        self.wait_for("> ")

    def write(self, text: str, shows: str = "") -> None:
        """Type something and wait until this is shown."""
        os.write(self.ours, text.encode())
        if shows:
            self.wait_for(shows)

    def press_until(self, key: str, shows: str) -> None:
        """Press a key until this is shown: a signal just before the input waits for keys is seen at the next one."""
        for _ in range(30):
            os.write(self.ours, key.encode())
            with suppress(AssertionError):
                return self.wait_for(shows, seconds=2)
        self.wait_for(shows)

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until this is shown, behind what was waited for before."""
        import select

        until = time.monotonic() + seconds
        while (place := self.shown.replace(b"\r\n", b"\n").find(text.encode(), self.seen)) < 0:
            assert time.monotonic() < until, f"{text!r} is not in {self.shown[self.seen :][-500:]!r}"
            if select.select([self.ours], [], [], 1)[0]:
                try:
                    self.shown += os.read(self.ours, 65536)
                except OSError:
                    raise AssertionError(f"it ended: {self.shown[-500:]!r}") from None
        self.seen = place + len(text.encode())

    def end(self) -> None:
        """Close it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)


def _take_terminal() -> None:
    """The new process is who Ctrl-C at its terminal is for."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background are told to ignore it
