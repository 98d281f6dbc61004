"""Classification on toy data, from fresh weights, with its report, its calibration and its reasons."""

import json
import random
from pathlib import Path

import pytest

from cutaway.errors import InputError
from cutaway.tasks import TaskConfig, open_task, train_task

GOOD, BAD = ("lovely", "splendid", "charming", "superb"), ("dreadful", "awful", "boring", "rotten")
REST = ("the", "film", "was", "a", "story", "with", "music", "and", "actors", "tonight")


def write_reviews(path: Path, count: int = 400, seed: int = 0) -> Path:
    """A table in which one word says the label."""
    draw = random.Random(seed)
    lines = ["text\tlabel"]
    for number in range(count):
        words = [draw.choice(REST) for _ in range(draw.randint(3, 9))]
        words.insert(draw.randint(0, len(words)), draw.choice((GOOD, BAD)[number % 2]))
        lines.append(f"{' '.join(words)} {number}\t{('good', 'bad')[number % 2]}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("classify")
    config = TaskConfig(
        "classify",
        str(write_reviews(folder / "reviews.tsv")),
        str(folder / "model"),
        size=1,
        vocab_size=400,
        epochs=20,
        dropout=0.0,
        threads=1,
    )
    return train_task(config)


def test_it_learns_and_beats_nothing_less_than_95_per_cent(trained):
    assert trained.report.figures["accuracy"].value > 0.95
    assert trained.report.baseline["accuracy"].value > 0.9  # words alone say it
    answers = trained.model.predict(["the film was superb", "a story with dreadful music"])
    assert [answer.answer for answer in answers] == ["good", "bad"]
    assert all(0.5 <= answer.probability <= 1 for answer in answers)


def test_its_folder_opens_and_answers_the_same(trained):
    again = open_task(trained.folder)
    texts = ["the film was superb", "rotten and boring actors"]
    assert [a.to_json() for a in again.predict(texts)] == [a.to_json() for a in trained.model.predict(texts)]
    assert json.loads((trained.folder / "report.json").read_text())["examples"] == trained.report.examples


def test_the_word_that_says_it_is_the_reason(trained):
    found = trained.model.why("the film was superb and a story")
    assert max(zip(found.scores, found.tokens, strict=True))[1].strip() == "superb"


def test_an_input_that_is_none_is_told(trained):
    with pytest.raises(InputError, match="input 2: the text is empty"):
        trained.model.predict(["a film", " "])
