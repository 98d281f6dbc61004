"""From the start to the end: check, load, say what there is, answer, drain, leave nothing behind.

A signal (SIGTERM, or SIGINT from Ctrl-C) ends a server in order: new requests get 503 at once, those that run may
finish within `drain` seconds, the rest end with an error. A second signal ends everything at once. The exit code is 0
where every request was answered, and 143 or 130, for SIGTERM or SIGINT, where some were broken off; 2 where it could
not start.

Nothing heavy is imported before it is needed: the model is opened by one thread while another imports what HTTP takes.
"""

from __future__ import annotations

import asyncio
import gc
import json as json_format
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.serve.settings import Settings

if TYPE_CHECKING:
    from cutaway.serve.server import Server

NAME = re.compile(r"[\w.-]{1,64}")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
OWN_FILES = 256  # that are open beside connections, at the most
LAST_WORDS = 2.0  # seconds in which requests that are broken off may still say so
log = logging.getLogger("cutaway.serve")


def serve(settings: Settings, *, json: bool = False, listening: Callable[[str], object] | None = None) -> int:
    """Serve until a signal says to stop. To be called in the main thread of a process that does nothing else.

    Args:
        settings: models, limits and doors.
        json: print what there is as one JSON object on standard output, instead of in words on standard error.
        listening: called with the address, as soon as pages are given out there.

    Returns:
        The exit code: 0, 130 or 143.

    Raises:
        ConfigError: settings that are wrong or do not fit together.
        InputError: the port is in use, there is no such model, or the first one cannot be loaded.
    """
    began = _process_began()
    check_settings(settings)
    from cutaway.serve.doors import check_doors

    check_doors(settings)
    listener = bound(settings.host, settings.port)
    try:
        gc.disable()  # until it is ready: of what is imported and loaded nothing is garbage
        from cutaway.serve.models import Models

        _few_arenas()
        _enough_files(settings.max_connections)
        models = Models(settings)
        models.check_sources()
        _logs(settings)
        models.begin()
        run = _import_http()
        code = run(settings, models, listener, began, json, listening)
    finally:
        gc.enable()
        listener.close()
    _leave(code)
    return code


def check_settings(settings: Settings) -> None:
    """Refuse names that no request could give, and limits that do not fit together.

    Raises:
        ConfigError: a name with other characters, no model, an adapter that is called as a model is, or a name that is
            none of theirs; or a body that may be larger than all together.
    """
    if not settings.models and settings.studio is None:
        raise ConfigError("there is no model to serve; give a folder, a .gguf file or a name on the hub")
    for name in (*settings.models, *settings.adapters):
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r:.100} cannot be the name of a model: it may have letters, digits, '.', '_' and '-', at most "
                "64; give one with NAME=SOURCE"
            )
    if max(settings.max_body, settings.max_audio) > settings.max_bodies:
        raise ConfigError(
            f"max_body ({settings.max_body:,} bytes) can be at most max_bodies ({settings.max_bodies:,}), which all "
            "requests together may have"
        )
    if twice := settings.models.keys() & settings.adapters.keys():
        raise ConfigError(f"a model and an adapter are both called {min(twice)}; give one of them another name")
    known = [*settings.models, *settings.adapters]
    for name in settings.matryoshka:
        if name not in known:
            raise ConfigError(unknown("model of --matryoshka:", name, known))


def bound(host: str, port: int) -> socket.socket:
    """A socket that nobody else has, bound and not yet listening.

    Raises:
        InputError: the port is in use, or this machine has no such address.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        made = socket.socket(family, kind, number)
    except OSError as error:
        raise InputError(f"this machine has no address {host!r}: {error.strerror}; try 127.0.0.1") from error
    try:
        if os.name != "nt":  # where it would let two listen
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(1024)
    except OSError as error:
        made.close()
        raise InputError(
            f"port {port} of {host} cannot be used: {str(error.strerror).lower()}; take another with --port, or 0 "
            "for any that is free"
        ) from error
    return made


def url(listener: socket.socket) -> str:
    """Where a client finds what listens."""
    host, port = map(str, listener.getsockname()[:2])
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def page_url(listener: socket.socket, settings: Settings) -> str:
    """What to open in a browser. A token stands behind the #, which is sent to nobody."""
    return url(listener) + ("/" if settings.token is None else f"/#token={settings.token}")


