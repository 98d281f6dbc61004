"""The pictures of the studio that the documentation shows: python bench/_studio_pictures.py RUN

RUN is a run of some minutes on `python:`, as `make demo` leaves one. Each picture is a page of 1280 × 800 pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import _studio_page as pages

IMAGES = Path(__file__).parents[1] / "docs" / "images"
TEXT = "for name in names:\n    if name not in seen:"
IDLE = "() => !document.querySelector('main [aria-busy=true]') && document.querySelector('main h1')"
# a file: a page, the language, colours
SHOWN: dict[str, tuple[str, str, Any]] = {
    "lens": ("lens", "en", "light"),
    "map": ("map", "en", "light"),
    "attention": ("attention", "en", "dark"),
    "lens.zh-CN": ("lens", "zh", "light"),
}


def main(run: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with pages.studio(f"run={run}") as address, pages.browser() as chromium:
        for name, (page, language, colours) in SHOWN.items():
            context = chromium.new_context(viewport=pages.WINDOW, color_scheme=colours)
            tab = context.new_page()
            query = {"page": page, "model": "run", "text": TEXT, "lang": language}
            tab.goto(f"{address}?{urlencode(query)}")
            tab.wait_for_function(IDLE, timeout=60_000)
            tab.wait_for_timeout(1500)
            tab.wait_for_function(IDLE, timeout=60_000)
            tab.screenshot(path=IMAGES / f"{name}.png")
            context.close()


if __name__ == "__main__":
    main(sys.argv[1])
