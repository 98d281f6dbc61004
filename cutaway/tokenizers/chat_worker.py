"""A process of its own that renders chat templates; `chat.py` starts it as a script. It imports nothing of Cutaway.

A template comes with a checkpoint, so it is a program of somebody else's. It runs in jinja2's sandbox, and that in a
child of this process, made anew for each template, which may use so much memory and time and no more, write no file
and open none. What goes wrong in there, be it a crash of Python itself, ends that child alone.

Requests and answers are JSON, each after its length in 8 bytes.
"""

import json
import os
import re
import select
import signal
import sys
from datetime import datetime
from typing import Any, BinaryIO

import jinja2
import jinja2.constants
import jinja2.debug
import jinja2.exceptions
import jinja2.ext
import jinja2.sandbox

MEMORY = 256 * 2**20  # bytes that a template may use
SECONDS = 0.4  # of computing
WALL = 20.0  # seconds in all: longer than anything but a machine that stands still
OUTPUT = 8 * 2**20  # bytes of text


class Generation(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`, which marks what a model is trained on: its content, as it is."""

    tags = {"generation"}  # noqa: RUF012  # jinja2's own way

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:  # pyright: ignore
        """The statements between the two tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Namespace(jinja2.utils.Namespace):
    """A namespace whose names never begin with an underscore: those lead into Python's own objects."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        values = dict(*args, **kwargs)
        for name in values:
            Namespace._check(name)  # this one has no attributes yet
        super().__init__(values)

    def __setitem__(self, name: str, value: Any) -> None:
        Namespace._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"the name {name!r} of a namespace begins with an underscore")


class Dict:
    """`dict(…)` in a template: makes one, and has no attributes that lead anywhere."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict:
        return dict(*args, **kwargs)


def environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """The sandbox, with what the templates of published checkpoints ask for."""
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def raise_exception(message: Any) -> None:
        raise jinja2.TemplateRuntimeError(str(message))

    def to_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)

    made.filters["tojson"] = to_json
    made.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    made.globals |= {"dict": Dict(), "namespace": Namespace}
    return made


def render(request: dict[str, Any]) -> dict[str, str]:
    """The text, or an error: a sentence about what the template did."""
    try:
        text = environment().from_string(request["template"]).render(**request["variables"])
        if len(text.encode("utf-8", "surrogatepass")) > OUTPUT:
            return {"error": f"it makes a text of more than {OUTPUT:,} bytes"}
        return {"text": text}
    except jinja2.TemplateSyntaxError as error:
        return {"error": f"it is no template: {error.message} (line {error.lineno})"[:300]}
    except MemoryError:
        return {"error": f"it uses more than {MEMORY // 2**20} MB of memory"}
    except RecursionError:
        return {"error": "it calls itself without end, or is nested too deeply"}
    except jinja2.TemplateRuntimeError as error:  # what it says with raise_exception, and the sandbox's refusals
        return {"error": str(error)[:300]}
    except Exception as error:
        return {"error": re.sub(r"0x[0-9a-f]+", "…", f"{type(error).__name__}: {error}")[:300]}


def confine() -> None:
    """Let this process use little from now on."""
    import resource

    with open("/proc/self/statm", "rb") if os.path.exists("/proc/self/statm") else open(os.devnull, "rb") as file:
        pages = int((file.read().split() or [b"0"])[0])
    used = pages * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, used + MEMORY),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, 2),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(what, (most, most))
        except (ValueError, OSError):  # macOS knows no limit of memory
            continue
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # nobody handles its signal: it ends the process, whatever it does


def answer(request: dict[str, Any]) -> dict[str, str]:
    """Render in a child, and say what became of it."""
    if not hasattr(os, "fork"):
        return render(request)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for other in (0, 1, 2, reading):
                os.close(other)
            confine()
            data = json.dumps(render(request)).encode()
            while data:
                data = data[os.write(writing, data) :]
        finally:
            os._exit(0)
    os.close(writing)
    data, part = bytearray(), b"-"
    while part and len(data) < 8 * OUTPUT and select.select([reading], [], [], WALL)[0]:
        part = os.read(reading, 2**16)
        data += part
    os.close(reading)
    if part:  # it did not end by itself
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    try:
        return json.loads(data)
    except ValueError:
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU, signal.SIGKILL):
            return {"error": f"it computes for more than {SECONDS} s"}
        return {"error": f"it uses more than {MEMORY // 2**20} MB of memory, or breaks Python"}


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while size := source.read(8):
        request = json.loads(source.read(int.from_bytes(size, "little")))
        data = json.dumps(answer(request)).encode()
        sink.write(len(data).to_bytes(8, "little") + data)
        sink.flush()


if __name__ == "__main__":
    environment().from_string(
        "{% for x in '\\n' %}{{ [x]|tojson|pprint }}{% endfor %}"
    ).render()  # so that all is there
    serve(sys.stdin.buffer, sys.stdout.buffer)
