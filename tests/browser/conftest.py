"""A real studio, in a process of its own, before a real browser that records what it is asked and what goes wrong."""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from driving import Studio, Watched, start_studio, stop_studio
from filelock import FileLock
from playwright.sync_api import Browser, Page, expect, sync_playwright
from toys import laid_out

ROOT = Path(__file__).parents[2]
SOON = 60_000  # ms in which whatever is waited for must come, on a loaded machine too
LONGEST = 600  # s of a test: waits end by themselves, but a page whose script hangs would be waited for
# a context opens a window, and the popups of its address bar would take three times the work of a page; naming these
# replaces Playwright's own list, so what could matter of that stands here too
WITHOUT = (
    "HttpsUpgrades,NetworkTimeServiceQuerying,OptimizationHints,PaintHolding,WebUIOmniboxAimPopup,WebUIOmniboxPopup"
)
# a route of Playwright that nobody answers would leave a task of its own behind
NEVER = """{
  const asked = fetch;
  window.fetch = (what, ...how) => what === "/example.bin" ? new Promise(() => {}) : asked(what, ...how);
}"""


def chromium() -> str:
    """Where the browser is."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("there is no Chromium on PATH: apt-get install chromium (the tests download no browser)")
    return found


@pytest.fixture(autouse=True)
def bounded(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No test hangs: it ends, and tells where it was."""
    with capfd.disabled():
        terminal = os.dup(2)
    faulthandler.dump_traceback_later(LONGEST, exit=True, file=terminal)
    yield
    faulthandler.cancel_dump_traceback_later()
    os.close(terminal)


@pytest.fixture(scope="session")
def built_pages(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The pages as the sources say; of processes that run tests at the same time, one builds them."""
    spec = importlib.util.spec_from_file_location("build_backend", ROOT / "studio" / "build_backend.py")
    assert spec is not None
    assert spec.loader is not None
    backend = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backend)
    with FileLock(tmp_path_factory.getbasetemp().parent / "pages.lock", timeout=600):
        backend.pages()


@pytest.fixture(scope="session")
def studio(built_pages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One studio for all tests of a process."""
    folder = tmp_path_factory.mktemp("studio")
    laid_out(folder)
    made = start_studio(folder)
    yield made
    stop_studio(made)


@pytest.fixture(scope="module")  # its driver keeps an event loop running, which no other test of this process may meet
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        expect.set_options(timeout=SOON)
        arguments.append(f"--disable-features={WITHOUT}")
        made = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield made
        made.close()


@pytest.fixture
def watched() -> Watched:
    """What the page of this test did; a test may empty `errors` that it meant to cause."""
    return Watched()


@pytest.fixture
def new_page(browser: Browser, watched: Watched) -> Iterator[Callable[..., Page]]:
    """Makes pages, with the options of a browser context; all they do is recorded.

    The stored example never comes, so that no test reads its numbers for a model's, unless it is asked for (`stored`).
    """
    contexts = []

    def make(*, stored: bool = False, **options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})  # pyright: ignore[reportArgumentType]
        contexts.append(context)
        context.set_default_timeout(SOON)
        if not stored:
            context.add_init_script(NEVER)
        page = context.new_page()
        page.on("request", lambda request: watched.requests.append(request.url))
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("console", lambda said: watched.errors.append(said.text) if said.type == "error" else None)
        return page

    yield make
    for context in contexts:
        context.close()
    own = {"127.0.0.1", "localhost", ""}  # blob: and data: have no host
    elsewhere = [
        url for url in watched.requests if urlsplit(url).hostname not in own and urlsplit(url).scheme != "file"
    ]
    assert [url for url in elsewhere if urlsplit(url).scheme in ("http", "https", "ws", "wss")] == []
    assert watched.errors == []


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A page of 1280 × 800 pixels, without the stored example."""
    return new_page()
