"""The pages of lenses and of patching show what Python computes."""

import re
from typing import Any

import pytest
from driving import Studio
from playwright.sync_api import Page, expect

import cutaway
from cutaway.interp import lens_ranks, logit_lens, pairing, patch_map, patch_site, steer

TEXT, OTHER = "the cat sat on the mat", "the dog sat on the mat"


def numbers(text: str) -> list[float]:
    return [float(found.replace("−", "-").replace(",", "")) for found in re.findall(r"[-−+]?[\d,]*\.?\d+", text)]


@pytest.mark.parametrize("model", ["decoder", "masked", "seq2seq"])
def test_a_cell_tells_the_likeliest_tokens(model: str, studio: Studio, page: Page) -> None:
    source: dict[str, Any] = {"source": "a mat that the cat sat on"} if model == "seq2seq" else {}
    page.goto(studio.page("lens", model, "the cat sat", position="2", layer="0", **source))
    loaded = cutaway.load_model(studio.folder / model)
    lens = logit_lens(loaded, "the cat sat", top=8, **source)
    row = page.locator("section.cell tbody tr")
    expect(row).to_have_count(8)
    words = [word.replace("·", " ") for word in page.locator("section.cell .token").all_inner_texts()]
    assert words == [lens.words[i] for i in lens.ids[1, 2].tolist()]
    shown = [numbers(text)[0] / 100 for text in page.locator("section.cell .p").all_inner_texts()]
    assert shown == pytest.approx(lens.probabilities[1, 2].tolist(), abs=6e-3)
    logits = [float(text) for text in page.locator("section.cell td:nth-child(4)").all_inner_texts()]
    assert logits == pytest.approx(lens.logits[1, 2].tolist(), abs=2e-3)


def test_the_keyboard_reads_the_table_and_follows_a_token(studio: Studio, page: Page) -> None:
    page.goto(studio.page("lens", "decoder", "the cat sat"))
    loaded = cutaway.load_model(studio.folder / "decoder")
    lens = logit_lens(loaded, "the cat sat", top=8)
    table = page.locator("canvas")
    table.focus()
    page.keyboard.press("ArrowUp")
    column, row = len(lens.tokens) - 1, len(lens.layers) - 2
    heard = page.locator(".hidden-words[role=status]").first
    expect(heard).to_contain_text(f"entropy {float(lens.entropies[row, column]):.2f} bits")
    expect(heard).to_contain_text(f"{int(lens.ranks[row, column])} ·")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"position={column}"))
    top = int(lens.ids[row, column, 0])
    found = lens_ranks(loaded, "the cat sat", tokens=[top], position=column)
    name, ranks = next(iter(found["rank"].lines.items()))
    line = page.locator(".ranks li").first
    expect(line).to_contain_text(f"rank {ranks[-1]:.0f}, ")
    expect(line).to_contain_text(name.strip() or "·")


def test_an_output_logit_opens_its_ledger(studio: Studio, page: Page) -> None:
    page.goto(studio.page("lens", "decoder", "the cat sat", position="4"))
    button = page.locator("section.cell td:nth-child(4) button").first
    logit = float(button.inner_text())
    button.click()
    total = page.locator("aside [data-total]").first
    expect(total).to_be_visible()
    assert float(str(total.get_attribute("data-total"))) == pytest.approx(logit, abs=2e-3)


def test_a_lens_is_fitted_in_the_page(studio: Studio, page: Page) -> None:
    page.goto(studio.page("lens", "decoder", "the cat sat"))
    page.get_by_role("button", name="tuned", exact=True).click()
    expect(page.get_by_text("has to be fitted to the model first")).to_be_visible()
    page.fill("form.fit input[type=number]", "4")
    page.get_by_role("button", name="Fit it now").click()
    expect(page.locator("form.fit ~ figure svg").first).to_be_visible()
    expect(page.locator("canvas")).to_be_visible()


def test_two_texts_are_compared_layer_by_layer(studio: Studio, page: Page) -> None:
    page.goto(studio.page("lens", "decoder", TEXT, **{"b.text": OTHER}))
    expect(page.locator("section.difference canvas")).to_be_visible()
    expect(page.locator("section.difference")).to_contain_text("Likeliest tokens differ in")


