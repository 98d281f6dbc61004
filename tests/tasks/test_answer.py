"""Answers out of texts: toy data, exact places, windows, counting as the official scripts do, and searched folders."""

import json
import random
import string
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import ConfigError, InputError
from cutaway.interp.attribution import occlusion
from cutaway.interp.inputs import Inputs
from cutaway.tasks import TaskConfig, open_task, read_data, read_examples, train_task
from cutaway.tasks.answer import AnswerQuestions
from cutaway.tasks.answer.ask import ask
from cutaway.tasks.answer.chances import best_none, logistic, sure
from cutaway.tasks.answer.counting import exact, f1
from cutaway.tasks.answer.known import Known, known_answers
from cutaway.tasks.answer.simple import likeliest_sentences
from cutaway.tasks.answer.task import Found, gathered
from cutaway.tasks.answer.windows import Window, Windows, pieces_of, places_in, stretches
from cutaway.tasks.search import build_index
from cutaway.tokenizers import train_tokenizer
from cutaway.training.objectives.extraction import any_span_loss, best_span

KINDS = {
    "colour": ("red", "blue", "green", "dark grey", "white"),
    "animal": ("horse", "owl", "snow leopard", "frog", "bee"),
    "place": ("Paris", "Oslo", "New York", "Rome", "Lima"),
}
FILLERS = ("the", "a", "one", "there", "was", "seen", "near", "with", "very", "some", "that", "day", "many")


def written(draw: random.Random, kinds: list[str]) -> tuple[str, dict[str, str]]:
    """A text with a word of each kind."""
    words = {kind: draw.choice(KINDS[kind]) for kind in kinds}
    parts = [draw.choice(FILLERS) for _ in range(8)]
    for word in words.values():
        parts.insert(draw.randint(0, len(parts)), word)
    return " ".join(parts) + ".", words


def write_questions(path: Path, count: int = 800, *, none: bool = True) -> Path:
    draw = random.Random(0)
    rows = []
    for number in range(count):
        kinds = draw.sample(list(KINDS), 2)
        text, words = written(draw, kinds)
        asked = draw.choice(list(KINDS)) if none else draw.choice(kinds)
        found = [words[asked]] if asked in words else []
        rows.append({"question": f"which {asked} ?", "context": f"{text} {number}", "answers": {"text": found}})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("answer")
    config = TaskConfig(
        "answer", str(write_questions(folder / "asked.jsonl")), str(folder / "model"),
        size=1, vocab_size=500, epochs=14, dropout=0.0, threads=1, context=64,
    )  # fmt: skip
    return train_task(config)


def test_it_learns_answers_and_that_there_is_none(trained):
    figures = trained.report.figures
    assert figures["f1"].value > 0.95
    assert figures["exact"].value > 0.95
    assert figures["said_rightly_whether"].value > 0.95
    assert trained.report.baseline["f1"].value < 0.5
    assert trained.model.task.none == "yes"
    text = "one snow leopard was seen near Oslo that day very there. 17"
    animal, place, colour = trained.model.predict(
        [{"question": f"which {kind} ?", "context": text} for kind in ("animal", "place", "colour")]
    )
    assert (animal.answer, place.answer, colour.answer) == ("snow leopard", "Oslo", None)
    for answer in (animal, place):
        assert text[answer.more["start"] : answer.more["end"]] == answer.answer
        assert 0.5 < answer.probability <= 1


def test_probabilities_are_of_being_exactly_right(trained):
    examples, _, _ = read_examples(trained.model.task, Path(trained.data.splits["train"][0].source.rpartition(":")[0]))
    answers = trained.model.predict(examples)
    right = trained.model.task.measure(answers, examples, ()).right
    assert abs(np.mean([answer.probability for answer in answers]) - right.mean()) < 0.05


def test_its_folder_opens_and_answers_the_same(trained):
    given = [{"question": "which place ?", "context": "a bee near Lima with some frog"}]
    (one,), (other,) = trained.model.predict(given), open_task(trained.folder).predict(given)
    assert one.to_json() == other.to_json()


