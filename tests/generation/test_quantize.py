"""Every kind of network in few bits: which matrices become what, that files keep it, and how large errors are."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cutaway
from cutaway import load_model, save_model
from cutaway.errors import ConfigError, DamagedFile, InputError, NonFinite
from cutaway.files import MANIFEST
from cutaway.generation.quantize import quantize, save_quantized
from cutaway.generation.quantize.grid import GRIDS
from cutaway.generation.quantize.quantize import size_of
from cutaway.generation.quantize.rounding import round_matrix
from cutaway.models import (
    DecoderConfig,
    EncoderConfig,
    Model,
    NetworkConfig,
    RecurrentConfig,
    Seq2SeqConfig,
    build_network,
    memory,
)
from cutaway.models.formats.gguf import read_gguf
from cutaway.models.formats.quantise import quantise
from cutaway.models.memory import check_memory, memory_needed
from cutaway.models.quantised import blocks_in, floats_in
from cutaway.tokenizers import Tokenizer, train_tokenizer

TEXT = "the quick brown fox jumps over the lazy dog"
GPT2 = {"norm": "layernorm", "position": "learned", "activation": "gelu_tanh", "gated": False, "qk_norm": False}
BIASES = {"attention_bias": True, "output_bias": True, "mlp_bias": True}
BERT = {"norm_place": "sum", "position": "learned", "gated": False, **BIASES}
SHAPES: dict[str, tuple[type, dict[str, Any]]] = {
    "tied": (DecoderConfig, {"layers": 2, "width": 64, "heads": 2}),
    "llama": (DecoderConfig, {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "qk_norm": False, "tied": False}),
    "gpt2": (DecoderConfig, {"layers": 2, "width": 64, "heads": 2, **GPT2, **BIASES}),
    "gemma": (DecoderConfig, {"layers": 2, "width": 64, "heads": 2, "norm_plus_one": True, "norm_place": "both"}),
    "experts": (DecoderConfig, {"layers": 2, "width": 64, "heads": 2, "experts": 4, "experts_used": 2}),
    "attention only": (DecoderConfig, {"layers": 2, "width": 64, "heads": 2, "mlp": False, "norm": "none"}),
    "classes": (
        DecoderConfig,
        {"layers": 1, "width": 64, "heads": 2, "head": "sequence_classification", "labels": ("a", "b", "c")},
    ),
    "bert": (EncoderConfig, {"layers": 2, "width": 64, "heads": 2, "embed_width": 32, "token_types": 2, **BERT}),
    "modernbert": (EncoderConfig, {"layers": 2, "width": 64, "heads": 2, "windows": (0, 5)}),
    "vectors": (EncoderConfig, {"layers": 1, "width": 64, "heads": 2, "head": "embedding", "pooling": "mean"}),
    "t5": (Seq2SeqConfig, {"layers": 2, "encoder_layers": 1, "width": 64, "heads": 2, "relative_buckets": 8}),
    "bart": (
        Seq2SeqConfig,
        {"layers": 1, "width": 64, "heads": 2, "norm": "layernorm", "embed_norm": True, **BERT, "tied": True},
    ),
    "whisper": (
        Seq2SeqConfig,
        {"layers": 1, "width": 64, "heads": 2, "source": "audio", "mel_bins": 5, "position": "sinusoidal"},
    ),
    "gru": (RecurrentConfig, {"layers": 2, "width": 32, "hidden": 64}),
    "lstm": (RecurrentConfig, {"layers": 1, "width": 32, "hidden": 32, "cell": "lstm", "tied": True}),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([f"{TEXT} " * 20], vocab_size=300)


def make(shape: str, tokenizer: Tokenizer, **changes: Any) -> Model:
    kind, fields = SHAPES[shape]
    config: NetworkConfig = kind(vocab_size=tokenizer.vocab_size, context=48, **{**fields, **changes})
    torch.manual_seed(0)
    network = build_network(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return Model(network, tokenizer, shape)


def output(model: Model) -> torch.Tensor:
    given: dict[str, Any] = {}
    if isinstance(model.config, Seq2SeqConfig):
        sound = torch.randn(1, 5, 31, generator=torch.Generator().manual_seed(0))
        given = {"source": TEXT if model.config.source == "text" else sound}
    return model.logits(TEXT[:20], **given)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_every_network_computes_with_its_blocks(shape: str, kind: str, tokenizer: Tokenizer, tmp_path: Path):
    model = make(shape, tokenizer)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    made = quantize(model, kind)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    kept = blocks_in(made.model.network)
    assert {blocks.kind for blocks in kept.values()} <= {"Q8_0", "Q4_1"}
    # what it computes is what a plain network of the dequantised numbers computes
    plain = make(shape, tokenizer)
    plain.network.load_state_dict(made.model.network.state_dict())
    torch.testing.assert_close(output(made.model), output(plain), rtol=1e-5, atol=1e-5)
    if kind == "int8" and shape != "experts":  # a little may choose other experts
        away = (output(made.model) - output(model)).norm() / output(model).norm()
        assert 0 < away < 0.05
    # a matrix that is no block is small, or stands alone
    for name, tensor in floats_in(made.model.network).items():
        assert (
            tensor.ndim < 2
            or name.endswith(
                (
                    "router.weight",
                    "embed_positions.weight",
                    "embed_types.weight",
                    "relative_bias.weight",
                    "embed_tokens.weight",
                )
            )
            or tensor.ndim == 3
            or tensor.shape[-1] % 32
        ), name
    folder = save_quantized(made, tmp_path / "small")
    again = load_model(folder)
    assert {name: blocks.kind for name, blocks in blocks_in(again.network).items()} == {
        name: blocks.kind for name, blocks in kept.items()
    }
    assert torch.equal(output(again), output(made.model))
    once_more = load_file(save_model(again, tmp_path / "again") / "model.safetensors")
    first = load_file(folder / "model.safetensors")
    assert first.keys() == once_more.keys()
    assert all(torch.equal(first[name], once_more[name]) for name in first)
    opened = load_model(folder, quantised=False)
    assert not blocks_in(opened.network)
    torch.testing.assert_close(output(opened), output(again), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", ["tied", "llama", "experts", "bert", "t5", "gru"])
@pytest.mark.parametrize("kind", ["F32", "BF16", "int8", "int4"])
def test_the_memory_that_is_needed(shape: str, kind: str, tokenizer: Tokenizer):
    network = make(shape, tokenizer).network
    if kind in ("F32", "BF16"):
        network = network.to(torch.float32 if kind == "F32" else torch.bfloat16)
        assert memory_needed(network.config, kind) == size_of(network)
    else:
        assert memory_needed(network.config, kind) == size_of(
            quantize(make(shape, tokenizer), kind, output=kind).model.network
        )


def test_a_model_larger_than_the_memory(monkeypatch: pytest.MonkeyPatch):
    config = DecoderConfig(50_000, layers=24, width=1024, heads=16)
    monkeypatch.setattr(memory, "free_memory", lambda: 800 * 10**6)
    with pytest.raises(
        InputError, match=r"1\.\d+ GB as float32, but 0\.8 GB of memory are free; as int8 it takes 0\.\d+"
    ):
        check_memory(config, torch.float32, "big")
    monkeypatch.setattr(memory, "free_memory", lambda: 10**6)
    with pytest.raises(InputError, match="even as int4"):
        check_memory(config, torch.float32, "big")
    monkeypatch.setattr(memory, "free_memory", lambda: 10**11)
    check_memory(config, torch.float32, "big")


@pytest.mark.parametrize("kind", GRIDS)
def test_errors_are_no_larger_than_ggmls(kind: str):
    matrix = torch.randn(64, 512, generator=torch.Generator().manual_seed(1)) ** 3
    ours = round_matrix(matrix, kind)
    data = np.frombuffer(b"".join(quantise(matrix, kind)), np.uint8).reshape(64, -1)
    theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    # the outsider reads our bytes as we do
    read = gguf.quants.dequantize(ours.data.numpy(), gguf.GGMLQuantizationType[kind])
    assert np.array_equal(read, ours.numbers().numpy())
    groups = (64, -1, 32 if GRIDS[kind].numbers == 32 else 256)
    off, off_ggml = ((torch.from_numpy(x) - matrix).square().view(groups).sum(-1) for x in (read.copy(), theirs.copy()))
    assert bool((off <= off_ggml * (1 + 1e-5)).all())
    if GRIDS[kind].numbers == 32:
        assert off.sum() < 0.97 * off_ggml.sum()


@pytest.mark.parametrize("kind", GRIDS)
def test_special_rows(kind: str):
    rows = torch.zeros(4, 256)
    rows[1], rows[2], rows[3, ::2] = 0.75, -3.0, 1e-30
    numbers = round_matrix(rows, kind).numbers()
    assert torch.equal(numbers[0], rows[0])
    torch.testing.assert_close(numbers[1:3], rows[1:3], rtol=0.01, atol=0)
    assert bool(numbers.isfinite().all())


def test_what_stays_numbers(tokenizer: Tokenizer):
    made = quantize(make("tied", tokenizer), "int4", keep=["layers.0.mlp.*"])
    kinds = {name: blocks.kind for name, blocks in blocks_in(made.model.network).items()}
    assert kinds["embed_tokens.weight"] == kinds["lm_head.weight"] == "Q8_0"
    assert kinds["layers.1.mlp.up_proj.weight"] == "Q4_1"
    assert not any(name.startswith("layers.0.mlp") for name in kinds)
    assert any("layers.0.mlp.gate_proj.weight" in note and "as asked for" in note for note in made.report.notes)
    narrow = quantize(make("tied", tokenizer, mlp_width=48), "Q4_K")
    assert blocks_in(narrow.model.network)["layers.0.mlp.up_proj.weight"].kind == "Q4_1"
    assert any("rows of 48" in note and "left as numbers" in note for note in narrow.report.notes)
    assert any("Q4_1 instead of Q4_K: rows of 64" in note for note in narrow.report.notes)
    assert "the embedding and the output matrix become Q8_0" in narrow.report.notes  # nothing became Q4_K
    assert "the embedding and the output matrix become Q8_0, the others Q4_1" in made.report.notes


def test_bad_requests_are_one_sentence(tokenizer: Tokenizer, tmp_path: Path):
    model = make("tied", tokenizer)
    with pytest.raises(ConfigError, match=r"unknown kind to quantise to 'Q4_2'; did you mean .*Q4_"):
        quantize(model, "q4_2")
    with pytest.raises(ConfigError, match=r"unknown matrix to keep 'layer\.0'"):
        quantize(model, keep=["layer.0"])
    with pytest.raises(ConfigError, match="unknown method of calibration 'gptk'; did you mean gptq"):
        quantize(model, calibrate=[TEXT], method="gptk")
    with pytest.raises(ConfigError, match=r"matrices must be at least 0 and a whole number below .*, but -1 was given"):
        quantize(model, text=[TEXT], matrices=-1)
    with pytest.raises(ConfigError, match="rows of 24 are no whole number of blocks"):
        quantize(make("tied", tokenizer, width=24, heads=2, mlp_width=24))
    with torch.no_grad():
        model.network.get_parameter("layers.1.self_attn.v_proj.weight")[3, 5] = torch.nan
    with pytest.raises(NonFinite, match=r"layers\.1\.self_attn\.v_proj\.weight holds 1 of"):
        quantize(model)
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists"):
        save_quantized(quantize(make("tied", tokenizer)), tmp_path / "there")


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    made = save_quantized(quantize(make("tied", tokenizer), "int4"), tmp_path / "model")
    (made / MANIFEST).unlink()  # the checks below are those behind it
    return made


def rewrite(folder: Path, change: Any, metadata: Any) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    kinds = {name: "Q8_0" if "embed" in name else "Q4_1" for name, tensor in tensors.items() if tensor.ndim > 1}
    stated = metadata({"version": 1, "kinds": kinds})
    save_file(
        {n: t.contiguous() for n, t in tensors.items()}, file, None if stated is None else {"cutaway.blocks": stated}
    )


NAME = "layers.0.mlp.up_proj.weight"


def test_a_file_of_blocks_that_is_whole_opens(folder: Path):
    before = output(load_model(folder))
    rewrite(folder, lambda tensors: None, json.dumps)
    assert torch.equal(output(load_model(folder)), before)


@pytest.mark.parametrize(
    ("change", "metadata", "error", "match"),
    [
        (lambda t: None, lambda m: None, DamagedFile, "numbers of the kind float32, uint8"),
        (lambda t: None, lambda m: "{", DamagedFile, "not valid JSON"),
        (lambda t: None, lambda m: "[]", DamagedFile, "table of kinds"),
        (lambda t: None, lambda m: json.dumps({**m, "version": 2}), ConfigError, "version 2; 1 is supported"),
        (
            lambda t: None,
            lambda m: json.dumps({**m, "kinds": m["kinds"] | {NAME: "Q4_2"}}),
            ConfigError,
            "unknown kind of blocks .*'Q4_2'; did you mean",
        ),
        (lambda t: None, lambda m: json.dumps({**m, "kinds": m["kinds"] | {NAME: "F32"}}), ConfigError, "'F32'"),
        (
            lambda t: None,
            lambda m: json.dumps({**m, "kinds": m["kinds"] | {"nothing": "Q8_0"}}),
            DamagedFile,
            "nothing",
        ),
        (
            lambda t: t.update({NAME: t[NAME][:, :-1]}),
            json.dumps,
            DamagedFile,
            "up_proj.weight as rows of Q4_1, 20 bytes",
        ),
        (lambda t: t.update({NAME: t[NAME][:-1]}), json.dumps, DamagedFile, "has shape"),
        (lambda t: t.update({NAME: t[NAME].float()}), json.dumps, DamagedFile, "of float32"),
        (lambda t: t.pop(NAME), json.dumps, DamagedFile, "missing"),
        (lambda t: t.update(other=t[NAME].clone()), json.dumps, DamagedFile, "left over: other"),
        (
            lambda t: t.update({"layers.0.input_layernorm.weight": torch.zeros(1, 34, dtype=torch.uint8)}),
            json.dumps,
            DamagedFile,
            "input_layernorm",
        ),
    ],
)
def test_damaged_files_are_one_sentence(folder: Path, change: Any, metadata: Any, error: type, match: str):
    rewrite(folder, change, metadata)
    with pytest.raises(error, match=match):
        load_model(folder)


@pytest.mark.parametrize(("shape", "name"), [("llama", "llama"), ("gpt2", "gpt2"), ("experts", "qwen3moe")])
def test_gguf_keeps_the_very_blocks(shape: str, name: str, tokenizer: Tokenizer, tmp_path: Path):
    changes = {"tied": False} if shape == "experts" else {}
    made = quantize(make(shape, tokenizer, **changes), "int4", output="Q8_0")
    folder = save_quantized(made, tmp_path / "model")
    path = save_model(load_model(folder), tmp_path / "model.gguf", "gguf", family=name)
    again = load_model(path, quantised=True)
    ours, theirs = blocks_in(made.model.network), blocks_in(again.network)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key].data, theirs[key].data) for key in ours)
    assert torch.equal(output(again), output(made.model))
    assert read_gguf(path).metadata["general.file_type"] == 3  # mostly Q4_1
    # and where another kind is asked for, that is written
    other = read_gguf(save_model(again, tmp_path / "q8.gguf", "gguf", kind="Q8_0"))
    assert {tensor.kind for tensor in other.tensors.values()} == {"F32", "Q8_0"}


def test_every_door_of_the_house_opens(tokenizer: Tokenizer, tmp_path: Path):
    folder = save_quantized(quantize(make("tied", tokenizer)), tmp_path / "model")
    kept, plain = load_model(folder), load_model(folder, quantised=False)
    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0.0}
    assert kept.generate("the quick", **options).ids == plain.generate("the quick", **options).ids
    ours, theirs = (cutaway.record(model, TEXT, ["layers.*.mlp_out", "logits"]) for model in (kept, plain))
    torch.testing.assert_close(ours["logits"], theirs["logits"])
    assert abs(ours.ledger("logits").error) < 1e-3
    exported = load_model(save_model(kept, tmp_path / "exported", "huggingface"))
    torch.testing.assert_close(output(exported), output(plain))
