"""The ledger in the studio: from the click on a number to its terms on the screen, and from a term to its own terms.

A figure is of one page in Chromium, as a user has it: the click, the request, the sum in float64, the answer, the
layout and the frame that shows it. The text has 64 tokens, and each run takes another one.
"""

import statistics
from typing import Any
from urllib.parse import urlencode

import _bench
from playwright.sync_api import Page

TOKENS = 64
WORDS = ["river", "mountain", "city", "garden", "window", "letter", "music", "winter", "harbour", "bridge", "forest"]
PATIENCE = 60_000  # milliseconds

# Clicks what `find` finds, and waits for the frame that shows what `shows` finds: milliseconds.
CLICK = """
([find, shows]) => new Promise((done, fail) => {
  const button = document.querySelector(find);
  if (!button) return fail(new Error(`nothing to click: ${find}`));
  const begun = performance.now();
  const seen = () => requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
  const look = () => document.querySelector(shows) && (watch.disconnect(), seen());
  const watch = new MutationObserver(look);
  watch.observe(document.body, { childList: true, subtree: true, attributes: true });
  button.click();
})
"""


def text_of(model: Any, run: int) -> str:
    """A text of TOKENS tokens, another one for every run."""
    words = [WORDS[(i * (run + 1) + run) % len(WORDS)] for i in range(2 * TOKENS)]
    ids = model.tokenizer.encode(" ".join(words))[:TOKENS]
    return model.tokenizer.decode(ids)


def ledger_figures(page: Page, address: str, name: str, texts: list[str], *, token: str = "") -> dict[str, Any]:
    """`ledger_open_ms` and `ledger_expand_ms`, each the median of as many runs as there are texts.

    Args:
        page: of a browser.
        address: of a studio that runs, with the slash at its end.
        name: of the model there.
        texts: one for each run.
        token: of the studio, where it asks for one.
    """
    opened, unfolded = [], []
    for text in texts:
        query = urlencode({"page": "map", "model": name, "text": text})
        page.goto(f"{address}?{query}{f'#token={token}' if token else ''}")
        page.wait_for_selector("[data-flow-total]", timeout=PATIENCE)
        page.wait_for_selector("[data-branch] [data-entry]", timeout=PATIENCE)
        page.wait_for_timeout(500)
        opened.append(page.evaluate(CLICK, [".total", "aside[data-ready] [data-term]"]))
        unfolded.append(statistics.mean(_levels(page)))
    return {
        "ledger_open_ms": _bench.figure(opened, "<= 300", cutaway=f"{name}, {TOKENS} tokens, click to frame"),
        "ledger_expand_ms": _bench.figure(
            unfolded, "<= 100", cutaway="an MLP, its largest neuron, a head, a token's value: click to frame, the mean"
        ),
    }


def _levels(page: Page) -> list[float]:
    """Milliseconds of four levels: a layer's MLP, its largest neuron; a head, and the token that it took most from."""
    found = []
    for kind in (".mlp", ".head."):
        name = page.locator(f"aside [data-level=''] > ul > li > [data-term*='{kind}']").first.get_attribute("data-term")
        first = f"[data-level=''] > ul > li > [data-term='{name}']"
        found.append(page.evaluate(CLICK, [f"aside {first}", f"aside [data-level='{name}'] [data-term]"]))
        below = page.locator(f"aside [data-level='{name}'] > ul > li > [data-term]").first.get_attribute("data-term")
        inner = f"aside [data-level='{name}'] > ul > li > [data-term='{below}']"
        found.append(page.evaluate(CLICK, [inner, f"aside [data-level^='{name}'] [data-level] [data-term]"]))
    return found
