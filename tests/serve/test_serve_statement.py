"""What a server says when it is ready holds for every kind of model: the line that it tells to try is answered."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from listeners import packed, sound, whisper
from readers import bert, minilm
from serving import TEMPLATE, TEXT, serving, tiny_talker

from cutaway.models import Model, RecurrentConfig, Seq2SeqConfig, build_network, save_model
from cutaway.serve import Settings
from cutaway.serve.statement import in_words, statement
from cutaway.tokenizers import train_tokenizer


def made(folder: Path, config: Any) -> str:
    """A network of random weights whose tokenizer has a chat template."""
    tokenizer = train_tokenizer([TEXT * 9], "char", 300)
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    return str(save_model(Model(build_network(config(tokenizer.vocab_size)), tokenizer), folder))


def kind(name: str, folder: Path) -> str:
    """The folder of a model of a kind."""
    match name:
        case "talker":
            return tiny_talker(folder)
        case "continuer" | "plain":
            return tiny_talker(folder, template=None)
        case "recurrent":
            return made(folder, lambda size: RecurrentConfig(size, width=16, hidden=16, layers=1))
        case "translator":
            return made(folder, lambda size: Seq2SeqConfig(size, layers=1, width=16, heads=2))
        case "listener":
            return whisper(folder)
        case "embedder":
            return minilm()
        case "classifier":
            return bert(folder, num_labels=3)
        case "ranker":
            return bert(folder, num_labels=1)
        case "tagger":
            return bert(folder, "BertForTokenClassification", num_labels=3)
        case _:
            return bert(folder, "BertForMaskedLM")


@pytest.mark.parametrize(
    ("name", "page", "told"),
    [
        ("talker", "/v1/chat/completions", "choices"),
        ("continuer", "/v1/completions", "choices"),
        ("plain", "/v1/chat/completions", "choices"),
        ("recurrent", "/v1/chat/completions", "choices"),
        ("translator", "/v1/completions", "choices"),
        ("listener", "/v1/audio/transcriptions", "text"),
        ("embedder", "/v1/embeddings", "data"),
        ("classifier", "/v1/classify", "data"),
        ("ranker", "/v1/rerank", "results"),
        ("tagger", "/v1/tag", "data"),
        ("masked", "/tokenize", "tokens"),
    ],
)
def test_the_line_to_try_is_answered(name: str, page: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "RECORDING.wav").write_bytes(packed(sound(1)))
    source = kind(name, tmp_path / name)
    with serving(Settings(models={name: source}, chat_format="plain" if name == "plain" else "template")) as served:
        said = statement(served.server, served.url, 1.0)
        assert f"{served.url}{page} " in said["try"]
        found = subprocess.run(said["try"], shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert json.loads(found.stdout)[told]
        assert said["try"] in in_words(said)
        if name == "embedder":  # MiniLM's network has 512 positions, and its makers read 256 tokens of a text
            assert said["models"][0]["context"] == 256
