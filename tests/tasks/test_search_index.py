"""An index over a folder: exact places, BM25 by its formula, fusion by hand, updates in place, damage, and reasons."""

import io
import json
import math
import os
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.files import seal
from cutaway.models import EncoderConfig, Model, build_network
from cutaway.models.embedding import embed
from cutaway.tasks.search import build_index, fuse, open_index
from cutaway.tasks.search.fusion import belongs
from cutaway.tasks.search.passages import passages, size_of
from cutaway.tasks.search.vectors import VectorIndex
from cutaway.tasks.search.words import WordIndex, cutter
from cutaway.tasks.task import Answer
from cutaway.tokenizers import train_tokenizer

BIRDS = "Penguins swim well. They cannot fly, but they dive for fish.\n\nAn ostrich runs faster than any other bird."
BREAD = (
    "Bread is made of flour and water. Yeast makes the dough rise.\n\nThe oven should be hot before the bread goes in."
)
HOTEL = "酒店的房间很干净。服务员非常热情，早餐也不错。\n\n地铁站就在酒店门口，交通方便。"


def write_docs(folder: Path) -> Path:
    folder.mkdir()
    (folder / "birds.md").write_text("---\ntitle: Birds\n---\n" + BIRDS, "utf-8")
    (folder / "bread.txt").write_text(BREAD, "utf-8")
    (folder / "hotel.txt").write_text(HOTEL, "utf-8")
    (folder / "rows.csv").write_text(
        "text,kind\nWhales are mammals that live in the sea.,sea\nA rose has thorns.,land\n"
    )
    return folder


@pytest.fixture(scope="module")
def model() -> Model:
    """A network with random weights, whose vectors are still those of their texts."""
    tokenizer = train_tokenizer([BIRDS, BREAD, HOTEL], "bpe", 400)
    torch.manual_seed(0)
    config = EncoderConfig(
        tokenizer.vocab_size, context=128, layers=1, width=32, heads=2, head="embedding", pooling="mean", normalize=True
    )
    return Model(build_network(config), tokenizer, source="a toy")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return write_docs(tmp_path / "docs")


SMALL = {"size": 60, "overlap": 0}


def test_hits_say_where_they_stand_and_quote_word_for_word(docs, tmp_path, model):
    index = build_index(docs, tmp_path / "idx", model=model, settings=SMALL)
    (hit, *_) = index.search("Which bird runs fast?", 3)
    assert hit.source.endswith("birds.md")
    assert hit.title == "Birds"
    assert "ostrich" in hit.text
    body = BIRDS
    assert body[hit.start : hit.end] == hit.text
    for found in index.search("the bread and the bird in the sea", 20):
        number = index.store.passages[found.passage][0]
        assert index.store.text(int(number))[found.start : found.end] == found.text
    assert index.search("地铁方便吗", 1, how="words")[0].text.startswith("地铁站")
    assert "Whales" in index.search("whales", 1)[0].text


def test_opened_again_it_finds_the_same(docs, tmp_path, model):
    made = build_index(docs, tmp_path / "idx", model=model, settings=SMALL)
    again = open_index(tmp_path / "idx", model=model)
    for how in ("hybrid", "words", "vectors"):
        told = [[hit.to_json() for hit in index.search("bread in the oven", 5, how=how)] for index in (made, again)]
        assert told[0] == told[1]
        assert told[0]


def test_bm25_is_the_formula():
    texts = ["a cat sat on a mat", "the dog sat", "cat and dog and cat", "birds fly", "a a a b"]
    cut = [text.split() for text in texts]
    index = WordIndex.of(cut)
    mean = sum(map(len, cut)) / len(cut)
    question = ["cat", "sat", "a", "unicorn", "cat"]
    for place, words in enumerate(cut):
        counts, expected = Counter(words), 0.0
        for word in question:
            n = sum(word in other for other in cut)
            f = counts[word]
            idf = math.log(1 + (len(cut) - n + 0.5) / (n + 0.5))
            expected += idf * f / (f + 1.5 * (1 - 0.75 + 0.75 * len(words) / mean)) if n else 0.0
        assert index.scores(question)[place] == pytest.approx(expected, abs=1e-5)
        assert sum(index.terms(question, place).values()) == pytest.approx(expected, abs=1e-5)


