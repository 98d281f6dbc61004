"""Whole models as GGUF files: with their tokenizer, and back."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import Regex, pre_tokenizers

from cutaway import load_model, save_model
from cutaway.cli import main
from cutaway.errors import ConfigError, InputError
from cutaway.models import DecoderConfig, Model, RecurrentConfig, build_network
from cutaway.models.formats.quantise import WRITABLE
from cutaway.tokenizers import Tokenizer, train_tokenizer
from cutaway.tokenizers.from_gguf import LLAMA3_WORDS, tokenizer_from_gguf
from cutaway.tokenizers.to_gguf import tokenizer_to_gguf
from cutaway.tokenizers.train import KINDS, PATTERN

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [*(ROOT / "README.md").read_text().split("\n\n"), *(ROOT / "README.zh-CN.md").read_text().split("\n\n")]
HARD = ["", " ", "  a\n\n b\t", "don't IT'S", "1234567", "你好，世界 🌍", "<|endoftext|>", "\x00\x7f\u200b", "aaaaaaa"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, vocab_size=600)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    config = DecoderConfig(vocab_size=tokenizer.vocab_size, context=64, layers=2, width=64, heads=2)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    return Model(network.eval(), tokenizer)


def test_a_model_and_its_tokenizer_come_back(model: Model, tmp_path: Path):
    notes: list[str] = []
    path = save_model(model, tmp_path / "ours.gguf", "gguf", kind="F32", note=notes.append)
    again = load_model(path)
    assert again.config == model.config
    ids = model.ids(TEXTS[0])[:, :50]
    assert torch.equal(again.logits(ids), model.logits(ids))
    for text in (*TEXTS, *HARD):
        assert again.tokenizer.encode(text) == model.tokenizer.encode(text)
        assert again.tokenizer.decode(again.tokenizer.encode(text)) == text
    for role in ("end_of_text", "pad", "mask", "begin_of_text"):
        assert getattr(again.tokenizer, role) == getattr(model.tokenizer, role)
    assert notes == ["written as qwen3, its matrices as F32"]


def test_the_file_says_what_llamacpp_asks_for(model: Model, tmp_path: Path):
    fields = gguf.GGUFReader(save_model(model, tmp_path / "ours.gguf", "gguf")).fields
    said = {name: field.contents() for name, field in fields.items()}
    assert said["general.architecture"] == "qwen3"
    assert said["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert said["tokenizer.ggml.model"] == "gpt2"
    assert said["tokenizer.ggml.pre"] == "llama-bpe"
    assert said["tokenizer.ggml.add_bos_token"] is False
    kinds = said["tokenizer.ggml.token_type"]
    assert [kinds[i] for i in model.tokenizer.special.values()] == [gguf.TokenType.CONTROL] * 3
    assert kinds.count(gguf.TokenType.NORMAL) == len(kinds) - 3
    assert said["tokenizer.ggml.eos_token_id"] == model.tokenizer.end_of_text


@pytest.mark.parametrize("kind", WRITABLE)
def test_every_kind_opens_and_is_near(kind: str, model: Model, tmp_path: Path):
    again = load_model(save_model(model, tmp_path / "folder", "gguf", kind=kind) / f"folder-{kind}.gguf")
    ids = model.ids(TEXTS[1])[:, :50]
    ours, theirs = again.logits(ids).log_softmax(-1), model.logits(ids).log_softmax(-1)
    bound = {"F32": 0.0, "F16": 2e-3, "BF16": 0.02, "Q8_0": 0.01, "Q6_K": 0.01}.get(kind, 0.1)
    assert (theirs.exp() * (theirs - ours)).sum(-1).mean().abs() <= bound


def test_a_folder_with_one_file_opens_and_with_two_asks_which(model: Model, tmp_path: Path):
    folder = save_model(model, tmp_path / "folder", "gguf")
    assert load_model(folder).config == model.config
    save_model(model, folder / "other.gguf", "gguf")
    with pytest.raises(InputError, match="2 GGUF files"):
        load_model(folder)


def test_on_the_command_line(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_model(model, tmp_path / "model")
    words = ["convert", str(tmp_path / "model"), str(tmp_path / "out.gguf"), "--to", "gguf", "--quantize", "Q4_K"]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == (tmp_path / "out.gguf").stat().st_size
    assert any("Q4_K as Q5_0" in note for note in said["notes"])
    assert main(words) == 0
    assert "Written as qwen3" in capsys.readouterr().out
    assert main([*words[:-3], "huggingface", "--quantize", "Q4_K"]) == 2
    assert "--quantize" in capsys.readouterr().err
    assert main([*words[:-1], "Q4_KM"]) == 2
    assert "did you mean Q4_K" in capsys.readouterr().err


def test_what_cannot_be_written_says_why(model: Model, tokenizer: Tokenizer, tmp_path: Path):
    config = RecurrentConfig(tokenizer.vocab_size, width=16, hidden=16)
    with pytest.raises(ConfigError, match="recurrent"):
        save_model(Model(build_network(config), tokenizer), tmp_path / "x.gguf", "gguf")
    with pytest.raises(ConfigError, match="unknown kind"):
        save_model(model, tmp_path / "x.gguf", "gguf", kind="Q2_K")
    with pytest.raises(ConfigError, match="cannot be expressed as gpt2"):
        save_model(model, tmp_path / "x.gguf", "gguf", family="gpt2")
    for kind in KINDS.keys() - {"bpe"}:
        other = train_tokenizer(TEXTS, kind, vocab_size=600)
        with pytest.raises(ConfigError, match="GGUF has no name for"):
            tokenizer_to_gguf(other, 600)
    with pytest.raises(ConfigError, match="rows"):
        tokenizer_to_gguf(tokenizer, tokenizer.vocab_size - 1)
    assert list(tmp_path.iterdir()) == []


# tokenizers


def spec(tokenizer: Tokenizer, **changes: Any) -> Tokenizer:
    """The same with some sections of its tokenizer.json changed."""
    changed = json.loads(tokenizer.text)
    changed["model"] |= changes.pop("model", {})
    return Tokenizer(json.dumps(changed | changes))


def test_our_pattern_is_one_that_llamacpp_knows():
    assert PATTERN == LLAMA3_WORDS
    # src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_LLAMA3
    theirs = (
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    one, other = (pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in (PATTERN, theirs))
    for text in (*TEXTS, *HARD):
        assert one.pre_tokenize_str(text) == other.pre_tokenize_str(text)


def test_a_name_is_chosen_by_whether_whole_words_are_looked_up(tokenizer: Tokenizer):
    def name(tokenizer: Tokenizer) -> str:
        return tokenizer_to_gguf(tokenizer, 600)["tokenizer.ggml.pre"]

    assert name(tokenizer) == name(spec(tokenizer, model={"ignore_merges": True})) == "llama-bpe"
    lacking = spec(tokenizer, model={"merges": tokenizer.spec["model"]["merges"][:-1]})  # the last token is never made
    assert name(lacking) == "dbrx"
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    assert name(spec(tokenizer, pre_tokenizer=letters)) == "gpt-2"
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, letters]}
    assert name(spec(tokenizer, pre_tokenizer=digits)) == "smollm"
    with pytest.raises(ConfigError, match="how this tokenizer cuts"):
        name(spec(tokenizer, pre_tokenizer=letters | {"add_prefix_space": True}))
    with pytest.raises(ConfigError, match="Lowercase"):
        name(spec(tokenizer, normalizer={"type": "Lowercase"}))


def test_rows_without_a_token_are_named_unused(tokenizer: Tokenizer):
    written = tokenizer_to_gguf(tokenizer, tokenizer.vocab_size + 2)
    assert written["tokenizer.ggml.token_type"][-2:] == [5, 5]
    assert len(written["tokenizer.ggml.tokens"]) == tokenizer.vocab_size + 2
    again = tokenizer_from_gguf(written)
    assert all(again.encode(text) == tokenizer.encode(text) for text in (*TEXTS, *HARD))


def test_chat_templates_and_what_is_put_around_a_text_are_kept(tokenizer: Tokenizer):
    template = {"type": "TemplateProcessing", "pair": []}
    end = {"id": "<|endoftext|>", "ids": [tokenizer.end_of_text], "tokens": ["<|endoftext|>"]}
    template["single"] = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end["id"], "type_id": 0}}]
    template["special_tokens"] = {end["id"]: end}
    changed = spec(tokenizer, post_processor=template | {"pair": template["single"]})
    changed.chat_template = "{{ messages }}"
    written = tokenizer_to_gguf(changed, 600)
    assert (written["tokenizer.ggml.add_bos_token"], written["tokenizer.ggml.add_eos_token"]) == (False, True)
    assert tokenizer_from_gguf(written).chat_template == "{{ messages }}"


def sentencepiece_like(scores: dict[str, float], **changes: Any) -> Tokenizer:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *scores]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + list(scores.values()),
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(scores),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    return tokenizer_from_gguf(metadata | changes)


SCORES = {"ab": -1.0, "▁a": -2.0, "abc": -3.0, "bc": -4.0, "▁": -9.0, "a": -9.0, "b": -9.0, "c": -9.0, "aa": -5.0}


@pytest.mark.parametrize("prefix", [True, False])
def test_merges_of_sentencepiece_become_scores_again(prefix: bool):
    tokenizer = sentencepiece_like(SCORES, **{"tokenizer.ggml.add_space_prefix": prefix})
    written = tokenizer_to_gguf(tokenizer, tokenizer.vocab_size)
    assert written["tokenizer.ggml.add_bos_token"] is True
    assert written["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    again = tokenizer_from_gguf(written)
    for text in (*HARD, "abc ab aab", "aabcbc"):
        assert again.encode(text) == tokenizer.encode(text)
    assert again.spec == tokenizer.spec


def test_merges_that_no_scores_express_are_refused():
    tokenizer = sentencepiece_like(SCORES)
    merges = tokenizer.spec["model"]["merges"]
    with pytest.raises(ConfigError, match="no scores"):
        tokenizer_to_gguf(spec(tokenizer, model={"merges": merges[1:]}), tokenizer.vocab_size)
    mixed = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    notes: list[str] = []
    tokenizer_to_gguf(spec(tokenizer, normalizer=None, pre_tokenizer=mixed), tokenizer.vocab_size, notes.append)
    assert "space" in notes[0]
    with pytest.raises(ConfigError, match="before merging"):
        tokenizer_to_gguf(spec(tokenizer, pre_tokenizer=mixed | {"split": True}), tokenizer.vocab_size)
