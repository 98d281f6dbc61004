"""From texts to token shards: the same for any number of workers, whole or not at all, honest about what it did."""

import errno
import json
import random
from pathlib import Path

import pytest

from cutaway.errors import ConfigError, InputError
from cutaway.files import verify
from cutaway.progress import Progress
from cutaway.text.clean import Quality
from cutaway.text.report import Report
from cutaway.tokenizers import jobs, load_tokenizer
from cutaway.tokenizers.pipeline import Prepared, prepare

# Made of syllables and many, so that no story repeats itself as much as the quality filters mind
SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sa", "to", "vi", "zo", "be")
WORDS = [first + middle + last for first in SYLLABLES for middle in SYLLABLES for last in SYLLABLES]


def story(rng: random.Random, sentences: int) -> str:
    def sentence() -> str:
        a, b, c, d, e = rng.sample(WORDS, 5)
        return f"The {a} {b} {c}s a {d} near the {e}."

    return "\n\n".join(" ".join(sentence() for _ in range(4)) for _ in range(sentences // 4))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some folders of texts, records and code, with duplicates across files."""
    root, rng = tmp_path_factory.mktemp("corpus"), random.Random(0)
    stories = [story(rng, rng.choice([8, 40, 200])) for _ in range(60)]
    for number, text in enumerate(stories[:30]):
        (root / f"{number:02d}.txt").write_text(text, "utf-8")
    with (root / "records.jsonl").open("w") as file:
        for text in [*stories[25:], "short", "1 2 3 4 5 6 7 8 9 10 11 12 13 14", stories[2].upper()]:
            print(json.dumps({"text": text}), file=file)
    (root / "code.py").write_text("def f(x):\n    if x:\n        return  {'a':   x}\n\n" * 3 + "print(f(1))\n", "utf-8")
    (root / "chinese.txt").write_text(
        "清晨的旧港口在雾中十分安静。一只小船在泊位之间移动，没有人说得出它从哪里来。\n", "utf-8"
    )
    return root


def texts_of(made: Prepared, split: str) -> list[str]:
    """The documents of a split, read back from the store."""
    store = made.store
    tokens = store[split]
    whole = store.tokenizer.decode(tokens.window(0, tokens.tokens))
    texts = whole.removesuffix("<|endoftext|>").split("<|endoftext|>")
    assert len(texts) == tokens.documents
    return texts


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_result_is_the_same_for_any_number_of_workers(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "CHUNK", 9_000)  # in this process only: chunk borders must not matter either
    prepared = [
        prepare(corpus, tmp_path / str(count), vocab_size=400, test=0.1, near_duplicates=True, workers=count)
        for count in (1, 3)
    ]
    one, three = (files_of(made.folder) for made in prepared)
    assert one.keys() == three.keys()
    assert {name for name in one if one[name] != three[name]} == set()
    assert prepared[0].report == prepared[1].report
    verify(prepared[0].folder)
    assert Prepared.open(prepared[0].folder).report == prepared[0].report


def test_every_kept_text_is_stored_once_and_reads_as_it_was(corpus: Path, tmp_path: Path) -> None:
    made = prepare(corpus, tmp_path / "out", vocab_size=400, valid=0.2, report=True)
    train, valid = (texts_of(made, split) for split in ("train", "valid"))
    stored = "\n".join(train + valid)
    sentences = [s for text in train + valid for s in text.replace("\n\n", "").split(".")]
    for file in sorted(corpus.glob("*.txt")):
        for paragraph in file.read_text("utf-8").strip().split("\n\n"):
            assert paragraph in stored
    assert "def f(x):\n    if x:\n        return  {'a':   x}" in stored
    assert len(sentences) > 100
    report = made.report
    assert report.steps["exact_duplicates"].dropped.total() >= 6  # 25 to 29 again, and 2 in capitals
    assert report.steps["quality"].dropped == {"fewer than 16 characters": 1, LETTERS: 1}
    assert report.splits["train"]["bytes"] == sum(len(t.encode()) for t in train)
    assert report.splits["valid"]["documents"] == len(valid)
    assert report.files == len(list(corpus.iterdir()))
    page = (made.folder / "report.html").read_text("utf-8")
    assert "exact_duplicates" in page
    assert not set(train) & set(valid)


LETTERS = "letters are less than 50% of what is not space"


def test_a_text_stays_in_its_split_when_the_corpus_grows(corpus: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for file in sorted(corpus.glob("[12]*.txt")):
        (small / file.name).write_bytes(file.read_bytes())
    tokenizer = load_tokenizer(prepare(corpus, tmp_path / "all", vocab_size=400, valid=0.3).folder)
    whole = Prepared.open(tmp_path / "all")
    part = prepare(small, tmp_path / "part", tokenizer=tokenizer, valid=0.3)
    assert len(texts_of(part, "valid")) > 1
    for split, other in (("train", "valid"), ("valid", "train")):
        everything = "\n\n".join(texts_of(whole, other))
        assert not any(text in everything for text in texts_of(part, split))


def test_long_documents_are_divided_without_losing_a_character(tmp_path: Path) -> None:
    text = story(random.Random(1), 8000)
    (tmp_path / "book.txt").write_text(text, "utf-8")
    made = prepare(tmp_path / "book.txt", tmp_path / "out", vocab_size=400, valid=0.1, steps=["whitespace"])
    train, valid = (texts_of(made, split) for split in ("train", "valid"))
    assert len(valid) > 1
    assert sum(map(len, train + valid)) == len(text)
    assert sorted("".join(train + valid)) == sorted(text)
    assert max(map(len, train)) > 3 * 8192  # neighbouring pieces of one split are one text again


def test_a_small_corpus_still_gets_its_splits(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(story(random.Random(2), 80), "utf-8")
    made = prepare(tmp_path / "a.txt", tmp_path / "out", vocab_size=300, valid=0.01, test=0.01)
    assert set(made.report.splits) == {"train", "valid", "test"}
    assert "small corpus" in made.warnings[0]
    (tmp_path / "b.txt").write_text("Only one sentence, and not a long one.", "utf-8")
    with pytest.raises(InputError, match=r"too little text to divide \(1 piece\): nothing is left for valid"):
        prepare(tmp_path / "b.txt", tmp_path / "out", vocab_size=300)
    assert (
        prepare(tmp_path / "b.txt", tmp_path / "one", vocab_size=300, valid=0).report.splits["train"]["documents"] == 1
    )


def test_nothing_left_says_which_step_dropped_what(tmp_path: Path) -> None:
    (tmp_path / "numbers.txt").write_text("1 2 3 4 5 6 7 8 9\n" * 20, "utf-8")
    with pytest.raises(InputError, match=r"nothing is left after cleaning: quality dropped 1 of 1 \(letters are less"):
        prepare(tmp_path / "numbers.txt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"steps": ["qualty"]}, "did you mean quality"),
        ({"languages": ["english"]}, "unknown language 'english'"),
        ({"tokenizer": "bpee"}, "did you mean bpe"),
        ({"classic": ["lower"]}, "unknown classic step 'lower'"),
        ({"valid": 1.5}, "valid must be a share"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_wrong_options(corpus: Path, tmp_path: Path, options: dict, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        prepare(corpus, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_languages_and_own_thresholds(corpus: Path, tmp_path: Path) -> None:
    made = prepare(corpus, tmp_path / "zh", vocab_size=300, valid=0, languages=["zh"])
    assert "清晨" in "".join(texts_of(made, "train"))
    assert "harbour" not in "".join(texts_of(made, "train"))
    assert any("not in zh" in reason for reason in made.report.steps["language"].dropped)
    made = prepare(corpus, tmp_path / "long", vocab_size=300, quality=Quality(min_characters=2000))
    assert made.report.steps["quality"].dropped["fewer than 2000 characters"] > 10


def test_classic_steps_warn(corpus: Path, tmp_path: Path) -> None:
    made = prepare(corpus, tmp_path / "out", vocab_size=300, classic=["lowercase", "punctuation"])
    assert len(made.warnings) == 2
    assert "capital letter" in made.warnings[0]
    texts = "".join(texts_of(made, "train"))
    assert texts == texts.lower()
    assert "." not in texts


def test_an_error_or_ctrl_c_leaves_what_was_there(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = files_of(prepare(corpus, out, vocab_size=300).folder)
    stages: list[str] = []

    def interrupt(report: Progress) -> None:
        stages.append(report.stage)
        if report.stage == "cleaning and encoding":
            raise KeyboardInterrupt

    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            prepare(corpus, out, vocab_size=300, workers=workers, progress=interrupt)
    assert "reading a sample" in stages
    assert "training the tokenizer" in stages
    assert files_of(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_one_sentence(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jobs, "_write", full)
    with pytest.raises(InputError, match=r"cannot write .*the disk is full"):
        prepare(corpus, tmp_path / "out", vocab_size=300, workers=1)
    assert not list(tmp_path.iterdir())


def test_the_report_file_is_plain_data(corpus: Path, tmp_path: Path) -> None:
    made = prepare(corpus, tmp_path / "out", vocab_size=300, steps=["quality"])
    values = json.loads((made.folder / "report.json").read_text("utf-8"))
    assert Report.from_dict(values) == made.report
    assert list(made.report.steps) == ["quality"]
    assert made.report.tokenizer["vocab_size"] == 300
    settings = json.loads((made.folder / "prepare.json").read_text("utf-8"))
    assert settings["recipe"]["steps"] == ["quality"]
