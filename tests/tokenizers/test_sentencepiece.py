"""SentencePiece models, against the sentencepiece package and transformers; and files that were made to do harm."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from varied_texts import prose, varied

from cutaway.errors import ConfigError, CutawayError, DamagedFile, InputError
from cutaway.tokenizers import Tokenizer, load_tokenizer
from cutaway.tokenizers.frame import frame
from cutaway.tokenizers.sentencepiece import BYTE, CONTROL, UNKNOWN, SpmRules, bpe_spec, unigram_spec
from cutaway.tokenizers.sentencepiece_file import MOST_PIECES, parse_sentencepiece

RAW = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bytes": {"byte_fallback": True},
    "case": {"normalization_rule_name": "nmt_nfkc_cf"},
    "llama": RAW | {"allow_whitespace_only_pieces": True},
    "gemma": RAW
    | {"allow_whitespace_only_pieces": True, "add_dummy_prefix": False, "user_defined_symbols": ["<x>", "the", "\n"]},
    "users": {"user_defined_symbols": ["<x>", "Hello"], "pad_id": 3},
}


def train(kind: str, texts: list[str] | None = None, size: int = 1000, **options: Any) -> bytes:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
        sentence_iterator=iter(texts or prose()),
        model_writer=made,
        model_type=kind,
        vocab_size=size,
        character_coverage=0.999,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return made.getvalue()


def opened(data: bytes) -> Tokenizer:
    return Tokenizer(json.dumps(parse_sentencepiece(data, "m").spec("m"), ensure_ascii=False), roles={})


@pytest.fixture(scope="module", params=[f"{kind}-{name}" for kind in ("unigram", "bpe") for name in OPTIONS])
def pair(request: pytest.FixtureRequest) -> tuple[Any, bytes, Tokenizer]:
    kind, name = request.param.split("-")
    data = train(kind, **OPTIONS[name])
    return sentencepiece.SentencePieceProcessor(model_proto=data), data, opened(data)  # pyright: ignore


def test_ids_and_text_are_those_of_sentencepiece(pair, tmp_path: Path) -> None:
    theirs, data, ours = pair
    model = parse_sentencepiece(data, "m")
    ours.save(tmp_path)
    again = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    compared = ties = 0
    for text in varied(3000):
        wanted, got = theirs.encode(text), ours.encode(text)
        if not any(name in text for name in ours.special):  # which transformers reads out of any text
            assert again(text)["input_ids"] == got
        normal = theirs.normalize(text).lstrip("▁") == _normalised(ours, text).lstrip("▁")
        if not normal:
            assert any(0x300 <= ord(c) < 0x10000 for c in text)
            continue
        if got != wanted:  # another cut of the same score; sentencepiece adds in float32
            assert ours.kind == "unigram"
            assert sum(model.scores[i] for i in got) == pytest.approx(sum(model.scores[i] for i in wanted), abs=1e-3)
            ties += 1
            continue
        compared += 1
        if model.unk not in got and not text.startswith("▁"):  # sentencepiece writes " ⁇ " for it
            assert ours.decode(got) == theirs.decode(wanted), ascii(text)
    assert compared > 3900
    assert ties < 60


def _normalised(tokenizer: Tokenizer, text: str) -> str:
    return tokenizer._plain.normalizer.normalize_str(text) if tokenizer._plain.normalizer else text


def test_every_character_is_normalised_as_sentencepiece_does(pair) -> None:
    theirs, _, ours = pair
    differs = [
        code
        for code in range(1, 0x20000)
        if not 0xD800 <= code < 0xE000 and _normalised(ours, f"a{chr(code)}b") != theirs.normalize(f"a{chr(code)}b")
    ]
    ascii_and_cjk = [code for code in differs if code < 0x300 or 0x2E80 <= code < 0xA000]
    assert len(differs) < 1500
    assert [c for c in ascii_and_cjk if c not in (0x302A, 0x302B, 0x302C, 0x302D, 0x3099, 0x309A)] == []


def test_the_model_file_says_what_the_package_says(pair) -> None:
    theirs, data, _ = pair
    model = parse_sentencepiece(data, "m")
    count = theirs.get_piece_size()
    assert model.pieces == [theirs.id_to_piece(i) for i in range(count)]
    assert model.scores == [theirs.get_score(i) for i in range(count)]
    assert [kind == CONTROL for kind in model.types] == [theirs.is_control(i) for i in range(count)]
    assert [kind == UNKNOWN for kind in model.types] == [theirs.is_unknown(i) for i in range(count)]
    assert [kind == BYTE for kind in model.types] == [theirs.is_byte(i) for i in range(count)]
    assert (model.unk, model.bos, model.eos, model.pad) == (
        theirs.unk_id(),
        theirs.bos_id(),
        theirs.eos_id(),
        theirs.pad_id(),
    )


def test_why_a_text_is_cut_is_explained(pair) -> None:
    _, _, ours = pair
    for text in ("the representation of x  = 12", "中文 naïve", "if x:\n    return"):
        assert [step.id for step in ours.explain(text)] == ours.encode(text)


# classes of published tokenizers


def folder_of(tmp_path: Path, file: str, data: bytes, **config: Any) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / file).write_bytes(data)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


CLASSES = [
    ("T5Tokenizer", "spiece.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}, {}),
    ("T5Tokenizer", "spiece.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}, {"extra_ids": 7}),
    ("XLMRobertaTokenizer", "sentencepiece.bpe.model", {}, {}),
    ("LlamaTokenizer", "tokenizer.model", RAW | {"model_type": "bpe"}, {"add_bos_token": True}),
    ("LlamaTokenizer", "tokenizer.model", RAW | {"model_type": "bpe"}, {"add_bos_token": False, "add_eos_token": True}),
]


@pytest.mark.parametrize(("name", "file", "options", "config"), CLASSES)
def test_classes_are_those_of_transformers(name, file: str, options: dict, config: dict, tmp_path: Path) -> None:
    options = dict(options)
    data = train(options.pop("model_type", "unigram"), **options)
    folder = folder_of(tmp_path, file, data, tokenizer_class=name, **config)
    theirs = getattr(transformers, name).from_pretrained(folder)
    ours = load_tokenizer(folder)
    ours.save(tmp_path / "saved")
    again = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    compared = 0
    # Left out is where transformers' class differs from the sentencepiece package (and the others are compared with
    # that above): characters that are white space to Rust alone, and for Llama spaces and names at the beginning.
    llama = name == "LlamaTokenizer"
    for text in varied(2500, without=("\x85", "▁", *(("<s>", "</s>", "<unk>") if llama else ()))):
        if any(c in text for c in "\x0b\x85\u1680\u2028\u2029\x1c\x1d\x1e\x1f") or (llama and text.startswith(" ")):
            continue
        ids = ours.encode(text, allow_special=True)
        assert ids == theirs(text, add_special_tokens=False)["input_ids"], ascii(text)
        assert frame(ours, ids)[0] == theirs(text)["input_ids"] == again(text)["input_ids"], ascii(text)
        assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False), ascii(text)
        compared += 1
    assert compared > 2000
    theirs.save_pretrained(tmp_path / "theirs")  # as tokenizer.json
    saved = load_tokenizer(tmp_path / "theirs")
    for text in ("the first, and 2", "中文 naïve é ½", "a  b\tc"):
        assert frame(saved, saved.encode(text))[0] == theirs(text)["input_ids"]
    first, second = "the first", "and 2"
    both = frame(ours, ours.encode(first), ours.encode(second))[0]
    assert both == theirs(first, second)["input_ids"]
    for role in ("pad", "mask"):
        assert getattr(ours, role) == getattr(theirs, f"{role}_token_id")
    assert (ours.end_of_text, ours.vocab_size) == (theirs.eos_token_id, len(theirs))


def test_gemma_is_sentencepiece_with_its_begin(tmp_path: Path) -> None:
    names = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>"}
    data = train("bpe", **OPTIONS["gemma"], **names, bos_piece="<bos>")
    ours = load_tokenizer(folder_of(tmp_path, "tokenizer.model", data, tokenizer_class="GemmaTokenizer"))
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)  # pyright: ignore[reportAttributeAccessIssue]
    for text in varied(1000):
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        assert frame(ours, ids)[0] == [2, *ids]
        assert ours.decode(ids) == theirs.decode(ids)
    assert (ours.pad, ours.end_of_text, ours.begin_of_text) == (0, 1, 2)
    assert ours.encode("<bos>") != [2] == ours.encode("<bos>", allow_special=True)


def test_a_model_without_a_class_is_itself(tmp_path: Path) -> None:
    data = train("unigram")
    ours = load_tokenizer(folder_of(tmp_path, "tokenizer.model", data))
    assert (ours.begin_of_text, ours.end_of_text, ours.pad) == (1, 2, None)
    assert frame(ours, ours.encode("the"))[0] == ours.encode("the")
    other = tmp_path / "other"
    other.mkdir()
    folder_of(other, "spiece.model", data, tokenizer_class="XLNetTokenizer")
    with pytest.raises(ConfigError, match="XLNet"):
        load_tokenizer(other / "published")


# Marian


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marian")
    english, chinese = (
        [t for t in prose() if t.isascii()],
        ["语言模型学习预测下一个词。", "the 模型", "词典 和 数据"] * 30,
    )
    pieces: dict[str, None] = {"</s>": None, "<unk>": None}
    for name, texts, size in (("source", english, 700), ("target", chinese, 120)):
        data = train("unigram", texts, size)
        (folder / f"{name}.spm").write_bytes(data)
        found = parse_sentencepiece(data, name).pieces[3:]
        pieces |= dict.fromkeys(found if name == "target" else found[:-40])  # some pieces have no id
    vocab = {piece: id for id, piece in enumerate([*pieces, ">>fr<<", ">>zh<<", "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    config = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "zh", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "<pad>", "unk_token": "<unk>"}))
    return folder


def test_marian_encodes_sources_and_targets_each_in_its_way(marian: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends sacremoses, which only its `normalize` uses
        theirs = transformers.MarianTokenizer.from_pretrained(marian)
    ours = load_tokenizer(marian)
    assert ours.target is not None
    assert ours.target.target is None
    texts = varied(1500, without=("<unk>", "</s>", "<pad>"))
    texts += [">>fr<< the house", ">>zh<<中文 the", "语言模型 the 词典", "the representation of a name"]
    same = unknown = ties = 0
    for tokenizer, wanted in ((ours, lambda t: theirs(t)), (ours.target, lambda t: theirs(text_target=t))):
        for text, bulk in zip(texts, tokenizer.encode_bulk(texts), strict=True):
            ids = tokenizer.encode(text)
            assert bulk.tolist() == ids
            framed = frame(tokenizer, ids)[0]
            if framed != wanted(text)["input_ids"]:  # the same pieces in another order, as of "-----": the same score
                assert sorted(framed) == sorted(wanted(text)["input_ids"]), ascii(text)
                ties += 1
                continue
            assert max(ids, default=0) < tokenizer.vocab_size == len(theirs)
            unknown += tokenizer.id("<unk>") in ids
            decoded = theirs.decode(ids, clean_up_tokenization_spaces=False)
            assert tokenizer.decode(ids).replace("<unk>", "<unk> ").split() == decoded.split(), ascii(text)
            same += 1
    assert same + ties == 2 * len(texts)
    assert ties < 10
    assert unknown > 500
    assert (ours.end_of_text, ours.pad) == (0, ours.vocab_size - 1)
    assert ours.encode("the name of it") != ours.target.encode("the name of it")
    for step, id in zip(ours.explain("the name of it"), ours.encode("the name of it"), strict=True):
        assert step.id == id
    ours.save(tmp_path)
    for name in ("source.spm", "target.spm", "vocab.json"):
        assert (tmp_path / name).read_bytes() == (marian / name).read_bytes()
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert again.target is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert saved("the name", text_target="模型")["labels"] == theirs(text_target="模型")["input_ids"]


def test_what_marian_cannot_be_is_said(marian: Path, tmp_path: Path) -> None:
    def changed(**files: Any) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(marian, folder)
        for name, value in files.items():
            (folder / f"{name}.json").write_text(json.dumps(value))
        return folder

    with pytest.raises(ConfigError, match="separate_vocabs"):
        load_tokenizer(changed(tokenizer_config={"separate_vocabs": True}))
    with pytest.raises(DamagedFile, match="lacks one of the tokens"):
        load_tokenizer(changed(vocab={"</s>": 0, "<unk>": 1}))
    with pytest.raises(ConfigError, match="'T5'"):
        load_tokenizer(changed(tokenizer_config={"tokenizer_class": "T5Tokenizer"}))


# built from lists, as out of a GGUF file


def test_lists_that_do_not_fit_are_refused() -> None:
    rules = SpmRules()
    for build in (bpe_spec, unigram_spec):
        for pieces, scores, types, unk, words in (
            (["<unk>", "a"], [0.0], [2, 1], 0, "2 pieces, but 1 scores"),
            ([], [], [], 0, "0 pieces"),
            (["a", "a"], [0.0, 0.0], [1, 1], 0, "twice"),
            (["a", ""], [0.0, 0.0], [1, 1], 0, "empty piece"),
            (["<unk>", "a"], [0.0, 0.0], [2, 1], 2, "the id 2"),
            (["<unk>", "a"], [0.0, float("nan")], [2, 1], 0, "no number"),
            (["<unk>", "a" * 2000], [0.0, 0.0], [2, 1], 0, "2,000 characters"),
        ):
            with pytest.raises(DamagedFile, match=words):
                build(pieces, scores, types, rules, unk=unk)
    runs = [letter * length for letter in "abcdefgh" for length in range(1, 1001)]
    with pytest.raises(DamagedFile, match="more ways"):
        bpe_spec(["<unk>", *runs], [0.0] * 8001, [2, *[1] * 8000], rules, unk=0)


def test_kinds_and_settings_that_are_not_supported_are_named() -> None:
    for kind in ("char", "word"):
        with pytest.raises(ConfigError, match=f"of kind {kind}"):
            opened(train(kind))
    with pytest.raises(ConfigError, match="treat_whitespace_as_suffix"):
        opened(train("unigram", treat_whitespace_as_suffix=True))


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05ab",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",
        b"\xff" * 20,
        b"\x0b\x00",
        b"\x0a\x00",
        b"\x0a\x03\x0a\x01\xff",
        b"\x0a\x02\x08\x01",
        b"",
        b"\x0a\x03\x0a\x01a\x1a\x06\x12\x04\xff\xff\xff\x7f",
        b"PK\x03\x04 not this at all",
    ],
)
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(CutawayError):
        opened(data)


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with (tmp_path / "spiece.model").open("wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(DamagedFile, match="34,603,008 bytes"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="nor another vocabulary"):
        load_tokenizer(tmp_path.parent)
    with pytest.raises(DamagedFile, match="twice"):
        parse_sentencepiece(b"".join(b"\x0a\x05\x0a\x03%03d" % (i % 1000) for i in range(MOST_PIECES + 1)), "m")


def test_mutated_models_give_a_tokenizer_or_one_of_our_errors(marian: Path) -> None:
    """CUTAWAY_FUZZ says how many; make fuzz runs the full number. Each that opens encodes and decodes."""
    draw = random.Random(0)
    sources = [train(kind, size=500, **options) for kind in ("unigram", "bpe") for options in ({}, OPTIONS["gemma"])]
    opens = 0
    for _ in range(int(os.environ.get("CUTAWAY_FUZZ", "300"))):
        data = bytearray(draw.choice(sources))
        for _ in range(draw.randint(1, 6)):
            place = draw.randrange(len(data)) if draw.random() < 0.5 else draw.choice([*range(40), *range(-40, 0)])
            kind = draw.random()
            if kind < 0.5:
                data[place] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
            elif kind < 0.7:
                data = data[:place] if len(data[:place]) > 50 else data
            elif kind < 0.85:
                data[place:place] = data[: draw.randrange(200)]
            else:
                del data[place : place + draw.randrange(1, 30)]
        try:
            tokenizer = opened(bytes(data))
            tokenizer.decode(tokenizer.encode("the text e\u0301 ﬁ 12  \n 中文 \x00<s>"))
            opens += 1
        except CutawayError:
            pass
    assert opens > 10
