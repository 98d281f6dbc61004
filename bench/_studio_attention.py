"""How smoothly the attention page moves with a text of 1,000 tokens: frames a second while it is used."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from playwright.sync_api import Page

TEXT = "the quick brown fox jumps over the lazy dog and then it runs back home to sleep near a warm fire"
RECORD = """() => {
  const seen = window.__frames = [];
  const again = (now) => { seen.push(now); window.__next = requestAnimationFrame(again); };
  window.__next = requestAnimationFrame(again);
}"""
STOP = "() => { cancelAnimationFrame(window.__next); return window.__frames; }"


@dataclass(frozen=True)
class Frames:
    """What was seen while something was done.

    Attributes:
        per_second: frames.
        slowest_ms: the interval between two frames that 95 % are below.
    """

    per_second: float
    slowest_ms: float


def text_of(tokens: int) -> str:
    """A text of about so many tokens: words in an order that does not repeat soon."""
    words = TEXT.split()
    return " ".join(words[(i * i + 3 * i) % len(words)] for i in range(tokens))


def fps_at_1000_tokens(
    page: Page, url: str, model: str, *, tokens: int = 1000, seconds: float = 4.0
) -> dict[str, Frames]:
    """Frames a second of the attention page, in a real browser.

    Args:
        page: of the browser, at the size that is measured.
        url: of a running studio.
        model: its name there.
        tokens: about as many as the text has.
        seconds: each thing is done for.

    Returns:
        By what is done: "pointer" moves over the large matrix, "heads" are chosen with the arrow keys (each is fetched
        from the server), "queries" are chosen by clicking. The figure is the smallest of the first two.
    """
    page.goto(f"{url}/?page=attention&model={model}&text=a&lang=en")
    page.wait_for_selector("[data-layer]", timeout=120_000)
    page.fill("textarea", text_of(tokens))
    page.press("textarea", "Enter")
    page.wait_for_function("() => document.querySelector('[aria-busy=true]')", timeout=20_000)
    page.wait_for_function("() => !document.querySelector('[aria-busy=true]')", timeout=300_000)
    page.wait_for_timeout(1500)
    large = page.locator(".large canvas.above")
    large.scroll_into_view_if_needed()
    box = large.bounding_box()
    assert box is not None
    x, y, wide, high = box["x"] + 110, box["y"] + 90, box["width"] - 160, min(box["height"] - 100, 500)

    def measured(act: Callable[[int], None], pause: int) -> Frames:
        page.evaluate(RECORD)
        start, step = page.evaluate("() => performance.now()"), 0
        while page.evaluate("() => performance.now()") - start < 1000 * seconds:
            act(step)
            page.wait_for_timeout(pause)
            step += 1
        seen = page.evaluate(STOP)
        gaps = [b - a for a, b in pairwise(seen)]
        return Frames(1000 * len(gaps) / (seen[-1] - seen[0]), statistics.quantiles(gaps, n=20)[-1])

    def spot(step: int) -> tuple[float, float]:
        return x + (37 * step) % wide, y + (23 * step) % high

    found = {"pointer": measured(lambda step: page.mouse.move(*spot(step), steps=4), 8)}
    page.locator(".atlas canvas.above").focus()
    keys = ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowDown")
    found["heads"] = measured(lambda step: page.keyboard.press(keys[step % 4]), 60)
    found["queries"] = measured(lambda step: page.mouse.click(*spot(step)), 100)
    return found
