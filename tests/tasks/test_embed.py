"""Vectors of texts: the loss against another computation, toy pairs, labels, hard negatives, grades, and reasons."""

import json
import random
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cutaway import load_model, save_model
from cutaway.errors import InputError
from cutaway.models.embedding import embed
from cutaway.tasks import TaskConfig, open_task, read_data, train_task
from cutaway.tasks.embed import Embed, Partner, label_ranks, partner_ranks, spearman
from cutaway.tasks.report.report import told
from cutaway.tasks.task import Example
from cutaway.training.objectives.contrast import Contrast, contrast_scores

TOPICS = {
    "moon": ("crater", "orbit", "eclipse", "lunar"),
    "bread": ("flour", "oven", "dough", "yeast"),
    "ships": ("sail", "harbour", "anchor", "deck"),
    "music": ("violin", "chord", "tempo", "choir"),
}
REST = ("the", "a", "one", "some", "with", "near", "before", "about")


def write_pairs(path: Path, count: int = 320) -> Path:
    """Two texts belong together where they say the same number in other words of the same topic."""
    draw = random.Random(0)
    lines = ["query\tpassage"]
    for number in range(count):
        topic = list(TOPICS.values())[number % 4]
        code = f"n{number % 40}"
        pair = [f"{draw.choice(REST)} {draw.choice(topic)} {code} {draw.choice(REST)} {number}" for _ in range(2)]
        lines.append("\t".join(pair))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("embed")
    config = TaskConfig(
        "embed", str(write_pairs(folder / "pairs.tsv")), str(folder / "model"),
        size=1, vocab_size=500, epochs=12, dropout=0.0, threads=1,
    )  # fmt: skip
    return train_task(config)


def test_partners_are_found_among_others(trained):
    assert trained.report.figures["mrr"].value > 0.95
    assert trained.report.figures["recall@1"].value > 0.9
    assert trained.report.baseline["mrr"].value > 0.5


def test_its_folder_is_an_embedding_model_of_any_tool(trained, tmp_path):
    texts = ["the crater n3 near", "one violin n8"]
    mine = np.array([answer.answer for answer in open_task(trained.folder).predict(texts)])
    model = load_model(trained.folder)
    np.testing.assert_allclose(embed(model, texts).numpy(), mine, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(mine, axis=1), 1, atol=1e-5)
    save_model(model, tmp_path / "out", format="huggingface")
    steps = [step["type"].rpartition(".")[2] for step in json.loads((tmp_path / "out" / "modules.json").read_text())]
    assert steps == ["Transformer", "Pooling", "Normalize"]
    again = load_model(tmp_path / "out")
    np.testing.assert_allclose(embed(again, texts).numpy(), mine, atol=1e-5)


def test_tokens_add_up_to_the_cosine(trained):
    text, partner = "the crater n3 near", "one lunar n3 some"
    found = trained.model.why({"text": text, "positive": partner})
    (answer,) = trained.model.predict([{"text": text, "positive": partner}])
    assert found.exact
    assert sum(found.scores) == pytest.approx(answer.more["cosine"], abs=1e-5)
    alone = trained.model.why(text)  # with itself
    assert sum(alone.scores) == pytest.approx(1, abs=1e-5)