def notify(state: str) -> None:
    """Tell systemd, where it started this (sd_notify(3)): READY=1, STOPPING=1."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError as error:
        log.warning("systemd was not told %s: %s", state, error.strerror)


def _import_http() -> Any:
    """What takes a while to import, and is not needed to open a model."""
    import uvicorn

    from cutaway.serve.app import create_app
    from cutaway.serve.protocol import uvicorn_options
    from cutaway.serve.statement import in_words, statement

    class Runner(uvicorn.Server):
        """uvicorn's server, with another end."""

        def __init__(
            self,
            app: Any,
            settings: Settings,
            listener: socket.socket,
            began: float,
            json: bool,
            listening: Callable[[str], object] | None,
        ) -> None:
            options = {"log_config": None, "lifespan": "on", "timeout_graceful_shutdown": LAST_WORDS}
            super().__init__(uvicorn.Config(app, **options, **uvicorn_options(settings)))
            self.app, self.settings, self.listener, self.json = app, settings, listener, json
            self.listening = listening
            self.began, self.failure, self.code = began, None, 0
            self.signals: list[int] = []

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # they are seen by the event loop

        async def main_loop(self) -> None:
            """Until it is to stop, and every request has ended."""
            asked, again = asyncio.Event(), asyncio.Event()
            _on_signals(self.signals, asked, again)
            server: Server = self.app.state.server
            if self.listening is not None:
                self.listening(page_url(self.listener, self.settings))
            loading: asyncio.Task[None] = self.app.state.loading
            clock = asyncio.create_task(self._clock())
            stop = asyncio.create_task(asked.wait())
            try:
                await asyncio.wait([loading, stop], return_when=asyncio.FIRST_COMPLETED)
                if loading.done() and (failure := loading.exception()) is not None:
                    self.failure = failure
                    return
                if loading.done():
                    self._say(server)
                    await stop
                await self._drain(server, again)
            finally:
                clock.cancel()
                stop.cancel()

        async def _clock(self) -> None:
            """Keep the date that answers bear."""
            while True:
                await self.on_tick(0)
                await asyncio.sleep(1)

        def _say(self, server: Server) -> None:
            said = statement(server, url(self.listener), time.time() - self.began)
            if self.settings.studio is not None:
                said["studio"] = page_url(self.listener, self.settings)
            if self.json:
                print(json_format.dumps(said), flush=True)
            else:
                print(in_words(said), file=sys.stderr, flush=True)
            gc.freeze()  # what there is now stays, so that looking for garbage takes no time
            gc.enable()
            notify("READY=1")

        async def _drain(self, server: Server, again: asyncio.Event) -> None:
            notify("STOPPING=1")
            server.drain()
            number, seconds = self.signals[0], self.settings.drain
            if server.works:
                log.info(
                    "stopping: %d requests have %g s to finish; ask again to stop at once", len(server.works), seconds
                )
            await _either(server.drained(), again.wait(), seconds)
            if server.works:
                self.code = 128 + number
                log.warning("%d requests were broken off", len(server.works))
                server.end_all()
                if not again.is_set():
                    await _either(server.drained(), again.wait(), LAST_WORDS)
            self.force_exit = again.is_set()
            if self.force_exit:
                self.code = 128 + number

    def run(
        settings: Settings,
        models: Any,
        listener: socket.socket,
        began: float,
        json: bool,
        listening: Callable[[str], object] | None,
    ) -> int:
        runner = Runner(create_app(settings, models), settings, listener, began, json, listening)
        runner.run([listener])
        if runner.failure is not None:
            raise runner.failure
        return runner.code

    return run


async def _either(one: Any, other: Any, seconds: float) -> None:
    """Wait for one of two, or for so long."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _on_signals(seen: list[int], asked: asyncio.Event, again: asyncio.Event) -> None:
    """Let the first signal set `asked`, and the next one `again`."""
    loop = asyncio.get_running_loop()

    def see(number: int) -> None:
        seen.append(number)
        (again if asked.is_set() else asked).set()

    for number in SIGNALS:
        try:
            loop.add_signal_handler(number, see, number)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda number, frame: loop.call_soon_threadsafe(see, number))


def _leave(code: int) -> None:
    """End processes that worked for this one; and this one, where a thread would not end now."""
    from cutaway.tokenizers.chat import stop_workers

    stop_workers()
    others = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    if any(one.is_alive() for one in others):  # a model is being opened, say
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _few_arenas() -> None:
    """Keep the C library from holding free memory for every thread apart."""
    if sys.platform.startswith("linux"):
        import ctypes

        tune = getattr(ctypes.CDLL(None), "mallopt", None)
        if tune is not None:
            tune(-8, 2)  # M_ARENA_MAX


def _enough_files(connections: int) -> None:
    """Let the process have so many connections open: the system's usual limit of 1,024 files is for all files."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OWN_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        log.warning("the system lets this open %d files, which is too few for %d connections", most, connections)


def _process_began() -> float:
    """When this process began, in seconds since 1970."""
    try:
        ticks = int(Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text("utf-8").split()[0])
        return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time()


class Plain(logging.Formatter):
    """One line for each record: whatever a client put into it, no control character of it reaches a terminal.

    What an exception says stands on lines of its own, which begin as no record does.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's line."""
        return _plain(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """The traceback's lines."""
        return "\n".join(f"| {_plain(line)}" for line in super().formatException(ei).split("\n"))


def _plain(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _logs(settings: Settings) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(Plain("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("cutaway", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
