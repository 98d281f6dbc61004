"""The likeliest tags, and how likely spans are, beside trying every sequence of tags; and windows over long texts."""

import itertools

import numpy as np
import pytest

from cutaway.tasks.calibrate import sureness, sureness_of
from cutaway.tasks.decode import best_tags, chances_of, windows_of
from cutaway.text.tags import spans_of

TAGS = 5  # O, and B and I of two types


def allowed(tags: tuple[int, ...]) -> bool:
    before = (0, *tags)
    return all(tag == 0 or tag % 2 or before[place] in (tag - 1, tag) for place, tag in enumerate(tags))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("seed", range(6))
def test_beside_every_sequence(count, seed):
    logits = np.random.default_rng(seed).normal(0, 2, (count, TAGS))
    every = [tags for tags in itertools.product(range(TAGS), repeat=count) if allowed(tags)]
    sums = np.array([sum(logits[place, tag] for place, tag in enumerate(tags)) for tags in every])
    chances = np.exp(sums - sums.max())
    chances /= chances.sum()
    best = every[int(sums.argmax())]
    assert tuple(best_tags(logits).tolist()) == best
    spans, sure, whole = chances_of(logits, np.array(best))
    assert whole == pytest.approx(chances.max(), rel=1e-9)
    found = [{tuple(span) for span in spans_of(np.array(tags)).tolist()} for tags in every]
    for span, chance in zip(spans.tolist(), sure, strict=True):
        expected = sum(p for p, own in zip(chances, found, strict=True) if tuple(span) in own)
        assert chance == pytest.approx(expected, rel=1e-9)


def test_sure_words_do_not_overflow():
    logits = np.zeros((3000, TAGS))
    logits[:, 0] = 80.0
    logits[7] = [-900, 900, 0, 0, 0]
    spans, sure, whole = chances_of(logits, best_tags(logits))
    assert spans.tolist() == [[7, 8, 0]]
    assert sure.tolist() == [pytest.approx(1.0)]
    assert whole == pytest.approx(1.0)
    assert len(chances_of(np.zeros((0, TAGS)), np.zeros(0, np.int64))[0]) == 0


@pytest.mark.parametrize(("count", "room", "overlap"), [(5, 8, 2), (8, 8, 2), (100, 8, 4), (101, 9, 0), (57, 16, 5)])
def test_windows_keep_each_piece_once_from_where_it_has_most_around_it(count, room, overlap):
    first = (np.arange(count) % 3 == 0).tolist()
    windows = windows_of(first, room, overlap)
    kept = [place for _, _, keep, drop in windows for place in range(keep, drop)]
    assert kept == list(range(count))
    for begin, end, keep, drop in windows:
        assert begin <= keep < drop <= end
        assert end - begin <= room
        assert overlap < 2 or begin == 0 or first[begin]
    around = {
        p: max(min(p - b if b else count, e - 1 - p if e < count else count) for b, e, _, _ in windows if b <= p < e)
        for p in range(count)
    }
    for begin, end, keep, drop in windows:
        for place in range(keep, drop):
            own = min(place - begin if begin else count, end - 1 - place if end < count else count)
            assert own >= around[place] - 1  # in the middle it is the same on both sides


def test_moved_probabilities_match_how_often_they_are_right():
    draw = np.random.default_rng(0)
    said = draw.uniform(0.3, 0.999, 4000)
    true = said**3  # far too sure
    found = [(float(p), bool(draw.random() < t)) for p, t in zip(said, true, strict=True)]
    moved = sureness_of(found)
    for low, high in ((0.3, 0.6), (0.6, 0.8), (0.8, 0.95)):
        some = [(sureness(p, moved), right) for p, right in found if low < p < high]
        assert np.mean([p for p, _ in some]) == pytest.approx(np.mean([right for _, right in some]), abs=0.06)
    assert sureness(0.7, sureness_of([])) == pytest.approx(0.7)
    assert 0.6 < sureness(0.9, sureness_of([(0.9, False), (0.9, True)])) < 0.9  # a few examples move it a little