def test_the_loss_is_multiple_negatives_ranking():
    torch.manual_seed(0)
    anchors, positives, negatives = torch.randn(5, 8), torch.randn(5, 8), torch.randn(5, 8)
    vectors = iter([anchors, positives, negatives])
    sides = {f"{side}{mask}": torch.zeros(1) for side in ("ids", "positive", "negative") for mask in ("", "_mask")}
    piece = {**sides, "groups": torch.arange(10).view(5, 2)}
    loss, count = Contrast(symmetric=False).loss(lambda ids, mask: next(vectors), piece, None)  # pyright: ignore
    by_hand = 0.0
    for i in range(5):  # cross-entropy over scale * cosines, as sentence-transformers' MultipleNegativesRankingLoss
        cosines = [20.0 * F.cosine_similarity(anchors[i], c, dim=0) for c in (*positives, *negatives)]
        by_hand += -cosines[i] + torch.stack(cosines).exp().sum().log()
    assert count == 5
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-5)
    vectors = iter([anchors, positives, negatives])
    both, _ = Contrast().loss(lambda ids, mask: next(vectors), piece, None)  # pyright: ignore
    back = sum(
        -20 * F.cosine_similarity(positives[i], anchors[i], dim=0)
        + torch.stack([20 * F.cosine_similarity(positives[i], a, dim=0) for a in anchors]).exp().sum().log()
        for i in range(5)
    )
    assert float(both) == pytest.approx((float(by_hand) + float(back)) / 2, rel=1e-5)


def test_what_belongs_together_is_no_negative():
    vectors = torch.eye(3)
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    scores = contrast_scores(vectors, torch.cat((vectors, vectors)), same, 0.5)
    assert scores.shape == (3, 6)
    assert scores[0, 1] == scores[1, 0] == -torch.inf
    assert torch.isfinite(scores[:, 3:]).all()
    assert scores[0, 0] == 2.0


def test_labels_make_partners(tmp_path):
    draw = random.Random(0)
    lines = ["text\tlabel"]
    for number in range(240):
        label = list(TOPICS)[number % 4]
        lines.append(f"{draw.choice(REST)} {draw.choice(TOPICS[label])} {draw.choice(REST)} {number}\t{label}")
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
    config = TaskConfig(
        "embed", str(tmp_path / "t.tsv"), str(tmp_path / "model"),
        size=1, vocab_size=400, epochs=10, dropout=0.0, threads=1,
    )  # fmt: skip
    assert train_task(config).report.figures["recall@1"].value > 0.95  # pyright: ignore


def test_ranks_and_correlation_by_hand():
    vectors = np.eye(3, dtype=np.float32)
    partners = np.array([[0.9, 0.1, 0], [1, 0.8, 0], [0, 0, 1]], np.float32)
    assert partner_ranks(vectors, partners, ["a", "b", "c"], ["x", "y", "z"]).tolist() == [2, 1, 1]
    assert partner_ranks(vectors, partners, ["a", "a", "c"], ["x", "y", "z"]).tolist() == [1, 1, 1]  # either is right
    assert label_ranks(np.array([[1, 0], [0.9, 0.1], [0.95, 0.0]]), ["p", "q", "p"]).tolist() == [1, 3, 1]
    scipy = import_module("scipy.stats")
    said, grades = np.random.default_rng(0).normal(size=50), np.random.default_rng(1).integers(0, 5, 50).astype(float)
    assert spearman(said, grades).figure().value == pytest.approx(scipy.spearmanr(said, grades).statistic, abs=1e-9)


def test_graded_pairs_and_rows_that_are_none(tmp_path):
    rows = [f"t{n} a\tt{n} b\t{n % 6}" for n in range(40)]
    (tmp_path / "g.tsv").write_text("sentence1\tsentence2\tscore\n" + "\n".join(rows) + "\nalone\t\t\nx\ty\thigh\n")
    data = read_data(Embed(), tmp_path / "g.tsv")
    assert len(data.aside) == 2
    assert {item.source for item in data.aside} == {f"{tmp_path / 'g.tsv'}:42", f"{tmp_path / 'g.tsv'}:43"}
    assert "graded too low" in " ".join(data.notes)
    task = Embed()
    with pytest.raises(InputError, match="nothing to tell apart"):
        task.check({"train": [Example(str(n), {"text": f"t{n}"}, Partner(label="x")) for n in range(3)]}, ())


def test_a_partner_is_told_as_its_text():
    assert told(Partner("about pasta", "about bikes")) == "about pasta"
    assert told(Partner(label="cooking")) == "cooking"
