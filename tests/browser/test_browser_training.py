"""From a text file to a trained model, in the browser: its lines live, its steps opened in another page."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from driving import Studio
from playwright.sync_api import Page, expect

import cutaway
from cutaway.interp import surprisal
from cutaway.training.metrics import read_metrics

SOON = 90_000  # ms that a loaded machine may take


def test_a_text_file_becomes_a_model_whose_steps_open_in_other_pages(
    studio: Studio, page: Page, tmp_path: Path
) -> None:
    draw = random.Random(3)
    words = ["".join(draw.choice("abcdefgh") for _ in range(draw.randint(2, 7))) for _ in range(300)]
    text = ". ".join(" ".join(draw.choice(words) for _ in range(9)).capitalize() for _ in range(800))
    (tmp_path / "My story.txt").write_text(text, "utf-8")
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\xff\xfe")

    page.goto(studio.page("training", "decoder"))
    page.get_by_role("button", name="New training").click()
    file = page.get_by_label("Text files")
    file.set_input_files(tmp_path / "picture.txt")
    expect(page.get_by_role("alert")).to_contain_text("picture.txt is no text in UTF-8")
    file.set_input_files(tmp_path / "My story.txt")
    expect(page.get_by_label("Name")).to_have_value("My-story")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_label("Vocabulary (tokens)")).to_have_value("512")
    page.get_by_label("Size").fill("1")
    page.get_by_label("Context (tokens)").fill("32")
    page.get_by_label("minutes", exact=True).fill("0.25")
    page.get_by_label("Clean the text first").uncheck()
    page.get_by_role("button", name="Train", exact=True).click()

    status = page.locator(".state [role=status]")
    expect(status).to_contain_text("step", timeout=SOON)
    expect(page.get_by_role("button", name="Stop and save")).to_be_visible()
    expect(page.get_by_role("img", name="Loss, nats per token")).to_be_visible(timeout=SOON)
    expect(status).to_contain_text("finished", timeout=SOON)

    run = studio.folder / "trainings" / "My-story"
    records = read_metrics(run)
    valid = [one["valid_loss"] for one in records if "valid_loss" in one]
    shown = page.locator("figcaption", has_text="Loss").first.locator("output").all_inner_texts()
    assert float(shown[1]) == float(f"{valid[-1]:.4g}")
    expect(page.locator("blockquote").first).to_have_text([one["sample"] for one in records if "sample" in one][-1])

    steps = sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").iterdir())
    slider = page.get_by_label("Saved step", exact=True)
    for key, step in (("Home", steps[0]), ("End", steps[-1])):
        slider.focus()
        page.keyboard.press(key)
        page.locator('[data-open="tokens"]').click()
        chips = page.locator(".chip .score")
        model = cutaway.load_model(run / "checkpoints" / f"step-{step:08d}")
        found = [score for score in surprisal(model, "the cat sat").scores if score is not None]
        expect(chips).to_have_count(len(found) + 1, timeout=SOON)
        numbers = [float(one) for one in chips.all_inner_texts() if one != "–"]
        assert numbers == pytest.approx(found, rel=1e-2)
        page.go_back()
        expect(slider).to_be_visible(timeout=SOON)


def test_a_training_that_fails_says_why_and_what_to_do(studio: Studio, page: Page, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("so few words", "utf-8")
    page.goto(studio.page("training", "decoder"))
    page.get_by_role("button", name="New training").click()
    page.get_by_label("Text files").set_input_files(tmp_path / "short.txt")
    page.get_by_label("Clean the text first").uncheck()
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator(".state [role=status]")).to_contain_text("failed", timeout=SOON)
    alert = page.locator(".state").get_by_role("alert")
    expect(alert).to_contain_text("too little text")
    expect(alert).to_contain_text("Choose another")
    page.get_by_role("button", name="New training").click()
    expect(page.get_by_label("Text files")).to_be_visible()
