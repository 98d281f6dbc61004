"""What a run does, writes and tells."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import weights

from cutaway.errors import ConfigError, InputError, MissingExtra
from cutaway.models import build_network, load_model
from cutaway.models.model import checkpoints
from cutaway.progress import Progress
from cutaway.tokenizers import TokenStore, train_tokenizer
from cutaway.training import Score, TrainConfig, evaluate, loop, plan, resume, train, train_config
from cutaway.training import metrics as metrics_module
from cutaway.training.config import network_for, train_config_to_dict
from cutaway.training.metrics import read_metrics
from cutaway.training.ranks import Ranks
from cutaway.training.stepper import Stepper

Tiny = Callable[..., TrainConfig]


def test_a_run_from_beginning_to_end(tiny: Tiny):
    seen: list[Progress] = []
    samples: list[tuple[int, str, str]] = []
    config = tiny(samples=["the "], sample_tokens=5, baseline=True, steps=60, eval_every=20, save_every=30, keep=1)
    random_state = torch.get_rng_state()
    run = train(config, progress=seen.append, on_sample=lambda *sample: samples.append(sample))
    assert torch.equal(random_state, torch.get_rng_state())  # the caller's random numbers are left alone
    history = run.history
    steps = [r for r in history if "loss" in r]
    assert [r["step"] for r in steps] == list(range(1, 61))
    assert steps[-1]["loss"] < steps[0]["loss"] - 1
    evaluations = [r for r in history if "valid_loss" in r]
    assert [r["step"] for r in evaluations] == [20, 40, 60]
    assert evaluations[-1]["valid_loss"] == run.metrics["valid_loss"]
    assert run.metrics["better_than_ngram"] == pytest.approx(
        1 - run.metrics["valid_loss"] / run.metrics["ngram_loss"], abs=1e-4
    )
    assert [step for step, _, _ in samples] == [20, 40, 60]
    assert [r["sample"] for r in history if "sample" in r] == [text for _, _, text in samples]
    assert {"loss", "valid", "lr", "grad norm", "tokens/s", "of peak", "left", "than counting"} <= seen[
        -1
    ].figures.keys()
    assert (seen[-1].done, seen[-1].total) == (60, 60)
    # the newest checkpoint is the model that was returned
    loaded = load_model(run.folder)
    ids = torch.arange(10)[None]
    assert torch.equal(loaded.logits(ids), run.model.logits(ids))


def test_the_validation_loss_is_that_of_all_tokens(tiny: Tiny, corpus: Path):
    run = train(tiny(eval_tokens=0))
    split = TokenStore.open(corpus)["valid"]
    assert run.metrics["valid_tokens"] == split.tokens
    ids = torch.from_numpy(np.concatenate((split.window(-1, 1), split.window(0, split.tokens))))
    total = 0.0
    for start in range(0, split.tokens, 16):
        x, y = ids[start : start + 16], ids[start + 1 : start + 17]
        x = x[: len(y)]
        total -= run.model.logits(x[None])[0].log_softmax(-1)[torch.arange(len(y)), y].sum().item()
    assert run.metrics["valid_loss"] == pytest.approx(total / split.tokens, rel=1e-5)
    assert run.metrics["bits_per_byte"] == pytest.approx(total / math.log(2) / split.bytes, rel=1e-5)


def test_seeds_decide(tiny: Tiny):
    train(tiny("one"))
    train(tiny("same"))
    train(tiny("other", seed=1))
    one, same, other = (weights(tiny(name).out) for name in ("one", "same", "other"))
    assert one == same
    assert one != other


@pytest.mark.parametrize("network", [{"layers": 1, "width": 16, "heads": 2}, {"kind": "recurrent", "hidden": 16}])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resumed_runs_have_the_same_bits(tiny: Tiny, network: dict, optimizer: str, monkeypatch: pytest.MonkeyPatch):
    settings = {"network": network, "optimizer": optimizer, "dtype": "bf16"}
    train(tiny("unbroken", **settings))
    config = tiny("broken", **settings)
    step = Stepper.step

    def power_cut(self: Stepper, *args, **more):
        if more["seed"] // 1009 == 7:
            raise RuntimeError("power cut")
        return step(self, *args, **more)

    monkeypatch.setattr(Stepper, "step", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(config)
    assert checkpoints(Path(config.out))[0].name == "step-00000006"
    monkeypatch.setattr(Stepper, "step", step)
    monkeypatch.setattr(loop, "settle", None)  # nothing is planned again
    resume(config.out)
    assert weights(config.out) == weights(tiny("unbroken").out)


def test_a_batch_in_pieces_gives_the_gradient_of_the_whole(tiny: Tiny, corpus: Path):
    store = TokenStore.open(corpus)
    losses, grads = [], []
    for pieces in (1, 2, 4):
        config = tiny(accumulate=pieces, network={"layers": 1, "width": 16, "heads": 2}, clip=0.0)
        torch.manual_seed(0)
        network = build_network(network_for(config, store.tokenizer.vocab_size))
        stepper = Stepper(config, network)
        batch = plan.batch_of(store, config, Ranks(), 0)
        batch.tensors["targets"][0, :5] = -100
        taken = stepper.step(batch, lr_scale=1.0, seed=0)
        losses.append(taken.loss)
        grads.append(taken.norm)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    assert grads == pytest.approx([grads[0]] * 3, rel=1e-5)


def test_clipping_bounds_the_gradient(tiny: Tiny, corpus: Path):
    store = TokenStore.open(corpus)
    moved = []
    for clip in (0.0, 0.01):
        config = tiny(clip=clip, optimizer="sgd", lr=1.0, network={"layers": 1, "width": 16, "heads": 2})
        torch.manual_seed(0)
        network = build_network(network_for(config, store.tokenizer.vocab_size))
        before = [p.detach().clone() for p in network.parameters()]
        batch = plan.batch_of(store, config, Ranks(), 0)
        taken = Stepper(config, network).step(batch, lr_scale=1.0, seed=0)
        difference = [(a - b).square().sum() for a, b in zip(before, network.parameters(), strict=True)]
        moved.append((torch.stack(difference).sum().sqrt().item(), taken.norm))
    assert moved[0][0] == pytest.approx(moved[0][1], rel=1e-4)  # lr 1: the step is the gradient
    assert moved[1][0] == pytest.approx(0.01, rel=1e-3)
    assert moved[1][1] == moved[0][1]  # the norm told is that before clipping


def test_of_equal_figures_the_one_with_the_lower_loss_is_kept(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    losses = iter([3.0, 2.0, 2.5])
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: Score(next(losses), 10, {"accuracy": 0.5}))
    run = train(tiny(steps=6, eval_every=2, save_every=2, best="accuracy", keep_best=True))
    assert run.metrics["steps"] == 4
    assert "did not get better in 1 evaluation; the model is that of step 4" in " ".join(run.notes)


def test_early_stopping_keeps_the_best(tmp_path: Path):
    draw = random.Random(1)
    noise = ["".join(draw.choice("abcdefgh") for _ in range(600)) for _ in range(2)]  # can only be learned by heart
    folder = tmp_path / "noise"
    TokenStore.from_texts({"train": noise[:1], "valid": noise[1:]}, train_tokenizer(noise, "char", 300), folder)
    config = train_config(
        {"data": str(folder), "out": str(tmp_path / "run"), "network": {"layers": 2, "width": 32, "heads": 2},
         "context": 16, "batch": 16, "steps": 600, "eval_every": 10, "save_every": 15, "patience": 2,
         "dtype": "fp32", "compile": "off", "tensorboard": "off", "baseline": False}
    )  # fmt: skip
    run = train(config)
    losses = {r["step"]: r["valid_loss"] for r in run.history if "valid_loss" in r}
    best = min(losses, key=lambda step: losses[step])
    assert run.metrics["ended"] == "stopped early"
    assert run.metrics["steps"] == best
    assert run.metrics["valid_loss"] == losses[best] == run.metrics["best_valid_loss"]
    assert max(losses) == best + 20 < 600
    assert checkpoints(run.folder)[0].name == f"step-{best:08d}"
    score = evaluate(run.model.network, TokenStore.open(folder)["valid"], context=16)
    assert score is not None
    assert score.loss == pytest.approx(losses[best], rel=1e-6)
    again = resume(run.folder)  # it stays stopped
    assert again.metrics["steps"] == best
    assert any("finished already" in note for note in again.notes)


def test_checkpoints_kept_are_the_newest_and_the_best(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    values = iter([3.0, 1.0, 2.0, 2.5, 2.6, 2.7])
    monkeypatch.setattr(loop, "evaluate", lambda *a, **k: Score(next(values), 1))
    run = train(tiny(steps=12, eval_every=2, save_every=2, keep=2))
    assert [p.name for p in checkpoints(run.folder)] == ["step-00000012", "step-00000010", "step-00000004"]


def test_a_finished_run_can_be_made_longer(tiny: Tiny):
    config = tiny(steps=6)
    train(config)
    assert resume(config.out).metrics["steps"] == 6
    run = resume(config.out, steps=9)
    assert run.metrics["steps"] == 9
    assert [r["step"] for r in run.history if "loss" in r] == list(range(1, 10))
    with pytest.raises(ConfigError, match="less than the 9"):
        resume(config.out, steps=5)
    with pytest.raises(ConfigError, match="did you mean lr_rest"):
        resume(config.out, lr_rst=1.0)
    with pytest.raises(ConfigError, match="can change: 'seed'"):
        resume(config.out, seed=1)


def test_minutes_become_steps_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan, "time_step", lambda *a, **k: 0.5)
    monkeypatch.setattr(plan, "_time_evaluation", lambda *a: 1.0)
    config = tiny(steps=None, minutes=0.5, eval_every=None, save_every=None)
    notes: list[str] = []
    run = train(config, on_note=notes.append)
    saved = json.loads((run.folder / "config.json").read_text())["config"]
    count = len([r for r in run.history if "valid_loss" in r])
    assert saved["minutes"] is None
    assert count == 4  # as many evaluations as take 15 % of the time
    assert 30 - 0.5 * saved["steps"] - count == pytest.approx(0.02 * 30, abs=1.0)  # a little is kept in reserve
    assert any("fit 0.5 minutes: 500.0 ms a step" in note for note in notes)


def test_without_steps_or_minutes_the_sizes_decide(tiny: Tiny, corpus: Path, monkeypatch: pytest.MonkeyPatch):
    config = tiny(steps=None)
    store = TokenStore.open(corpus)
    network = build_network(network_for(config, store.tokenizer.vocab_size))
    found = plan.settle(config, network, store, Ranks(), started=0.0)
    parameters = sum(p.numel() for p in network.parameters())
    assert found.config.steps == max(100, min(20 * parameters, 4 * store["train"].tokens) // 64)
    assert "four passes over the data" in found.notes[0]


def test_choices_are_made_with_reasons(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    rates = {torch.bfloat16: 2e12, torch.float32: 1e12}
    monkeypatch.setattr(plan, "matmul_rate", lambda dtype: rates[dtype])
    config, [why] = plan.choose_dtype(tiny(dtype="auto"))
    assert config.dtype == "bf16"
    assert "2,000 billion" in why
    rates[torch.bfloat16] = 1.1e12
    assert plan.choose_dtype(tiny(dtype="auto"))[0].dtype == "fp32"
    run = train(tiny(compile="auto"))
    assert any(note.startswith("torch.compile off: the run takes about 0 s") for note in run.notes)


@pytest.mark.slow
def test_compiled_training_agrees(tiny: Tiny, tmp_path: Path):
    settings = {"network": {"layers": 1, "width": 16, "heads": 2}, "steps": 6}
    plain = train(tiny("plain", **settings))
    fast = tmp_path / "fast.json"
    fast.write_text(json.dumps(train_config_to_dict(tiny("fast", compile="on", **settings))))
    # in a process of its own, where shapes are not checked: the compiler would trace the checks
    command = [
        sys.executable,
        "-m",
        "cutaway",
        "train",
        "--config",
        str(fast),
        "--out",
        str(tmp_path / "fast"),
        "--json",
    ]
    compiled = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert compiled["steps"] == 6
    assert compiled["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-3)


def test_a_trace_and_tensorboard_files_on_request(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    run = train(tiny(profile=2, tensorboard="on", steps=8))
    events = json.loads((run.folder / "trace.json").read_text())["traceEvents"]
    assert any("_CrossEntropy" in event.get("name", "") for event in events)
    [written] = (run.folder / "tensorboard").iterdir()
    assert b"valid_loss" in written.read_bytes()

    def missing(*_: object):
        raise MissingExtra("pip install 'cutaway[tensorboard]'")

    monkeypatch.setattr(metrics_module, "need", missing)
    told = train(tiny("without", tensorboard="auto"))
    assert any("no TensorBoard files" in note for note in told.notes)
    with pytest.raises(MissingExtra):
        train(tiny("must", tensorboard="on"))


def test_long_runs_do_not_write_every_step(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "RECORDS", 4)
    run = train(tiny(steps=10))
    assert [r["step"] for r in run.history if "loss" in r] == [3, 6, 9, 10]


def test_a_corpus_without_validation_text(tmp_path: Path, tiny: Tiny):
    texts = ["the cat sees the dog. " * 20]
    TokenStore.from_texts({"train": texts}, train_tokenizer(texts, "char", 300), tmp_path / "only")
    run = train(tiny(data=str(tmp_path / "only"), baseline=True))
    assert "valid_loss" not in run.metrics
    assert run.metrics["steps"] == 12


def test_a_folder_that_holds_a_run_is_not_overwritten(tiny: Tiny, tmp_path: Path):
    train(tiny())
    with pytest.raises(InputError, match="holds a run already; continue it with --resume"):
        train(tiny())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        train(tiny("file"))


def test_metrics_of_a_killed_run_may_end_in_half_a_line(tiny: Tiny):
    run = train(tiny())
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')
    assert len(read_metrics(run.folder)) == len(run.history)
