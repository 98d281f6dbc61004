"""What all objectives keep: batches that depend on seed and step alone, exact sums, and runs that resume."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import Processes, weights

from cutaway.cli import main
from cutaway.errors import ConfigError, InputError
from cutaway.models import Encoder, Seq2Seq, build_network, load_model
from cutaway.models.model import checkpoints
from cutaway.tokenizers import TokenStore
from cutaway.training import OBJECTIVES, TrainConfig, evaluate, resume, train, train_config
from cutaway.training.config import network_for, train_config_to_dict
from cutaway.training.objectives import objective_from, objective_to_dict
from cutaway.training.plan import batch_of
from cutaway.training.ranks import Ranks
from cutaway.training.stepper import Stepper

Tiny = Callable[..., TrainConfig]
Stores = dict[str, Path]
SMALL = {"network": {"layers": 1, "width": 16, "heads": 2}}
FROM_DISK = [name for name, objective in OBJECTIVES.items() if objective.data != "rows"]  # others have tests of their own
every = pytest.mark.parametrize("name", FROM_DISK)


def ready(tiny: Tiny, learnable: Stores, name: str, **settings: Any) -> tuple[TrainConfig, TokenStore]:
    """A config with its network, and its data."""
    config = tiny(data=str(learnable[name]), objective=name, **{**SMALL, **settings})
    store = TokenStore.open(learnable[name])
    objective = config.objective
    size = objective.tokenizer(store.tokenizer).vocab_size
    return replace(config, network=network_for(config, size, objective.features(store, config.context))), store


def stepper(config: TrainConfig, store: TokenStore) -> Stepper:
    torch.manual_seed(0)
    learner = config.objective.learner(build_network(config.network), store)
    with torch.no_grad():
        for parameter in learner.parameters():  # outputs that start at zero would hide what is wrong
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return Stepper(config, learner)


@every
def test_a_run_from_beginning_to_end(tiny: Tiny, learnable: Stores, name: str):
    config, _ = ready(tiny, learnable, name, steps=60, eval_every=30, save_every=30, context=24)
    run = train(config)
    losses = [r["loss"] for r in run.history if "loss" in r]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert {*config.objective.shown, "valid_loss", "valid_tokens"} <= run.metrics.keys()
    loaded = load_model(run.folder)
    assert loaded.config == config.network
    for ours, theirs in zip(run.model.network.state_dict().values(), loaded.network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert json.loads((run.folder / "config.json").read_text())["config"]["objective"]["name"] == name


@every
@pytest.mark.parametrize("settings", [{"dtype": "bf16", "accumulate": 2}, {"optimizer": "adamw"}], ids=["bf16", "fp32"])
def test_resumed_runs_have_the_same_bits(
    tiny: Tiny, learnable: Stores, name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    config, _ = ready(tiny, learnable, name, **settings)
    train(replace(config, out=config.out + "-unbroken"))
    step = Stepper.step

    def power_cut(self: Stepper, *args: Any, **more: Any):
        if more["seed"] // 1009 == 7:
            raise RuntimeError("power cut")
        return step(self, *args, **more)

    monkeypatch.setattr(Stepper, "step", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(config)
    monkeypatch.setattr(Stepper, "step", step)
    resume(config.out)
    assert weights(config.out) == weights(config.out + "-unbroken")


@every
def test_pieces_and_processes_change_no_row(tiny: Tiny, learnable: Stores, name: str):
    config, store = ready(tiny, learnable, name)
    whole = [batch_of(store, config, Ranks(), step) for step in range(3)]
    for step, batch in enumerate(whole):
        shares = [batch_of(store, config, Ranks(rank, 2), step) for rank in range(2)]
        assert batch.starts == [start for share in shares for start in share.starts]
        assert {share.nominal for share in shares} == {batch.nominal}
        assert {share.tokens for share in shares} == {batch.tokens}
        for key, tensor in batch.tensors.items():  # shares of examples may be padded less
            rows = [row for share in shares for row in share.tensors[key]]
            for ours, row in zip(rows, tensor, strict=True):
                assert torch.equal(ours, row[: len(ours)] if row.ndim else row)
    again = batch_of(store, replace(config), Ranks(), 1)
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in whole[1].tensors.items())
    other = batch_of(store, replace(config, seed=1), Ranks(), 1)
    for one in (whole[0], other):
        assert one.starts != whole[1].starts


@every
def test_a_batch_in_pieces_gives_the_gradient_of_the_whole(tiny: Tiny, learnable: Stores, name: str):
    taken = []
    for pieces in (1, 2, 4):
        config, store = ready(tiny, learnable, name, accumulate=pieces, clip=0.0)
        taken.append(stepper(config, store).step(batch_of(store, config, Ranks(), 0), lr_scale=1.0, seed=0))
    assert [t.loss for t in taken] == pytest.approx([taken[0].loss] * 3, rel=1e-5)
    assert [t.norm for t in taken] == pytest.approx([taken[0].norm] * 3, rel=1e-4)


@every
def test_the_loss_told_is_the_mean_over_what_counts(tiny: Tiny, learnable: Stores, name: str):
    """Whatever `nominal` guesses."""
    config, store = ready(tiny, learnable, name)
    batch = batch_of(store, config, Ranks(), 0)
    one, other = (stepper(config, store) for _ in range(2))
    with torch.no_grad():
        total, counted = config.objective.loss(one.forward, batch.tensors, config)
    taken = [one.step(batch, lr_scale=0.0, seed=0), other.step(replace(batch, nominal=7.0), lr_scale=0.0, seed=0)]
    assert [t.loss for t in taken] == pytest.approx([float(total) / counted] * 2, rel=1e-5)
    assert taken[0].norm == pytest.approx(taken[1].norm, rel=1e-5)


@every
def test_evaluations_are_repeatable_and_shared(
    tiny: Tiny, learnable: Stores, name: str, monkeypatch: pytest.MonkeyPatch
):
    config, store = ready(tiny, learnable, name)
    monkeypatch.setattr("cutaway.training.objectives.base.ROWS", 64)
    learner, parts = stepper(config, store).network, []

    class Half(Ranks):
        def sum_exact(self, numbers: Any) -> list[float]:
            parts.append(list(numbers))
            return list(numbers)

    how = {"context": config.context, "objective": config.objective}
    first, again = (evaluate(learner, store["valid"], **how) for _ in range(2))
    assert first == again
    assert first is not None
    for rank in range(2):
        evaluate(learner, store["valid"], **how, ranks=Half(rank, 2))
    shared = config.objective.score([a + b for a, b in zip(*parts, strict=True)], store["valid"])
    assert shared.tokens == first.tokens
    assert shared.loss == pytest.approx(first.loss, rel=1e-9)
    assert shared.figures == pytest.approx(first.figures, rel=1e-6)


@pytest.mark.parametrize("name", [n for n in FROM_DISK if n != "causal"])
def test_padding_changes_nothing(tiny: Tiny, learnable: Stores, name: str):
    """A batch's rows one by one, without the padding that they need together, lose as much."""
    config, store = ready(tiny, learnable, name)
    network, batch = stepper(config, store), batch_of(store, config, Ranks(), 0)

    def alone(row: int) -> dict[str, Tensor]:
        piece = {key: tensor[row : row + 1] for key, tensor in batch.tensors.items()}
        for mask, padded in (("mask", "ids"), ("source_mask", "source")):
            if mask in piece:
                length = int(piece[mask].sum())
                piece |= {key: piece[key][:, :length] for key in (mask, padded)}
        return piece

    with torch.no_grad():
        together, counted = config.objective.loss(network.forward, batch.tensors, config)
        losses = [config.objective.loss(network.forward, alone(row), config) for row in range(len(batch.starts))]
    assert sum(float(loss) for loss, _ in losses) == pytest.approx(float(together), rel=1e-5)
    assert sum(count for _, count in losses) == counted