def test_the_map_of_a_patch_and_one_of_its_cells(studio: Studio, page: Page) -> None:
    loaded = cutaway.load_model(studio.folder / "decoder")
    pair = pairing(loaded, TEXT, OTHER)
    page.goto(studio.page("patch", "decoder", TEXT))
    expect(page.get_by_text("The two are the same")).to_be_visible()
    page.fill("form.texts textarea", OTHER)
    page.press("form.texts textarea", "Enter")
    expect(page.locator("td.other")).to_have_count(2 * len(pair.differ))
    token, minus = pair.answers[0].id, pair.others[0].id
    asked = {"token": token, "minus": minus if minus != token else None}
    made = patch_map(loaded, TEXT, OTHER, what="residual", **asked)
    line = page.locator(".row", has_text="metric:")
    expect(line).to_be_visible()
    assert numbers(line.inner_text())[:2] == pytest.approx([made.figures["clean"], made.figures["corrupt"]], abs=2e-3)
    expect(page.locator("figcaption").first).to_contain_text(
        f"{made.figures['Pearson correlation']:+.3f}".replace("-", "−")
    )
    canvas = page.locator(".maps [role=application]").first
    canvas.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    site = made["patched"].sites[4]
    one = patch_site(loaded, TEXT, OTHER, name=site.name, place=site.position, **asked)
    figures = page.locator(".site dd")
    expect(figures).to_have_count(3)
    shown = [numbers(text)[0] for text in figures.all_inner_texts()]
    assert shown == pytest.approx([one.predicted, one.actual, one.recovered], abs=2e-3)


def test_texts_that_do_not_align_are_explained(studio: Studio, page: Page) -> None:
    page.goto(studio.page("patch", "decoder", "the cat sat"))
    page.fill("form.texts textarea", "the big cat sat")
    page.press("form.texts textarea", "Enter")
    expect(page.locator(".unequal")).to_contain_text("does not stand for that of its place")
    expect(page.locator(".maps")).to_have_count(0)
    page.get_by_role("button", name="common beginning and end").click()
    expect(page.locator(".maps [role=application]")).to_have_count(2)


def test_steering_shows_each_strength(studio: Studio, page: Page) -> None:
    loaded = cutaway.load_model(studio.folder / "decoder")
    page.goto(studio.page("patch", "decoder", "the cat"))
    page.get_by_role("button", name="steer", exact=True).click()
    boxes = page.locator("form.steer textarea")
    boxes.nth(0).fill("the cat\na cat")
    boxes.nth(1).fill("the mat\na log")
    page.get_by_role("button", name="Steer at nine strengths").click()
    found = steer(loaded, "the cat", positive=["the cat", "a cat"], negative=["the mat", "a log"], layer=1)
    slider = page.locator("input[type=range]")
    expect(slider).to_be_visible()
    for k in (0, 4, 8):
        slider.fill(str(k))
        shown = page.locator("figcaption .number")
        value = found["dose"].lines["steered"][k]
        assert numbers(shown.first.inner_text())[0] == pytest.approx(value, rel=1e-3, abs=1e-3)
        assert page.locator("blockquote").first.inner_text().strip() == ("the cat" + found["texts"].rows[k][1]).strip()


def test_an_edit_is_shown_before_and_after(studio: Studio, page: Page) -> None:
    page.goto(studio.page("patch", "decoder", "the cat"))
    page.get_by_role("button", name="edit", exact=True).click()
    page.get_by_label("Prompt, which ends").fill("the cat sat on the ")
    page.get_by_label("Subject in it").fill("cat")
    page.get_by_label("New answer").fill("d")
    page.get_by_label("Paraphrases").fill("")
    page.get_by_label("Neighbours").fill("the dog sat on the ")
    page.get_by_role("button", name="Edit a copy").click()
    rows = page.locator(".computed tbody tr")
    expect(rows).to_have_count(2)
    before, after = (numbers(rows.first.locator("td").nth(k).inner_text())[0] for k in (2, 3))
    assert after > before
    expect(page.get_by_text("layers.0.mlp.down_proj")).to_be_visible()


def test_a_model_without_a_stream_is_told_where_to_go(studio: Studio, page: Page) -> None:
    page.goto(studio.page("lens", "gru", "the cat"))
    expect(page.get_by_role("alert")).to_contain_text("residual stream")
    page.goto(studio.page("patch", "gru", TEXT))
    page.fill("form.texts textarea", OTHER)
    page.press("form.texts textarea", "Enter")
    expect(page.locator(".maps [role=application]")).to_have_count(2)
