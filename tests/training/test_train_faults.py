"""What goes wrong: numbers, disks, files, versions. Nothing is half-written, and each error says what to do."""

import errno
import json
import math
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import weights

from cutaway.errors import ConfigError, DamagedFile, InputError, NonFinite
from cutaway.files import read_json, verify
from cutaway.models import load_model
from cutaway.models.model import checkpoints
from cutaway.tokenizers import TokenStore, train_tokenizer
from cutaway.training import TrainConfig, resume, train
from cutaway.training.objectives import Batch
from cutaway.training.signals import catching
from cutaway.training.stepper import Stepper, Taken

Tiny = Callable[..., TrainConfig]


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_number_that_is_none_stops_the_run(tiny: Tiny, broken: str, monkeypatch: pytest.MonkeyPatch):
    train(tiny("unbroken"))
    config, step = tiny(), Stepper._backward

    def poisoned(self: Stepper, *args):
        loss, counted = step(self, *args)
        if self.optimizer.count == 7:
            if broken == "loss":
                return math.nan, counted
            self.optimizer.grads[0].view(-1)[3] = math.inf
        return loss, counted

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "_backward", poisoned)
        with pytest.raises(NonFinite, match=r"step 7.*train:.*step-00000006, is untouched"):
            train(config)
    newest = checkpoints(Path(config.out))[0]
    assert newest.name == "step-00000006"
    verify(newest)
    failed = read_json(Path(config.out) / "failed-step.json")
    store = TokenStore.open(config.data)
    *_, starts = store["train"].batch(failed["step"], seed=failed["seed"], batch=4, context=16)
    assert failed["step"] == 7
    assert failed["starts"] == starts.tolist()  # the batch can be made again
    assert failed["documents"] == store["train"].documents_at(starts, 16)
    resume(config.out)  # from the last good checkpoint, and to the same bits
    assert weights(config.out) == weights(tiny("unbroken").out)
    assert not (Path(config.out) / "failed-step.json").exists()


def test_a_learning_rate_that_is_far_too_high(tiny: Tiny):
    config = tiny(optimizer="sgd", lr=1e30, clip=0.0, warmup=0)
    with pytest.raises(NonFinite, match=r"smaller learning rate: cutaway train --resume .* --set lr=3.3e"):
        train(config)


def test_weights_are_unchanged_by_a_step_that_fails(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    network = torch.nn.Linear(2, 2)
    stepper = Stepper(tiny(), network)
    before = network.weight.detach().clone()
    monkeypatch.setattr(Stepper, "_backward", lambda *_: (math.inf, 2))
    taken = stepper.step(Batch({}, [0], 2, 2), lr_scale=1.0, seed=0)
    assert not taken.finite
    assert torch.equal(before, network.weight)
    assert Taken(1.0, 1.0).finite


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, by mounting one; where that is not allowed, None of this can be shown."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root; test_no_room_at_any_write shows the same with simulated errors")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(tiny: Tiny, small_disk: Path):
    train(tiny("unbroken"))
    config = replace(tiny(), out=str(small_disk / "run"), keep=100, save_every=1)
    with pytest.raises(InputError, match=r"the disk is full.*What was there before is unchanged"):
        train(config)
    saved = checkpoints(Path(config.out))
    assert 1 < len(saved) < 12
    for folder in saved:
        verify(folder)
    load_model(config.out)
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    resume(config.out)
    assert weights(config.out) == weights(tiny("unbroken").out)


