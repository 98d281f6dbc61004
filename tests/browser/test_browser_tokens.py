"""The page of tokens shows what Python computes."""

import pytest
from driving import Studio
from playwright.sync_api import Page, expect

import cutaway
from cutaway.interp import surprisal


@pytest.mark.parametrize("model", ["decoder", "gru"])
def test_chips_show_tokens_and_their_surprisal(model: str, studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", model, "the cat sat"))
    chips = page.locator(".chip")
    expect(chips).to_have_count(11)
    found = surprisal(cutaway.load_model(studio.folder / model), "the cat sat")
    shown = [float(text) for text in page.locator(".chip .score").all_inner_texts() if text != "–"]
    assert shown == pytest.approx([score for score in found.scores if score is not None], rel=1e-2)
