"""The studio's page by itself: how soon it shows something, how much is sent for it, and what a tab comes to hold.

- `first_paint_s`: from the navigation to the frame that shows the first picture of numbers, in a browser that knows
  nothing of the page yet. The server is up and holds a model.
- `js_kb`: all scripts of the built pages as they are sent, in kB.
- `tab_memory_growth`: what scripts hold after 200 prompts over what they hold after 20, garbage collected before each.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

import _bench
from playwright.sync_api import Browser, Page, sync_playwright

PROMPTS, BEGUN = 200, 20
WINDOW: Any = {"width": 1280, "height": 800}
# Notes when the first picture of numbers is on the screen: tokens with their colours, or a drawn canvas.
FIRST = """
new MutationObserver((_, watch) => {
  if (!document.querySelector("main .chip, main canvas")) return;
  watch.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.__first = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""


@contextmanager
def studio(*arguments: str) -> Iterator[str]:
    """A running studio; its address, with the slash at its end."""
    command = [sys.executable, "-m", "cutaway", "studio", *arguments, "--port", "0", "--no-browser", "--json"]
    with tempfile.TemporaryDirectory() as empty:
        process = subprocess.Popen(
            [*command, "--folder", empty], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            if not line:
                sys.exit(f"the studio did not start: exit code {process.wait()}")
            yield json.loads(line)["studio"]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


@contextmanager
def browser() -> Iterator[Browser]:
    """The Chromium of this machine."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        sys.exit("there is no Chromium on PATH: apt-get install chromium")
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=arguments)
        yield made
        made.close()


def page_figures(chromium: Browser, address: str, name: str, runs: int) -> dict[str, Any]:
    """`first_paint_s` and `js_kb`.

    Args:
        chromium: a browser.
        address: of a studio that runs.
        name: of the model there.
        runs: how often.
    """
    seconds = []
    for _ in range(runs):
        context = chromium.new_context(viewport=WINDOW)
        page = context.new_page()
        page.add_init_script(FIRST)
        page.goto(f"{address}?{urlencode({'model': name, 'text': 'import os'})}")
        page.wait_for_function("() => window.__first")
        seconds.append(page.evaluate("window.__first") / 1000)
        context.close()
    scripts = Path(str(resources.files("cutaway.serve").joinpath("static", "assets"))).glob("*.js.gz")
    return {
        "first_paint_s": _bench.figure(seconds, "<= 1.0", cutaway=f"{median(seconds):.2f} s to the first picture"),
        "js_kb": _bench.figure(
            [sum(one.stat().st_size for one in scripts) / 1000], "<= 350", cutaway="gzip, all pages"
        ),
    }


def memory_figure(page: Page, address: str, name: str, prompts: int = PROMPTS) -> dict[str, Any]:
    """`tab_memory_growth`.

    Args:
        page: of a browser.
        address: of a studio that runs.
        name: of the model there.
        prompts: texts that are asked about one after the other.
    """
    tab = page.context.new_cdp_session(page)

    def held() -> float:
        tab.send("HeapProfiler.collectGarbage")
        return tab.send("Runtime.getHeapUsage")["usedSize"]

    begun = min(BEGUN, prompts // 2)
    sizes = []
    page.goto(f"{address}?{urlencode({'page': 'tokens', 'model': name, 'text': 'a', 'lang': 'en'})}")
    for i in range(1, prompts + 1):
        field = page.locator("form.subject textarea").first
        field.fill(f"import os  # {i}")
        with page.expect_response("**/studio/*"):
            field.press("Enter")
        page.wait_for_function(
            "() => !document.querySelector('main [aria-busy=true]') && document.querySelector('.chip')"
        )
        if i in (begun, prompts):
            sizes.append(held())
    return {
        "tab_memory_growth": _bench.figure(
            [sizes[1] / sizes[0]],
            "<= 1.1",
            cutaway=f"{sizes[0] / 1e6:.1f} MB after {begun} prompts, {sizes[1] / 1e6:.1f} MB after {prompts}",
        )
    }