def test_fusion_by_hand():
    assert fuse([[7, 3, 5], [3, 9]], k=60) == pytest.approx({3: 1 / 62 + 1 / 61, 7: 1 / 61, 9: 1 / 62, 5: 1 / 63})
    assert list(fuse([[7, 3], [3, 7]], k=60)) == [3, 7]  # equal scores in the order of their numbers


def test_a_hybrid_hit_shows_its_parts(docs, tmp_path, model):
    index = build_index(docs, tmp_path / "idx", model=model, settings=SMALL)
    for hit in index.search("the hot oven", 5):
        expected = sum(1 / (60 + part.rank) for part in (hit.words, hit.vectors) if part is not None)
        assert hit.score == pytest.approx(expected)
    by_word = {hit.passage: hit.score for hit in index.search("the hot oven", 50, how="words")}
    by_vector = [hit.passage for hit in index.search("the hot oven", 50, how="vectors")]
    hit = index.search("the hot oven", 1)[0]
    assert hit.words is not None
    assert hit.words.score == pytest.approx(by_word[hit.passage])
    assert hit.vectors is not None
    assert by_vector[hit.vectors.rank - 1] == hit.passage


def test_vectors_are_those_of_brute_force(docs, tmp_path, model):
    index = build_index(docs, tmp_path / "idx", model=model, settings=SMALL)
    texts = list(index.store.all_passages())
    vectors = embed(model, [*texts, "fish dive"]).numpy()
    expected = vectors[:-1] @ vectors[-1]
    found = index.by_vectors("fish dive", 50)
    assert list(found) == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_allclose(list(found.values()), np.sort(expected)[::-1], atol=1e-5)


def test_a_graph_finds_what_comparing_all_does(tmp_path):
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(3000, 32)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    exact, graph = VectorIndex.of(matrix, graph=False), VectorIndex.of(matrix, graph=True)
    graph.save(tmp_path)
    graph = VectorIndex.load(tmp_path, 3000)
    assert graph.graph is not None
    shared = 0
    for row in range(50):
        question = matrix[row] + 0.5 * draw.normal(size=32).astype(np.float32)
        question /= np.linalg.norm(question)
        (true, cosines), (said, its) = exact.nearest(question, 10), graph.nearest(question, 10)
        assert cosines[0] == pytest.approx(float((matrix @ question).max()))
        shared += len(set(true.tolist()) & set(said.tolist()))
        assert (np.diff(its) <= 0).all()
    assert shared >= 0.95 * 500


def test_a_model_that_lay_nowhere_is_asked_for(docs, tmp_path, model):
    nowhere = Model(model.network, model.tokenizer)
    build_index(docs, tmp_path / "idx", model=nowhere, settings=SMALL)
    with pytest.raises(ConfigError, match="open it with model"):
        open_index(tmp_path / "idx").search("bread")
    assert open_index(tmp_path / "idx", model=model).search("bread")


def test_updated_in_place_it_embeds_only_what_is_new(docs, tmp_path, model):
    index = build_index(docs, tmp_path / "idx", model=model, settings=SMALL)
    before = index.changes
    assert before is not None
    assert before.embedded == len(index)
    (docs / "bread.txt").write_text(BREAD + "\n\nRye bread keeps for a week in a dry place.", "utf-8")
    (docs / "hotel.txt").unlink()
    (docs / "new.txt").write_text("A volcano erupts when magma rises to the surface.", "utf-8")
    index = open_index(tmp_path / "idx", model=model)
    changes = index.update()
    name = {kind: [Path(one).name for one in getattr(changes, kind)] for kind in ("added", "changed", "removed")}
    assert name == {"added": ["new.txt"], "changed": ["bread.txt"], "removed": ["hotel.txt"]}
    assert changes.kept == 2
    assert changes.embedded == 2
    assert "volcano" in index.search("volcano", 1)[0].text
    assert not index.search("酒店", 5, how="words")
    fresh = build_index(docs, tmp_path / "fresh", model=model, settings=SMALL)
    assert list(index.store.all_passages()) == list(fresh.store.all_passages())
    assert fresh.vectors is not None
    assert index.vectors is not None
    np.testing.assert_allclose(index.vectors.matrix, fresh.vectors.matrix, atol=1e-6)
    for question in ("bread", "rye in a dry place", "bird"):
        told = [[hit.to_json() for hit in one.search(question, 9)] for one in (index, fresh)]
        for mine, theirs in zip(*told, strict=True):
            assert mine == theirs | {"vectors": mine["vectors"]}
    again = index.update()
    assert (again.added, again.changed, again.removed, again.embedded) == ([], [], [], 0)


