"""Tokenizers out of GGUF metadata, against sentencepiece itself and transformers' own reading of such files."""

import io
import json
import random
from pathlib import Path
from typing import Any

import gguf
import pytest
import sentencepiece
from tokenizers import Regex, pre_tokenizers

from cutaway.errors import ConfigError, DamagedFile
from cutaway.tokenizers import Tokenizer, train_tokenizer
from cutaway.tokenizers.frame import frame
from cutaway.tokenizers.from_gguf import WORDS, tokenizer_from_gguf

ROOT = Path(__file__).resolve().parents[2]
CORPUS = [
    *(
        line
        for path in ("README.md", "README.zh-CN.md", "docs/text.md")
        for line in (ROOT / path).read_text().split("\n")
    ),
    "Größe naïve café Ελληνικά Кириллица עברית العربية नमस्ते สวัสดี 日本語のテキスト 한국어",
    "aaaa aaaaa bbbb abab ababab 1234567 00000",
]
PIECES = [
    *("the", " The", "ing", " of", "don't", "我", "的", "中文", "模型", " ", "  ", "    ", "\n", "\n\n", "\t", "\r\n"),
    *(
        "a",
        "aa",
        "aaaaa",
        "é",
        "ß",
        "Ω",
        "я",
        "한",
        "😀",
        "👩‍👩‍👧",
        "🏳️‍🌈",
        "𝔘",
        "\x01",
        "\x7f",
        "\u200b",
        "\ufeff",
        "\u3000",
    ),
    *(
        "1",
        "23",
        "4567",
        ".",
        ",",
        "...",
        "--",
        "(",
        ")",
        "_",
        "/",
        "<s>",
        "</s>",
        "<unk>",
        "<0x41>",
        "▁",
        "▁▁",
        "<|x|>",
    ),
]


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    mixed = ["".join(draw.choices(PIECES, k=draw.randint(1, 30))) for _ in range(count)]
    return ["", " ", "  a", "a ", *CORPUS, *mixed]


def train(**options: Any) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in CORPUS if line),
        model_writer=model,
        model_type="bpe",
        vocab_size=900,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.98,
        minloglevel=2,
        **options,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def metadata_of(peer: sentencepiece.SentencePieceProcessor, **more: Any) -> dict[str, Any]:
    """As llama.cpp's converter writes it."""
    kinds = {"is_unknown": 2, "is_control": 3, "is_unused": 5, "is_byte": 6}
    tokens = [peer.id_to_piece(i) for i in range(peer.vocab_size())]
    types = [next((kind for asks, kind in kinds.items() if getattr(peer, asks)(i)), 1) for i in range(len(tokens))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [peer.get_score(i) for i in range(len(tokens))],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": peer.bos_id(),
        "tokenizer.ggml.eos_token_id": peer.eos_id(),
        **more,
    }


@pytest.fixture(scope="module")
def peer() -> sentencepiece.SentencePieceProcessor:
    return train()


def test_ids_are_those_of_sentencepiece(peer: sentencepiece.SentencePieceProcessor):
    tokenizer = tokenizer_from_gguf(metadata_of(peer))
    bare = train(add_dummy_prefix=False)
    without = tokenizer_from_gguf(metadata_of(bare, **{"tokenizer.ggml.add_space_prefix": False}))
    assert tokenizer.vocab_size == peer.vocab_size()
    for text in texts(3000):
        assert tokenizer.encode(text) == peer.encode(text), repr(text)
        assert without.encode(text) == bare.encode(text), repr(text)
        if "▁" not in text:  # which sentencepiece, too, gives back as a space
            assert without.decode(without.encode(text)) == text
            assert tokenizer.decode(tokenizer.encode(text)) == text
    assert [ids.tolist() for ids in tokenizer.encode_bulk(texts(200))] == [peer.encode(text) for text in texts(200)]


def test_user_defined_tokens_are_found_as_in_sentencepiece():
    symbols = ["<|x|>", "...", "\n\n", "don't"]
    bare = train(add_dummy_prefix=False, user_defined_symbols=symbols)
    metadata = metadata_of(bare, **{"tokenizer.ggml.add_space_prefix": False})
    kinds = metadata["tokenizer.ggml.token_type"]
    for symbol in symbols:
        kinds[bare.piece_to_id(symbol)] = 4
    tokenizer = tokenizer_from_gguf(metadata)
    for text in texts(1500, seed=1):
        assert tokenizer.encode(text) == bare.encode(text), repr(text)


def test_control_tokens_are_never_read_out_of_a_text(peer: sentencepiece.SentencePieceProcessor):
    tokenizer = tokenizer_from_gguf(metadata_of(peer))
    assert (tokenizer.begin_of_text, tokenizer.end_of_text) == (peer.bos_id(), peer.eos_id())
    assert not {peer.bos_id(), peer.eos_id()} & set(tokenizer.encode("<s>hello</s> <s>"))
    assert tokenizer.encode("<s>hello", allow_special=True)[0] == peer.bos_id()
    assert frame(tokenizer, tokenizer.encode("hello"))[0] == [peer.bos_id(), *peer.encode("hello")]
    off = tokenizer_from_gguf(metadata_of(peer, **{"tokenizer.ggml.add_bos_token": False}))
    assert frame(off, off.encode("hello"))[0] == peer.encode("hello")
    both = tokenizer_from_gguf(metadata_of(peer, **{"tokenizer.ggml.add_eos_token": True}))
    assert frame(both, both.encode("hello"))[0] == [peer.bos_id(), *peer.encode("hello"), peer.eos_id()]


