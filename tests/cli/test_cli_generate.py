"""`cutaway generate`: the function's own words, exactly, to people and to machines."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
import torch

from cutaway.cli import main
from cutaway.generation import Generation, generate
from cutaway.models import (
    Decoder,
    DecoderConfig,
    Model,
    build_network,
    config_from_dict,
    load_model,
    save_model,
)
from cutaway.tokenizers import train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    tokenizer = train_tokenizer(["def f(x):\n\treturn x  # 猫坐在垫子上😀 \x1b[2J\r\n" * 20], "bpe", 300)
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=32, layers=1, width=16, heads=2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return str(save_model(Model(network, tokenizer), tmp_path_factory.mktemp("models") / "toy"))


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_writes_the_prompt_and_its_continuation_exactly(folder: str, capsys: pytest.CaptureFixture[str]):
    prompt = "a\tb [bold]猫"
    made = generate(load_model(folder), prompt, max_new_tokens=30, temperature=1.5, seed=4)
    assert main(["generate", folder, "-p", prompt, "-n", "30", "--temperature", "1.5", "--seed", "4"]) == 0
    assert capsys.readouterr().out == f"{prompt}{made.text}\n"


def test_json_is_the_result(folder: str, capsys: pytest.CaptureFixture[str]):
    one, two = generate(load_model(folder), ["猫", ""], max_new_tokens=5, seed=2)
    words = ["generate", folder, "--json", "-n", "5", "--seed", "2", "-p", "猫"]
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    speed = shown.pop("speed")
    assert shown == one.__dict__
    assert speed["new_tokens"] == len(one.ids)
    assert 0 < speed["first_token_s"] <= speed["seconds"]
    assert main([*words, "-p", ""]) == 0
    assert json.loads(capsys.readouterr().out) == [one.__dict__, two.__dict__]


def test_every_option_arrives(folder: str, capsys: pytest.CaptureFixture[str]):
    options: dict[str, Any] = {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.3}
    options |= {"typical_p": 0.9, "frequency_penalty": 0.2, "presence_penalty": -0.1, "speculate": "lookup"}
    biases: dict[str, Any] = {"logit_bias": {5: 2.5, 7: -1.0}}
    made = generate(load_model(folder), "def", max_new_tokens=9, stop=["xyz", "zyx"], seed=3, **options, **biases)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words += ["--stop", "xyz", "--stop", "zyx", "--max-new-tokens", "9", "--seed", "3"]
    words += ["--logit-bias", "5=2.5", "--logit-bias", "7=-1"]
    assert main(["generate", folder, "--prompt", "def", "--json", *words]) == 0
    shown = json.loads(capsys.readouterr().out)
    del shown["speed"]
    assert shown == made.__dict__


def test_several_continuations_and_a_search(folder: str, capsys: pytest.CaptureFixture[str]):
    model = load_model(folder)
    tried: list[tuple[list[str], dict[str, Any]]] = [
        (["--samples", "2", "--logprobs", "2"], {"n": 2, "logprobs": 2}),
        (["--samples", "2", "--beams", "3", "--length-penalty", "0.5"], {"n": 2, "beams": 3, "length_penalty": 0.5}),
    ]
    for words, options in tried:
        made = cast(list[Generation], generate(model, "def", max_new_tokens=6, **options))
        command = ["generate", folder, "-p", "def", "-n", "6", *words]
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(json.dumps([one.__dict__ for one in made]))
        assert main(command) == 0
        assert capsys.readouterr().out == "".join(f"def{one.text}\n" for one in made)


def test_forms_are_given_as_text_or_in_files(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    schema, grammar = tmp_path / "schema.json", tmp_path / "colours.lark"
    schema.write_text('{"enum": ["f", "x"]}', "utf-8")
    grammar.write_text('start: "return" | "x"', "utf-8")
    for words, allowed in (
        (["--json-schema", f"@{schema}"], {'"f"', '"x"'}),
        (["--json-schema", '{"const": "f"}'], {'"f"'}),
        (["--regex", "[xf]{3}"], {a + b + c for a in "xf" for b in "xf" for c in "xf"}),
        (["--grammar", f"@{grammar}"], {"return", "x"}),
        (["--choice", "def", "--choice", "猫"], {"def", "猫"}),
    ):
        assert main(["generate", folder, "-p", "def", "-n", "30", *words]) == 0
        assert capsys.readouterr().out.removeprefix("def").rstrip("\n") in allowed


def test_speed_is_told_on_request(folder: str, capsys: pytest.CaptureFixture[str]):
    assert main(["generate", folder, "-p", "def f(x):", "-n", "5", "--verbose", "--speculate", "lookup"]) == 0
    told = capsys.readouterr().err
    assert "5 new tokens in" in told
    assert "the first new token after" in told
    assert load_model(folder).generate("x", max_new_tokens=1).text is not None


def test_the_speed_of_a_search_is_that_of_all_its_time(folder: str, capsys: pytest.CaptureFixture[str]):
    command = ["generate", folder, "-p", "def f(x):", "-n", "12", "--json"]
    assert main([*command, "--beams", "3"]) == 0
    speed = json.loads(capsys.readouterr().out)["speed"]  # its tokens come together, at the end
    assert speed["tokens_per_s"] == pytest.approx(speed["new_tokens"] / speed["seconds"], rel=0.02)
    assert main([*command, "--temperature", "0"]) == 0
    speed = json.loads(capsys.readouterr().out)["speed"]
    behind = speed["seconds"] - speed["first_token_s"]
    assert speed["tokens_per_s"] == pytest.approx((speed["new_tokens"] - 1) / behind, rel=0.1)


def test_another_model_guesses(folder: str, capsys: pytest.CaptureFixture[str]):
    command = ["generate", folder, "-p", "def", "-n", "20", "--temperature", "0", "--json"]
    assert main(command) == 0
    plain = json.loads(capsys.readouterr().out)
    assert main([*command, "--speculate", folder]) == 0
    guessed = json.loads(capsys.readouterr().out)
    assert guessed["ids"] == plain["ids"]
    assert guessed["acceptance"] == 1  # it is the same model


def test_a_batch_is_answered_line_by_line(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file, model = tmp_path / "prompts.jsonl", load_model(folder)
    lines = ['{"prompt": "def", "temperature": 0, "max_new_tokens": 9}', "", '"猫"', '{"prompt": [5, 6, 7], "seed": 9}']
    file.write_text("\n".join(lines), "utf-8")
    assert main(["generate", folder, "--batch", str(file), "-n", "4", "--seed", "2", "--verbose"]) == 0
    captured = capsys.readouterr()
    expected = [
        generate(model, "def", max_new_tokens=9, temperature=0, seed=2),
        generate(model, "猫", max_new_tokens=4, seed=3),
        generate(model, [5, 6, 7], max_new_tokens=4, seed=9),
    ]
    assert [json.loads(line) for line in captured.out.splitlines()] == [one.__dict__ for one in expected]
    assert "generating 100 %" in captured.err
    assert "3 prompts of" in captured.err


def test_a_dash_reads_the_prompt_from_stdin(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    stdin(monkeypatch, "猫\n".encode())
    assert main(["generate", folder, "-p", "-", "-n", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "猫\n"


def test_a_prompt_that_is_no_text_is_refused_before_anything_is_written(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    stdin(monkeypatch, b"ab\xff")
    for prompt, sentence in (("-", "not UTF-8: invalid start byte at byte 2"), ("ab\udcff", "lone surrogate")):
        assert main(["generate", folder, "-p", prompt]) == 2
        captured = capsys.readouterr()
        assert sentence in captured.err
        assert captured.out == ""


def test_an_output_of_another_encoding_shows_escapes(folder: str):
    done = subprocess.run(
        [sys.executable, "-m", "cutaway", "generate", folder, "-p", "猫", "-n", "1", "--temperature", "0"],
        capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith(rb"\u732b")


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_gets_colour_and_no_commands_from_the_model(folder: str, tmp_path: Path):
    import pty

    command = [sys.executable, "-m", "cutaway", "generate", folder, "-p", "a\tb\x1b[2J", "-n", "40", "--seed", "1"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0
    os.close(ours)
    assert shown.startswith(b"\x1b[2ma\tb\\x1b[2J\x1b[0m")  # dim, the prompt with its escape spelled out, no longer dim
    assert shown.count(b"\x1b") == 2


def test_an_encoder_decoder_answers_a_text_or_a_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tokenizer = train_tokenizer(["the cat sat on the mat"], "char", 300)
    size = {"vocab_size": tokenizer.vocab_size, "context": 40, "layers": 1, "width": 16, "heads": 2}
    sound = tmp_path / "tone.wav"
    soundfile.write(sound, np.sin(np.arange(8_000) / 9).astype(np.float32), 16_000)
    heard = {"source": "audio", "mel_bins": 20, "source_context": 1500}
    for fields, prompt, source in (({}, "a cat", "a cat"), (heard, str(sound), sound)):
        torch.manual_seed(0)
        model = Model(build_network(config_from_dict({"kind": "seq2seq", **size, **fields})), tokenizer)
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        folder = str(save_model(model, tmp_path / str(len(fields))))
        expected = generate(load_model(folder), source, max_new_tokens=9, temperature=0)
        command = ["generate", folder, "-p", prompt, "-n", "9", "--temperature", "0"]
        assert main(command) == 0
        assert capsys.readouterr().out == f"{prompt}\n{expected.text}\n"
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["ids"] == expected.ids
    assert main(["generate", folder, "-p", "no such file.wav"]) == 2
    assert "no such file.wav does not exist" in capsys.readouterr().err
