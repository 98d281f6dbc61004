"""The lens table in the studio: from asking about a text to the table of all its tokens and layers on the screen.

One page in Chromium, as a user has it: a text is put into the bar and left, the request, the run of the model, every
layer read as tokens, the answer, and the frame that shows the table. The model is open; each run takes another text.
"""

from typing import Any
from urllib.parse import urlencode

import _bench
from _studio_ledger import PATIENCE, TOKENS
from playwright.sync_api import Page

# Puts a text into the bar, asks about it, and waits for the frame with another table: milliseconds.
ASK = """
([text, before]) => new Promise((done, fail) => {
  const field = document.querySelector(".subject textarea");
  if (!field) return fail(new Error("there is no bar to ask in"));
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  const table = () => document.querySelector("[data-lens]")?.dataset.lens;
  const begun = performance.now();
  const watch = new MutationObserver(() => {
    if (!table() || table() === before) return;
    watch.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
  });
  watch.observe(document.body, { childList: true, subtree: true, attributes: true });
  field.dispatchEvent(new Event("blur"));
})
"""


def lens_figure(page: Page, address: str, name: str, texts: list[str], *, token: str = "") -> dict[str, Any]:
    """`lens_table_s`, the median of as many runs as there are texts but the first, which opens the page.

    Args:
        page: of a browser.
        address: of a studio that runs, with the slash at its end.
        name: of the model there.
        texts: of TOKENS tokens each, one more than runs.
        token: of the studio, where it asks for one.
    """
    query = urlencode({"page": "lens", "model": name, "text": texts[0]})
    page.goto(f"{address}?{query}{f'#token={token}' if token else ''}")
    seconds = []
    for text in texts[1:]:
        page.wait_for_selector("[data-lens]", timeout=PATIENCE)
        page.wait_for_timeout(500)
        before = page.locator("[data-lens]").get_attribute("data-lens")
        seconds.append(page.evaluate(ASK, [text, before]) / 1000)
    return {
        "lens_table_s": _bench.figure(
            seconds, "<= 1.5", cutaway=f"{name}, {TOKENS} tokens, from leaving the bar to the frame"
        )
    }