def test_the_words_of_the_answer_and_the_question_are_the_reason(trained):
    given = {"question": "which animal ?", "context": "one frog was seen near Oslo that day very there. 17"}
    found = trained.model.why(given)
    assert found.target.endswith("“frog”")
    named = {token.strip(): score for token, score in zip(found.tokens, found.scores, strict=True)}
    assert sorted(named, key=lambda word: -(named[word] or 0))[0] in ("frog", "animal")
    (answer,) = trained.model.predict([given])
    best = answer.more["candidates"][0]["score"]
    assert found.value == pytest.approx(best, abs=1e-3)
    assert trained.model.why({**given, "question": "which colour ?"}).target == "no answer"
    model, text = trained.model.model, given["context"]
    (window,) = Windows(model, 64, 16)(given["question"], text)
    place = places_in(window, pieces_of(model.tokenizer, text), 4, 8)
    assert place is not None
    types = torch.tensor([window.types]) if model.config.token_types else None
    inputs = Inputs(torch.tensor([window.ids]), token_types=types)
    sides = zip(("start", "end"), place, strict=True)
    alone = [occlusion(model, inputs, token=side, position=at, grain="word").scores for side, at in sides]
    together = np.array(alone, float).sum(0).tolist()
    assert found.scores == pytest.approx(together, abs=1e-4)
    added = trained.model.why(given, method="integrated_gradients")
    assert added.tokens == found.tokens
    assert added.value == pytest.approx(found.value, abs=1e-3)
    with pytest.raises(ConfigError, match="why can be found by"):
        trained.model.why(given, method="guessing")


def test_a_long_text_is_read_in_windows(trained):
    filler = " ".join(FILLERS * 20)
    text = f"{filler} white {filler}"
    (answer,) = trained.model.predict([{"question": "which colour ?", "context": text}])

    windows = Windows(trained.model.model, 64, 16)
    assert len(windows("which colour ?", text)) > 5
    assert answer.answer == "white"
    assert answer.more["start"] == len(filler) + 1


def test_asked_of_a_folder_each_answer_has_its_source(trained, tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "north.txt").write_text("there was one owl near Oslo that day.", "utf-8")
    (tmp_path / "docs" / "south.txt").write_text("some very green bee was seen. many with the day.", "utf-8")
    index = build_index(tmp_path / "docs", tmp_path / "idx")
    (found, *_) = ask(index, "which place owl ?", trained.model)
    assert found.answer == "Oslo"
    assert found.source.endswith("north.txt")
    whole = (tmp_path / "docs" / "north.txt").read_text("utf-8")
    assert whole[found.start : found.end] == "Oslo"
    assert found.hit is not None
    assert found.hit.text == whole
    assert ask(index, "zebra", trained.model) == []
    monkeypatch.setattr(type(trained.model), "raw", lambda *_: [Found((), 1.0)])
    (none,) = ask(index, "which place owl ?", trained.model, passages=1)
    assert none.answer is None
    assert json.loads(json.dumps(found.to_json()))["source"] == found.source


# the loss and the best stretch, against slow ones


def test_the_loss_is_of_saying_any_right_stretch():
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 2)
    allowed = torch.tensor([[1, 0, 1, 1, 1, 1], [1, 0, 0, 1, 1, 0]]).bool()
    spans = torch.tensor([[[2, 3], [5, 5]], [[0, 0], [-1, -1]]])
    found = any_span_loss(logits, allowed, spans)
    for row in range(2):
        places = [place for place in range(6) if allowed[row, place]]
        total = [sum(logits[row, place, side].exp() for place in places) for side in (0, 1)]
        chance = sum(
            logits[row, s, 0].exp() / total[0] * logits[row, e, 1].exp() / total[1]
            for s, e in spans[row].tolist()
            if s >= 0
        )
        assert float(found[row]) == pytest.approx(-float(torch.as_tensor(chance).log()), rel=1e-5)
    one = any_span_loss(logits[:1], torch.ones(1, 6, dtype=torch.bool), torch.tensor([[[2, 4]]]))
    usual = torch.nn.functional.cross_entropy(logits[:1, :, 0], torch.tensor([2]))
    usual += torch.nn.functional.cross_entropy(logits[:1, :, 1], torch.tensor([4]))
    assert float(one) == pytest.approx(float(usual), rel=1e-5)  # of one stretch it is BERT's, twice its mean