def test_words_alone_need_no_model(docs, tmp_path, model):
    index = build_index(docs, tmp_path / "idx", settings=SMALL)
    assert "Yeast" in index.search("yeast dough", 1)[0].text
    assert index.search("xylophone", 3) == []
    with pytest.raises(ConfigError, match="words alone"):
        index.search("bread", how="vectors")
    with pytest.raises(InputError, match="empty"):
        index.search("  ")
    with pytest.raises(InputError, match="k at least 0"):
        index.search("bread", k=-1)
    with pytest.raises(ConfigError, match="without a model"):
        open_index(tmp_path / "idx", model=model)


def test_every_damaged_file_is_named(docs, tmp_path, model):
    build_index(docs, tmp_path / "idx", model=model, settings=SMALL)
    files = [path.relative_to(tmp_path / "idx") for path in (tmp_path / "idx").rglob("*") if path.is_file()]
    assert len(files) >= 10
    for file in files:
        if file.name == "manifest.json":
            continue
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "idx", copy)
        data = bytearray((copy / file).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / file).write_bytes(data)
        with pytest.raises(DamagedFile, match=file.name.replace(".", r"\.")):
            open_index(copy)
        (copy / file).unlink()
        with pytest.raises((DamagedFile, InputError)):
            open_index(copy)
        shutil.rmtree(copy)


def test_another_model_is_refused(docs, tmp_path, model):
    build_index(docs, tmp_path / "idx", model=model, settings=SMALL)
    torch.manual_seed(5)
    other = Model(build_network(model.config), model.tokenizer, source="another toy")
    with pytest.raises(ConfigError, match="other vectors"):
        open_index(tmp_path / "idx", model=other).search("bread")
    causal = Model(
        build_network(EncoderConfig(400, width=32, heads=2, layers=1)), model.tokenizer, source="a masked model"
    )
    with pytest.raises(ConfigError, match="makes no vectors"):
        build_index(docs, tmp_path / "none", model=causal)
    assert not (tmp_path / "none").exists()


