"""The lessons show the numbers that Python computes, and follow what is tried."""

from __future__ import annotations

import re
from typing import Any

import pytest
from driving import Studio
from playwright.sync_api import Page, expect

import cutaway
from cutaway.interp import (
    Worked,
    attention_by_hand,
    block_by_hand,
    gates_by_hand,
    gradient_by_hand,
    loss_by_hand,
    sampling_by_hand,
    sigmoid_by_hand,
    step_by_hand,
)
from cutaway.interp import ledger as open_number

TEXT = "the cat sat on"


def value(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def figures(page: Page) -> dict[str, float]:
    rows = page.locator("[data-figure]")
    names = [rows.nth(i).get_attribute("data-figure") or "" for i in range(rows.count())]
    last = [row.split("\t")[-1].split("\n")[-1] for row in rows.all_inner_texts()]
    return {name: value(text) for name, text in zip(names, last, strict=True)}


def column(page: Page, worked: Worked, name: str) -> list[float]:
    at = worked.columns.index(name) + 1
    return [value(text) for text in page.locator(f"[data-row] td:nth-child({at})").all_inner_texts()]


def same(page: Page, worked: Worked, *columns: str) -> None:
    expect(page.locator("[data-figure]").first).to_be_visible()
    shown = figures(page)
    assert shown == pytest.approx({one.name: one.value for one in worked.figures}, rel=2e-3, abs=1e-6)
    for name in columns:
        assert column(page, worked, name) == pytest.approx(worked.column(name)[:14], rel=2e-3, abs=1e-6)


def chapter(page: Page, studio: Studio, model: str, name: str, **more: str) -> None:
    page.goto(studio.page("learn", model, TEXT, **more))
    page.locator(f"[data-chapter={name}]").click()
    expect(page.locator("math").first).to_be_visible()


CHAPTERS: list[tuple[str, str, Any, tuple[str, ...]]] = [
    ("decoder", "attention", attention_by_hand, ("score", "weight", "product")),
    ("decoder", "block", block_by_hand, ("value",)),
    ("decoder", "loss", loss_by_hand, ("logit", "chance", "gradient")),
    ("masked", "loss", loss_by_hand, ("logit", "chance")),
    ("encoder", "loss", loss_by_hand, ("logit", "chance")),
    ("gru", "attention", gates_by_hand, ("update", "hidden")),
    ("gru", "gradient", gradient_by_hand, ("share",)),
    ("decoder", "step", step_by_hand, ("mean", "after")),
    ("decoder", "sampling", sampling_by_hand, ("logit", "chance", "sum")),
]


@pytest.mark.parametrize(("model", "name", "function", "columns"), CHAPTERS)
def test_a_chapter_shows_what_python_computes(
    model: str, name: str, function: Any, columns: tuple[str, ...], studio: Studio, page: Page
) -> None:
    chapter(page, studio, model, name)
    same(page, function(cutaway.load_model(studio.folder / model), TEXT), *columns)


def test_a_number_opens_into_its_ledger(studio: Studio, page: Page) -> None:
    chapter(page, studio, "decoder", "attention", head="1", layer="1")
    model = cutaway.load_model(studio.folder / "decoder")
    worked = attention_by_hand(model, TEXT, layer=1, head=1)
    opens = worked.ledgers["score"][2]
    assert opens is not None
    asked: dict[str, Any] = dict(opens)
    page.locator("[data-row='2'] td:nth-child(4) button").click()
    total = open_number(model, TEXT, **asked).total
    assert total == pytest.approx(worked.rows[2][3], rel=1e-5)
    expect(page.get_by_role("dialog").or_(page.locator("aside"))).to_contain_text(
        re.compile(f"{abs(total):.3f}"[:4].replace(".", r"\."))
    )


def test_what_is_tried_changes_the_numbers(studio: Studio, page: Page) -> None:
    chapter(page, studio, "decoder", "loss")
    expect(page.locator("[data-figure=loss]")).to_be_visible()
    page.locator("input[type=range]").fill("3")
    raised = loss_by_hand(cutaway.load_model(studio.folder / "decoder"), TEXT, raised=3.0)
    expect(page.locator("[data-figure=loss] td").last).to_have_text(f"{raised['loss']:.4g}")
    page.locator("[data-chapter=tokens]").click()
    page.locator("textarea").last.fill("a cat")
    expect(page.locator("[data-row]")).to_have_count(5)


def test_two_classes_are_worked_out_as_they_are_typed(studio: Studio, page: Page) -> None:
    page.goto(studio.page("learn", "decoder", TEXT))
    page.locator("[data-chapter=sigmoid]").click()
    page.get_by_label("x, good words").fill("4")
    worked = sigmoid_by_hand([4, 1, 1], [0.5, -0.5, 0], 0, 0, lr=0.5)
    expect(page.locator("[data-figure='z']")).to_have_text(f"{worked['z']:.4g}")
    shown = {
        name: value(page.locator(f"dd[data-figure='{name}']").inner_text()) for name in ("loss", "error", "loss after")
    }
    assert shown == pytest.approx({name: worked[name] for name in shown}, rel=1e-3)
    page.get_by_role("button", name="Take the step").click()
    expect(page.locator("dd[data-figure=loss]")).to_have_text(f"{worked['loss after']:.4g}")
