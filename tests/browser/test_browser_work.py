"""The page of work shows the answers, figures and texts that Python gives, and leads on from them."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from driving import Studio, Watched
from playwright.sync_api import Page, expect
from toys import made

import cutaway
from cutaway.evaluation.significance import Figure
from cutaway.generation import Conversation, Engine
from cutaway.tasks import TaskModel, TaskReport, open_task, stored_report, task_config, train_task
from cutaway.tasks.classify import Classify
from cutaway.tasks.trained import write_task

TEXT = "the cat sat on the mat"
LABELS = ("good", "bad", "neither")


def rows(task: str) -> list[dict[str, Any]]:
    """A toy table of a task: names, a question and a sentence with its answer (in Chinese), numbers in German …"""
    draw, made = random.Random(0), []
    for number in range(160 if task == "tag" else 60):
        who, town = draw.choice(("Ada", "Bo", "Cy")), draw.choice(("Rome", "Oslo", "Lima"))
        if task == "tag":
            words = [who, "Kahn", draw.choice(("met", "saw")), "friends", "in", town]
            made.append({"tokens": words, "tags": ["B-PER", "I-PER", "O", "O", "O", "B-LOC"]})
        elif task == "pair":
            second, label = ((who, "same"), (town, "not"))[number % 2]
            made.append({"sentence1": f"{who} {number}", "sentence2": second, "label": label})
        elif task == "embed":
            made.append({"query": f"{who} {number}", "passage": f"about {who} in {number}"})
        elif task == "answer":
            who, town = draw.choice(("小明", "李雷")), draw.choice(("北京", "上海"))
            asked, said = draw.choice((("谁？", who), ("哪里？", town)))
            made.append({"question": asked, "context": f"{who}在{town}，第{number}次。", "answer": said})
        elif task == "translate":
            said = [draw.choice((("one", "eins"), ("two", "zwei"), ("cat", "Katze"))) for _ in range(3)]
            made.append({"source": " ".join(a for a, _ in said), "target": " ".join(b for _, b in said)})
        else:
            texts = [f"{who} sat on the mat {number}.", "It rained.", "Nobody knew why."]
            made.append({"document": " ".join(draw.sample(texts, 3)), "summary": texts[0]})
    return made


FOLDERS = {
    "tag": "names",
    "pair": "pairs",
    "embed": "near",
    "answer": "问答",
    "translate": "german",
    "summarise": "sums",
}


def trained(task: str, folder: Path, data: Path) -> None:
    """A model of a task in its folder, trained as a user would, for a second."""
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(task)), "utf-8")
    small = {"size": 1, "vocab_size": 300, "context": 48, "network": {"width": 16, "heads": 2}, "batch": 16}
    train_task(task_config({"task": task, "data": str(data), "out": str(folder / FOLDERS[task]), **small, "epochs": 6}))


@pytest.fixture(scope="module")
def tasks(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studio's folder, with a small model of every task."""
    data = tmp_path_factory.mktemp("tables")
    for task, name in FOLDERS.items():
        if not (studio.folder / name).exists():
            trained(task, studio.folder, data / f"{task}.jsonl")
    return studio.folder


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


def test_a_task_without_a_model_says_how_to_make_one_and_lists_it_when_it_is_made(
    reviews: Path, studio: Studio, page: Page, tmp_path: Path
) -> None:
    page.goto(studio.page("work", "reviews", TEXT))
    page.get_by_role("tab", name="Translate").click()
    expect(page.locator("[data-command]")).to_have_text(
        "cutaway task train translate --data examples.csv --out translate-model"
    )
    expect(page.get_by_text("needs the columns: source, target")).to_be_visible()
    trained("translate", studio.folder, tmp_path / "table.jsonl")
    page.get_by_role("button", name="Look again").click()
    expect(page.get_by_role("tabpanel").get_by_label("Model")).to_have_value("german")
    expect(page.get_by_label("Text to translate")).to_be_visible()


GIVEN = {
    "Tag": ("names", {"Text": "Ada Kahn met friends in Oslo"}),
    "Pair": ("pairs", {"First text": "Bo 3", "Second text": "Rome"}),
    "Answer": ("问答", {"Question": "哪里？", "Text that holds the answer": "李雷在北京，第3次。"}),
    "Translate": ("german", {"Text to translate": "two one cat"}),
    "Summarise": ("sums", {"Text": "It rained. Ada sat on the mat 5. Nobody knew why.", "Title, if it has one": ""}),
}
ALONE = ("Tag", "Translate")  # they read one text as other pages do


def shown_numbers(page: Page) -> list[float]:
    """The numbers under the chips of a reason."""
    return [float(said.replace("−", "-")) for said in page.locator(".reason .chip .score").all_inner_texts()]


