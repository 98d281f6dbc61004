"""Summaries: ranked as by hand, ROUGE as the package has it, support with exact places, a scorer that learns."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rouge_score import rouge_scorer

from cutaway.cli import main
from cutaway.errors import ConfigError, InputError
from cutaway.models import Decoder, DecoderConfig, Encoder, EncoderConfig, Model, Seq2Seq, Seq2SeqConfig
from cutaway.tasks import Example, TaskConfig, TaskModel, open_task, train_task
from cutaway.tasks.summarise import Summarise, Supports, extract, linked, marked, summarise_text
from cutaway.tasks.summarise.rouge import gains, rouge
from cutaway.tasks.summarise.why import likelihood
from cutaway.tasks.summarise.written import Prompt
from cutaway.text.sentences import sentence_spans
from cutaway.tokenizers import train_tokenizer

TEXT = (
    "The city lies on the river. It was founded by the Romans in 16 BC. Its gate is the largest Roman gate in the "
    "north. The university has 12,000 students. Wine grows on the hills. The Romans built the gate from grey sandstone."
)
CHINESE = "特里尔位于摩泽尔河畔。这座城市由罗马人建立。城门是北方最大的罗马城门！大学有一万两千名学生。"


def model_of(kind: str = "decoder", context: int = 128, **fields: object) -> Model:
    tokenizer = train_tokenizer([TEXT * 3 + CHINESE], "bpe", 260)
    torch.manual_seed(0)
    sizes = {"context": context, "layers": 2, "width": 32, "heads": 4, **fields}
    if kind == "decoder":
        return Model(Decoder(DecoderConfig(tokenizer.vocab_size, **sizes)), tokenizer, "tiny")  # pyright: ignore
    return Model(Encoder(EncoderConfig(tokenizer.vocab_size, **sizes)), tokenizer, "tiny")  # pyright: ignore


# ranking


def test_textrank_is_the_stationary_distribution_of_the_surfer():
    draw = np.random.default_rng(0)
    vectors = np.abs(draw.normal(size=(7, 5))).astype(np.float32)
    vectors[3] = 0  # a sentence that resembles none
    start = extract.prior(7, 0.5)
    found = extract.textrank(vectors, start)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    alike = (unit @ unit.T).astype(float) * (1 - np.eye(7))
    ways = np.array([row / row.sum() if row.sum() > 0 else np.full(7, 1 / 7) for row in alike])
    surfer = 0.85 * ways + 0.15 * start[None]  # the whole Google matrix, and its left eigenvector
    values, columns = np.linalg.eig(surfer.T)
    true = np.real(columns[:, np.argmax(np.real(values))])
    np.testing.assert_allclose(found, true / true.sum(), atol=1e-8)
    assert found.sum() == pytest.approx(1)


def test_centroid_is_the_cosine_with_the_mean():
    vectors = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    middle = vectors.mean(0)
    true = [float(row @ middle / np.linalg.norm(row) / np.linalg.norm(middle)) for row in vectors]
    np.testing.assert_allclose(extract.centroid(vectors), true, rtol=1e-6)


def test_a_sentence_that_says_the_same_is_not_chosen_again():
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    scores = np.array([1.0, 0.95, 0.5])
    assert extract.choose(scores, lambda some: vectors[some], 2, 0.0) == [0, 1]
    assert extract.choose(scores, lambda some: vectors[some], 2, 0.5) == [0, 2]
    assert extract.choose(np.zeros(3), lambda some: vectors[some], 1, 0.5) == [0]
    assert extract.choose(np.zeros(3), lambda some: vectors[some], 9, 0.5) == [0, 1, 2]


def test_a_long_text_is_ranked_in_parts_and_nothing_is_left_out(monkeypatch):
    monkeypatch.setattr(extract, "AT_ONCE", 10)
    text = " ".join(f"Sentence {n} tells of thing {n % 7}." for n in range(95))
    spans = sentence_spans(text)
    quotes = [text[start:end] for start, end in spans]
    found = Summarise(way="textrank", position=0.0).extracted(quotes, spans, None)
    assert len(found.scores) == 95
    assert (found.scores > 0).all()
    assert found.scores.sum() == pytest.approx(1)


# ROUGE


@pytest.mark.parametrize(
    "said", ["It was founded by the Romans in 16 BC.", "gates of the founding Romans", "nothing here", ""]
)
def test_rouge_is_the_packages_own_and_the_best_of_several_targets(said):
    targets = ("The Romans founded it.", "Its gates are of the Romans, in the north.")
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    each = [scorer.score(target, said) for target in targets]
    assert rouge(targets, said) == tuple(
        max(one[kind].fmeasure for one in each) for kind in ("rouge1", "rouge2", "rougeL")
    )


def test_rouge_of_chinese_counts_characters():
    one, two, longest = rouge(["城门很大"], "大城门")
    assert one == pytest.approx(2 * 3 / 7)  # three characters of four and three
    assert two == pytest.approx(2 * 1 / 5)
    assert longest == pytest.approx(2 * 2 / 7)
    assert rouge(["Größe zählt 城"], "größe 城")[0] == pytest.approx(2 * 2 / 5)
    assert gains(["城门"], ["城门", "大学"]).tolist() == [1, 0]


# support


@pytest.mark.parametrize("text", [TEXT, CHINESE, f"{TEXT}\n\n{CHINESE}"])
def test_quotes_stand_where_they_are_said_to(text):
    answer = summarise_text(text, sentences=2)
    assert len(answer.more["sentences"]) == 2
    for one in answer.more["sentences"]:
        for found in one["support"]:
            assert text[found["start"] : found["end"]] == found["quote"] == one["text"]


def test_what_nothing_supports_is_marked():
    supports = Supports(TEXT)
    good = supports.of("The Romans founded the city in 16 BC.")
    assert good["supported"]
    assert [one["sentence"] for one in good["support"]][-1] == 1
    assert all(TEXT[one["start"] : one["end"]] == one["quote"] for one in good["support"])
    assert not supports.of("The football club won three cups yesterday.")["supported"]
    assert not supports.of("The university has 15,000 students.")["supported"]  # another number
    assert supports.of("The university has 12,000 students.")["supported"]
    assert Supports(CHINESE).of("城市由罗马人建立。")["supported"]
    assert not Supports(CHINESE).of("足球队昨天赢得了冠军。")["supported"]
    assert supports.of("...")["support"] == []


def test_vectors_support_too():
    model = model_of("encoder", head="embedding", pooling="mean", normalize=True)
    answer = linked(summarise_text(TEXT, sentences=1), TEXT, model)
    (found,) = answer.more["sentences"][0]["support"]
    assert found["similarity"] == pytest.approx(1, abs=1e-4)
    assert summarise_text(TEXT, model=model, sentences=2).more["way"] == "textrank"


# long documents


def test_windows_hold_every_sentence_once_and_begin_with_the_one_before():
    model = model_of("encoder", context=64)
    quotes = ["short one.", "x" * 30, "y" * 200, "the end.", "a", "b" * 10]
    found = marked.windows(model, "title", quotes)
    assert [number for window in found for number in window.numbers] == list(range(len(quotes)))
    end = marked.mark(model.tokenizer)
    for window in found:
        assert len(window.ids) <= 64
        assert all(window.ids[last - 1] == end for _, last in window.places)
        assert all(first < last for first, last in window.places)
    last = found[-1]
    before = model.tokenizer.encode(quotes[last.numbers[0] - 1])
    assert len(before) > 16 or last.ids[len(model.tokenizer.encode("title")) + 1 :][: len(before)] == before


def test_a_document_by_parts_is_covered_whole():
    model = model_of(context=128)
    prompt = Prompt(model, "", 128, 16)
    for text in (TEXT * 3, CHINESE * 4, "x" * 1000, ("One.\n" + "\n \u3000" * 20 + "Two.") * 3):
        parts = prompt.parts(text)
        assert len(parts) > 1
        at = 0
        for start, end in parts:
            assert not text[at:start].strip()
            assert len(prompt.ids(text[start:end])) + 16 <= 128
            at = end
        assert not text[at:].strip()
    with pytest.raises(InputError, match="give a larger context"):
        _ = Prompt(model, "", 30, 16).room


def test_what_a_model_writes_has_its_probability_and_parts():
    model = model_of(context=128)
    made = TaskModel(Summarise(way="written", max_new_tokens=12), model)
    short, long = made.predict(["The city lies on the river.", TEXT])
    assert "parts" not in short.more
    spans = [(one["start"], one["end"]) for one in long.more["parts"]]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(TEXT)
    assert short.more["log_probability_per_token"] == pytest.approx(short.more["log_probability"] / 12)
    if short.more["sentences"]:
        found = made.why("The city lies on the river. Wine grows.")
        assert len(found.scores) == 2
        with pytest.raises(ConfigError, match="leave_out"):
            made.why("The city lies on the river.", method="occlusion")


def test_an_encoder_decoder_writes_and_learns_too():
    tokenizer = train_tokenizer([TEXT * 3], "bpe", 262)
    torch.manual_seed(0)
    config = Seq2SeqConfig(tokenizer.vocab_size, context=16, source_context=64, layers=1, width=32, heads=4)
    task, model = Summarise(way="written", max_new_tokens=9), Model(Seq2Seq(config), tokenizer, "tiny")
    made = TaskModel(task, model)
    (answer,) = made.predict([{"text": TEXT, "title": "A city"}])
    assert len(answer.more["parts"]) > 1
    example = Example("a:1", {"text": "The gate is old.", "title": ""}, ("A gate.",))
    parts, owners = task.encode(model, [example], 64)
    assert owners == [0]
    assert tokenizer.decode(parts["source"][0].tolist()) == "The gate is old."
    assert parts["ids"][0].tolist() == [*tokenizer.encode("A gate."), tokenizer.end_of_text]
    if answer.more["sentences"]:
        assert made.why({"text": TEXT, "title": "A city"}).unit == "nats"


# learning


def write_news(path: Path, count: int = 240, seed: int = 0) -> Path:
    """Documents in which the sentence with "important" is the summary."""
    draw = random.Random(seed)
    words = ["river", "gate", "wine", "hill", "stone", "town", "road", "field", "house", "tree"]
    lines = []
    for number in range(count):
        said = [" ".join(draw.choices(words, k=4)).capitalize() + f" {draw.randint(10, 99)}." for _ in range(4)]
        place = draw.randrange(4)
        said[place] = f"The important {said[place].lower()}"
        lines.append(json.dumps({"source": " ".join(said), "targets": [said[place]], "name": number}))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("summarise")
    config = TaskConfig(
        "summarise",
        str(write_news(folder / "news.jsonl")),
        str(folder / "model"),
        size=1,
        vocab_size=300,
        epochs=12,
        dropout=0.0,
        threads=1,
    )
    return train_task(config)


def test_a_scorer_learns_which_sentence_it_is(trained):
    assert trained.report.figures["rouge1"].value > 0.95
    assert trained.report.baseline["rouge1"].value < 0.8
    assert trained.report.p < 0.05
    text = "The gate stone road hill 12. The important town wine tree 44. Field house river gate 13."
    (answer,) = trained.model.predict([text])
    assert answer.answer == "The important town wine tree 44."
    assert answer.probability > 0.5
    (found,) = answer.more["sentences"][0]["support"]
    assert (found["start"], found["end"]) == (29, 61)
    (again,) = open_task(trained.folder).predict([{"text": text}])
    assert again.to_json() == answer.to_json()


def test_the_word_that_says_it_is_the_reason(trained):
    text = "The gate stone road hill 12. The important town wine tree 44. Field house river gate 13."
    found = trained.model.why(text)
    best = max(zip(found.scores, found.tokens, strict=True))[1].strip()
    assert best == "important"
    with pytest.raises(InputError, match="1 sentences"):
        trained.model.why(text, part=1)


def test_a_decoder_learns_to_write_them(tmp_path):
    draw, lines = random.Random(0), []
    for number in range(300):
        word = draw.choice(["river", "gate", "wine", "hill", "stone"])
        text = f"{' '.join(draw.choices('abcdefg', k=3))} {word} {number}."
        lines.append(json.dumps({"text": text, "summary": f"The {word}."}))
    (tmp_path / "data.jsonl").write_text("\n".join(lines), "utf-8")
    task = {"name": "summarise", "way": "written", "max_new_tokens": 12}
    given: dict[str, Any] = {"kind": "decoder", "size": 1, "vocab_size": 300, "epochs": 15, "context": 48}
    trained = train_task(
        TaskConfig(task, str(tmp_path / "data.jsonl"), str(tmp_path / "model"), dropout=0.0, threads=1, **given)
    )
    assert trained.report is not None
    assert trained.report.figures["rouge1"].value > 0.95
    (answer,) = trained.model.predict(["a b c stone 7."])
    assert answer.answer == "The stone."
    assert answer.more["sentences"][0]["supported"]
    assert isinstance(trained.model.task, Summarise)
    prompt = trained.model.task.prompt(trained.model.model)
    told = likelihood(trained.model.model, prompt.ids("a b c stone 7."), [*prompt.target("The stone."), prompt.ends()])
    assert told == pytest.approx(answer.more["log_probability"], abs=1e-3)
    lost = [trained.model.why(f"a b c {word} 7.").scores[0] for word in ("river", "gate", "wine", "hill", "stone")]
    assert sorted(lost)[1] > 1  # nats; without any text the model has a word that it says of itself


def test_summaries_of_several_sentences_are_as_long_as_those_learned_from():
    examples = [Example("a:1", {"text": TEXT, "title": ""}, ("One. Two.", "One. Two. Three. Four."))] * 3
    for task, count in ((Summarise(), 3), (Summarise(sentences=1), 1)):
        settled = task.settle(examples)
        assert isinstance(settled, Summarise)
        assert settled.sentences == count


def test_bad_settings_and_inputs_are_told():
    with pytest.raises(ConfigError, match="redundancy"):
        Summarise(redundancy=2)
    with pytest.raises(InputError, match="the text: the document is empty"):
        summarise_text(" ")
    with pytest.raises(ConfigError, match="the ways are textrank, centroid, lead"):
        summarise_text(TEXT, way="written")
    with pytest.raises(ConfigError, match="a summary needs a model that writes"):
        summarise_text(TEXT, model=model_of("encoder", head="token_classification", labels=("a", "b")))
    with pytest.raises(InputError, match="the summary is missing"):
        Summarise().example("a:1", {"text": "b", "summary": "[]"}, answered=True)
    with pytest.raises(InputError, match="has nothing to learn"):
        Summarise(way="lead").check({"train": []}, ())


def test_the_summary_of_a_document_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "doc.txt"
    path.write_text(TEXT, "utf-8")
    assert main(["task", "summarise", str(path), "-n", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["source"].endswith("doc.txt")
    assert len(said["sentences"]) == 2
    assert main(["task", "summarise", str(path), "-n", "1"]) == 0
    assert "[" in capsys.readouterr().out
    assert main(["task", "summarise", str(path), "--way", "written"]) == 2
    assert "textrank, centroid, lead" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["textrank", "centroid"])
def test_what_sentences_give_to_a_rank_is_all_of_it(way):
    model = model_of("encoder", head="embedding", pooling="mean", normalize=True)
    made = TaskModel(Summarise(way=way, sentences=2), model)
    (answer,) = made.predict([TEXT])
    for part, one in enumerate(answer.more["sentences"]):
        found = made.why(TEXT, part=part)
        assert sum(found.scores) == pytest.approx(one["score"], abs=1e-5)
        assert found.receipt.gap < 1e-5
        assert found.tokens[one["support"][0]["sentence"]] == one["text"]
    with pytest.raises(ConfigError, match="links"):
        made.why(TEXT, method="occlusion")