def test_the_merges_of_sentencepiece_are_explained(peer: sentencepiece.SentencePieceProcessor):
    tokenizer = tokenizer_from_gguf(metadata_of(peer))
    found = tokenizer.explain("the tokenizer")
    assert [token.id for token in found] == peer.encode("the tokenizer")
    assert any(token.merges for token in found)


def write(metadata: dict[str, Any], folder: Path) -> str:
    """A file with the metadata, and as much of a model as transformers asks for."""
    writer = gguf.GGUFWriter(folder / "tokens.gguf", "llama")
    writer.add_tokenizer_model(metadata["tokenizer.ggml.model"])
    writer.add_token_list(metadata["tokenizer.ggml.tokens"])
    writer.add_token_types(metadata["tokenizer.ggml.token_type"])
    writer.add_token_scores(metadata["tokenizer.ggml.scores"])
    writer.add_bos_token_id(metadata["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(metadata["tokenizer.ggml.eos_token_id"])
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return "tokens.gguf"


def test_ids_are_those_that_transformers_makes_of_the_file(peer: sentencepiece.SentencePieceProcessor, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    metadata = metadata_of(peer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=write(metadata, tmp_path))
    tokenizer = tokenizer_from_gguf(metadata)
    for text in texts(300):
        # it reads the names of special tokens as these, and puts no space before a text that begins with one
        if not any(name in text for name in ("<s>", "</s>", "<unk>")) and not text.startswith((" ", "▁")):
            assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False), repr(text)


def test_chat_templates_are_handed_on(peer: sentencepiece.SentencePieceProcessor):
    assert tokenizer_from_gguf(metadata_of(peer)).chat_template is None
    given = metadata_of(peer, **{"tokenizer.chat_template": "{{ messages }}"})
    assert tokenizer_from_gguf(given).chat_template == "{{ messages }}"


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return train_tokenizer([*CORPUS * 3, "IT'S 12345 foo_bar"], vocab_size=700)


def byte_level_metadata(tokenizer: Tokenizer, pre: str | None) -> dict[str, Any]:
    vocab = tokenizer.spec["model"]["vocab"]
    named = {} if pre is None else {"tokenizer.ggml.pre": pre}
    return named | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": sorted(vocab, key=vocab.__getitem__),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in tokenizer.spec["model"]["merges"]],
    }


# the patterns of llama.cpp's src/llama-vocab.cpp, each applied to what the one before it has cut
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
CL100K = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}#"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    "gpt-2": [GPT2],
    "olmo": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "starcoder": [r"\p{N}", GPT2],
    "llama-bpe": [CL100K.replace("#", "{1,3}")],
    "dbrx": [CL100K.replace("#", "{1,3}")],
    "qwen2": [CL100K.replace("#", "")],
    None: [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
}


@pytest.mark.parametrize("pre", PATTERNS)
def test_texts_are_cut_as_llamacpp_cuts_them(pre: str | None, byte_level: Tokenizer):
    tokenizer = tokenizer_from_gguf(byte_level_metadata(byte_level, pre))
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[pre]]
    theirs = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])  # pyright: ignore[reportArgumentType]
    for text in texts(500):
        if pre in ("qwen2", "olmo"):  # their texts are composed first, which llama.cpp leaves out
            text = text.replace("\u0301", "")
        assert tokenizer.cut(text)[1] == [word for word, _ in theirs.pre_tokenize_str(text)], repr(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_way_to_cut_is_one_that_the_library_knows(byte_level: Tokenizer):
    for pre in WORDS:
        tokenizer = tokenizer_from_gguf(byte_level_metadata(byte_level, pre))
        assert (
            tokenizer.decode(tokenizer.encode("Don't stop: 12345 中文 😀\n\n  x")) == "Don't stop: 12345 中文 😀\n\n  x"
        )


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"tokenizer.ggml.model": "t5"}, ConfigError, "tokenizer.ggml.model"),
        ({"tokenizer.ggml.scores": [0.5]}, DamagedFile, "scores"),
        ({"tokenizer.ggml.scores": 3}, DamagedFile, "scores"),
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, ConfigError, "normalised"),
        ({"tokenizer.ggml.tokens": ["a"]}, DamagedFile, "kinds"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, Any], kind: type[Exception], message: str, peer: sentencepiece.SentencePieceProcessor
):
    with pytest.raises(kind, match=message):
        tokenizer_from_gguf(metadata_of(peer, **change))


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_a_tokenizer_of_content_is_that_of_its_text(kind: str):
    texts = ["The quick brown fox — 狐狸 — jumps, 12 times! 🦊\n" * 8, "def f(x):\n    return x + 1\n" * 8]
    text = train_tokenizer(texts, kind, 600).text
    one, other = Tokenizer(text), Tokenizer(json.loads(text))
    assert json.loads(other.text) == json.loads(one.text)
    for name in ("special", "vocab_size", "kind", "joins", "exact", "end_of_text", "pad", "mask", "dtype"):
        assert getattr(one, name) == getattr(other, name), name
    for sample in (*texts, "<|endoftext|> is a name", "🦊 12"):
        assert one.encode(sample) == other.encode(sample)
        assert one.encode(sample, allow_special=True) == other.encode(sample, allow_special=True)
    ids = list(range(one.vocab_size))
    assert [one.token_bytes(id) for id in ids] == [other.token_bytes(id) for id in ids]
    assert one.decode_bytes(ids) == other.decode_bytes(ids)
    assert one.explain(texts[0]) == other.explain(texts[0])
