"""Matrices kept as a GGUF file stores them compute what their dequantised numbers compute."""

from pathlib import Path
from typing import Any

import pytest
import torch

import cutaway
from cutaway import load_model, save_model
from cutaway.errors import DamagedFile
from cutaway.models import Decoder, DecoderConfig, Model, build_network, quantised
from cutaway.models.formats.ggml import Blocks
from cutaway.models.formats.gguf import read_gguf
from cutaway.models.formats.gguf_models import open_quantised
from cutaway.models.quantised import QuantisedEmbedding, QuantisedLinear, dequantised_once
from cutaway.tokenizers import Tokenizer, train_tokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "paired rows": {"qk_norm": False, "kv_heads": 1, "attention_bias": True, "output_bias": True, "mlp_bias": True},
    "joined": {"norm": "layernorm", "gated": False, "activation": "gelu_tanh", "position": "learned"}
    | {"qk_norm": False, "attention_bias": True, "output_bias": True, "mlp_bias": True},
    "experts": {"experts": 4, "experts_used": 2, "expert_width": 64, "tied": False},
    "gemma": {"norm_plus_one": True, "norm_place": "both", "activation": "gelu_tanh", "embed_scale": 8.0}
    | {"attention_scale": 32**-0.5, "windows": (4, 4), "rotary_base_local": 1e4},
}
ARCHITECTURE = {"paired rows": "llama", "joined": "gpt2", "experts": "qwen3moe", "gemma": "gemma3"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the quick brown fox jumps over the lazy dog " * 20], vocab_size=300)


def make(name: str, tokenizer: Tokenizer) -> Model:
    config = DecoderConfig(tokenizer.vocab_size, context=64, layers=2, width=64, heads=2, **SHAPES[name])
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    return Model(network.eval(), tokenizer)


@pytest.fixture(params=SHAPES)
def pair(request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path: Path) -> tuple[Model, Model]:
    """Dequantised, and kept."""
    name = ARCHITECTURE.get(request.param)
    path = save_model(make(request.param, tokenizer), tmp_path / "q.gguf", "gguf", kind="Q8_0", family=name)
    return load_model(path), load_model(path, quantised=True)


def test_logits_are_equal(pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch):
    plain, kept = pair
    assert kept.config == plain.config
    ids = plain.ids("the quick brown fox jumps over the lazy dog")
    assert torch.equal(kept.logits(ids), plain.logits(ids))
    monkeypatch.setattr(quantised, "PIECE", 500)  # now in pieces
    assert (kept.logits(ids) - plain.logits(ids)).abs().max() <= 1e-5


def test_a_matrix_can_be_dequantised_once_for_many_products(pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch):
    plain, kept = pair
    ids = plain.ids("the quick brown fox jumps over the lazy dog")
    monkeypatch.setattr(quantised, "PIECE", 500)
    made: list[int] = []
    numbers = Blocks.__getitem__
    with dequantised_once(kept.network):
        monkeypatch.setattr(Blocks, "__getitem__", lambda self, which: made.append(0) or numbers(self, which))
        before = kept.network.read_out(torch.ones(1, 3, 64))  # pyright: ignore[reportAttributeAccessIssue]
        assert not made
        monkeypatch.setattr(Blocks, "__getitem__", numbers)
        assert (kept.logits(ids) - plain.logits(ids)).abs().max() <= 1e-5
    assert (kept.network.read_out(torch.ones(1, 3, 64)) - before).abs().max() <= 1e-5  # pyright: ignore[reportAttributeAccessIssue]
    assert kept.network.lm_head.whole is None  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(quantised, "WHOLE", 500)
    with dequantised_once(kept.network):
        assert kept.network.lm_head.whole is None  # pyright: ignore[reportAttributeAccessIssue]


def test_no_matrix_is_in_memory(pair: tuple[Model, Model]):
    for name, parameter in pair[1].network.named_parameters():
        assert parameter.ndim == 1 or name.endswith(("router.weight", "embed_positions.weight"))


def test_every_door_of_the_house_opens(pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch):
    plain, kept = pair
    monkeypatch.setenv("CUTAWAY_KERNELS", "torch")  # native kernels round what they multiply with blocks
    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0.0}
    assert kept.generate("the quick", **options).ids == plain.generate("the quick", **options).ids
    text, names = "the lazy dog", ["layers.*.attn.pattern", "layers.*.mlp_out", "logits"]
    ours, theirs = (cutaway.record(model, text, names) for model in (kept, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    edited = [
        cutaway.replace(model, text, {"layers.1.attn.z": lambda x: x * 0.5}, "logits")["logits"]
        for model in (kept, plain)
    ]
    assert torch.equal(*edited)
    if not plain.config.experts:  # pyright: ignore[reportAttributeAccessIssue]
        ledgers = [recording.ledger("logits") for recording in (ours, theirs)]
        assert [term.value for term in ledgers[0].terms] == [term.value for term in ledgers[1].terms]
        assert abs(ledgers[0].error) < 1e-3


def test_it_can_be_saved(pair: tuple[Model, Model], tmp_path: Path):
    plain, kept = pair
    again = load_model(save_model(kept, tmp_path / "again"))
    ids = plain.ids("the quick brown fox")
    assert torch.equal(again.logits(ids), plain.logits(ids))


def test_gradients_reach_what_stands_before(pair: tuple[Model, Model]):
    network = pair[1].network
    assert isinstance(network, Decoder)
    network(pair[1].ids("the fox")).sum().backward()
    weight = next(network.blocks[0].mlp.parameters(), None)
    norm = next(network.blocks[0].parameters())
    assert norm.grad is not None
    assert norm.grad.abs().sum() > 0
    assert weight is None or weight.ndim < 3


def test_what_holds_no_blocks_opens_as_it_does(tokenizer: Tokenizer, tmp_path: Path):
    model = make("tied", tokenizer)
    again = load_model(save_model(model, tmp_path / "model"), quantised=True)
    ids = model.ids("the quick brown fox")
    assert torch.equal(again.logits(ids), model.logits(ids))


def test_shapes_are_checked(tokenizer: Tokenizer, tmp_path: Path):
    file = read_gguf(save_model(make("joined", tokenizer), tmp_path / "q.gguf", "gguf", kind="Q8_0"))
    tensors = dict(file.tensors)
    tensors["blk.0.attn_qkv.weight"] = tensors["blk.0.ffn_up.weight"]
    with pytest.raises(DamagedFile, match=r"blk\.0\.attn_qkv"):
        open_quantised(type(file)(file.path, file.metadata, tensors, file._map))


def test_rows_are_read_by_themselves():
    data = torch.randint(0, 256, (5, 3, 34), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data[..., :2] = torch.tensor([0.5], dtype=torch.float16).view(torch.uint8)
    blocks = Blocks("Q8_0", data.flatten(1), torch.float32)
    assert blocks.shape == (5, 96)
    whole = blocks.numbers()
    assert torch.equal(blocks[1:3], whole[1:3])
    ids = torch.tensor([[4, 0], [0, 2]])
    assert torch.equal(QuantisedEmbedding(blocks)(ids), whole[ids])
    x = torch.randn(2, 96, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(QuantisedLinear(blocks, None)(x), x @ whole.T)
