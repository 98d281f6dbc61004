"""The report's numbers are what a direct computation gives, and the command line shows and keeps them."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from cutaway import load_model, save_model
from cutaway.cli import main
from cutaway.errors import ConfigError, InputError
from cutaway.files import write_json
from cutaway.generation.quantize import (
    compare,
    eight_bits,
    held_out,
    quantize,
    read_report,
    read_texts,
    rows_of,
    save_quantized,
    with_rounded_activations,
)
from cutaway.generation.quantize.measure import matrix_costs
from cutaway.models import ActiveTap, Decoder, DecoderConfig, EncoderConfig, Model, Seq2SeqConfig, build_network
from cutaway.models.quantised import blocks_in
from cutaway.tokenizers import Tokenizer, prepare, train_tokenizer
from cutaway.training import TrainConfig, train

TEXT = "the quick brown fox jumps over the lazy dog and the cat sat on the mat while it rained on the roof "
VALID = [TEXT, "over the mat the dog jumps, and the quick cat sat on a lazy fox " * 3]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT * 20], vocab_size=300)


def noisy(config: DecoderConfig | EncoderConfig | Seq2SeqConfig, tokenizer: Tokenizer) -> Model:
    torch.manual_seed(0)
    network = build_network(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return Model(network, tokenizer, "a test")


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    return noisy(DecoderConfig(tokenizer.vocab_size, context=64, layers=2, width=64, heads=2), tokenizer)


def test_numbers_are_those_of_a_direct_computation(model: Model):
    made = quantize(model, "int4", text=VALID, matrices=3)
    report, rows = made.report, rows_of(model, VALID, most=10_000)
    plain = torch.cat([model.logits(row.ids)[0, :-1] for row in rows]).double().log_softmax(-1)
    few = torch.cat([made.model.logits(row.ids)[0, :-1] for row in rows]).double().log_softmax(-1)
    right = torch.cat([row.ids[0, 1:] for row in rows])
    assert report.tokens == len(right)
    perplexities = [math.exp(-float(x.gather(1, right[:, None]).mean())) for x in (plain, few)]
    assert report.perplexity == pytest.approx(perplexities[0], rel=1e-6)
    assert report.perplexity_quantised == pytest.approx(perplexities[1], rel=1e-6)
    assert report.growth == pytest.approx(100 * (perplexities[1] / perplexities[0] - 1), rel=1e-4)
    assert report.agreement == pytest.approx(float((plain.argmax(-1) == few.argmax(-1)).double().mean()))
    kl = torch.nn.functional.kl_div(few, plain, reduction="none", log_target=True).sum(-1)
    assert report.kl_mean == pytest.approx(float(kl.mean()), rel=1e-6)
    assert report.kl_max == pytest.approx(float(kl.max()), rel=1e-6)
    assert report.kl_median == pytest.approx(float(kl.quantile(0.5)), rel=1e-6)
    worst = report.worst[0]
    assert worst.kl == report.kl_max
    place = int(kl.argmax())
    assert worst.float_says == model.tokenizer.token(int(plain[place].argmax()))
    assert worst.before.endswith(model.tokenizer.token(int(torch.cat([row.ids[0, :-1] for row in rows])[place])))
    for matrix in report.matrices:
        weight = model.network.get_parameter(matrix.name).detach()
        off = (blocks_in(made.model.network)[matrix.name].numbers() - weight).norm() / weight.norm()
        assert matrix.error == pytest.approx(float(off), rel=1e-5)
    measured = [matrix for matrix in report.matrices if matrix.kl is not None]
    assert len(measured) == 3
    assert report.kl_mean is not None
    assert all(0 < matrix.kl < report.kl_mean * 3 for matrix in measured if matrix.kl is not None)


def test_free_running_counts_equal_tokens(model: Model):
    rows = rows_of(model, VALID, most=10_000)
    same = compare(model.network, model.network, rows)
    assert same.growth == 0
    assert same.agreement == 1
    assert same.kl_max == 0
    assert same.free_length == 48
    assert set(same.free) == {48}
    coarse = quantize(model, "Q4_0", output="Q4_0").model
    found = compare(model.network, coarse.network, rows)
    for row, count in zip(rows, found.free, strict=False):
        ids = [row.ids[0, :16].tolist()] * 2
        for step in range(count + 1):
            if step == 48:
                break
            said = [int(m.logits(x)[0, -1].argmax()) for m, x in zip((model, coarse), ids, strict=True)]
            assert (said[0] == said[1]) == (step < count)
            ids = [[*x, said[0]] for x in ids]


def test_one_matrix_alone(model: Model):
    made = quantize(model, "Q4_0").model
    rows = rows_of(model, VALID, most=60)
    _, costs = matrix_costs(model.network, made.network, rows, most=100)
    name = "layers.1.mlp.down_proj.weight"
    alone = noisy(model.config, model.tokenizer)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        alone.network.get_parameter(name).copy_(blocks_in(made.network)[name].numbers())
    assert costs[name] == pytest.approx(compare(model.network, alone.network, rows, free=False).kl_mean, rel=1e-3)
    assert "lm_head.weight" not in costs  # it is the embedding


def test_networks_that_do_not_write_texts(tokenizer: Tokenizer):
    size: dict[str, Any] = {"context": 64, "layers": 1, "width": 64, "heads": 2}
    masked = quantize(noisy(EncoderConfig(tokenizer.vocab_size, **size), tokenizer), text=VALID).report
    assert masked.perplexity is not None
    assert masked.agreement is not None
    assert not masked.free
    vectors = noisy(EncoderConfig(tokenizer.vocab_size, head="embedding", pooling="mean", **size), tokenizer)
    found = quantize(vectors, text=VALID).report
    assert found.perplexity is found.agreement is found.kl_mean is None
    assert found.distance is not None
    assert 0 < found.distance < 0.02
    translator = noisy(Seq2SeqConfig(tokenizer.vocab_size, **size), tokenizer)
    written = quantize(translator, text=VALID).report
    assert written.tokens > 2
    assert written.perplexity is not None
    listening = Seq2SeqConfig(tokenizer.vocab_size, source="audio", mel_bins=5, position="sinusoidal", **size)
    with pytest.raises(ConfigError, match="listens"):
        quantize(noisy(listening, tokenizer), text=VALID)


def test_activations_of_eight_bits(model: Model):
    x = torch.randn(3, 70, generator=torch.Generator().manual_seed(0))
    made = eight_bits(x)
    for row, rounded in zip(x, made, strict=True):
        for start in (0, 32):
            group, own = row[start : start + 32], rounded[start : start + 32]
            step = float(group.abs().max()) / 127
            assert (own - group).abs().max() <= step / 2 + 1e-7
            assert torch.allclose(own / step, (own / step).round(), atol=1e-4)
        assert torch.equal(row[64:], rounded[64:])
    assert torch.equal(eight_bits(torch.zeros(2, 64)), torch.zeros(2, 64))
    network = quantize(model, "int8").model.network
    assert isinstance(network, Decoder)
    rounded = with_rounded_activations(network)
    ids = model.ids(TEXT)[:, :40]
    with torch.no_grad():
        plain, few = network(ids), rounded(ids)
        # the same by hand: each matrix of the first layer reads numbers of 8 bits
        block = network.blocks[0]
        read = eight_bits(block.input_layernorm(network.embed_tokens(ids)))
        seen = {}
        rounded(ids, tap=ActiveTap(["layers.0.attn.k", "layers.0.attn.v"], sink=lambda n, v: seen.update({n: v})))
        v = (read @ block.self_attn.v_proj.weight.T).view(1, 40, 2, 32).transpose(1, 2)
    torch.testing.assert_close(seen["layers.0.attn.v"], v)
    away = (few - plain).norm() / plain.norm()
    assert 1e-4 < away < 0.03


def test_a_report_comes_back_as_it_was(model: Model, tmp_path: Path):
    made = quantize(model, "int4", text=VALID, matrices=2)
    folder = save_quantized(made, tmp_path / "small")
    assert read_report(folder) == made.report
    assert read_report(tmp_path) is None
    shown = io.StringIO()
    Console(file=shown, width=80).print(made.report)
    assert all(f"{matrix.name} " in shown.getvalue() for matrix in made.report.matrices[:10])
    assert "…" not in shown.getvalue()  # everything fits into a terminal of the usual width
    values = json.loads((folder / "quantisation.json").read_text("utf-8"))
    write_json(folder / "quantisation.json", values | {"perplexty": 3})
    with pytest.raises(ConfigError, match="perplexty"):
        read_report(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    room = tmp_path_factory.mktemp("trained")
    texts = [f"{TEXT} Text number {i} says that {i} and {i + 1} are {2 * i + 1}.\n" for i in range(100)]
    (room / "texts").mkdir()
    for i, text in enumerate(texts):
        (room / "texts" / f"{i}.txt").write_text(text, "utf-8")
    prepare(str(room / "texts"), room / "corpus", vocab_size=320, valid=0.2, steps=[])
    config = TrainConfig(data=str(room / "corpus"), out=str(room / "run"), size=1, context=32, steps=40, baseline=False)
    train(config)
    return room / "run"


def test_a_run_is_measured_on_its_own_validation_split(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    [ids] = held_out(run, 100)
    assert len(ids) == 100
    assert main(["quantize", str(run), str(tmp_path / "int4"), "--kind", "int4", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["perplexity"] > 1
    assert made["tokens"] > 100
    assert abs(made["growth"]) < 5
    assert made["bytes_after"] < made["bytes_before"] / 3
    calibrated = ["--calibrate", str(run.parent / "texts"), "--text", str(run.parent / "texts" / "3.txt")]
    assert main(["quantize", str(run), str(tmp_path / "gptq"), "-k", "Q4_0", "--matrices", "2", *calibrated]) == 0
    shown = capsys.readouterr().out
    assert "perplexity" in shown
    assert "gptq" in shown
    assert "What costs most" in shown
    assert main(["doctor", "--model", str(tmp_path / "gptq")]) == 0
    assert "What costs most" in capsys.readouterr().out
    assert main(["quantize", str(run), str(tmp_path / "x.gguf"), "--no-report"]) == 0
    assert "nothing" in capsys.readouterr().out
    kept = load_model(tmp_path / "x.gguf", quantised=True)
    assert {blocks.kind for blocks in blocks_in(kept.network).values()} == {"Q8_0"}
    assert main(["convert", str(tmp_path / "int4"), str(tmp_path / "y.gguf"), "--to", "gguf"]) == 0
    assert "kept as they are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--kind", "q5"], "unknown kind to quantise to 'Q5'; did you mean"),
        (["--keep", "layers.9.*"], "unknown matrix to keep"),
        (["--calibrate", "nowhere"], "nowhere"),
        (["--method", "magic", "--calibrate", "{texts}"], "unknown method of calibration 'magic'"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    run: Path, words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [word.replace("{texts}", str(run.parent / "texts")) for word in words]
    assert main(["quantize", str(run), str(tmp_path / "out"), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_never_written_over(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "out").write_text("mine", "utf-8")
    assert main(["quantize", str(run), str(tmp_path / "out")]) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "out").read_text("utf-8") == "mine"


def test_a_full_disk_leaves_nothing(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cutaway.models.quantised_file.write_tensors", full)
    with pytest.raises(InputError, match="the disk is full"):
        save_quantized(quantize(model), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_texts_of_files(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one", "utf-8")
    (tmp_path / "b.txt").write_text("two", "utf-8")
    assert sorted(read_texts([tmp_path])) == ["one", "two"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError):
        read_texts([tmp_path / "none"])
    assert held_out(tmp_path, 10) == []


def test_a_quantised_model_can_be_quantised_again(model: Model, tmp_path: Path):
    once = quantize(model, "int8").model
    twice = quantize(once, "int4", text=VALID)
    assert {b.kind for b in blocks_in(twice.model.network).values()} == {"Q8_0", "Q4_1"}
    assert twice.report.bytes_after < twice.report.bytes_before
    half = Model(build_network(model.config).eval().to(torch.bfloat16), model.tokenizer)
    saved = save_quantized(quantize(half, "int8", text=VALID), tmp_path / "half")
    assert load_model(saved).logits(TEXT).isfinite().all()
    assert save_model(load_model(saved), tmp_path / "again").is_dir()