@pytest.mark.parametrize("panel", list(GIVEN))
def test_a_panel_shows_what_python_says_and_why(panel: str, tasks: Path, studio: Studio, page: Page) -> None:
    name, given = GIVEN[panel]
    model = open_task(tasks / name)
    example = dict(zip((role.name for role in model.task.roles), given.values(), strict=False))
    answer = model.predict([example])[0]
    page.goto(studio.page("work", name))
    expect(page.get_by_role("tab", name=panel, exact=True)).to_have_attribute("aria-selected", "true")
    for label, text in given.items():
        page.get_by_role("tabpanel").get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Answer", exact=True).click()
    said = page.locator("[data-answer]")
    if panel == "Tag":
        assert answer.answer  # it has learned to find some
        spans = [f"{span['text']} {span['label']}" for span in answer.answer]
        expect(said.locator(".span")).to_have_text(spans, use_inner_text=True)
    else:
        nothing = "The text holds no answer." if panel == "Answer" else "nothing found"
        expect(said).to_have_text(answer.answer or nothing, use_inner_text=True)
    assert answer.probability is not None
    expect(page.get_by_text(re.compile(rf"^{100 * answer.probability:.0f} % sure"))).to_be_visible()
    if panel == "Answer" and answer.answer:
        expect(page.locator("[data-passage] mark")).to_have_text(answer.answer)
    for number, sentence in enumerate(answer.more.get("sentences", ())):
        quotes = [one["quote"] for one in sentence["support"]]
        expect(page.locator("[data-support]").nth(number).locator("q")).to_have_text(quotes)

    page.get_by_role("button", name="Why?").click()
    reason = model.why(example)
    expect(page.locator(".reason")).to_contain_text(reason.target)
    assert shown_numbers(page) == pytest.approx(reason.scores, abs=0.0051)
    for figure in stored_report(tasks / name).figures:
        measured = page.locator(f"[data-figure='{figure.name}']")
        expect(measured).to_contain_text(f"{float(f'{figure.figure.value:.4g}'):g}")
    if panel not in ALONE:
        expect(page.get_by_text("The other pages read one text as it stands")).to_be_visible()
        expect(page.locator("[data-goes]")).to_have_count(0)
        return
    page.locator("[data-goes=attribution]").click()
    expect(page.get_by_label("Position")).to_have_value(str(reason.position))
    if panel == "Tag":
        expect(page.get_by_role("heading", name=reason.target)).to_be_visible()


def test_texts_are_ordered_by_the_cosines_of_python(tasks: Path, studio: Studio, page: Page) -> None:
    texts = ["about Ada in 3", "你好", "about Bo in 7"]
    model = open_task(tasks / "near")
    vectors = [torch.tensor(one.answer) for one in model.predict([{"text": text} for text in ("Bo 7", *texts)])]
    near = {
        text: float(torch.cosine_similarity(vectors[0], one, 0)) for text, one in zip(texts, vectors[1:], strict=True)
    }
    page.goto(studio.page("work", "near", "Bo 7"))
    page.get_by_label("Texts to order").fill("\n".join([*texts, texts[0], ""]))
    page.get_by_role("button", name="Answer", exact=True).click()
    best = sorted(texts, key=lambda text: -near[text])
    hits = page.locator("[data-hit]")
    expect(hits).to_have_count(3)
    for place, text in enumerate(best):
        expect(hits.nth(place)).to_contain_text(f"{near[text]:.3f}".replace("-", "−"))
        expect(hits.nth(place)).to_contain_text(text)
    hits.first.get_by_role("button", name="Why?").click()
    reason = model.why({"text": "Bo 7", "positive": best[0]})
    expect(page.locator(".reason .chip")).to_have_count(len(reason.scores))
    assert shown_numbers(page) == pytest.approx(reason.scores, abs=0.0051)
    page.locator("[data-goes=tokens]").click()
    assert best[0] in page.get_by_label("Text", exact=True).input_value()  # what the reason is about


def test_what_cannot_be_answered_is_said_in_words(tasks: Path, studio: Studio, page: Page, watched: Watched) -> None:
    page.goto(studio.page("work", "names"))
    text, ask = (
        page.get_by_role("tabpanel").get_by_label("Text", exact=True),
        page.get_by_role("button", name="Answer", exact=True),
    )
    text.fill("  ")
    expect(ask).to_be_disabled()
    text.fill("\u200b")  # nobody sees it
    ask.click()
    expect(page.get_by_role("alert")).to_contain_text("the text is empty")
    page.get_by_role("tab", name="Complete").click()
    expect(page.get_by_text("There is no model that writes yet")).to_be_visible()
    watched.errors.clear()  # a refusal is one


def test_a_conversation_goes_on(studio: Studio, page: Page) -> None:
    page.goto(studio.page("work", "decoder", "the cat"))
    page.get_by_role("tab", name="Chat").click()
    page.get_by_label("Tokens at most").fill("4")
    page.get_by_role("button", name="Send").click()
    talk = Conversation(Engine(cutaway.load_model(studio.folder / "decoder")), format="plain", max_new_tokens=4,
                        sampling={"temperature": 0.0})  # fmt: skip
    said = page.locator("[data-written] .said")
    expect(said).to_have_count(1)
    assert said.inner_text().strip() == "".join(token.text for token in talk.say("the cat")).strip()
    page.get_by_label("Message").fill("a mat")
    page.get_by_role("button", name="Send").click()
    expect(said).to_have_count(2)
    assert said.last.inner_text().strip() == "".join(token.text for token in talk.say("a mat")).strip()


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
