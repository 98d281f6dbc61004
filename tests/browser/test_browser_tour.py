"""A tour of every page on three kinds of models: nobody off the machine is asked (the fixtures hold that), nothing goes
wrong in the console, axe-core finds nothing in light or dark, and nothing is wider than a phone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe import violations
from driving import Studio, Watched
from playwright.sync_api import Page, expect

STUDIO = Path(__file__).parents[2] / "studio" / "src" / "pages" / "index.ts"
PAGES = re.findall(r'^  \{ id: "(\w+)"', STUDIO.read_text("utf-8"), re.MULTILINE)
OF_COLOURS = ("color-contrast", "link-in-text-block")
IDLE = """() => document.querySelector("main h1") && !document.querySelector("main [aria-busy=true]")
  && document.querySelector(".subject > .facts")?.textContent.trim() && !document.querySelector(".subject .spin")"""


def settled(page: Page) -> None:
    """Wait until the model is open and a page has computed what it shows."""
    page.wait_for_function(IDLE)
    page.wait_for_timeout(150)  # an analysis that follows another begins
    page.wait_for_function(IDLE)


@pytest.mark.parametrize("model", ["decoder", "encoder", "gru"])
@pytest.mark.parametrize("name", PAGES)
def test_tour(name: str, model: str, studio: Studio, new_page: Callable[..., Page], watched: Watched) -> None:
    page = new_page(bypass_csp=True)
    page.goto(studio.page(name, model))
    settled(page)
    expect(page.locator("nav [aria-current=page]")).to_be_visible()
    expect(page.locator("main")).not_to_be_empty()
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert violations(page, only=OF_COLOURS) == []  # all else is as it was
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(watched.requests) > 5
    assert {urlsplit(url).netloc for url in watched.requests if url.startswith("http")} == {urlsplit(studio.url).netloc}


def test_a_tour_by_the_links_under_the_policy_itself(studio: Studio, page: Page, watched: Watched) -> None:
    """As users go: with the policy in force, every page after the other, there and back."""
    page.goto(studio.page(PAGES[0], "decoder"))
    for name in PAGES:
        link = page.locator(f'nav a[href*="page={name}&"]')
        link.click()
        expect(link).to_have_attribute("aria-current", "page")
        settled(page)
    for name in reversed(PAGES[:-1]):
        page.go_back()
        expect(page.locator(f'nav a[href*="page={name}&"]')).to_have_attribute("aria-current", "page")
        settled(page)
    assert watched.errors == []  # a broken policy is said there
