"""Weights that are kept quantised are patched, guessed and steered like any others; they cannot be edited."""

import pytest
import torch
from kinds import TEXT

from cutaway import load_model, save_model
from cutaway.errors import ConfigError
from cutaway.interp import (
    attribution_patching,
    causal_trace,
    circuit,
    dose_response,
    patch_sweep,
    path_patching,
    rome,
)
from cutaway.models import DecoderConfig, Model, build_network
from cutaway.tokenizers import train_tokenizer

OTHER = TEXT.replace("on the m", "on the c")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """The same numbers, dequantised once and whenever they are used."""
    tokenizer = train_tokenizer([TEXT * 3], "bpe", 300)
    torch.manual_seed(0)
    network = build_network(DecoderConfig(tokenizer.vocab_size, 64, 2, 64, 2, tied=False))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    file = save_model(Model(network, tokenizer), tmp_path_factory.mktemp("q") / "m.gguf", "gguf", kind="Q8_0")
    return load_model(file), load_model(file, quantised=True)


def test_the_same_numbers_come_of_quantised_weights(pair: tuple[Model, Model]):
    asked = {"token": 70, "align": "token"}
    for analysis in (patch_sweep, attribution_patching, path_patching):
        plain, kept = (analysis(model, TEXT, OTHER, **asked) for model in pair)
        torch.testing.assert_close(kept.change, plain.change, atol=1e-5, rtol=1e-4)
    traced = [causal_trace(model, TEXT, subject="cat", samples=2, token=70, quantity="logit").values for model in pair]
    torch.testing.assert_close(traced[1], traced[0], atol=1e-4, rtol=1e-3)
    ids = [pair[0].ids(text)[0].tolist() for text in (TEXT, OTHER)]
    length = min(map(len, ids))
    found = [circuit(model, ids[0][:length], ids[1][:length], edges=1000, token=70) for model in pair]
    assert found[1].faithfulness == pytest.approx(1, abs=1e-3)
    assert found[1].left == pytest.approx(found[0].left, abs=1e-4)
    doses = [dose_response(model, TEXT, positive=["the cat"], negative=["a mat"], token=70).steered for model in pair]
    torch.testing.assert_close(doses[1], doses[0], atol=1e-4, rtol=1e-3)


def test_quantised_weights_are_not_edited(pair: tuple[Model, Model]):
    with pytest.raises(ConfigError, match="kept quantised and cannot be edited"):
        rome(pair[1], "the cat sat", subject="cat", target=70, texts=[TEXT])
