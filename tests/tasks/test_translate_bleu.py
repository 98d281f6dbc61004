"""BLEU and chrF against sacrebleu, of whole corpora and of every resample."""

import random

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from cutaway.evaluation.significance import resampled_sums
from cutaway.tasks.translate.bleu import bleu, chrf, signature, tokenizer_for
from cutaway.tasks.translate.memory import nearest

PIECES = {
    "13a": ["a", "dog's", "runs,", "(red)", "3.5", "the", "The", "sea.", "&quot;", "don't", "ball", "U.S."],
    "zh": ["我", "喜欢", "猫", "，", "hello", "2.5", "很", "不", "是", "。", "Tom"],
}


def corpus(tokenize: str, seed: int, count: int = 40) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    space = " " if tokenize == "13a" else ""
    true = [[draw.choice(PIECES[tokenize]) for _ in range(draw.randint(1, 14))] for _ in range(count)]
    said = [[draw.choice(PIECES[tokenize]) if draw.random() < 0.3 else word for word in row] for row in true]
    said = [row[: draw.randint(0, len(row))] if draw.random() < 0.2 else row for row in said]
    return [space.join(row) for row in said], [space.join(row) for row in true]


@pytest.mark.parametrize("tokenize", ["13a", "zh"])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_sacrebleus(tokenize: str, seed: int):
    said, true = corpus(tokenize, seed)
    ours, letters = bleu(said, true, tokenize), chrf(said, true)
    assert ours.figure().value == pytest.approx(sacrebleu.corpus_bleu(said, [true], tokenize=tokenize).score, abs=1e-9)
    assert letters.figure().value == pytest.approx(sacrebleu.corpus_chrf(said, [true]).score, abs=1e-9)


def test_short_empty_and_wrong_texts_are_sacrebleus_too():
    few = [([""], ["a b c d e"]), (["a"], ["a"]), (["a b c d"], ["a x c y"]), (["x y z w"], ["a b c d"]), ([""], [""])]
    for said, true in [*few, (["a b c d e f"], ["a b c x e f"]), (["ab", "c d e f g"], ["ab", "c d x f g"])]:
        expected = sacrebleu.corpus_bleu(said, [true], tokenize="13a").score
        assert bleu(said, true, "13a").statistic(bleu(said, true, "13a").columns.sum(0)[None])[0] == pytest.approx(
            expected, abs=1e-9
        )
        found = chrf(said, true)
        assert found.statistic(found.columns.sum(0)[None])[0] == pytest.approx(
            sacrebleu.corpus_chrf(said, [true]).score, abs=1e-9
        )


def test_the_interval_is_of_corpora_that_were_drawn():
    said, true = corpus("13a", 9)
    found = bleu(said, true, "13a")
    drawn = found.statistic(resampled_sums(found.columns, resamples=5))
    picks = np.random.default_rng(0)
    kinds, times = np.unique(found.columns, axis=0, return_counts=True)
    counts = picks.multinomial(len(said), times / len(said), size=5)
    homes = [int(np.flatnonzero((found.columns == kind).all(1))[0]) for kind in kinds]
    for value, row in zip(drawn, counts, strict=True):
        some = [home for home, count in zip(homes, row, strict=True) for _ in range(count)]
        expected = sacrebleu.corpus_bleu([said[i] for i in some], [[true[i] for i in some]], tokenize="13a").score
        assert value == pytest.approx(expected, abs=1e-9)


def test_the_signature_is_sacrebleus():
    for tokenize in PIECES:
        both = [BLEU(tokenize=tokenize), CHRF()]
        for metric in both:
            metric.corpus_score(["a b c"], [["a b c"]])
        expected = [str(metric.get_signature()) for metric in both]
        assert signature(tokenize) == f"BLEU {expected[0]}; chrF {expected[1]}"


def test_chinese_is_cut_as_chinese():
    assert tokenizer_for(["我喜欢猫。", "你好"]) == "zh"
    assert tokenizer_for(["Ich mag Katzen.", "Hallo 你"]) == "13a"
    assert tokenizer_for(["私は猫が好きです"]) == "char"


def test_the_memory_tells_the_most_similar():
    known = ["a dog runs", "a cat sleeps on a mat", "two dogs play", "the red ball"]
    places, similar = nearest(known, ["the cat sleeps on the mat", "a dog runs", "zzz"])
    assert places[:2].tolist() == [1, 0]
    assert similar[1] == pytest.approx(1.0)
    assert similar[2] == 0
    assert nearest(["我喜欢猫", "他在跑步"], ["他跑步"])[0].tolist() == [1]