def test_the_best_stretch_is_found_as_by_trying_all():
    torch.manual_seed(1)
    logits, allowed = torch.randn(8, 12, 2), torch.rand(8, 12) > 0.3
    allowed[:, 0] = True
    places, scores = best_span(logits, allowed, 4)
    for row in range(8):
        tried = {
            (s, e): float(logits[row, s, 0] + logits[row, e, 1])
            for s in range(12)
            for e in range(s, min(12, s + 4))
            if allowed[row, s] and allowed[row, e] and (s > 0 or e == 0)
        }
        best = max(tried, key=lambda place: tried[place])
        assert tuple(places[row].tolist()) == best
        assert float(scores[row]) == pytest.approx(tried[best], abs=1e-5)


# counting


@pytest.mark.parametrize(
    ("said", "known", "its_exact", "its_f1"),
    [
        ("The Denver Broncos", ["Denver Broncos"], 1, 1),
        ("Denver", ["Denver Broncos"], 0, 2 / 3),
        ("denver  broncos.", ["Carolina", "Denver Broncos"], 1, 1),
        ("in the year of 1999", ["1999", "the year 1999"], 0, 2 * 2 / (4 + 2)),
        ("a cat, a cat", ["cat"], 0, 2 * 1 / (2 + 1)),
        ("O'Brien", ["OBrien"], 1, 1),
        ("", [], 1, 1),
        ("something", [], 0, 0),
        ("", ["Denver"], 0, 0),
        ("Theatre", ["the atre"], 0, 0),  # "the" is an article only as a word
    ],
)
def test_words_are_counted_as_squad_does(said, known, its_exact, its_f1):
    assert exact(said, known) == its_exact
    assert f1(said, known) == pytest.approx(its_f1)


@pytest.mark.parametrize(
    ("said", "known", "its_exact", "its_f1"),
    [
        ("北京大学", ["北京大学。"], 1, 1),
        ("北京", ["北京大学"], 0, 2 * 2 / (2 + 4)),
        ("京北", ["北京"], 0, 2 * 1 / 4),  # the order counts, other than in a bag
        ("2008年8月", ["2008年8月8日"], 0, 2 * 4 / (4 + 6)),
        ("《红楼梦》", ["红楼梦"], 1, 1),
        ("甲乙X丙丁", ["甲乙Y丙丁"], 0, 2 * 2 / 10),  # the longest run, not all that is shared
    ],
)
def test_characters_are_counted_as_cmrc_does(said, known, its_exact, its_f1):
    assert exact(said, known, "characters") == its_exact
    assert f1(said, known, "characters") == pytest.approx(its_f1)


# tables


def test_answers_are_read_in_every_form():
    text = "The cat sat. The cat ran to New\nYork."
    assert known_answers("cat", None, text)[0].places == ((4, 7), (17, 20))
    assert known_answers("cat", 17, text)[0].places == ((17, 20),)
    assert known_answers("cat", "4", text)[0].places == ((4, 7),)
    assert known_answers("cat", 3, text)[0].places == ((4, 7), (17, 20))  # it does not stand there
    assert known_answers({"text": ["cat", "ran"], "answer_start": [17, 21]}, None, text)[1].places == ((21, 24),)
    assert known_answers(["cat", "ran"], [4, 21], text)[0].places == ((4, 7),)
    assert known_answers('["cat"]', None, text)[0].text == "cat"
    assert known_answers([{"text": "ran", "answer_start": 21}], None, text)[0].places == ((21, 24),)
    assert known_answers("New York", None, text)[0].places == ((28, 36),)
    assert known_answers("at", None, "a cat is at home")[0].places == ((9, 11),)  # not within a word
    assert known_answers("京", None, "北京大学")[0].places == ((1, 2),)
    assert (
        known_answers([], None, text) == known_answers({"text": []}, None, text) == known_answers("", None, text) == ()
    )
    assert [one.places for one in known_answers(["cat", "dog"], None, text)] == [((4, 7), (17, 20)), ()]
    with pytest.raises(InputError, match=r"the answer is not in its context \('dog'\)"):
        known_answers("dog", None, text)
    with pytest.raises(InputError, match="must be text"):
        known_answers([7], None, text)


