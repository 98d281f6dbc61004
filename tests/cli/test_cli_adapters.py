"""--adapter: generate with one, and convert into a model of its own."""

import json
from pathlib import Path

import pytest
import torch

from cutaway.cli import main
from cutaway.models import Decoder, DecoderConfig, Model, load_model, save_model
from cutaway.models.adapters import AdapterConfig, add_adapter, load_adapter, save_adapter
from cutaway.tokenizers import train_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A model, and an adapter beside it."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["the cat sat on the mat"] * 9, "bpe", 300)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=64, layers=2, width=32, heads=4, qk_norm=False))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    base = Model(network, tokenizer)
    model = add_adapter(base, AdapterConfig(r=4, lora_alpha=32))
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return str(save_model(base, root / "base")), str(save_adapter(model, root / "adapter"))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    asked = ["--prompt", "the cat", "--max-new-tokens", "12", "--temperature", "0", "--json"]
    assert main(["generate", *words, *asked]) == 0
    return json.loads(capsys.readouterr().out)["text"]


def test_generate_with_an_adapter(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    base, adapter = folders
    model = load_adapter(load_model(base), adapter)
    found = said(capsys, base, "--adapter", adapter)
    assert found == model.generate("the cat", max_new_tokens=12, temperature=0).text
    assert found != said(capsys, base)


def test_convert_merges(folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, adapter = folders
    for to in ("huggingface", "cutaway"):
        assert main(["convert", base, str(tmp_path / to), "--to", to, "--adapter", adapter, "--json"]) == 0
        capsys.readouterr()
        model = load_adapter(load_model(base), adapter)
        made = load_model(tmp_path / to)
        torch.testing.assert_close(made.logits("the cat"), model.logits("the cat"), atol=1e-5, rtol=1e-5)
        assert made.adapter is None


def test_a_folder_without_an_adapter_is_one_sentence(
    folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", folders[0], "--adapter", str(tmp_path), "--prompt", "x"]) == 2
    assert "holds no adapter_config.json" in capsys.readouterr().err
