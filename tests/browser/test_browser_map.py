"""The model map and the ledger show what Python computes, term by term."""

from typing import Any

import pytest
from driving import Studio, Watched
from playwright.sync_api import Locator, Page, expect

import cutaway
from cutaway.interp import Ledger, activation, ledger, logit_flow, parameters

TEXT = "the cat sat"


def terms(level: Locator) -> dict[str, float]:
    """The terms that a level shows, as they are written, and all others as one."""
    rows = level.locator(":scope > ul > li > [data-term]")
    expect(rows.first).to_be_visible()
    names = rows.evaluate_all("rows => rows.map(row => row.dataset.term)")
    values = rows.locator(".value").all_inner_texts()
    return {name: float(value.replace("−", "-")) for name, value in zip(names, values, strict=True)}


def compare(level: Locator, found: Ledger) -> None:
    """What a level shows against the same level of Python's ledger."""
    shown = terms(level)
    assert list(shown) == [term.name for term in found.top(len(shown))]
    most = max(abs(term.value) for term in found.terms)
    for name, value in shown.items():
        assert value == pytest.approx(found[name].value, abs=0.006 * most), name
    told = level.locator(":scope > dl dd")
    total, own = (float(text.replace("−", "-")) for text in told.all_inner_texts()[:2])
    assert total == own == pytest.approx(found.total, rel=1e-2)
    assert float(told.nth(2).get_attribute("data-error") or "nan") == pytest.approx(found.error, abs=1e-6)


def level(page: Page, *path: str) -> Locator:
    """A level of the drawer, by the terms that lead to it."""
    wanted = "\n".join(path)
    found = page.locator("aside [data-level]")
    places = found.evaluate_all("(levels, path) => levels.findIndex(one => one.dataset.level === path)", wanted)
    assert places >= 0, path
    return found.nth(places)


def unfold(page: Page, path: list[str], name: str) -> None:
    """Open a term of a level."""
    level(page, *path).locator(f":scope > ul > li > [data-term='{name}']").click()
    page.wait_for_function(
        "path => [...document.querySelectorAll('aside [data-level]')].some(one => one.dataset.level === path)",
        arg="\n".join([*path, name]),
    )


@pytest.mark.parametrize("model", ["decoder", "encoder", "gru"])
def test_three_levels_of_a_ledger_are_those_of_python(model: str, studio: Studio, page: Page) -> None:
    loaded = cutaway.load_model(studio.folder / model)
    page.goto(studio.page("map", model, TEXT))
    page.locator(".total").click()
    page.wait_for_selector("aside[data-ready]")
    found = ledger(loaded, TEXT)
    compare(level(page), found)
    path: list[str] = []
    for _ in range(2):
        name = next(term.name for term in found.top(12) if term.opens)
        unfold(page, path, name)
        path.append(name)
        found = found.expand(name)
        compare(level(page, *path), found)
    expect(page.locator("aside .trail ol li")).to_have_count(2)


@pytest.mark.parametrize("model", ["decoder", "encoder", "gru", "seq2seq"])
def test_the_flow_shows_each_stage_and_opens_its_terms(model: str, studio: Studio, page: Page) -> None:
    loaded = cutaway.load_model(studio.folder / model)
    more: dict[str, Any] = {"source": "a mat"} if model == "seq2seq" else {}
    page.goto(studio.page("map", model, TEXT, **more))
    flow = logit_flow(loaded, TEXT, **more)
    expect(page.locator("[data-flow-total]")).to_have_attribute("data-flow-total", str(flow.total))
    ribbons = page.locator("[data-ribbon]")
    shown = dict(ribbons.evaluate_all("all => all.map(one => [one.dataset.ribbon, Number(one.dataset.value)])"))
    expected = {stage.name: stage.value for stage in flow.stages}
    assert shown == pytest.approx(expected, rel=1e-9)
    last = next(stage for stage in reversed(flow.stages) if len(stage.parts) == 1 or stage.kind == "step")
    if last.kind == "step":  # of many units: they stand under their step first
        page.locator(f"[data-ribbon='{last.name}']").click()
        page.locator(f"[data-ribbon='{last.parts[0].name}']").first.click()
    else:
        page.locator(f"[data-ribbon='{last.name}']").click()
    page.wait_for_selector(
        "aside[data-ready] [data-level] [data-level]" if last.parts[0].opens else "aside[data-ready]"
    )
    if last.parts[0].opens:
        compare(level(page, *last.parts[0].path), ledger(loaded, TEXT, **more).path(*last.parts[0].path))


