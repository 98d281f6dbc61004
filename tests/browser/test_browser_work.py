"""The page of work shows the answers, figures and texts that Python gives, and leads on from them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from driving import Studio
from playwright.sync_api import Page, expect
from toys import made

import cutaway
from cutaway.evaluation.significance import Figure
from cutaway.tasks import TaskModel, TaskReport, open_task
from cutaway.tasks.classify import Classify
from cutaway.tasks.trained import write_task

TEXT = "the cat sat on the mat"
LABELS = ("good", "bad", "neither")


@pytest.fixture(scope="module")
def reviews(studio: Studio) -> Path:
    """A task's model in the studio's folder, with a report."""
    folder = studio.folder / "reviews"
    folder.mkdir()
    write_task(TaskModel(Classify(several="no"), made("encoder"), LABELS, {"temperature": 2.0}), folder)
    report = TaskReport("classify", "test", 40, {"accuracy": Figure(0.9, 0.8, 0.975)}, "TF-IDF",
                        {"accuracy": Figure(0.85, 0.7, 0.95)}, {"accuracy": 0.31}, trained_on=320, wrong=4)  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report.to_json()))
    return folder


def test_an_answer_is_the_tasks_models_and_leads_on(reviews: Path, studio: Studio, page: Page) -> None:
    answer = open_task(reviews).predict([TEXT])[0]
    page.goto(studio.page("work", "reviews", TEXT))
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.locator("[data-answer]")).to_have_text(str(answer.answer))
    assert answer.probability is not None
    expect(page.get_by_text(f"{100 * answer.probability:.0f} % sure")).to_be_visible()
    row = page.locator("[data-figure=accuracy]")
    expect(row).to_contain_text("0.9 [0.8, 0.975]")
    expect(row).to_contain_text("0.85 [0.7, 0.95]")
    expect(row).to_contain_text("0.31")
    page.get_by_role("button", name="Why?").click()
    expect(page.locator(".reason .chip, .reason canvas, .reason .token").first).to_be_visible()
    page.locator("[data-goes=attribution]").click()
    for part in ("page=attribution", "model=reviews", f"token={answer.answer}"):
        expect(page).to_have_url(re.compile(part))


def test_a_task_without_a_model_says_how_to_make_one(reviews: Path, studio: Studio, page: Page) -> None:
    page.goto(studio.page("work", "reviews", TEXT))
    page.get_by_role("tab", name="Translate").click()
    expect(page.locator("[data-command]")).to_have_text(
        "cutaway task train translate --data examples.csv --out translate-model"
    )
    expect(page.get_by_text("needs the columns: source, target")).to_be_visible()


def test_a_text_is_gone_on_with_and_each_token_explained(studio: Studio, page: Page) -> None:
    page.goto(studio.page("work", "decoder", TEXT))
    page.get_by_label("Tokens at most").fill("5")
    page.get_by_role("button", name="Write", exact=True).click()
    model = cutaway.load_model(studio.folder / "decoder")
    written = cutaway.generate(model, TEXT, max_new_tokens=5, temperature=0.0)
    expect(page.locator("[data-written] .said")).to_have_text(written.text.strip(), use_inner_text=True)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("[data-goes=lens]")).to_be_visible()
    expect(page.locator("[data-written] .computed")).to_contain_text("integrated gradients")