def test_bad_places_are_told(docs, tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        open_index(tmp_path / "nothing")
    with pytest.raises(InputError, match="is no index"):
        open_index(docs)
    with pytest.raises(InputError, match="exists already"):
        build_index(docs, docs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nothing to read"):
        build_index(tmp_path / "empty", tmp_path / "idx")
    with pytest.raises(ConfigError, match="smaller than size"):
        build_index(docs, tmp_path / "idx", settings={"size": 50, "overlap": 50})


def test_a_hit_is_owed_to_its_words_and_tokens(docs, tmp_path, model):
    index = build_index(docs, tmp_path / "idx", model=model, settings=SMALL)
    hit = index.search("hot oven for bread", 1)[0]
    found = index.why("hot oven for bread", hit)
    assert hit.words is not None
    assert hit.vectors is not None
    assert sum(adds for _, adds in found.words.rows) == pytest.approx(hit.words.score, abs=1e-5)
    assert {word for word, _ in found.words.rows} <= {"hot", "oven", "for", "bread"}
    assert found.tokens.exact
    assert sum(found.tokens.scores) == pytest.approx(hit.vectors.score, abs=1e-5)
    assert json.loads(json.dumps(found.to_json()))["bm25"] == pytest.approx(hit.words.score, abs=1e-5)


def test_chinese_is_cut_into_words():
    assert "房间" in cutter("jieba")("酒店的房间很干净")
    assert cutter("characters")("酒店 Room 12") == ["酒", "店", "room", "12"]
    assert cutter("characters", "en")("running ovens") == ["run", "oven"]
    with pytest.raises(ConfigError, match="segmenter"):
        cutter("scissors")


@given(
    st.text(st.sampled_from("ab .!?\n，。好人\u3000é😀"), max_size=300),
    st.integers(20, 80),
    st.integers(0, 19),
)
@settings(max_examples=200, deadline=None)
def test_passages_lose_nothing_and_overlap_by_whole_sentences(text, size, overlap):
    found = passages(text, size, overlap)
    kept = np.zeros(len(text), bool)
    for start, end in found:
        assert 0 <= start < end <= len(text)
        assert not text[start].isspace()
        kept[start:end] = True
    assert not [letter for letter, there in zip(text, kept, strict=True) if not there and not letter.isspace()]
    starts = [start for start, _ in found]
    assert starts == sorted(set(starts))
    for (start, end), (other, _) in pairwise(found):
        assert size_of(text[other:end]) <= overlap + 2  # and the space between sentences
        assert start < other


def test_a_model_of_two_texts_orders_anew(docs, tmp_path):
    class Roles:
        def __init__(self, name: str, answer: bool = False) -> None:
            self.name, self.answer = name, answer

    class Judge:  # as a TaskModel of the task pair: likes short passages
        class task:
            name = "pair"
            roles: tuple[Roles, ...] = (Roles("first"), Roles("second"), Roles("label", True))

        labels = ("no", "yes")

        def predict(self, inputs: list[dict[str, str]]) -> list[Answer]:
            assert all(given["first"] == "the bread" for given in inputs)
            chances = [1 / len(given["second"]) for given in inputs]
            return [Answer("yes", p, {"probabilities": {"no": 1 - p, "yes": p}}) for p in chances]

    index = build_index(docs, tmp_path / "idx", settings=SMALL)
    plain = index.search("the bread", 10)
    hits = index.search("the bread", 10, rerank=Judge())
    assert {hit.passage for hit in hits} == {hit.passage for hit in plain}
    assert [len(hit.text) for hit in hits] == sorted(len(hit.text) for hit in plain)
    assert hits[0].probability == hits[0].score == pytest.approx(1 / len(hits[0].text))
    assert hits[0].words is not None
    Judge.task.roles = (Roles("text"), Roles("label", True))
    with pytest.raises(ConfigError, match="does not judge two texts"):
        index.search("the bread", 10, rerank=Judge())


def test_the_label_that_says_that_texts_belong_together():
    assert belongs(("no", "yes")) == "yes"
    assert belongs(("0", "1")) == belongs(("1",)) == "1"
    assert belongs(("1", "11")) == "11"
    assert belongs(("entailment", "not_entailment")) == "entailment"
    assert belongs(("Duplicate", "not duplicate")) == "Duplicate"
    assert belongs(("irrelevant", "relevant")) == "relevant"


def test_an_index_in_its_own_folder_does_not_read_itself(docs):
    index = build_index(docs, docs / "idx", settings=SMALL)
    count = len(index)
    changes = index.update()
    assert changes.passages == count
    assert not changes.added


def test_what_was_opened_stays_when_another_brings_the_folder_up_to_date(docs, tmp_path):
    build_index(docs, tmp_path / "idx", settings=SMALL)
    reader = open_index(tmp_path / "idx")
    (docs / "birds.md").write_text("Zebras run. " * 40, "utf-8")
    open_index(tmp_path / "idx").update()
    hits = [hit for hit in reader.search("bread in the hot oven", 9) if hit.source.endswith("bread.txt")]
    assert len(hits) > 1
    assert all(BREAD[hit.start : hit.end] == hit.text for hit in hits)
    assert "Penguins" in reader.search("penguins", 1)[0].text


def test_an_index_that_is_replaced_while_it_is_opened_is_opened_anew(docs, tmp_path, monkeypatch):
    build_index(docs, tmp_path / "idx", settings=SMALL)
    load, asked = WordIndex.load.__func__, []

    def meanwhile(cls, *given):
        asked.append(given)
        if len(asked) == 1:
            (docs / "birds.md").write_text("Zebras run.", "utf-8")
            (docs / "rows.csv").unlink()
            open_index(tmp_path / "idx").update()
        return load(cls, *given)

    monkeypatch.setattr(WordIndex, "load", classmethod(meanwhile))
    found = open_index(tmp_path / "idx")
    assert len(asked) == 3
    assert "Zebras" in found.search("zebras", 1)[0].text
    assert "Bread" in found.search("flour", 1)[0].text


def test_a_file_that_could_not_be_read_is_tried_again(docs, tmp_path):
    (docs / "report.pdf").write_bytes(b"%PDF-1.4 cut short")
    left = []
    index = build_index(docs, tmp_path / "idx", settings=SMALL, skipped=left.append)
    assert [Path(one.source).name for one in left] == ["report.pdf"]
    assert index.changes is not None
    assert len(index.changes.added) == 4
    left.clear()
    changes = index.update(skipped=left.append)
    assert [Path(one.source).name for one in left] == ["report.pdf"]
    assert (changes.kept, changes.added, changes.changed) == (4, [], [])
    (docs / "birds.md").write_bytes(b"\0\1\2" * 99)
    changes = index.update(skipped=left.append)
    assert [Path(one).name for one in changes.removed] == ["birds.md"]


def test_a_file_whose_name_is_no_text_is_left_out_and_told(docs, tmp_path):
    path = os.fsencode(docs) + b"/\xff\xfe.txt"
    try:
        Path(os.fsdecode(path)).write_text("A strange name.", "utf-8")
    except OSError:
        pytest.skip("this system has no names but those in UTF-8")
    left = []
    index = build_index(docs, tmp_path / "idx", settings=SMALL, skipped=left.append)
    assert "rename it" in left[0].reason
    assert open_index(tmp_path / "idx").files == index.files


def test_no_passage_only_repeats_the_one_before():
    text = " ".join(letter * count + "." for letter, count in zip("ABCD", (600, 150, 700, 100), strict=True))
    found = passages(text, 800, 160)
    assert [text[start] for start, _ in found] == ["A", "C", "D"]
    for (_, end), (_, other) in pairwise(found):
        assert end < other


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    root = tmp_path_factory.mktemp("built")
    return build_index(write_docs(root / "docs"), root / "idx", model=model, settings=SMALL).folder


def spoiled(built: Path, folder: Path, name: str, data: bytes) -> Path:
    """As a stranger would make it: another file in an index, with the right checksum."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(built, folder)
    (folder / name).write_bytes(data)
    seal(folder)
    return folder


@pytest.mark.parametrize("name", ["passages.npy", "vectors.npy", "words/data.npy", "words/indptr.npy"])
def test_t5_arrays_of_an_index_that_are_none_are_refused(built, tmp_path, name):
    old = np.load(built / name)

    def headed(**given) -> bytes:
        file = io.BytesIO()
        told = {"descr": old.dtype.str, "fortran_order": False, "shape": old.shape, **given}
        np.lib.format.write_array_header_1_0(file, told)
        return file.getvalue() + old.tobytes()

    file = io.BytesIO()
    np.save(file, old[..., None])
    huge = [headed(shape=(count, *old.shape[1:])) for count in (10**12, 2**62, 2**63, -1)]
    for data in (b"", b"PK\3\4no", headed(descr="|O"), headed(descr="<f2"), file.getvalue(), *huge):
        with pytest.raises(DamagedFile, match="build the index again"):
            open_index(spoiled(built, tmp_path / "idx", name, data))


def test_t5_words_and_documents_of_an_index_that_are_none_are_refused(built, tmp_path):
    words = ("[" * 100_000, "[]", *(f'{{"bread": {number}}}' for number in ("10000000", "-1", "true", "1.5", '"1"')))
    first, rest = (built / "documents.jsonl").read_text("utf-8").split("\n", 1)
    fields = ({"end": 10**9}, {"begin": -1}, {"begin": True}, {"end": 1.5}, {"title": None}, {"more": 1})
    lines = [json.dumps({**json.loads(first), **field}) + "\n" + rest for field in fields]
    for name, texts in {"words/vocabulary.json": words, "documents.jsonl": ["[" * 100_000 + "\n", *lines]}.items():
        for text in texts:
            with pytest.raises(DamagedFile, match="build the index again"):
                open_index(spoiled(built, tmp_path / "idx", name, text.encode()))


@pytest.mark.parametrize("name", ["vectors.npy", "texts.bin", "words/data.npy", "words/vocabulary.json", "words"])
def test_t7_a_link_in_the_place_of_an_indexs_file_is_refused(built, tmp_path, name):
    folder, elsewhere = tmp_path / "idx", tmp_path / "elsewhere"
    shutil.copytree(built, folder)
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {file: told for file, told in manifest["files"].items() if not file.startswith(name)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFile, match="link"):
        open_index(folder)
