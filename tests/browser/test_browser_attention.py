"""The page of attention shows what Python computes, on every kind of model that has any."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from driving import Studio
from playwright.sync_api import Page, expect
from torch import Tensor

import cutaway
from cutaway.interp import attention, attention_overview, ledger, score_pairs, value_weighted

TEXT, SOURCE = "the cat sat on the mat", "a mat that the cat sat on"
PARTS = [("decoder", None), ("masked", None), ("seq2seq", "decoder"), ("seq2seq", "cross"), ("seq2seq", "encoder")]


def number(text: str) -> float:
    """A number as pages write it."""
    share = text.endswith("%")
    found = float(text.replace("−", "-").removesuffix("%").strip())
    return found / 100 if share else found


def rows_of(page: Page) -> dict[int, list[float]]:
    """Of every key its weight, its share of what is written, its score."""
    more = page.get_by_role("button", name=re.compile(r"show \d+ more"))
    if more.count():
        more.click()
    found = {}
    for row in page.locator("tr[data-key]").all():
        found[int(row.get_attribute("data-key") or "")] = [
            number(t) for t in row.locator("td[data-way]").all_inner_texts()
        ]
    return found


@pytest.mark.parametrize(("model", "part"), PARTS)
def test_weights_of_a_chosen_head_and_query_are_those_of_python(
    model: str, part: str | None, studio: Studio, page: Page
) -> None:
    source: dict[str, Any] = {"source": SOURCE} if part else {}
    page.goto(studio.page("attention", model, TEXT, layer="1", head="2", position="5", **source))
    if part == "cross":
        page.get_by_role("button", name="target at source (cross)").click()
    elif part == "encoder":
        page.get_by_role("button", name="source at itself").click()
    expect(page.locator("[data-layer='1'][data-head='2']")).to_have_text("Layer 1, head 2")
    read = cutaway.load_model(studio.folder / model)
    found = attention(read, TEXT, part=part, **source)
    length = len(found.keys or found.tokens)
    seen = 6 if found.causal else length
    expect(page.locator("tr[data-key]")).to_have_count(min(12, seen))
    expect(page.get_by_text(f"position 5 of {len(found.tokens)}")).to_be_visible()
    weights, written = found.patterns[1, 2, 5], value_weighted(read, TEXT, part=part, **source).patterns[1, 2, 5]
    scores = attention_overview(read, TEXT, part=part, **source).head(1, 2, "score")[5]
    shown = rows_of(page)
    assert sorted(shown) == list(range(seen))
    for key, (weight, share, score) in shown.items():
        assert weight == pytest.approx(float(weights[key]), abs=6e-5)
        assert share == pytest.approx(float(written[key]), abs=6e-3)
        assert score == pytest.approx(float(scores[key]), abs=6e-4)


def test_a_weight_opens_its_ledger_and_a_score_its_pairs(studio: Studio, page: Page) -> None:
    page.goto(studio.page("attention", "decoder", TEXT, layer="2", head="1", position="9"))
    model = cutaway.load_model(studio.folder / "decoder")
    best = page.locator("tr[data-key]").first
    key = int(attention(model, TEXT).patterns[2, 1, 9].argmax())
    expect(best).to_have_attribute("data-key", str(key))
    best.locator("[data-way=weight] button").click()
    opened = ledger(model, TEXT, "layers.2.attn.pattern", head=1, position=9, index=key)
    drawer = page.get_by_role("complementary")
    expect(drawer).to_contain_text(opened.what)
    page.keyboard.press("Escape")
    best.get_by_role("button", name="q·k").click()
    pairs = score_pairs(model, TEXT, layer=2, head=1, position=9, key=key)
    strongest = page.locator(".pairs tbody tr").first
    row, column, value = pairs.top(1)[0]
    expect(strongest).to_contain_text(row)
    cells = strongest.locator("td").all_inner_texts()
    assert cells[:2] == [row, column]
    assert number(cells[2]) == pytest.approx(value, abs=6e-3)


def test_the_pointer_reads_the_number_under_it(studio: Studio, page: Page) -> None:
    page.goto(studio.page("attention", "decoder", "the cat", layer="0", head="3"))
    pattern = attention(cutaway.load_model(studio.folder / "decoder"), "the cat").patterns[0, 3]
    canvas = page.locator(".large canvas.above")
    expect(page.locator("tr[data-key]")).to_have_count(7)
    canvas.focus()
    for key in ["ArrowUp", *["ArrowDown"] * 4, *["ArrowRight"] * 2]:  # the first goes to the chosen query, the last
        page.keyboard.press(key)
    said = page.locator(".large [role=status]")
    expect(said).to_contain_text("query 6")
    assert float(said.inner_text().split()[-1]) == pytest.approx(float(pattern[6, 2]), rel=6e-3)
    for _ in range(5):
        page.keyboard.press("ArrowUp")
    expect(said).to_contain_text("not seen")
    page.keyboard.press("Enter")
    expect(page.get_by_text("position 1 of 7")).to_be_visible()
    assert "position=1" in page.url


def test_lines_lead_from_a_token_to_those_it_looks_at_most(studio: Studio, page: Page) -> None:
    page.goto(studio.page("attention", "decoder", TEXT, layer="1", head="2", position="9"))
    page.get_by_role("button", name="arcs", exact=True).click()
    overview = attention_overview(cutaway.load_model(studio.folder / "decoder"), TEXT)
    said = page.locator(".large [role=status]")

    def told(query: int, found: dict[str, Tensor]) -> None:
        expect(said).to_contain_text(f"query {overview.tokens[query]}, ")
        numbers = [float(line.split()[-1]) for line in said.inner_text().split(", ")[1:]]
        weights = found["weight"][:, query].flatten().sort(descending=True).values
        assert numbers == pytest.approx(weights[: len(numbers)].tolist(), rel=6e-3)
        assert len(numbers) == min(6, int((weights > 0).sum()))

    expect(page).to_have_url(re.compile(r"at\.drawn=arcs"))
    told(9, overview.strongest(1, 2, each=8))
    page.locator(".large canvas").focus()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_text(f"position 8 of {len(overview.tokens)}")).to_be_visible()
    told(8, overview.strongest(1, 2, each=8))
    page.get_by_role("button", name="arcs of all heads").click()
    expect(said).to_contain_text("head ")
    told(8, overview.strongest(1, each=3))


def test_heads_are_chosen_with_the_keyboard_and_marked_by_their_kind(studio: Studio, page: Page) -> None:
    page.goto(studio.page("attention", "decoder", TEXT, layer="0", head="0"))
    found = attention_overview(cutaway.load_model(studio.folder / "decoder"), TEXT)
    expect(page.locator("[data-layer='0'][data-head='0']")).to_be_visible()
    page.locator(".atlas canvas.above").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("[data-layer='1'][data-head='2']")).to_be_visible()
    names = {"previous": "previous token", "first": "first token (sink)", "itself": "itself"}
    names |= {"duplicate": "same token elsewhere", "induction": "induction"}
    kind, share = found.kinds()[1][2]
    shown = page.locator(".large .muted").first.inner_text()
    assert shown.startswith(names[kind])
    assert number(shown.removeprefix(names[kind])) == pytest.approx(share, abs=6e-3)
    assert "layer=1" in page.url


def test_rollout_is_that_of_python(studio: Studio, page: Page) -> None:
    from cutaway.interp import rollout

    page.goto(studio.page("attention", "seq2seq", "the cat", source="a mat"))
    page.get_by_role("button", name="target at source (cross)").click()
    page.get_by_role("button", name="Rollout").click()
    made = rollout(cutaway.load_model(studio.folder / "seq2seq"), "the cat", source="a mat", part="cross")
    top = page.locator("table:visible tbody tr").first
    expect(top).to_be_visible()
    assert number(top.locator("td").last.inner_text()) == pytest.approx(float(made.values.max()), rel=1e-3)


def test_a_long_text_is_zoomed_into_and_its_numbers_are_exact(studio: Studio, page: Page) -> None:
    text = ("the cat sat on a mat. " * 46)[:1000]
    page.goto(studio.page("attention", "decoder", text, layer="0", head="1", position="700"))
    expect(page.get_by_text("position 700 of 1000")).to_be_visible()
    canvas = page.locator(".large canvas.above")
    said = page.locator(".large [role=status]")
    canvas.focus()
    page.keyboard.press("ArrowUp")
    for _ in range(7):
        page.keyboard.press("+")
    expect(page.locator(".large .tools")).to_contain_text(re.compile(r"rows 69\d … 70\d, columns 0 … 7"))
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    expect(said).to_contain_text("attention weight")
    page.keyboard.press("ArrowRight")
    found = attention_overview(cutaway.load_model(studio.folder / "decoder"), text).head(0, 1)
    expect(said).to_contain_text("query 697")
    expect(said).to_contain_text("attention weight")
    assert number(said.inner_text().split()[-1].replace("e−", "e-")) == pytest.approx(float(found[697, 1]), rel=6e-2)


def test_a_recurrent_model_is_told_why_and_where_to_go(studio: Studio, page: Page) -> None:
    page.goto(studio.page("attention", "gru", "the cat sat"))
    told = page.get_by_role("alert")
    expect(told).to_contain_text("“Attention” has nothing to show of this model. A GRU has no attention")
    told.get_by_role("button", name="Generate & tokens").click()
    expect(page.locator(".chip")).to_have_count(11)


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}])
def test_it_fits_every_screen(options: dict[str, object], studio: Studio, new_page: Callable[..., Page]) -> None:
    page = new_page(**options)
    page.goto(studio.page("attention", "decoder", TEXT))
    expect(page.locator("tr[data-key]").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
