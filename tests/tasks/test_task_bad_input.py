"""What users' files are like: every one of these is a sentence and the code 2, or rows set aside by their lines."""

import json
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from test_classify import write_reviews

from cutaway.cli import main
from cutaway.errors import ConfigError, InputError
from cutaway.tasks import Example, open_task, pair_baseline, read_data, read_examples, tag_baseline, task_from
from cutaway.tasks.answer import AnswerQuestions
from cutaway.tasks.classify import Classify
from cutaway.tasks.embed import Embed
from cutaway.tasks.pair import Pair
from cutaway.tasks.start import check_kind
from cutaway.tasks.summarise import Summarise
from cutaway.tasks.tag import Tag
from cutaway.tasks.task import Task
from cutaway.tasks.translate import Translate

QUICK = ["--set", "size=1", "--set", "vocab_size=300", "--set", "threads=1", "--set", "dropout=0.0", "--epochs", "1"]
GOOD = "".join(
    f"a {word} film {n},{label}\n" for n, (word, label) in enumerate([("fine", "good"), ("sad", "bad")] * 20)
)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence of a command that is refused with code 2."""
    assert main(["task", *words]) == 2
    captured = capsys.readouterr()
    sentence = captured.err.strip().splitlines()[-1]
    assert sentence.startswith("cutaway task: ")
    assert "Traceback" not in captured.err
    return sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("text,label\n", "has a header (text, label) but no rows"),
        ("text,label\n" + "a film,good\nthe film,good\n" * 3, "all examples have the label 'good'"),
        ("text,label\na film,\nthe film,\n", "holds no example for the task classify (FILE:2: the label is missing"),
        ("text,label\na film,good\na  Film,bad\n", "no example is left of FILE"),
        ("name,mood,when\na film,good,now\nthe film,bad,then\n", "--column text=NAME"),
        ("text,label\n" + "".join(f"film {n},id {n}\n" for n in range(60)), "60 different labels in 60 examples"),
        ("text,label\na film,good\na play,bad\n", "none is left for"),
        ("text,label\na film,good\na,b,c\nthe film,good\n", "(1 row set aside: 1 × more fields than"),
        ('text,label\na film,good\n"the film,bad\n', "FILE:3 opens a quote that it does not close"),
        ("text,text,label\na,b,c\n", "has two columns 'text'"),
    ],
)  # fmt: skip
def test_files_of_which_nothing_can_be_learned_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
):
    file = tmp_path / "t.csv"
    file.write_text(text, "utf-8")
    sentence = refused(capsys, "train", "classify", "--data", str(file), "--out", str(tmp_path / "model"))
    assert said in sentence.replace(str(file), "FILE")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--column", "text=reviw"], "lacks what was named for text: unknown column 'reviw'; did you mean review?"),
        (["--column", "txt=review"], "unknown role of a column 'txt'; did you mean text?"),
        (["--column", "text"], "a column is given as role=name"),
        (["--test", "1.5"], "test must be a share"),
        (["--test", "nothere.csv"], "nothere.csv"),
        (["--set", "epoch=1"], "did you mean epochs"),
        (["--set", "task.several=perhaps"], "several"),
        (["--from", "nothere"], "nothere"),
        (["--kind", "bert"], "task classify: 'bert'. Known: decoder, encoder, gru, lstm"),
    ],
)
def test_options_that_fit_no_file_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
):
    file = tmp_path / "t.csv"
    file.write_text("review,stars\n" + GOOD, "utf-8")
    words = ["train", "classify", "--data", str(file), "--out", str(tmp_path / "model"), *QUICK, *words]
    assert said in refused(capsys, *words)


def test_a_folder_or_a_wrong_kind_of_file_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ["--out", str(tmp_path / "model")]
    assert "is a folder; give one file" in refused(capsys, "train", "classify", "--data", str(tmp_path), *out)
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04")
    assert "unknown kind of table" in refused(capsys, "train", "classify", "--data", str(tmp_path / "t.xlsx"), *out)
    assert "'clasify'; did you mean classify" in refused(
        capsys, "train", "clasify", "--data", str(tmp_path / "t.xlsx"), *out
    )


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a file with everything wrong that can be."""
    folder = tmp_path_factory.mktemp("messy")
    lines = [
        b"\xef\xbb\xbfid,review,stars",
        *(b"%d,%s" % (n, line.encode()) for n, line in enumerate(GOOD.splitlines())),
    ]
    lines += [
        b"90,a caf\xc3\xa9 film \xe2\x80\x94 fine \xe2\x80\x9ctoo\xe2\x80\x9d,good",
        b"91,an \xe9lan of a film,good",  # 43: Latin-1 in UTF-8
        b"92,a nul\0film,good",  # 44
        b"93,no label,",  # 45
        b"94, ,good",  # 46
        b"95,too,many,fields",  # 47
        b"96",  # 48
        b"97,a fine film 0,good",  # a second time
        b"98,the same text,good",  # 50 and 51 contradict each other
        b"99,The  same text,bad",
        *(b"%d,%s,good" % (n, b"a long film with words %d " % n * 4000) for n in range(100, 103)),
        b"103,a label of white space,  ",  # 55
    ]  # fmt: skip
    (folder / "t.csv").write_bytes(b"\n".join(lines) + b"\n")
    words = ["train", "classify", "--data", str(folder / "t.csv"), "--out", str(folder / "model"), *QUICK, "--json"]
    assert main(["task", *words]) == 0
    return folder


