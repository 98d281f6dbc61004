"""What cannot be generated: one clear sentence, exit code 2, nothing on stdout."""

import io
import json
import struct
import sys
from pathlib import Path

import pytest
import torch

from cutaway.cli import main
from cutaway.models import Decoder, DecoderConfig, Model, memory, save_model
from cutaway.tokenizers import train_tokenizer


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = train_tokenizer(["def f(x):\n\treturn x  # 猫坐在垫子上😀\r\n" * 20], "bpe", 300)
    torch.manual_seed(0)
    return Model(Decoder(DecoderConfig(tokenizer.vocab_size, context=32, layers=1, width=32, heads=2)), tokenizer)


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(model, tmp_path_factory.mktemp("models") / "toy"))


@pytest.fixture(scope="module")
def gguf(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(model, tmp_path_factory.mktemp("models") / "toy.gguf", "gguf", kind="Q8_0")


def sentence(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `cutaway generate` says as it refuses."""
    assert main(["generate", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cutaway generate: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "x" * 40], "the prompt has 40 tokens, but this model sees 32 at once"),
        (["--temperature", "-1"], "temperature must be a number from 0 (always the likeliest token) up, but -1.0 was"),
        (["--temperature", "nan"], "temperature must be a finite number, but nan was given"),
        (["--top-p", "0"], "top_p must be above 0 and at most 1, but 0.0 was given"),
        (["--top-p", "1.1"], "top_p must be above 0 and at most 1, but 1.1 was given"),
        (["--typical-p", "2"], "typical_p must be above 0 and at most 1"),
        (["--presence-penalty", "3"], "presence_penalty must be in -2 … 2"),
        (["-n", "0"], "max_new_tokens must be at least 1"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["--samples", "0"], "n must be at least 1"),
        (["--beams", "0"], "beams must be at least 1"),
        (["--stop", ""], "a stop string is empty"),
        (["--logit-bias", "cat"], "--logit-bias must be a token's id, = and a number, but 'cat' was given"),
        (["--logit-bias", "99999=1"], "logit_bias must name tokens in 0 … "),
        (["--json-schema", "{"], "the JSON Schema is not JSON"),
        (["--json-schema", '{"type": "strin"}'], "JSON Schema"),
        (["--regex", "(a"], "regular expression"),
        (["--grammar", "begin: x"], "grammar"),
        (["--regex", "a", "--choice", "b"], "a text can be held to one form, but regex and choices were given"),
        (["--json-schema", "@no such file"], "no such file"),
        (["--speculate", "no such model"], "no such model"),
        (["--cache", "float17"], "float17"),
        (["--rounding", "nine"], "nine"),
        (["--threads", "0"], "threads"),
        (["--batch", "no such file.jsonl"], "no such file.jsonl"),
        (["--batch", "x", "-p", "y"], "--batch holds the prompts, so leave --prompt out"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_options(folder: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert said in sentence(capsys, folder, *words)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'"caf\xe9"', "is not UTF-8: "),
        (b"{", "is no JSON: "),
        (b"7", 'must be a text, or an object with either "prompt" or "messages"'),
        (b'{"prompt": "a", "messages": []}', 'must be a text, or an object with either "prompt" or "messages"'),
        (b'{"prompt": "a", "temprature": 1}', "unknown key 'temprature'; did you mean temperature?"),
        (b'{"prompt": "a", "temperature": "hot"}', "temperature"),
        (b'{"prompt": "a", "stop": [""]}', "a stop string is empty"),
        (b'{"prompt": [1, 99999]}', "token ids must lie in 0 … "),
        (b'{"prompt": {}}', "the prompt must be text or token ids"),
        (b'{"prompt": ["a"]}', "the prompt must be text or token ids"),
        (b'{"messages": [{"role": "user", "content": "hi"}]}', "the tokenizer has no chat template"),
    ],
)
def test_lines_of_a_batch(folder: str, line: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b'"good"\n\n' + line + b"\n")
    told = sentence(capsys, folder, "--batch", str(file))
    assert f"line 3 of {file}" in told
    assert said in told


def test_an_empty_batch(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "none").write_bytes(b"\n")
    assert "holds no prompts" in sentence(capsys, folder, "--batch", str(tmp_path / "none"))


def test_stdin_that_is_not_utf8(folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff"), encoding="utf-8"))
    assert "the prompt from stdin is not UTF-8: invalid start byte at byte 2" in sentence(capsys, folder, "-p", "-")


def test_a_file_cut_short(gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = gguf.read_bytes()
    for size in (3, 100, len(data) // 2, len(data) - 1):
        cut = tmp_path / f"{size}.gguf"
        cut.write_bytes(data[:size])
        assert str(cut) in sentence(capsys, str(cut), "-p", "x")


def test_a_kind_that_is_not_supported_is_named(gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data, name = gguf.read_bytes(), b"blk.0.attn_q.weight"
    place = data.index(name) + len(name) + 4 + 2 * 8  # behind the number of dimensions and those
    assert struct.unpack_from("<I", data, place) == (8,)  # Q8_0
    for number, kind in ((23, "IQ4_XS"), (99, "type 99")):
        other = tmp_path / f"{number}.gguf"
        other.write_bytes(data[:place] + struct.pack("<I", number) + data[place + 4 :])
        assert f"blk.0.attn_q.weight is stored as {kind}, which is not supported" in sentence(capsys, str(other))


def test_a_model_that_does_not_fit_in_memory(
    folder: str, gguf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "free_memory", lambda: 30_000)
    told = sentence(capsys, folder)
    assert "of memory are free" in told
    assert "as int8 it takes" in told
    assert "of memory are free" in sentence(capsys, str(gguf), "--dequantise")


@pytest.mark.parametrize("kernels", ["neon", "avx2-vnni", "abacus"])
def test_kernels_that_the_processor_lacks(
    kernels: str, folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from cutaway.generation.native import library

    monkeypatch.setenv("CUTAWAY_KERNELS", kernels)
    library.load.cache_clear()
    try:
        if kernels == "abacus":
            assert "unknown instruction set 'abacus'" in sentence(capsys, folder)
        else:
            words = ["generate", folder, "-n", "1", "--json"]
            if main(words) == 0:  # it has these
                assert kernels in json.loads(capsys.readouterr().out)["speed"]["backend"]
            else:
                told = capsys.readouterr().err
                assert f"CUTAWAY_KERNELS asks for '{kernels}'" in told or "without its native kernels" in told
    finally:
        monkeypatch.undo()
        library.load.cache_clear()