@pytest.mark.parametrize("start", [float("inf"), float("nan"), 10**30, "nowhere", [0], {}])
def test_a_place_that_is_none_is_looked_for(start):
    assert known_answers("sea", start, "the sea") == (Known("sea", ((4, 7),)),)


def test_answers_and_tables_of_them_in_one_list_are_told():
    for mixed in ([{"text": "sea"}, "the"], ["the", {"text": "sea"}]):
        with pytest.raises(InputError, match="must be text, but dict"):
            known_answers(mixed, None, "the sea")


def test_rows_that_are_none_are_set_aside_by_line(tmp_path):
    rows = [{"question": f"q {n}?", "context": f"text {n} says yes", "answer": "yes"} for n in range(30)]
    rows[3]["answer"] = "no"
    rows[5]["question"] = " "
    del rows[7]["answer"]
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_data(AnswerQuestions(), path)
    assert [(item.source.rpartition(":")[2], item.reason) for item in data.aside] == [
        ("4", "the answer is not in its context ('no')"),
        ("6", "the question is empty"),
        ("8", "the answer is missing; leave it empty where the text holds none"),
    ]
    assert data.task == AnswerQuestions(none="no", counting="words")


def test_questions_about_one_text_stay_in_one_split(tmp_path):
    rows = [
        {"question": f"q {n}?", "context": f"text {n // 4} says yes", "answer": "yes" if n % 5 else ""}
        for n in range(120)
    ]
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_data(AnswerQuestions(), path)
    texts = {name: {example.given["context"] for example in some} for name, some in data.splits.items()}
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["valid"]
    assert sum(map(len, data.splits.values())) == 120
    assert data.task == AnswerQuestions(none="yes", counting="words")
    with pytest.raises(InputError, match="questions without an answer"):
        read_data(AnswerQuestions(none="no"), path)


# windows


@given(st.integers(1, 400), st.integers(8, 60), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_windows_hold_every_token_and_overlap(count, room, overlap):
    found = list(stretches(count, room, overlap))
    assert found[0][0] == 0
    assert found[-1][1] == count
    for (start, end), (other, _) in pairwise(found):
        assert end - start == room
        assert start < other <= end - min(overlap, room // 2)


TOKENIZERS = {
    kind: train_tokenizer(["The cat's naïve café, 北京大学 2008年 😀 said: “yes”."] * 3, kind, 600)
    for kind in ("bpe", "wordpiece", "char")
}


@given(
    st.text(st.sampled_from("abc é，。北京大学😀\u0301 \n\t.'" + string.digits), min_size=1, max_size=80),
    st.sampled_from(sorted(TOKENIZERS)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=300, deadline=None)
def test_what_is_quoted_stands_there(text, kind, seed):
    tokenizer = TOKENIZERS[kind]
    pieces = pieces_of(tokenizer, text)
    if not pieces.ids:
        return
    tokens = np.concatenate(([-1, -1], np.arange(len(pieces.ids))))
    window = Window([0] * len(tokens), [0] * len(tokens), tokens)
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(tokens), 2)))
    found = gathered(text, pieces, [(window, logits)], 30)
    for _, start, end in found.spans:
        assert 0 <= start < end <= len(text)
        quoted = text[start:end]
        assert quoted == quoted.strip()
        place = places_in(window, pieces, start, end)
        assert place is not None
        assert place[0] <= place[1]
    assert len({span[1:] for span in found.spans}) == len(found.spans)