def test_bad_rows_are_set_aside_by_their_lines_and_counted(messy: Path):
    aside = [json.loads(line) for line in (messy / "model" / "set-aside.jsonl").read_text("utf-8").splitlines()]
    found = {int(one["source"].rpartition(":")[2]): one["reason"] for one in aside}
    assert set(found) == {43, 44, 45, 46, 47, 48, 50, 51, 55}
    assert "encoding of the rest of the file (UTF-8)" in found[43]
    assert "NUL" in found[44]
    assert found[45] == "the label is missing"
    assert found[55] == found[45]  # and no text that has no label, with which several may hold
    assert found[46] == "the text is empty"
    assert found[47] == "more fields than the table has columns (4, not 3)"
    assert found[48] == "the text is missing"
    assert found[50].endswith("t.csv:51)")
    assert found[51].endswith("t.csv:50)")
    report = json.loads((messy / "model" / "report.json").read_text("utf-8"))
    assert report["task"] == "classify"
    card = (messy / "model" / "README.md").read_text("utf-8").replace("\\", "")
    assert "9 rows set aside" in card
    assert "text: column 'review', label: column 'stars'" in card
    assert "1 row of the training data read once, for another says the same" in card
    assert re.search(r"[123] of \d+ examples of train are longer than 128 tokens", card)


