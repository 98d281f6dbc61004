"""Everything around the pages: choosing models, comparing, the address, what goes wrong, what is taken away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from axe import violations
from driving import Studio, Watched, start_studio, stop_studio
from playwright.sync_api import Locator, Page, Route, expect
from toys import made

import cutaway
from cutaway.interp import TokenScores, surprisal


def query(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def model_button(page: Page) -> Locator:
    return page.get_by_role("button", name=re.compile("^Model "))


def excuse(page: Page, watched: Watched) -> None:
    """Forget the browser's own lines of requests that a test meant to fail."""
    page.wait_for_timeout(100)
    assert all(line.startswith("Failed to load resource") for line in watched.errors), watched.errors
    watched.errors.clear()


def bits(page: Page, within: str = "main") -> list[float]:
    texts = page.locator(f"{within} .chip .score").all_inner_texts()
    return [float(text) for text in texts if text != "–"]


def computed(studio: Studio, model: str, text: str) -> list[float]:
    found = surprisal(cutaway.load_model(studio.folder / model), text)
    return [score for score in found.scores if score is not None]


def step_folder(step: int) -> str:
    return f"run/checkpoints/step-{step:08d}"


def held(page: Page, path: str) -> list[Route]:
    """Requests to a path wait in this list until the test lets them go."""
    waiting: list[Route] = []
    page.route(path, lambda route: waiting.append(route))
    return waiting


@pytest.fixture
def own_studio(built_pages: None, tmp_path: Path) -> Iterator[Studio]:
    """A studio that a test may end."""
    cutaway.save_model(made("decoder"), tmp_path / "decoder")
    studio = start_studio(tmp_path)
    yield studio
    if studio.process.poll() is None:
        stop_studio(studio)


def test_the_stored_example_is_shown_until_a_model_is_open(studio: Studio, new_page: Callable[..., Page]) -> None:
    page = new_page(stored=True)
    waiting = held(page, "**/studio/open")
    page.goto(f"{studio.url}/?model=decoder&text=the+cat&lang=en")
    expect(page.locator("main")).to_contain_text("A stored example, until a model is open")
    expect(page.locator(".chip").nth(1)).to_contain_text("name")  # of the example's text
    expect(page.locator("main canvas").first).to_be_visible()
    expect(page.locator(".subject > .facts")).to_contain_text("Opening decoder")
    assert len(waiting) == 1
    waiting[0].continue_()
    expect(page.locator("main")).not_to_contain_text("A stored example")
    expect(page.locator(".chip")).to_have_count(7)


def test_a_studio_without_models_shows_the_example_and_says_so(
    built_pages: None, tmp_path: Path, new_page: Callable[..., Page]
) -> None:
    page = new_page(stored=True)
    studio = start_studio(tmp_path)
    try:
        page.goto(f"{studio.url}/?lang=en")
        expect(page.locator(".subject > .facts")).to_have_text("No model here yet. Train one, or add one below.")
        expect(page.locator(".chip").nth(1)).to_contain_text("name")
        # what is made meanwhile is listed
        cutaway.save_model(made("gru"), tmp_path / "fresh")
        model_button(page).click()
        page.get_by_role("dialog").get_by_role("button", name="fresh").click()
        expect(page.locator(".subject > .facts")).to_contain_text("GRU")
    finally:
        page.close()  # it would ask again
        stop_studio(studio)


