"""How tokens are chosen, from the command line."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch

from cutaway.cli import main
from cutaway.generation import generate
from cutaway.models import DecoderConfig, Model, build_network, load_model, save_model
from cutaway.tokenizers import train_tokenizer

SCHEMA = {"type": "object", "properties": {"猫": {"enum": [1, 2]}}, "required": ["猫"], "additionalProperties": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and a smaller one of the same tokens."""
    place, tokenizer = tmp_path_factory.mktemp("models"), train_tokenizer(["the cat sat on the mat"], "char", 300)
    torch.manual_seed(0)
    made = []
    for name, width in (("model", 16), ("draft", 8)):
        network = build_network(DecoderConfig(tokenizer.vocab_size, context=256, layers=1, width=width, heads=1))
        made.append(save_model(Model(network, tokenizer), place / name))
    return made[0], made[1]


def said(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["generate", str(folder), "--prompt", "the ", *options]) == 0
    return capsys.readouterr().out.removeprefix("the ").removesuffix("\n")


def test_texts_are_held_to_forms(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, _ = folders
    assert said(folder, capsys, "--choice", "cat", "--choice", "猫") in ("cat", "猫")
    assert said(folder, capsys, "--regex", "[ab]{3}") in {a + b + c for a in "ab" for b in "ab" for c in "ab"}
    assert said(folder, capsys, "--grammar", 'start: "x" "y"') == "xy"
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), "utf-8")
    jsonschema.validate(json.loads(said(folder, capsys, "--json-schema", f"@{tmp_path / 'schema.json'}")), SCHEMA)


def test_beams_and_guesses_arrive(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    folder, draft = folders
    model = load_model(folder)
    found = generate(model, "the ", beams=3, max_new_tokens=9)
    assert said(folder, capsys, "--beams", "3", "-n", "9") == found.text
    plain = generate(model, "the ", temperature=0, max_new_tokens=30)
    for way in ("lookup", str(draft)):
        assert said(folder, capsys, "--speculate", way, "-n", "30", "--temperature", "0") == plain.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json-schema", "{"], "the JSON Schema is not JSON"),
        (["--json-schema", '{"type": "strin"}'], "the JSON Schema is not one: Invalid type: strin"),
        (["--regex", "[a"], "the regular expression is not one"),
        (["--grammar", "begin"], "the grammar is not one"),
        (["--regex", "a", "--choice", "b"], "a text can be held to one form, but regex and choices were given"),
        (["--typical-p", "1.5"], "typical_p must be above 0 and at most 1, but 1.5"),
        (["--frequency-penalty", "nan"], "frequency_penalty must be"),
        (["--logit-bias", "99999=1"], "logit_bias must name tokens in 0"),
        (["--beams", "2", "--temperature", "0.5"], "a beam search draws nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(
    options: list[str], message: str, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
):
    assert main(["generate", str(folders[0]), "--prompt", "the", *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