def test_any_input_is_answered_or_told_by_its_line(messy: Path, capsys: pytest.CaptureFixture[str]):
    file = messy / "new.csv"
    file.write_bytes(
        b"review,note\na fine film,x\n,y\n" + b"word " * 20_000 + b",z\n\xc3\xa9t\xc3\xa9 \xf0\x9f\x98\x80,w\n"
    )
    assert main(["task", "predict", str(messy / "model"), str(file), "--json"]) == 0
    captured = capsys.readouterr()
    answers = [json.loads(line) for line in captured.out.splitlines()]
    assert [one["source"] for one in answers] == [f"{file}:{line}" for line in (2, 4, 5)]
    assert all(0 <= one["probability"] <= 1 for one in answers)
    assert f"{file}:3: the text is empty" in captured.err
    assert main(["task", "why", str(messy / "model"), "word " * 20_000, "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() >= {"answer", "probability", "receipt"}


def test_which_column_is_asked_is_told_where_it_is_another_one(messy: Path, capsys: pytest.CaptureFixture[str]):
    told = []
    for head in ("review", "comment"):
        (messy / "some.csv").write_text(f"{head},note\na fine film,x\n", "utf-8")
        assert main(["task", "predict", str(messy / "model"), str(messy / "some.csv")]) == 0
        told.append("note: text: column 'comment'" in capsys.readouterr().err)
    assert told == [False, True]


def test_why_says_what_is_answered_and_what_is_explained(messy: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["task", "why", str(messy / "model"), "a fine film"]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    (answer,) = open_task(messy / "model").predict(["a fine film"])
    assert first == f"answer: {answer.answer} ({100 * (answer.probability or 0):.0f} %)"
    assert second == f"explained: logit of “{answer.answer}”"


def test_a_file_without_the_truth_cannot_be_measured_on(messy: Path, capsys: pytest.CaptureFixture[str]):
    (messy / "plain.csv").write_text("review,note,shop\na fine film,x,y\n", "utf-8")
    sentence = refused(capsys, "evaluate", str(messy / "model"), str(messy / "plain.csv"))
    assert "has the columns review, note, shop; which of them is its label? Say it with --column label=NAME" in sentence
    assert "holds no task.json" in refused(capsys, "evaluate", str(messy), str(messy / "t.csv"))
    assert "is no folder" in refused(capsys, "evaluate", str(messy / "t.csv"), str(messy / "t.csv"))


def test_labels_that_were_not_taught_are_counted_in_every_split(tmp_path: Path):
    (tmp_path / "train.csv").write_text("text,label\n" + GOOD, "utf-8")
    (tmp_path / "test.csv").write_text("text,label\nan odd film,strange\na fine film 0,good\n", "utf-8")
    data = read_data(task_from("classify"), tmp_path / "train.csv", test=tmp_path / "test.csv")
    notes = " ".join(data.notes)
    assert f"'strange' (1 time, first at {tmp_path / 'test.csv'}:2)" in notes
    assert data.shared in ({("train", "test"): 1}, {("valid", "test"): 1})
    assert "drop_leaks=true" in notes
    left = read_data(task_from("classify"), tmp_path / "train.csv", test=tmp_path / "test.csv", drop_leaks=True)
    assert not left.shared
    assert sum(map(len, left.splits.values())) == sum(map(len, data.splits.values())) - 1
    assert len(left.splits["test"]) == 2


def test_records_may_lack_columns_that_others_have(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"text": "b", "label": "x"}\n', "utf-8")
    examples, aside, columns = read_examples(task_from("classify"), tmp_path / "t.jsonl")
    assert columns == {"text": "text", "label": "label"}
    assert [example.truth for example in examples] == [("x",)]
    assert [one.source.rpartition(":")[2] for one in aside] == ["1"]


def test_labels_are_known_by_what_they_hold_where_one_column_alone_can_be_them(tmp_path: Path):
    rows = [f"{n},a long review of number {n},{'ab'[n % 2]},{n / 7}" for n in range(60)]
    (tmp_path / "t.csv").write_text("id,review,kind of thing,price\n" + "\n".join(rows) + "\n", "utf-8")
    assert read_examples(task_from("classify"), tmp_path / "t.csv")[2] == {"text": "review", "label": "kind of thing"}
    rows = [f"{row},{'xyz'[n % 3]}" for n, row in enumerate(rows)]
    (tmp_path / "t.csv").write_text("id,review,kind of thing,price,shop\n" + "\n".join(rows) + "\n", "utf-8")
    with pytest.raises(InputError, match=r"its label\? \(by what they hold: kind of thing or shop\) Say it with"):
        read_examples(task_from("classify"), tmp_path / "t.csv")


def test_headers_are_known_by_the_names_that_a_task_looks_for(tmp_path: Path):
    (tmp_path / "t.csv").write_text("Utterance,Intent\nhi,greet\nbye,leave\n", "utf-8")
    examples, _, columns = read_examples(task_from("classify"), tmp_path / "t.csv")
    assert columns == {"text": "Utterance", "label": "Intent"}
    assert len(examples) == 2


def test_the_columns_that_a_model_was_trained_on_are_meant_first(tmp_path: Path):
    (tmp_path / "t.csv").write_text("text,note,label,kind\na,b,c,d\n", "utf-8")
    examples, _, columns = read_examples(
        task_from("classify"), tmp_path / "t.csv", before={"text": "note", "label": "gone"}
    )
    assert columns == {"text": "note", "label": "label"}
    assert examples[0].more == {"text": "a", "kind": "d"}


@pytest.mark.parametrize("damage", ["no json", "other format", "no labels"])
def test_a_damaged_task_json_is_told(messy: Path, tmp_path: Path, damage: str):
    record = json.loads((messy / "model" / "task.json").read_text("utf-8"))
    texts = {"no json": "{", "other format": json.dumps(record | {"format": 99})}
    record.pop("labels")
    (tmp_path / "task.json").write_text(texts.get(damage, json.dumps(record)), "utf-8")
    with pytest.raises(ValueError, match=r"task\.json"):
        open_task(tmp_path)


def test_a_million_characters_are_too_many(messy: Path):
    with pytest.raises(InputError, match=r"longer than 1,000,000 characters \(1,000,001\)"):
        open_task(messy / "model").predict(["x" * 1_000_001])


def test_wrong_kinds_of_checkpoints_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from cutaway.models import Model, build_network
    from cutaway.models.config import network_of_size
    from cutaway.models.model import save_model
    from cutaway.tokenizers import train_tokenizer

    file = write_reviews(tmp_path / "r.tsv", 60)
    words = ["train", "classify", "--data", str(file), "--out", str(tmp_path / "model"), *QUICK, "--from"]
    tokenizer = train_tokenizer(["a film"] * 20, "char", 300)
    network = build_network(network_of_size("seq2seq", 1, tokenizer.vocab_size, context=16))
    save_model(Model(network, tokenizer), tmp_path / "seq2seq")
    assert "is a seq2seq network; the task classify needs encoder" in refused(capsys, *words, str(tmp_path / "seq2seq"))
    kind = task_from("score").kinds[0]
    with pytest.raises(ConfigError, match=f"r.tsv is an encoder network; the task score needs {kind}"):
        check_kind(task_from("score"), "r.tsv", "encoder")
    (tmp_path / "none").mkdir()
    assert str(tmp_path / "none") in refused(capsys, *words, str(tmp_path / "none"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03")
    assert "bad.gguf" in refused(capsys, *words, str(tmp_path / "bad.gguf"))


class Apart(Pair):
    """Pairs that belong together where they share either of their texts."""

    def together(self, example: Example) -> list[str]:
        return self.texts(example)


def test_examples_that_share_a_text_are_in_one_split(tmp_path: Path):
    rows = [f"one {n // 3},other {n},{('same', 'differs')[n % 2]}" for n in range(120)]  # three of each first text
    rows += [f"other {n},last {n},same" for n in range(0, 120, 3)]  # and one that joins by a second one
    (tmp_path / "t.csv").write_text("first,second,label\n" + "\n".join(rows) + "\n", "utf-8")
    data = read_data(Apart(), tmp_path / "t.csv", valid=0.2, test=0.2)
    assert not data.shared
    texts = {name: {text for e in some for text in e.given.values()} for name, some in data.splits.items()}
    assert not texts["train"] & texts["test"]
    assert not texts["valid"] & texts["test"]
    assert [len(some) for some in data.splits.values()] == [96, 32, 32]


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \n", "\x01\x7f", "\u0301"])
def test_a_text_in_which_there_is_nothing_to_read_is_empty(text: str):
    for task in (Classify(), Embed(), Tag(), Summarise(), Translate()):
        with pytest.raises(InputError, match="is empty"):
            task.example("a row", {task.roles[0].name: text}, answered=False)
        assert task.example("a row", {task.roles[0].name: f"{text}!"}, answered=False)


@pytest.mark.parametrize("task", [Classify(), Tag(), Summarise(), AnswerQuestions()], ids=lambda task: task.name)
@pytest.mark.parametrize("cell", ["[" * 5000, '{"a":' * 5000, "[" + "9" * 5000 + "]"], ids=["lists", "tables", "9s"])
def test_a_cell_that_only_begins_like_json_is_a_text_or_told(task: Task, cell: str):
    for role in task.roles:
        values = dict.fromkeys((one.name for one in task.roles if one.needed), "the text") | {role.name: cell}
        with suppress(InputError):
            task.example("a row", values, answered=True)


def test_one_column_cannot_be_the_text_and_its_label(tmp_path: Path):
    (tmp_path / "t.csv").write_text("review,stars\n" + GOOD, "utf-8")
    with pytest.raises(ConfigError, match=r"the column 'stars' of .* was given for text and for label"):
        read_data(task_from("classify"), tmp_path / "t.csv", columns={"text": "stars", "label": "stars"})


@pytest.mark.parametrize("sign", ["\u200b", "\ufeff \u2060", "\u0301", "\x07", "\u3000"])
def test_a_text_that_cannot_be_seen_is_empty(tmp_path: Path, sign: str):
    (tmp_path / "t.csv").write_text(f"text,label\n{GOOD}{sign},good\n", "utf-8")
    _, aside, _ = read_examples(task_from("classify"), tmp_path / "t.csv")
    assert [(one.source, one.reason) for one in aside] == [(f"{tmp_path / 't.csv'}:42", "the text is empty")]


def test_a_label_of_spaces_is_missing_and_makes_no_text_one_of_several_labels(tmp_path: Path):
    (tmp_path / "t.csv").write_text(f"text,label\n{GOOD}an odd film, \n", "utf-8")
    data = read_data(task_from("classify"), tmp_path / "t.csv")
    assert getattr(data.task, "several", "") == "no"
    assert [one.reason for one in data.aside] == ["the label is missing"]


@pytest.mark.parametrize("name", ["classify", "nearest", "score"])
def test_where_a_text_has_one_label_rows_of_none_or_two_are_set_aside(tmp_path: Path, name: str):
    labels = [["x"], ["y"], [], ["x", "y"], [None], ["x", "x"]]
    lines = [json.dumps({"text": f"a film {n}", "label": label}) for n, label in enumerate(labels)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    examples, aside, _ = read_examples(task_from({"name": name, "several": "no"}), tmp_path / "t.jsonl")
    assert [example.truth for example in examples] == [("x",), ("y",), ("x",)]
    assert [one.reason.partition(" (")[0] for one in aside] == [
        *("no labels were given", "2 labels were given", "no labels were given")
    ]
    assert getattr(task_from("nearest"), "several", "") == "no"


def test_the_same_labels_in_another_order_are_the_same(tmp_path: Path):
    rows = "a film,x|y\na film,y|x\na play,y|x\n" + "".join(f"text {n},{'xy'[n % 2]}\n" for n in range(40))
    (tmp_path / "t.csv").write_text("text,label\n" + rows, "utf-8")
    data = read_data(task_from("classify"), tmp_path / "t.csv", valid=0, test=0)
    assert not data.aside
    assert [example.truth for example in data.splits["train"][:2]] == [("x", "y"), ("x", "y")]


def test_other_splits_are_read_by_the_columns_of_the_training_data(tmp_path: Path):
    rows = [f"a long review of number {n},{'ab'[n % 2]}" for n in range(60)]
    (tmp_path / "train.csv").write_text("id,review,kind of thing\n" + "\n".join(f"{n},{r}" for n, r in enumerate(rows)))
    (tmp_path / "test.csv").write_text("review,kind of thing,shop\nan odd film,a,x\na new film,b,y\n", "utf-8")
    data = read_data(task_from("classify"), tmp_path / "train.csv", test=tmp_path / "test.csv")
    assert [example.truth for example in data.splits["test"]] == [("a",), ("b",)]


SIGNS = ["\U0001f600", "\U0001f603", "\U0001f622", "\U0001f62d"]


def test_texts_without_words_are_learned_beside_a_baseline(tmp_path: Path):
    texts = ["".join(SIGNS[(n >> place) % 4] for place in range(0, 8, 2)) for n in range(80)]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{t},{'ab'[n % 2]}\n" for n, t in enumerate(texts)))
    words = ["train", "classify", "--data", str(tmp_path / "t.csv"), "--out", str(tmp_path / "model"), *QUICK]
    assert main(["task", *words, "--json"]) == 0
    pairs = [(text, text[::-1]) for text in texts[:8]]
    assert pair_baseline.linear_probabilities(pairs, np.arange(8) % 2, pairs).shape == (8, 2)


def test_a_baseline_of_one_label_says_that():
    pairs = [("a b", "c d"), ("a", "d")]
    assert pair_baseline.linear_probabilities(pairs, np.array([1, 1]), pairs[:1]).tolist() == [[0, 1]]
    plain = [np.zeros(2, np.int64)] * 2
    assert [tags.tolist() for tags in tag_baseline.linear_tags([["a", "b"]] * 2, plain, [["a"], []])] == [[0], []]


def test_what_is_resumed_takes_no_other_option(messy: Path, capsys: pytest.CaptureFixture[str]):
    sentence = refused(capsys, "train", "--resume", str(messy / "model"), "--minutes", "5")
    assert "what is resumed goes on as it was begun; leave --minutes out" in sentence
    assert "leave --from out" in refused(capsys, "train", "--resume", str(messy / "model"), "--from", "base")


def test_validation_texts_that_are_all_out_of_scope_are_refused(tmp_path: Path):
    (tmp_path / "train.csv").write_text("text,label\n" + GOOD, "utf-8")
    (tmp_path / "valid.csv").write_text("text,label\nan odd film,odd\na new film,odd\n", "utf-8")
    task = task_from({"name": "classify", "out_of_scope": "odd"})
    with pytest.raises(InputError, match=r"all validation texts are out of scope \('odd'\)"):
        read_data(task, tmp_path / "train.csv", valid=tmp_path / "valid.csv", test=0)
