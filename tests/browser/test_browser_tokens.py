"""The page of tokens shows what Python computes."""

import math

import pytest
from driving import Studio
from playwright.sync_api import Locator, Page, expect

import cutaway
from cutaway.generation import Generation
from cutaway.interp import chances, generation_tree, ledger, surprisal, tokens_of
from cutaway.models import Model

TEXT = "the cat sat"
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


def opened(studio: Studio, name: str) -> Model:
    return cutaway.load_model(studio.folder / name)


def shown(rows: Locator, number: str) -> list[float]:
    """The numbers of a column of candidates, as the page keeps them for their titles and ledgers."""
    return [float(cell.get_attribute("data-value") or "nan") for cell in rows.locator(f"[data-number={number}]").all()]


def percent(text: str) -> float:
    return float(text.strip("<% ")) / 100


def drag(page: Page, name: str, value: float) -> None:
    page.get_by_role("slider", name=name, exact=True).fill(str(value))


@pytest.mark.parametrize("model", ["decoder", "gru"])
def test_chips_show_tokens_and_their_surprisal(model: str, studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", model, TEXT))
    chips = page.locator(".chip")
    expect(chips).to_have_count(11)
    found = surprisal(opened(studio, model), TEXT)
    told = [float(text) for text in page.locator(".chip .score").all_inner_texts() if text != "–"]
    assert told == pytest.approx([score for score in found.scores if score is not None], rel=1e-2)
    facts = tokens_of(opened(studio, model), TEXT)
    sums = page.get_by_test_id("sums").inner_text()
    assert f"{facts.bytes} bytes" in sums
    assert facts.mean is not None
    assert f"{facts.mean:.4g} bits per token" in sums
    page.get_by_role("button", name="id", exact=True).click()
    assert [int(text) for text in page.locator(".chip .score").all_inner_texts()] == facts.ids
    page.get_by_role("button", name="bytes", exact=True).click()
    assert page.locator(".chip .score").all_inner_texts() == facts.spelled


@pytest.mark.parametrize("name", ["decoder", "gru"])
def test_bars_follow_the_sliders(name: str, studio: Studio, page: Page) -> None:
    model = opened(studio, name)
    page.goto(studio.page("tokens", name, TEXT, position="4"))
    rows = page.locator("tr[data-token]")
    expect(rows.first).to_be_visible()
    first = chances(model, TEXT, position=4, shown=16)
    assert [int(row.get_attribute("data-token") or -1) for row in rows.all()][:16] == [
        one.id for one in first.candidates
    ]
    assert shown(rows, "share")[:16] == pytest.approx([one.share for one in first.candidates], rel=1e-6)
    assert [percent(text) for text in rows.locator("[data-number=share]").all_inner_texts()][:16] == pytest.approx(
        [one.share for one in first.candidates], abs=5e-4
    )
    for slider, value in (("Temperature", 0.5), ("Top-k", 6), ("Top-p", 0.8), ("Min-p", 0.05)):
        drag(page, slider, value)
    how = {"temperature": 0.5, "top_k": 10, "top_p": 0.8, "min_p": 0.05}  # the seventh stop of top-k is 10
    left = chances(model, TEXT, position=4, shown=16, **how)
    expect(page.locator("[data-kept]").nth(2)).to_have_attribute("data-kept", str(left.steps[3].kept))
    kept = [int(one.get_attribute("data-kept") or -1) for one in page.locator("[data-kept]").all()]
    assert kept == [step.kept for step in left.steps[1:]]
    assert shown(rows, "left")[:16] == pytest.approx([one.left for one in left.candidates], abs=1e-6)
    words = {"top_k": "top-k", "top_p": "top-p", "min_p": "min-p"}
    for row, one in zip(rows.all()[:16], left.candidates, strict=True):
        said = row.locator("[data-number=left]").inner_text()
        assert said == words[one.dropped] if one.dropped else percent(said) == pytest.approx(one.left, abs=6e-3)
    bars = [row.locator(".bars .left").bounding_box() for row in rows.all()[:2]]
    assert bars[0] is not None
    assert bars[1] is not None
    assert bars[1]["width"] / bars[0]["width"] == pytest.approx(
        left.candidates[1].left / left.candidates[0].left, abs=0.02
    )


def test_a_candidate_forks_and_its_numbers_open(studio: Studio, page: Page) -> None:
    model = opened(studio, "decoder")
    page.goto(studio.page("tokens", "decoder", TEXT))
    rows = page.locator("tr[data-token]")
    first = chances(model, TEXT)
    rows.nth(2).locator(".pick").click()
    ids = [*model.ids(TEXT)[0].tolist(), first.candidates[2].id]
    behind = chances(model, ids)
    expect(rows.first).to_have_attribute("data-token", str(behind.candidates[0].id))
    expect(rows.first.locator("[data-number=logit]")).to_have_attribute("data-value", repr(behind.candidates[0].logit))
    rows.nth(1).locator(".pick").click()
    new = page.locator(".chip.new")
    expect(new).to_have_count(2)
    bits = [-math.log2(one.share) for one in (first.candidates[2], behind.candidates[1])]
    assert [float(text) for text in new.locator(".score").all_inner_texts()] == pytest.approx(bits, rel=1e-2)
    new.first.click()  # back behind the first
    expect(rows.first).to_have_attribute("data-token", str(behind.candidates[0].id))
    rows.first.locator("[data-number=logit]").click()
    total = page.locator("[data-total]").first
    made = ledger(model, ids, token=behind.candidates[0].id)
    assert float(total.get_attribute("data-total") or "nan") == pytest.approx(made.total, abs=1e-5)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Take into the text").click()
    expect(page.locator(".chip.new")).to_have_count(0)
    expect(page.get_by_label("Text", exact=True)).to_have_value(model.tokenizer.decode(ids))


def test_the_tree_holds_what_may_follow_and_what_was_clicked(studio: Studio, page: Page) -> None:
    model = opened(studio, "decoder")
    page.goto(studio.page("tokens", "decoder", TEXT))
    root = generation_tree(model, TEXT, depth=3, width=3, least=0.001).root
    boxes = page.locator("button.box")
    expect(page.locator(f"button.box[data-path='{root.branches[0].id}']")).to_be_visible()
    for branch in root.branches[:3]:
        box = page.locator(f"button.box[data-path='{branch.id}']")
        assert percent(box.locator(".number").inner_text().replace(" ", "")) == pytest.approx(branch.share, abs=5e-4)
    before = boxes.count()
    fourth = chances(model, TEXT).candidates[5]
    page.locator(f"tr[data-token='{fourth.id}'] .pick").click()
    grown = page.locator(f"button.box[data-path='{fourth.id}']")
    expect(grown).to_have_attribute("aria-pressed", "true")
    assert boxes.count() == before + 1
    page.locator(f"button.box[data-path='{root.branches[0].id}']").click()
    behind = chances(model, [*model.ids(TEXT)[0].tolist(), root.branches[0].id or 0])
    expect(page.locator("tr[data-token]").first).to_have_attribute("data-token", str(behind.candidates[0].id))


@pytest.mark.parametrize("name", ["decoder", "gru", "seq2seq"])
def test_it_writes_what_python_writes(name: str, studio: Studio, page: Page) -> None:
    model = opened(studio, name)
    read = {"source": "a mat"} if name == "seq2seq" else {}
    page.goto(studio.page("tokens", name, TEXT, **read))
    expect(page.locator("tr[data-token]").first).to_be_visible()
    drag(page, "Temperature", 1.5)
    page.get_by_label("tokens", exact=True).fill("9")
    page.get_by_label("seed", exact=True).fill("5")
    page.get_by_role("button", name="Write", exact=True).click()
    how = {**OFF, "temperature": 1.5, "max_new_tokens": 9, "seed": 5}
    ids = model.ids(TEXT)[0].tolist()
    made = model.generate("a mat", target=ids[1:], **how) if read else model.generate(ids, **how)
    assert isinstance(made, Generation)
    new = page.locator(".chip.new")
    expect(new).to_have_count(len(made.ids))
    expect(page.get_by_role("button", name="Write", exact=True)).to_be_enabled()
    assert [int(chip.get_attribute("data-id") or -1) for chip in new.all()] == made.ids
    bits = [-logprob / math.log(2) for logprob in made.logprobs]
    assert [float(text) for text in new.locator(".score").all_inner_texts()] == pytest.approx(bits, rel=1e-2)


def test_writing_stops(studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", "decoder", TEXT))
    expect(page.locator("tr[data-token]").first).to_be_visible()
    page.get_by_label("tokens", exact=True).fill("1000")
    # so small a model writes all in a moment: the button is pressed as soon as the third token is there
    page.evaluate("""() => new MutationObserver((_, watching) => {
        const stop = [...document.querySelectorAll("button")].find((one) => one.textContent.trim() === "Stop");
        if (document.querySelectorAll(".chip.new").length < 3 || !stop) return;
        watching.disconnect();
        stop.click();
    }).observe(document.body, {childList: true, subtree: true})""")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.locator(".chip.new").nth(2)).to_be_visible()
    expect(page.get_by_role("button", name="Write", exact=True)).to_be_visible()
    count = page.locator(".chip.new").count()
    assert 3 <= count < 900
    page.wait_for_timeout(300)
    assert page.locator(".chip.new").count() == count


def test_an_encoder_says_what_may_stand_in_a_gap(studio: Studio, page: Page) -> None:
    model = opened(studio, "masked")
    page.goto(studio.page("tokens", "masked", TEXT, position="5"))
    rows = page.locator("tr[data-token]")
    expect(rows.first).to_be_visible()
    found = chances(model, TEXT, position=5, masked=True, shown=16)
    assert shown(rows, "share")[:16] == pytest.approx([one.share for one in found.candidates], rel=1e-5)
    bits = surprisal(model, TEXT, masked=True).scores
    told = page.locator(".chip .score").all_inner_texts()
    assert [float(text) for text in told if text != "–"] == pytest.approx([b for b in bits if b is not None], rel=1e-2)
    rows.first.locator("[data-number=logit]").click()
    total = page.locator("[data-total]").first
    assert float(total.get_attribute("data-total") or "nan") == pytest.approx(found.candidates[0].logit, abs=1e-4)
    page.keyboard.press("Escape")
    letter = next(one for one in found.candidates if one.token.isalpha())
    page.locator(f"tr[data-token='{letter.id}'] .pick").click()
    expect(page.get_by_label("Text", exact=True)).to_have_value(f"{TEXT[:5]}{letter.token}{TEXT[6:]}")


def test_a_model_that_names_no_tokens_shows_its_text(studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", "encoder", TEXT))
    expect(page.locator(".chip")).to_have_count(11)
    expect(page.get_by_text("names no tokens")).to_be_visible()
    expect(page.locator("tr[data-token]")).to_have_count(0)


def test_an_empty_text_is_begun(studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", "decoder", TEXT))
    expect(page.locator(".chip")).to_have_count(11)
    page.get_by_label("Text", exact=True).fill("")
    page.get_by_role("button", name="Read it").click()
    expect(page.get_by_text("There is no text yet")).to_be_visible()
    page.get_by_label("tokens", exact=True).fill("5")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.locator(".chip.new").first).to_be_visible()
