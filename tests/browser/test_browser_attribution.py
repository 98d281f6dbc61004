"""The pages of attribution and features show what Python computes."""

from __future__ import annotations

import json

import pytest
from driving import Studio
from playwright.sync_api import Page, expect

import cutaway
from cutaway.interp import agreement, attribution_graph, counterfactual, graph_intervention, integrated_gradients
from cutaway.interp.features import feature_overview, load_features
from cutaway.interp.probes import probe
from cutaway.tasks import answer_rows

TEXT = "the cat sat"
WORDS = ["the cat", "sat on", "the mat", "a dog", "the log", "cat and dog", "mat", "on the log"]
ROWS = [
    {"text": f"{word} {'sat ' * (n % 3)}".strip(), "label": ("good", "bad")[n % 2]} for n, word in enumerate(WORDS * 3)
]
TABLE = "\n".join(["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in ROWS)])


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("+", "").replace(",", ""))


def fact(page: Page, key: str) -> float:
    found = page.locator(f'[data-fact="{key}"]').first
    expect(found).to_be_visible()
    return number(found.inner_text())


def tab(page: Page, name: str) -> None:
    page.locator(f"[data-tab={name}]").click()


@pytest.mark.parametrize("model", ["decoder", "encoder", "gru"])
def test_saliency_adds_up_as_shown(model: str, studio: Studio, page: Page) -> None:
    page.goto(studio.page("attribution", model, TEXT))
    found = integrated_gradients(cutaway.load_model(studio.folder / model), TEXT)
    assert fact(page, "value") == pytest.approx(found.value, rel=1e-3)
    assert fact(page, "gap") == pytest.approx(found.receipt.gap, rel=0.1, abs=1e-5)
    shown = [number(one) for one in page.locator("[data-saliency] .chip .score").all_inner_texts()]
    assert shown == pytest.approx([score or 0 for score in found.scores], abs=0.0051)
    assert fact(page, "sum") == pytest.approx(sum(score or 0 for score in found.scores), rel=1e-2, abs=1e-3)
    page.locator('[data-fact="value"] button').click()
    total = page.locator("[data-total]").first
    expect(total).to_be_visible()
    assert number(total.get_attribute("data-total") or "") == pytest.approx(found.value, rel=1e-3)


def test_methods_stand_beside_each_other(studio: Studio, page: Page) -> None:
    page.goto(studio.page("attribution", "decoder", TEXT))
    tab(page, "methods")
    found = agreement(cutaway.load_model(studio.folder / "decoder"), TEXT)
    assert fact(page, "mean correlation") == pytest.approx(found.figures["mean correlation"], rel=1e-3)
    shown = [number(one) for one in page.locator("[data-part=ranks] .cell").all_inner_texts()]
    assert shown == pytest.approx(found["rank correlation"].values.flatten().tolist(), abs=0.0051)


def test_a_changed_token_shows_predicted_and_actual(studio: Studio, page: Page) -> None:
    page.goto(studio.page("attribution", "decoder", TEXT))
    tab(page, "change")
    page.locator("[data-place='4'] button").click()
    page.locator(".edit input").fill("m")
    page.keyboard.press("Enter")
    found = counterfactual(cutaway.load_model(studio.folder / "decoder"), TEXT, [(4, "m")])
    assert fact(page, "before") == pytest.approx(found.before, rel=1e-3)
    assert fact(page, "after") == pytest.approx(found.after, rel=1e-3)
    shown = {key: number(page.locator(f"[data-effect={key}] .number").inner_text()) for key in ("expected", "actual")}
    assert shown["expected"] == pytest.approx(found.expected, abs=0.006)
    assert shown["actual"] == pytest.approx(found.after - found.before, abs=0.006)
    page.locator("[data-fact=after] button").click()
    total = page.locator("[data-total]").first
    expect(total).to_be_visible()
    assert number(total.get_attribute("data-total") or "") == pytest.approx(found.after, rel=1e-3)


def test_a_cell_leads_to_its_rows_and_these_to_their_saliency(studio: Studio, page: Page) -> None:
    page.goto(studio.page("attribution", "encoder", TEXT))
    tab(page, "examples")
    page.locator("#table").fill(TABLE)
    page.get_by_role("button", name="Read the table").click()
    page.get_by_role("button", name="Answer every row").click()
    model = cutaway.load_model(studio.folder / "encoder")
    found = answer_rows(model, ROWS)
    assert fact(page, "accuracy") == pytest.approx(found.figures["accuracy"], abs=1e-3)
    for truth, said, rows in found.cells:
        assert page.locator(f'[data-cell="{truth} → {said}"]').inner_text() == str(len(rows))
    truth, said, rows = max(found.cells, key=lambda cell: len(cell[2]))
    page.locator(f'[data-cell="{truth} → {said}"]').click()
    expect(page.locator("[data-row]")).to_have_count(len(rows))
    shown = [int(one.get_attribute("data-row") or "") for one in page.locator("[data-row]").all()]
    assert shown == rows
    sure = [float(one.get_attribute("data-sure") or "") for one in page.locator("[data-row] [data-sure]").all()]
    assert sure == pytest.approx([found.rows[n].probability for n in rows], abs=1e-5)
    page.locator(f"[data-row='{rows[0]}'] button").click()
    page.get_by_role("button", name=f"Why “{said}”?").click()
    expect(page.locator(".why .chip").first).to_be_visible()
    slice_ = found.slices[0]
    page.locator(f'[data-slice="{slice_.by}: {slice_.value}"]').click()
    expect(page.locator("[data-row]")).to_have_count(len(slice_.rows))


@pytest.mark.parametrize("model", ["decoder", "gru"])
def test_probes_stand_beside_their_controls(model: str, studio: Studio, page: Page) -> None:
    page.goto(studio.page("attribution", model, TEXT))
    tab(page, "probes")
    page.locator("#table").fill(TABLE)
    page.get_by_role("button", name="Read the table").click()
    page.get_by_role("button", name="Probe every layer").click()
    texts, labels = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
    wanted = probe(cutaway.load_model(studio.folder / model), texts, labels)["numbers"]
    expect(page.locator("[data-probe]")).to_have_count(len(wanted.rows))
    for column in ("held out", "control", "selectivity"):
        shown = [number(one) for one in page.locator(f'[data-column="{column}"]').all_inner_texts()]
        assert shown == pytest.approx(wanted.column(column), abs=1e-3)


def test_a_graph_is_drawn_and_a_node_is_taken_out(studio: Studio, page: Page) -> None:
    page.goto(studio.page("features", "decoder", TEXT))
    page.get_by_role("button", name="Draw the graph").click()
    found = attribution_graph(
        cutaway.load_model(studio.folder / "decoder"), TEXT, neurons=100, keep_nodes=0.7, keep_edges=0.95
    )
    nodes = found["graph"].nodes
    expect(page.locator("[data-node]")).to_have_count(len(nodes))
    assert fact(page, "through features") == pytest.approx(found.figures["through features"], rel=1e-3)
    name = next(node.name for node in nodes if ".neuron." in node.name)
    page.locator(f"[data-node='{name}']").focus()
    page.keyboard.press("Enter")
    expect(page.locator(f"[data-chosen='{name}']")).to_be_visible()
    page.get_by_role("button", name="Zero", exact=True).click()
    there = graph_intervention(found, {name: 0.0})
    shown = page.locator("[data-effect='predicted.0'] .number")
    expect(shown).to_be_visible()
    assert number(shown.inner_text()) == pytest.approx(there.predicted[0], abs=0.006)
    assert number(page.locator("[data-effect='actual.0'] .number").inner_text()) == pytest.approx(
        there.actual[0], abs=0.006
    )


def test_a_dictionary_is_trained_and_looked_at(studio: Studio, page: Page) -> None:
    page.goto(studio.page("features", "gru", TEXT))
    page.get_by_label("Texts, one a line").fill("\n".join(WORDS * 3))
    page.locator("[data-field=activation]").select_option("layers.1.hidden")
    for field, value in (("width", "16"), ("k", "4"), ("samples", "2000")):
        page.locator(f"[data-field={field}]").fill(value)
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator("[data-part=overview]")).to_be_visible()
    features = load_features(studio.folder / "features" / "gru" / "layers.1.hidden-16-top4")
    wanted = feature_overview(cutaway.load_model(studio.folder / "gru"), features, WORDS * 3)
    assert fact(page, "explained variance") == pytest.approx(wanted.figures["explained variance"], rel=1e-3)
    first = page.locator("[data-feature]").first
    assert first.get_attribute("data-feature") == json.dumps(wanted["features"].rows[0][0])
    first.locator("button").click()
    expect(page.locator("[data-context]").first).to_be_visible()
