"""Saved pages of every kind of result, opened from the disk without a network, show what Python computed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe import violations
from driving import Watched
from playwright.sync_api import Locator, Page, expect
from toys import SOURCE, TEXT, made

from cutaway.evaluation.significance import Figure
from cutaway.interp import (
    Graph,
    Matrix,
    Panel,
    Table,
    attention,
    attention_overview,
    chances,
    generation_tree,
    ledger,
    logit_lens,
    look,
    surprisal,
)
from cutaway.interp.results import Curve, Edge, Node, Result
from cutaway.tasks.report import TaskReport
from cutaway.tasks.report.report import Calibration, Miss, Slice

pytestmark = pytest.mark.usefixtures("built_pages")
Open = Callable[..., Page]


@pytest.fixture
def opened(new_page: Callable[..., Page], watched: Watched, tmp_path: Path) -> Open:
    """Saves a page and opens it, offline."""

    def do(saved: Any, **options: object) -> Page:
        path = tmp_path / "saved.html"
        path.write_text(saved.to_html(), "utf-8")
        page = new_page(**{"offline": True, "locale": "en-US", **options})
        page.goto(path.as_uri())
        expect(page.locator("footer")).to_be_visible()
        assert watched.requests == [path.as_uri()]
        watched.requests.clear()
        return page

    return do


def numbers(text: str) -> list[float]:
    return [float(found.replace("−", "-").replace(",", "")) for found in re.findall(r"[-−+]?[\d,]*\.?\d+", text)]


def values(places: Locator, name: str = "value") -> list[float]:
    """The numbers that places hold."""
    return [float(str(one.get_attribute(f"data-{name}"))) for one in places.all()]


def test_a_look_has_all_its_parts(opened: Open) -> None:
    seen = look(made("decoder"), TEXT, layer=1, head=2)
    page = opened(seen)
    expect(page.locator("h1")).to_have_text("decoder")
    titles = ["Surprisal", "What comes next", "Ledger", "Attention", "Every head", "Layer 1, head 2", "Lens"]
    assert page.locator("h2").all_inner_texts() == titles
    chips = page.locator("[data-picture=scores] .chip .score")
    assert seen.surprisal
    shown = [numbers(text) for text in chips.all_inner_texts()]
    assert shown[0] == []
    expected = [score for score in seen.surprisal.scores if score is not None]
    assert [x for (x,) in shown[1:]] == pytest.approx(expected, rel=6e-3)
    assert values(page.locator("[data-mean]"), "mean") == [pytest.approx(seen.surprisal.mean)]
    assert values(page.locator("[data-picture=next] tr")) == [share for _, share in seen.likeliest]
    footer = page.locator("footer").first
    expect(footer).to_contain_text("recorded − plain run: 0")
    footer.locator("summary").click()
    expect(footer.locator("pre")).to_contain_text("look(model")


def test_terms_of_a_ledger_unfold(opened: Open) -> None:
    found = ledger(made("decoder"), TEXT)
    page = opened(found)
    assert float(str(page.locator("[data-total]").get_attribute("data-total"))) == found.total
    level = page.locator("[data-level='']")
    top = found.top(12)
    shown = [one.get_attribute("data-term") for one in level.locator(":scope > ul > li > [data-term]").all()]
    assert shown == [term.name for term in top]
    assert values(level.locator(":scope > ul > li > [data-term]")) == [term.value for term in top]
    opening = next(term.name for term in top if term.opens)
    level.locator(f"[data-term='{opening}']").click()
    below = page.locator(f"[data-level='{opening}']")
    assert values(below.locator("[data-total]"), "total") == [pytest.approx(found[opening].value)]
    assert values(below.locator(":scope > ul > li > [data-term]"))[0] == found.expand(opening).top(1)[0].value
    assert below.locator("button[data-term]").count() == 0  # nothing below it is in the page
    level.locator(f"[data-term='{opening}']").click()
    expect(below).to_have_count(0)
    cells = page.locator("[data-place]")
    expect(cells).to_have_count(3 * 5)
    cells.first.focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("[data-level='layers.1.head.1']")).to_be_visible()
    expect(page.locator("[data-term='layers.1.head.1']")).to_be_focused()


@pytest.mark.parametrize("analysis", [attention, attention_overview])
def test_attention_shows_each_head_and_row(analysis: Callable[..., Any], opened: Open) -> None:
    model = made("decoder")
    found = attention(model, TEXT)
    page = opened(analysis(model, TEXT))
    layer, head = found.shown
    expect(page.get_by_role("heading", name=f"Layer {layer}, head {head}")).to_be_visible()
    page.get_by_role("application", name=re.compile(r"3 layers × 4 heads")).focus()
    page.keyboard.press("End")
    expect(page.get_by_role("heading", name="Layer 2, head 3")).to_be_visible()
    rows = page.locator("tr[data-key]")
    pattern = found.patterns[2, 3, -1]
    keys = [int(str(one.get_attribute("data-key"))) for one in rows.all()]
    assert keys == pattern.argsort(descending=True).tolist()[: len(keys)]
    shown = [numbers(text)[0] for text in rows.locator("[data-way=weight]").all_inner_texts()]
    assert shown == pytest.approx(pattern[keys].tolist(), abs=6e-5)
    assert rows.locator("button").count() == 0  # no ledger is in the page
    page.get_by_role("button", name="Previous query").click()
    expect(page.get_by_text(f"position {len(TEXT) - 2} of {len(TEXT)}")).to_be_visible()


def test_the_last_tokens_of_a_long_text_keep_their_places(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cutaway.interp.pictures.page.ATTENTION_BYTES", 2 * 12 * 200)
    found = attention(made("decoder"), TEXT)
    page = opened(found)
    first = found.page_data()["first"]
    expect(page.get_by_text(f"The last {len(TEXT) - first} of {len(TEXT)} tokens.")).to_be_visible()
    expect(page.get_by_text(f"position {len(TEXT) - 1} of {len(TEXT)}")).to_be_visible()
    layer, head = found.shown
    top = page.locator("tr[data-key]").first
    best = int(found.patterns[layer, head, -1, first:].argmax())
    expect(top.locator("td").first).to_have_text(str(first + best))


def test_a_lens_tells_each_cell(opened: Open) -> None:
    found = logit_lens(made("decoder"), "the cat sat", top=3)
    page = opened(found)
    table = page.get_by_role("img", name=re.compile("4"))
    table.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    row, column = len(found.layers) - 2, len(found.tokens) - 2
    heard = page.locator(".hidden-words[role=status]")
    expect(heard).to_contain_text(f"entropy {float(found.entropies[row, column]):.2f} bits")
    for key in ("rank", "entropy"):
        page.get_by_role("button", name=key, exact=True).click()
        expect(page.get_by_role("button", name=key, exact=True)).to_have_attribute("aria-pressed", "true")


def test_chances_and_what_drawing_leaves(opened: Open) -> None:
    found = chances(made("decoder"), TEXT, shown=8, top_k=3)
    page = opened(found)
    rows = page.locator("tr[data-token]")
    shown = [numbers(text) for text in rows.locator("td:nth-child(3)").all_inner_texts()]
    expected = [100 * one.share for one in found.candidates]
    assert [x for (x,) in shown[: len(expected)]] == pytest.approx(expected, abs=0.06)
    assert rows.locator("button").count() == 0
    expect(page.get_by_text(f"{found.entropy:.2f} bits of surprise are to be expected")).to_be_visible()
    expect(page.get_by_text("top_k 3 leaves 3 tokens")).to_be_visible()


def test_a_panel_of_numbers_and_pictures(opened: Open) -> None:
    model = made("decoder")
    scores = surprisal(model, TEXT)
    receipt = scores.receipt
    values_ = attention(model, TEXT).patterns[0, 0] - 0.2
    nodes = [Node("a", "in", 0.5, 0), Node("b", "out", -0.25, 1)]
    parts: dict[str, Result] = {
        "effects": Matrix("effect", "share", list(TEXT), list(TEXT), values_, "row", "column", receipt=receipt),
        "losses": Curve("loss", "step", "nats", [0, 1, 2], {"train": [3.5, None, 1.25]}, receipt=receipt),
        "words": Table("words", ["word", "count"], [["b", 2], ["a", 1.5], ["<c>", None]], receipt=receipt),
        "circuit": Graph("circuit", "logits", nodes, [Edge("a", "b", 0.75)], receipt=receipt),
        "ways on": generation_tree(model, "the cat", depth=2, width=2),
        "surprise": scores,
    }
    page = opened(Panel("all of them", parts, ["A note."], {"figure": 0.123}, receipt=receipt))
    expect(page.locator("h1")).to_have_text("all of them")
    assert page.locator("h2.part").all_inner_texts() == list(parts)
    expect(page.get_by_text("0.123")).to_be_visible()
    largest = parts["effects"].top(8)  # pyright: ignore[reportAttributeAccessIssue]
    rows = [numbers(text)[-1] for text in page.locator("table.plain").first.locator("tbody tr").all_inner_texts()]
    assert rows == pytest.approx([value for *_, value in largest], abs=6e-4)
    table = page.get_by_role("table", name="words")
    assert [row.split("\t") for row in table.locator("tbody tr").all_inner_texts()] == [
        ["b", "2"], ["a", "1.5"], ["<c>", "–"],
    ]  # fmt: skip
    table.get_by_role("button", name="count").click()
    assert [row.split("\t")[0] for row in table.locator("tbody tr").all_inner_texts()] == ["b", "a", "<c>"]
    curve = page.get_by_role("img", name="loss")
    curve.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("status").filter(has_text="nats")).to_contain_text("train 1.25")
    expect(page.locator("[data-node]")).to_have_count(2)
    root = parts["ways on"].root  # pyright: ignore[reportAttributeAccessIssue]
    shown = page.get_by_role("group", name=parts["ways on"].what).locator(".box .number")  # pyright: ignore[reportAttributeAccessIssue]
    assert numbers(shown.first.inner_text())[0] / 100 == pytest.approx(root.branches[0].share, abs=6e-3)


def report() -> TaskReport:
    """A report with all that a page of one shows."""
    table = ("Confusion: true label by answer", ["", "good", "bad"], [["good", 7, 3], ["bad", 1, 9]])
    why = surprisal(made("decoder"), "the cat sat")
    return TaskReport(
        "classify", "test", 20, {"accuracy": Figure(0.8, 0.6, 0.95), "macro_f1": Figure(0.79, 0.55, 0.93)},
        baseline_name="the commonest", baseline={"accuracy": Figure(0.5, 0.3, 0.7)}, p_values={"accuracy": 0.01},
        tables=(table, ("By label", ["label", "recall"], [["good", 0.7], ["bad", 0.9]])),
        calibration=Calibration("answers", 20, 0.2, 0.1, 1.5, ((0.75, 0.5, 8), (0.95, 0.9, 12)), ((0.65, 0.6, 20),)),
        slices=(Slice("length", "1 to 9 characters", 12, Figure(0.75, 0.5, 0.9), 0.4),), wrong=2,
        misses=(Miss("t.csv:3", {"text": "the cat sat"}, "bad", "good", 0.97, 0.0, why),
                Miss("t.csv:9", {"text": "</script>"}, "good", "bad", 0.6, 0.0, None)),
    )  # fmt: skip


def test_a_tasks_report(opened: Open) -> None:
    found = report()
    page = opened(found)
    expect(page.locator("h1")).to_have_text("classify: test")
    titles = [
        "Figures",
        "Confusion",
        "Does it know how sure it is?",
        "By label",
        "Where it is weak",
        "The worst errors",
    ]
    assert page.locator("h2").all_inner_texts() == titles
    assert values(page.locator("[data-picture=intervals]").first.locator("tr")) == [0.8, 0.5, 0.79]
    expect(page.locator("[data-picture=intervals]").first).to_contain_text("0.600 to 0.950")
    cells = {str(c.get_attribute("data-cell")): c.inner_text() for c in page.locator("[data-cell]").all()}
    assert cells == {"good → good": "7", "good → bad": "3", "bad → good": "1", "bad → bad": "9"}
    calibration = page.locator("[data-picture=reliability]")
    expect(calibration.locator("circle")).to_have_count(3)
    assert numbers(calibration.locator("tbody tr").inner_text()) == [65, 60, 20]
    misses = page.locator("[data-source]")
    assert [str(one.get_attribute("data-source")) for one in misses.all()] == ["t.csv:3", "t.csv:9"]
    expect(misses.first.locator(".chip")).to_have_count(11)
    expect(misses.nth(1)).to_contain_text("</script>")


@pytest.mark.parametrize("kind", ["gru", "encoder", "masked", "seq2seq"])
def test_other_kinds_of_models_have_their_looks(kind: str, opened: Open) -> None:
    seen = look(made(kind), TEXT, source=SOURCE if kind == "seq2seq" else None)
    page = opened(seen)
    titles = page.locator("[data-picture] > h2").all_inner_texts()
    wanted = {"gru": "What comes next", "seq2seq": "What comes next"}.get(kind, "What it answers")
    assert wanted in titles
    assert ("Cross-attention" in titles) == ("Encoder attention" in titles) == (kind == "seq2seq")
    assert values(page.locator("[data-picture=next] tr")) == [share for _, share in seen.likeliest]
    assert page.get_by_text("What is not here").count() == bool(seen.missing)
    for sentence in seen.missing:
        expect(page.get_by_text(sentence)).to_be_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_is_legible_in_both_languages_and_schemes(width: int, scheme: str, opened: Open) -> None:
    more = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "bypass_csp": True}
    for saved in (look(made("decoder"), TEXT), report()):
        page = opened(saved, locale="zh-CN", **more)
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        page.get_by_role("button", name="English").click()
        expect(page.locator("html")).to_have_attribute("lang", "en")
        expect(page.locator("html")).to_have_attribute("data-theme", scheme)
        assert violations(page, "landmark-one-main", "region") == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_nothing_in_it_may_ask_anyone(opened: Open, watched: Watched) -> None:
    page = opened(surprisal(made("decoder"), TEXT))
    tries = ["fetch('http://127.0.0.1:9/')", "import('data:text/javascript,1')"]
    failed = [page.evaluate(f"{one}.then(() => 'asked', () => 'refused')") for one in tries]
    assert failed == ["refused", "refused"]
    assert any("Content Security Policy" in error for error in watched.errors)
    watched.errors.clear()
    watched.requests.clear()


def test_it_opens_in_a_notebooks_frame(new_page: Callable[..., Page], tmp_path: Path) -> None:
    found = surprisal(made("decoder"), TEXT)
    (tmp_path / "notebook.html").write_text(f"<!doctype html><body>{found._repr_html_()}", "utf-8")
    page = new_page(offline=True)
    page.goto((tmp_path / "notebook.html").as_uri())
    expect(page.frame_locator("iframe").locator(".chip")).to_have_count(len(TEXT))
