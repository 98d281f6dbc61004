"""A linear model on n-grams: its n-grams and values are scikit-learn's, and it answers by plain arrays alone."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from cutaway.tasks.words import fit_words, vectors, weights_of, words_of

TEXTS = [
    "The staff was rude, and the room  cold.", "A lovely room; lovely staff!", "Cold food. Rude waiters", "I ate a b c",
    "Rooms were lovely and warm", "So cold, so rude", "Warm food and a lovely view", "x",
]  # fmt: skip
TRUE = np.array([0, 1, 0, 2, 1, 0, 1, 2])
CHINESE = ["房间很冷，服务很差", "房间很好，服务热情", "早餐很差", "位置很好"]


@pytest.mark.parametrize(
    ("kind", "peer"),
    [
        ("w", TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")),
        ("l", TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5))),
        ("h", TfidfVectorizer(sublinear_tf=True, analyzer="char", ngram_range=(1, 4))),
    ],
)
def test_n_grams_and_their_values_are_scikit_learns(kind, peer):
    texts = CHINESE if kind == "h" else TEXTS
    matrix = peer.fit_transform(texts).toarray()
    names = [kind + name for name in peer.get_feature_names_out()]
    place = {name: number for number, name in enumerate(names)}
    for row, (numbers, values) in zip(matrix, vectors(texts, place, peer.idf_.astype(np.float32), kind), strict=True):
        made = np.zeros(len(names))
        made[numbers] = values
        assert made == pytest.approx(row, abs=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_probabilities_are_those_of_scikit_learns_pipeline(count: int):
    texts, true = ([t for t, y in zip(TEXTS, TRUE, strict=True) if y < count], TRUE[count > TRUE])
    made = fit_words(texts, true, count)
    makers = [
        TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5)),
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b"),
    ]
    matrix = np.concatenate([maker.fit_transform(texts).toarray() for maker in makers], axis=1)
    peer = LogisticRegression(C=10.0, max_iter=1000).fit(matrix, true).predict_proba(matrix)
    ours = torch.from_numpy(made.logits(texts)).softmax(-1).numpy()
    assert ours == pytest.approx(peer, abs=2e-3)  # weights are kept in half precision


def test_several_labels_are_asked_one_by_one_and_one_that_nobody_has_is_never_said():
    targets = np.stack([TRUE == 0, TRUE == 1, np.zeros(len(TRUE))], axis=1).astype(np.float32)
    logits = fit_words(TEXTS, targets, 3).logits(TEXTS)
    assert ((logits > 0) == (targets > 0)).all()


def test_a_file_keeps_it(tmp_path):
    made = fit_words(CHINESE, np.array([0, 1, 0, 1]), 2)
    save_file(made.tensors(), tmp_path / "kept.safetensors")
    again = words_of(load_file(tmp_path / "kept.safetensors"))
    assert (again.logits(CHINESE) == made.logits(CHINESE)).all()
    assert again.grams == made.grams


@pytest.mark.parametrize("several", [False, True])
def test_weights_of_parts_make_the_truth_likeliest(several: bool):
    draw = torch.Generator().manual_seed(0)
    parts = torch.randn(400, 2, 3, generator=draw)
    logits = 0.5 * parts[:, 0] + 1.5 * parts[:, 1]
    if several:
        true = (torch.rand(400, 3, generator=draw) < logits.sigmoid()).float()
    else:
        true = logits.softmax(-1).multinomial(1, generator=draw)[:, 0]
    found = weights_of(parts, true, several=several)
    assert found == pytest.approx([0.5, 1.5], abs=0.25)

    def loss(a: float, b: float) -> float:
        mixed = a * parts[:, 0] + b * parts[:, 1]
        if several:
            return float(torch.nn.functional.binary_cross_entropy_with_logits(mixed, true))
        return float(torch.nn.functional.cross_entropy(mixed, true))

    grid = [(a, b) for a in np.linspace(0.1, 2.5, 25) for b in np.linspace(0.1, 2.5, 25)]
    assert loss(*found) <= min(loss(a, b) for a, b in grid) + 1e-4