@every
def test_as_plain_data_and_back(name: str):
    config = train_config({"data": "a", "out": "b", "objective": name})
    assert config.objective == OBJECTIVES[name]()
    assert train_config(train_config_to_dict(config)) == config
    assert objective_from(objective_to_dict(config.objective)) == config.objective


def test_the_usual_rate_of_embeddings_is_the_objectives(tiny: Tiny):
    assert tiny().rules.lr_rest == 0.01
    assert tiny(objective="masked").rules.lr_rest == 0.002
    assert tiny(objective="masked", lr_rest=0.5).rules.lr_rest == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "maksed"}, "did you mean masked"),
        ({"objective": 3}, "a name or a table"),
        ({"objective": {"name": "masked", "rte": 0.3}}, "did you mean rate"),
        ({"objective": {"name": "masked", "rate": 1.5}}, "rate must lie in"),
        ({"objective": {"name": "replaced", "generator": 0.0}}, r"generator must lie in \(0, 1\]"),
        ({"objective": {"name": "span", "mean": 0.5}}, "mean be at least 1"),
        ({"objective": {"rate": 0.2}}, "unknown objective 'None'"),
        ({"objective": "masked", "samples": ["a"]}, "continues no prompts"),
    ],
)
def test_settings_that_are_refused(tiny: Tiny, settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        tiny(**settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "causal",
            {"network": {"kind": "encoder", "layers": 1, "width": 16, "heads": 2}},
            "trains decoder or recurrent",
        ),
        ("masked", {"network": {"kind": "decoder", "layers": 1}}, "trains encoder networks, but network.kind"),
        ("masked", {"network": {"head": "none"}}, "whose head is 'masked_lm', but network.head is 'none'"),
        ("regress", {"network": {"labels": ["a", "b"]}}, "a head of one label"),
        ("span", {"objective": {"name": "span", "rate": 0.9}}, "a target must fit the context"),
        ("span", {"objective": {"name": "span", "sentinels": 2, "mean": 1.0}}, "but there are 2 sentinels"),
    ],
)
def test_what_does_not_fit(tiny: Tiny, learnable: Stores, name: str, settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        train(tiny(**{"data": str(learnable[name]), "objective": name, **SMALL, **settings}))


def test_other_data_is_refused_with_the_way_to_prepare_it(tiny: Tiny, learnable: Stores):
    for name, data, message in (
        ("seq2seq", "causal", r"holds texts; the objective 'seq2seq' needs pairs.*--source COLUMN --target COLUMN"),
        ("classify", "seq2seq", r"holds pairs; the objective 'classify' needs labels.*--text COLUMN --label COLUMN"),
        ("regress", "classify", "not all numbers .*'early'.*train with the objective 'classify'"),
    ):
        with pytest.raises(InputError, match=message):
            train(tiny(data=str(learnable[data]), objective=name))
    train(tiny(data=str(learnable["seq2seq"]), objective="causal", **SMALL))  # examples are texts too


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FROM_DISK if n != "causal"])
def test_compiled_training_agrees(tiny: Tiny, learnable: Stores, tmp_path: Path, name: str):
    config, _ = ready(tiny, learnable, name, steps=6)
    plain = train(config)
    file = tmp_path / "fast.json"
    file.write_text(json.dumps(train_config_to_dict(replace(config, compile="on"))))
    # in a process of its own, where shapes are not checked: the compiler would trace the checks
    command = [
        sys.executable,
        "-m",
        "cutaway",
        "train",
        "--config",
        str(file),
        "--out",
        str(tmp_path / "fast"),
        "--json",
    ]
    compiled = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert compiled["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-3)


def test_both_networks_of_a_pair_are_saved(tiny: Tiny, learnable: Stores):
    config, _ = ready(tiny, learnable, "replaced")
    run = train(config)
    generator = load_model(checkpoints(run.folder)[0] / "generator")
    assert isinstance(generator.network, Encoder)
    assert isinstance(run.model.network, Encoder)
    assert generator.config.head == "masked_lm"  # pyright: ignore[reportAttributeAccessIssue]
    assert generator.config.width == 8  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.equal(generator.network.embed_tokens.weight, run.model.network.embed_tokens.weight)


def test_two_processes_train_a_pair(tiny: Tiny, learnable: Stores, processes: Processes):
    from test_train_kill import free_port, losses

    config, _ = ready(tiny, learnable, "replaced", steps=10)
    both, single = replace(config, out=config.out + "-both"), config
    port = free_port()
    started = [processes.start(both, rank=rank, world=2, port=port) for rank in (0, 1)]
    assert [processes.finish(process) for process in started] == [0, 0]
    train(single)
    assert [loss for _, loss in losses(Path(both.out))] == pytest.approx(
        [loss for _, loss in losses(Path(single.out))], rel=1e-3
    )


@pytest.mark.parametrize("name", ["masked", "seq2seq", "classify"])
def test_minutes_are_planned(tiny: Tiny, learnable: Stores, name: str):
    config, _ = ready(tiny, learnable, name, steps=None, minutes=0.02, eval_every=None, save_every=None)
    run = train(config)
    assert any("steps fit 0.02 minutes" in note for note in run.notes)
    assert run.metrics["ended"] == "finished"


def test_as_it_is_typed(learnable: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small = ["--set", "network.layers=1", "--set", "network.width=16", "--set", "network.heads=2", "--set", "batch=4"]
    small += ["--steps", "4", "--context", "16", "--set", "tensorboard=off", "--set", "dtype=fp32"]
    out = tmp_path / "run"
    words = ["train", str(learnable["masked"]), "-o", str(out), "--objective", "masked", "--set", "objective.rate=0.3"]
    assert main([*words, *small]) == 0
    assert "nats a hidden token, accuracy" in (printed := capsys.readouterr().out)
    assert f"Next: cutaway convert {out} exported --to huggingface" in printed
    assert json.loads((out / "config.json").read_text())["config"]["objective"]["rate"] == 0.3
    (tmp_path / "sms.csv").write_text("text,kind\n" + "\n".join(f"message {i},{'ab'[i % 2]}" for i in range(60)))
    data = str(tmp_path / "labelled")
    prepare = ["prepare", str(tmp_path / "sms.csv"), "-o", data, "--tokenizer", "char", "--vocab-size", "300"]
    assert main([*prepare, "--text", "text", "--label", "kind", "--valid", "0.2"]) == 0
    assert "Labels: a 30, b 30" in capsys.readouterr().out
    assert main(["train", data, "-o", str(tmp_path / "two"), "--objective", "classify", *small, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["majority"] >= 0.5
    for words, message in (
        (["prepare", "x.csv", "--text", "a"], "--text and --label"),
        (["prepare", "x.csv", "--text", "a", "--target", "b"], "--source and --target"),
        (["prepare", "x.csv", "--text", "a", "--label", "b", "--web"], "--web would be of no effect"),
        (["train", str(tmp_path / "sms.csv"), "--objective", "classify"], "prepare FILE --text COLUMN --label COLUMN"),
        (["train", data, "--objective", "clasify"], "did you mean classify"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_an_encoder_decoder_shows_what_it_writes(tiny: Tiny, learnable: Stores):
    config, _ = ready(tiny, learnable, "seq2seq", samples=["abcd"], sample_tokens=6, steps=None, minutes=0.01)
    told: list[str] = []
    run = train(replace(config, eval_every=2), on_sample=lambda step, prompt, text: told.append(prompt + ":" + text))
    assert told
    assert told[-1] == "abcd:" + run.model.generate("abcd", max_new_tokens=6, seed=config.seed).text


def test_an_encoder_decoder_of_a_run_loads(tiny: Tiny, learnable: Stores):
    config, _ = ready(tiny, learnable, "span")
    run = train(config)
    model = load_model(run.folder)
    assert isinstance(model.network, Seq2Seq)
    assert model.tokenizer.vocab_size == TokenStore.open(learnable["span"]).tokenizer.vocab_size + 100
    assert model.tokenizer.special["<extra_id_0>"] == model.tokenizer.vocab_size - 1