def test_no_room_at_any_write(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    """The disk fills up at the first, second, third … synchronised write of a run, until it gets through."""
    train(tiny("unbroken", steps=4, save_every=2))
    sync, room = os.fsync, [0]

    def limited(handle: int) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    failures = 0
    for number in range(0, 200, 3):
        config = tiny(f"run{number}", steps=4, save_every=2)
        room[0] = number
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", limited)
            try:
                train(config)
            except InputError as error:
                assert "the disk is full" in str(error)  # noqa: PT017  whether it is raised depends on the number
            else:
                break
        failures += 1
        for folder in checkpoints(Path(config.out)):
            verify(folder)
        if (Path(config.out) / "config.json").exists():
            resume(config.out)
            assert weights(config.out) == weights(tiny("unbroken").out)
    assert 5 < failures < 60


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "tokenizer.json"])
def test_a_flipped_byte_is_refused_and_the_checkpoint_before_it_used(tiny: Tiny, name: str):
    config = tiny()
    run = train(config)
    good = weights(config.out)
    newest, before, *_ = checkpoints(run.folder)
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / name).write_bytes(content)
    notes: list[str] = []
    resume(config.out, on_note=notes.append)
    assert any(f"{name} is damaged" in note and "the checkpoint before it is used" in note for note in notes)
    assert weights(config.out) == good  # made again from there
    assert before.name == "step-00000009"


def test_no_checkpoint_is_intact(tiny: Tiny):
    run = train(tiny(keep=1, eval_every=12))
    for folder in checkpoints(run.folder):
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(DamagedFile, match="no intact checkpoint"):
        resume(run.folder)


def test_killed_before_the_first_checkpoint(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    train(tiny("unbroken"))
    config = tiny()
    with monkeypatch.context() as patch:
        patch.delattr(Stepper, "step")
        with pytest.raises(AttributeError):
            train(config)
    assert not checkpoints(Path(config.out))
    resume(config.out)
    assert weights(config.out) == weights(tiny("unbroken").out)


def edit_record(run: Path, **changes: object) -> None:
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**record, **changes}))


def test_a_run_of_another_version(tiny: Tiny):
    run = train(tiny())
    edit_record(run.folder, format=99, cutaway="9.9")
    with pytest.raises(ConfigError, match=r"made by Cutaway 9\.9 \(run format 99\), but this is .*run format 1"):
        resume(run.folder)


def test_another_machine_is_told_of(tiny: Tiny):
    run = train(tiny())
    edit_record(run.folder, torch="1.0", processes=2)
    notes: list[str] = []
    resume(run.folder, on_note=notes.append, threads=2)
    assert [note.split(";")[0] for note in notes if "last bits" in note] == [
        "threads: 2 instead of 1", f"torch {torch.__version__} instead of 1.0", "processes: 1 instead of 2",
    ]  # fmt: skip


def test_other_data_is_refused_and_moved_data_accepted(tiny: Tiny, tmp_path: Path, corpus: Path):
    run = train(tiny(steps=6))
    texts = ["something else altogether " * 30]
    TokenStore.from_texts({"train": texts, "valid": texts}, train_tokenizer(texts, "char", 300), tmp_path / "other")
    with pytest.raises(ConfigError, match="is not the data that"):
        resume(run.folder, data=str(tmp_path / "other"))
    subprocess.run(["cp", "-r", corpus, tmp_path / "moved"], check=True)
    assert resume(run.folder, data=str(tmp_path / "moved"), steps=9).metrics["steps"] == 9


def test_damaged_data(tiny: Tiny, tmp_path: Path, corpus: Path):
    subprocess.run(["cp", "-r", corpus, tmp_path / "bad"], check=True)
    shard = tmp_path / "bad" / "train-00000.tokens"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"train-00000\.tokens is damaged"):
        train(tiny(data=str(tmp_path / "bad")))
    assert not Path(tiny().out).exists()


def test_less_text_than_one_context(tiny: Tiny, corpus: Path):
    tokens = TokenStore.open(corpus)["train"].tokens
    with pytest.raises(InputError, match=f"has {tokens:,} tokens.*add text, or choose a context of at most"):
        train(tiny(context=tokens))
    assert not Path(tiny().out).exists()


def test_not_a_corpus_and_not_a_run(tiny: Tiny, tmp_path: Path):
    with pytest.raises(InputError, match="no token store"):
        train(tiny(data=str(tmp_path)))
    with pytest.raises(InputError, match="not a run folder"):
        resume(tmp_path)


def test_a_second_interrupt_stops_at_once():
    with catching() as stop:
        os.kill(os.getpid(), 2)
        assert stop
        assert (stop.name, stop.exit_code) == ("Ctrl-C", 130)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), 2)