def test_the_largest_is_followed_down_to_a_token_by_the_keyboard(studio: Studio, page: Page) -> None:
    loaded = cutaway.load_model(studio.folder / "decoder")
    page.goto(studio.page("map", "decoder", TEXT, token="c", minus="t"))
    page.locator(".total").click()
    page.wait_for_selector("aside[data-ready]")
    whole = ledger(loaded, TEXT, token="c", minus="t")
    expect(page.locator("aside .what").first).to_contain_text("minus that of “t”")
    page.keyboard.press("f")
    way = whole.trace()
    crumbs = page.locator("aside .trail ol li")
    expect(crumbs).to_have_count(len(way))
    assert page.evaluate("document.activeElement.dataset.term") == way[-1].name
    names = [term.name for term in way]
    deepest = whole.path(*names[:-1])
    assert set(terms(level(page, *names[:-1]))) <= {term.name for term in deepest.terms}
    page.keyboard.press("ArrowLeft")  # to the term above, which closes
    page.keyboard.press("ArrowLeft")
    expect(crumbs).to_have_count(len(way) - 2)
    page.keyboard.press("Escape")
    expect(page.locator("aside")).to_have_count(0)
    expect(page.locator(".total")).to_be_focused()


def test_terms_are_found_and_another_answer_is_asked_for(studio: Studio, page: Page, watched: Watched) -> None:
    loaded = cutaway.load_model(studio.folder / "decoder")
    page.goto(studio.page("map", "decoder", TEXT))
    page.locator(".total").click()
    page.wait_for_selector("aside[data-ready]")
    page.locator("aside [type=search]").first.fill("layer 1 head")
    expect(page.locator("aside [data-term]")).to_have_count(4)
    ask = page.locator("aside form")
    ask.get_by_label("Why").fill("c")
    ask.get_by_label("rather than").fill("t")
    ask.get_by_label("What is not linear").select_option("shapley")
    expect(page.locator("aside .what").first).to_contain_text("by Shapley values")
    shapley = ledger(loaded, TEXT, token="c", minus="t", nonlinear="shapley")
    compare(level(page), shapley)
    ask.get_by_label("What is not linear").select_option("frozen")
    ask.get_by_label("Why").fill("the cat")
    ask.get_by_label("Why").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not one token")


def test_a_recorded_number_opens_and_shapes_are_listed(studio: Studio, page: Page) -> None:
    loaded = cutaway.load_model(studio.folder / "decoder")
    page.goto(studio.page("map", "decoder", TEXT))
    weights = parameters(loaded)
    listed = page.locator("[data-branch='']").nth(1).locator(":scope > li > .entry")
    expect(listed).to_have_count(len(weights.entries))
    shown = listed.first.inner_text()
    assert " × ".join(map(str, weights.entries[0].shape)) in shown
    page.locator("[data-branch='']").first.locator("[data-entry='embed']").click()
    grid = page.locator("[data-heat='embed'] canvas[tabindex]")
    expect(grid).to_be_visible()
    grid.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("aside[data-ready]")
    expect(page.locator("aside .what").first).to_contain_text("number 3 of embed")
    place = 1  # the first key enters at the corner
    expect(page.locator("aside .what").first).to_contain_text(f"({place})")
    number = float(activation(loaded, TEXT, name="embed").values[place, 3])
    total = page.locator("aside [data-level=''] [data-total]").get_attribute("data-total")
    assert float(total or "nan") == pytest.approx(number, rel=1e-6)


def test_gates_open_unit_by_unit(studio: Studio, page: Page) -> None:
    loaded = cutaway.load_model(studio.folder / "gru")
    page.goto(studio.page("map", "gru", TEXT))
    gate = page.get_by_role("application", name="update gate z 4 c,")
    expect(gate).to_be_visible()
    gate.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("aside[data-ready]")
    compare(level(page), ledger(loaded, TEXT, what="layers.0.update", position=4, index=1))