# probabilities


def test_a_long_question_leaves_room_for_the_text(trained):
    text = "one frog was seen near Oslo that day very there. 17"
    windows = Windows(trained.model.model, 64, 16)
    made = windows("which animal ? " * 60, text)
    assert all(len(window.ids) <= 64 for window in made)
    held = {token for window in made for token in window.tokens.tolist()} - {-1}
    assert held == set(range(len(pieces_of(trained.model.model.tokenizer, text).ids)))
    with pytest.raises(InputError, match="leave no room"):
        Windows(trained.model.model, 8, 0)("which animal ?", text)


def test_strangers_are_texts_without_the_answer(trained):
    examples = trained.data.splits["train"][:20]
    model = trained.model.model
    plain, owners = AnswerQuestions(none="yes").encode(model, examples, 64)
    more, others = AnswerQuestions(none="yes", strangers=1).encode(model, examples, 64)
    assert 20 <= len(owners) < len(others) <= len(owners) + 20
    empty = [sum(spans.tolist() == [[0, 0]] for spans in parts["spans"]) for parts in (plain, more)]
    assert empty[1] - empty[0] == len(others) - len(owners)


def test_how_sure_is_by_hand():
    scores = np.array([2.0, 1.0, 0.5])
    chance = np.exp(2) / np.exp(scores).sum()
    assert 1 / (1 + np.exp(-sure(2.0, scores[1:]))) == pytest.approx(chance)
    draw = np.random.default_rng(0)
    margins = draw.normal(size=4000)
    right = (draw.random(4000) < 1 / (1 + np.exp(-(1.5 * margins - 0.5)))).astype(float)
    assert logistic(margins, right) == pytest.approx((1.5, -0.5), abs=0.15)


def test_the_threshold_for_no_answer_is_the_best_there_is():
    draw = np.random.default_rng(0)
    gaps, best, silent = draw.normal(size=60).round(1), draw.random(60), draw.integers(0, 2, 60).astype(float)
    found = best_none(gaps, best, silent)

    def figure(threshold: float) -> float:
        return float(np.where(gaps > threshold, silent, best).sum())

    tried = np.r_[gaps.min() - 1, np.unique(gaps) + 1e-6]
    assert figure(found) == pytest.approx(max(map(figure, tried)))


def test_texts_without_any_stretch_are_the_surest_to_hold_none():
    gaps = np.array([np.inf, np.inf, 1.0, -1.0])
    threshold = best_none(gaps, np.array([0.0, 0, 0, 1]), np.array([1.0, 1, 1, 0]))
    assert -1 < threshold < 1


def test_the_simple_way_takes_the_sentence_that_shares_most():
    text = "Cats sleep all day. The Eiffel Tower stands in Paris. Dogs bark."
    (place,) = likeliest_sentences([("Where does the Eiffel Tower stand?", text)])
    assert text[slice(*place)] == "The Eiffel Tower stands in Paris."


def test_squad_files_are_read_as_they_are_published(tmp_path):
    asked = [
        {"id": "1", "question": "Who won?", "answers": [{"text": "Denver", "answer_start": 0}] * 3},
        {"id": "2", "question": "Who lost?", "answers": [], "is_impossible": True},
    ]
    whole = {
        "version": "2",
        "data": [{"title": "Bowl", "paragraphs": [{"context": "Denver won. Denver!", "qas": asked}]}],
    }
    (tmp_path / "squad.json").write_text(json.dumps(whole))
    examples, aside, _ = read_examples(AnswerQuestions(), tmp_path / "squad.json")
    assert not aside
    first, second = examples
    assert [(known.text, known.places) for known in first.truth] == [("Denver", ((0, 6),))]
    assert second.truth == ()
    assert first.more["title"] == "Bowl"
    (tmp_path / "other.json").write_text(json.dumps({"data": [1]}))
    with pytest.raises(InputError, match="must hold a list of records"):
        read_examples(AnswerQuestions(), tmp_path / "other.json")