def test_the_picker_lists_everything_with_its_kind_and_opens_what_is_chosen(studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", "decoder"))
    expect(page.locator(".chip")).to_have_count(11)
    model_button(page).click()
    dialog = page.get_by_role("dialog")
    names = dialog.locator(".one .name").all_inner_texts()
    assert sorted(names) == ["decoder", "encoder", "gru", "masked", "run", "seq2seq"]
    times = {name: (studio.folder / name).stat().st_mtime for name in names}
    assert names == sorted(names, key=lambda name: -times[name])
    expect(dialog.get_by_role("button", name="run")).to_contain_text("2 steps kept")
    expect(dialog.get_by_role("button", name="gru")).to_contain_text("model folder")
    dialog.get_by_role("button", name="gru").click()
    expect(dialog).to_be_hidden()
    expect(model_button(page)).to_be_focused()  # the keyboard is where it was
    expect(page.locator(".subject > .facts")).to_contain_text("GRU · 2 layers × 20 units")
    expect(page.locator(".chip")).to_have_count(11)
    assert query(page)["model"] == "gru"
    assert bits(page) == pytest.approx(computed(studio, "gru", "the cat sat"), rel=1e-2)
    page.go_back()
    expect(page.locator(".subject > .facts")).to_contain_text("3 layers × 4 heads")
    assert query(page)["model"] == "decoder"


def test_a_name_of_the_hub_can_be_typed_and_what_is_wrong_with_it_is_said(
    studio: Studio, page: Page, watched: Watched
) -> None:
    page.goto(studio.page("tokens", "decoder"))
    model_button(page).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Add")).to_be_disabled()
    dialog.get_by_label("From the Hugging Face hub").fill("some one/else")
    dialog.get_by_role("button", name="Add").click()
    expect(dialog.get_by_role("alert")).to_contain_text("is no name of a repository; one looks like owner/name")
    excuse(page, watched)


def test_compare_two_texts(studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", "decoder"))
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_label("Text B").fill("the dog")
    page.get_by_label("Text B").press("Enter")
    for side, text in (("A", "the cat sat"), ("B", "the dog")):
        group = page.get_by_role("group", name=side, exact=True)
        expect(group.locator(".chip")).to_have_count(len(text))
        assert bits(page, f"[role=group][aria-label={side}]") == pytest.approx(
            computed(studio, "decoder", text), rel=1e-2
        )
    assert query(page)["b.text"] == "the dog"
    page.reload()
    expect(page.get_by_role("group", name="B", exact=True).locator(".chip")).to_have_count(7)
    page.get_by_role("button", name="Stop comparing").click()
    expect(page.locator(".chip")).to_have_count(11)
    assert "b.text" not in query(page)


def test_compare_two_models_and_two_steps(studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", "run", **{"b.model": "gru"}))
    expect(page.get_by_role("group", name="B", exact=True).locator(".chip")).to_have_count(11)
    assert bits(page, "[role=group][aria-label=B]") == pytest.approx(computed(studio, "gru", "the cat sat"), rel=1e-2)
    page.get_by_role("group", name="Compare two").get_by_role("button", name="steps").click()
    page.get_by_label("Step").nth(1).select_option("20")
    page.get_by_label("Step").nth(0).select_option("10")
    expect(page.locator(".what").nth(0)).to_have_text("step 10")
    for side, step in (("A", 10), ("B", 20)):
        wanted = computed(studio, step_folder(step), "the cat sat")
        first = page.get_by_role("group", name=side, exact=True).locator(".score").nth(1)
        expect(first).to_have_text(re.compile(re.escape(f"{wanted[0]:.2f}"[:4])))
        assert bits(page, f"[role=group][aria-label={side}]") == pytest.approx(wanted, rel=1e-2)
    assert (query(page)["step"], query(page)["b.step"]) == ("10", "20")


def test_a_page_that_does_not_apply_says_why_and_leads_on(studio: Studio, page: Page) -> None:
    page.goto(studio.page("lens", "gru"))
    trouble = page.locator("main").get_by_role("alert")
    expect(trouble).to_contain_text("A GRU has no residual stream")
    trouble.get_by_role("button", name="Generate & tokens").click()
    expect(page.locator(".chip")).to_have_count(11)
    expect(page.locator("main")).to_be_focused()
    page.go_back()
    expect(page.locator("main").get_by_role("alert")).to_contain_text("residual stream")
    assert query(page)["page"] == "lens"


def test_the_language_and_the_colours_are_switched_and_kept(studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", "decoder"))
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("生成与词元")
    assert page.locator("html").get_attribute("lang") == "zh"
    assert query(page)["lang"] == "zh"
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="配色：跟随系统").click()
    page.get_by_role("button", name="配色：浅色").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.goto(f"{studio.url}/?model=decoder&text=the+cat")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_role("heading", level=1)).to_have_text("生成与词元")


def test_when_the_server_goes_the_page_says_so_and_goes_on_when_it_is_back(
    own_studio: Studio, page: Page, watched: Watched
) -> None:
    page.goto(own_studio.page("tokens", "decoder"))
    expect(page.locator(".chip")).to_have_count(11)
    stop_studio(own_studio)
    page.get_by_label("Text").fill("the dog")
    page.get_by_label("Text").press("Enter")
    expect(page.get_by_role("alert").first).to_contain_text("The studio's server does not answer.")
    again = start_studio(own_studio.folder, "--port", str(urlsplit(own_studio.url).port))
    try:
        expect(page.locator(".chip")).to_have_count(7)
        expect(page.get_by_role("alert")).to_have_count(0)
        excuse(page, watched)
    finally:
        stop_studio(again)


def test_what_was_typed_is_kept_while_the_server_is_away(own_studio: Studio, page: Page, watched: Watched) -> None:
    page.goto(own_studio.page("patch", "decoder", **{"at.tool": "steer"}))
    first = page.locator("form.steer textarea").first
    first.fill("a fine day")
    stop_studio(own_studio)
    page.get_by_role("button", name="Steer at nine strengths").click()
    expect(page.get_by_role("alert").first).to_contain_text("The studio's server does not answer.")
    again = start_studio(own_studio.folder, "--port", str(urlsplit(own_studio.url).port))
    try:
        expect(page.locator("blockquote").first).to_be_visible(timeout=15_000)
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(first).to_have_value("a fine day")
        excuse(page, watched)
    finally:
        stop_studio(again)


@pytest.mark.parametrize(
    ("where", "choose", "shown"),
    [
        ("learn", "button[data-chapter=loss]", "#chapter-loss"),
        ("attribution", "[data-tab=methods]", "[data-tab=methods][aria-selected=true]"),
        ("attention", "button:has-text('Rollout')", "button:has-text('Rollout')[aria-pressed=true]"),
        ("patch", "button:has-text('steer')", "form.steer"),
        ("work", "[data-tab=chat]", "[data-tab=chat][aria-selected=true]"),
    ],
)
def test_a_link_opens_the_chapter_tab_or_tool_that_was_chosen(
    where: str, choose: str, shown: str, studio: Studio, page: Page, new_page: Callable[..., Page]
) -> None:
    page.goto(studio.page(where, "decoder"))
    page.locator(choose).click()
    expect(page.locator(shown)).to_be_visible()
    expect(page).to_have_url(re.compile(r"at\.\w+="))
    other = new_page()
    other.goto(page.url)
    expect(other.locator(shown)).to_be_visible()
    page.go_back()
    expect(page.locator(shown)).to_have_count(0)


def test_a_chinese_page_says_in_chinese_what_went_wrong(studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", "decoder", "the cat sat on the mat. " * 50, lang="zh"))
    alert = page.locator("main").get_by_role("alert")
    expect(alert).to_contain_text("文本太长，超过了此模型一次能读取的词元数（1200 tokens")


def test_a_text_that_is_too_long_is_said_and_can_be_shortened(studio: Studio, page: Page) -> None:
    page.goto(studio.page("tokens", "decoder", "the cat sat on the mat. " * 50))
    trouble = page.locator("main").get_by_role("alert")
    expect(trouble).to_contain_text("1200 tokens were given, but this model sees 1024 at once")
    trouble.get_by_role("button", name="Keep the first half of the text").click()
    expect(page.locator(".chip")).to_have_count(600)


def test_a_model_that_is_too_large_is_said_with_a_way_on(
    built_pages: None, tmp_path: Path, page: Page, watched: Watched
) -> None:
    cutaway.save_model(made("decoder"), tmp_path / "decoder")
    studio = start_studio(tmp_path, "--memory", "450MB")
    try:
        page.goto(studio.page("tokens", "decoder"))
        trouble = page.get_by_role("alert")
        expect(trouble).to_contain_text("more with --memory, or a smaller or quantised model")
        trouble.get_by_role("button", name="Choose another model").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        excuse(page, watched)
    finally:
        page.close()  # it would ask again
        stop_studio(studio)


def test_a_model_that_is_not_there_is_said(studio: Studio, page: Page, watched: Watched) -> None:
    page.goto(studio.page("tokens", "nothing"))
    expect(page.get_by_role("alert")).to_contain_text("nothing")
    expect(page.get_by_role("button", name="Choose another model")).to_be_visible()
    excuse(page, watched)


@pytest.mark.parametrize("model", ["decoder", "seq2seq"])
def test_code_that_is_copied_makes_the_same_result(model: str, studio: Studio, new_page: Callable[..., Page]) -> None:
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto(studio.page("tokens", model))
    page.get_by_role("button", name="Copy as code").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    code = page.evaluate("navigator.clipboard.readText()")
    assert "'the cat sat'" in code  # the text, and not its ids
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 (it is our own)
    made = names["result"]
    assert isinstance(made, TokenScores)
    assert bits(page) == pytest.approx([score for score in made.scores if score is not None], rel=1e-2)


def test_a_page_that_is_saved_opens_offline(studio: Studio, new_page: Callable[..., Page], tmp_path: Path) -> None:
    page = new_page()
    page.goto(studio.page("tokens", "decoder"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as one HTML file").first.click()
    kept = tmp_path / download.value.suggested_filename
    download.value.save_as(kept)
    assert kept.suffix == ".html"
    offline = new_page(offline=True)
    offline.goto(kept.as_uri())
    shown = offline.locator("body").inner_text()
    for score in computed(studio, "decoder", "the cat sat"):
        assert f"{score:.3g}" in shown


def test_the_frame_fits_a_phone(studio: Studio, new_page: Callable[..., Page]) -> None:
    page = new_page(viewport={"width": 390, "height": 844})
    page.goto(studio.page("tokens", "run", **{"b.step": "10"}))
    expect(page.locator(".chip")).to_have_count(22)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    model_button(page).click()
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_frame(scheme: str, studio: Studio, new_page: Callable[..., Page]) -> None:
    page = new_page(bypass_csp=True, color_scheme=scheme)
    page.goto(studio.page("tokens", "run", **{"b.step": "10"}))
    expect(page.locator(".chip")).to_have_count(22)
    assert violations(page, "landmark-unique") == []  # of two sides each has the parts of the other
    model_button(page).click()
    assert violations(page, "landmark-unique") == []
