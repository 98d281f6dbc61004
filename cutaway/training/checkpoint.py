"""Run folders and checkpoints: whole or not there, checked when read, enough to continue bit for bit.

    run/
      config.json               every choice, the reasons, the versions: written once, before the first step
      baseline.json             what counting achieves on the same text
      metrics.jsonl             a line per step, evaluation and sample
      checkpoints/
        step-00001000/          a model folder that `load_model` opens, and beside the model:
          generator/              a network that was trained beside it, for objectives that have one
          optimizer.safetensors   the optimiser's state
          state.json              where the run was
          manifest.json           the checksum of every file, written last
      result.json               how it ended: written at the end

No state of random generators is stored, since none exists between steps: data order, dropout and samples follow from
(seed, step).
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway import __version__
from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.files import atomic_folder, disk_errors, inside, read_json, verify, write_atomic, write_json
from cutaway.models import Model, Network, NetworkConfig
from cutaway.models.assemble import assemble, check_layers, complete, load_weights, read_tensors, write_tensors
from cutaway.models.model import CHECKPOINTS, WEIGHTS, checkpoints, write_model
from cutaway.settings import build, to_dict
from cutaway.training.config import MOST_THREADS, TrainConfig, train_config, train_config_to_dict
from cutaway.training.metrics import METRICS, read_metrics
from cutaway.training.optim import Optimizer

FORMAT = 1  # of run folders; raised when an older program could not continue a newer run, or the reverse

CONFIG, STATE, OPTIMIZER = "config.json", "state.json", "optimizer.safetensors"
LEARNED = "learned.safetensors"  # of a run that trains an adapter
BASELINE, RESULT, FAILED = "baseline.json", "result.json", "failed-step.json"


@dataclass
class State:
    """Where a run is.

    Attributes:
        step: steps taken.
        seconds: time spent, interruptions not counted.
        evaluated: the step of the last evaluation.
        best_loss: validation loss of the best evaluation so far.
        best_value: what made it the best, the higher the better.
        best_step: where it was.
        stale: evaluations since then.
    """

    step: int = 0
    seconds: float = 0.0
    evaluated: int = 0
    best_loss: float | None = None
    best_value: float | None = None
    best_step: int = 0
    stale: int = 0


def write_config(folder: Path, config: TrainConfig, notes: list[str], **more: Any) -> None:
    """Write the run's config, which marks `folder` as a run."""
    record = {"format": FORMAT, "cutaway": __version__, "torch": torch.__version__, **more, "notes": notes}
    write_json(folder / CONFIG, {**record, "config": train_config_to_dict(config)})


def read_config(folder: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """The run's config and the rest of its record.

    Raises:
        InputError: `folder` is no run.
        ConfigError: the run was made by a version with another format.
        DamagedFile: the record cannot be read.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} is not a run folder (it has no {CONFIG}); start the run anew without --resume")
    record = read_json(inside(folder, CONFIG))
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise DamagedFile(f"{folder / CONFIG} is not a run's config; restore it or start the run anew")
    if record.get("format") != FORMAT:
        raise ConfigError(
            f"{folder} was made by Cutaway {record.get('cutaway', 'unknown')} (run format {record.get('format')}), but "
            f"this is Cutaway {__version__} (run format {FORMAT}); continue it with that version, or start a new run"
        )
    config = train_config(record.pop("config"), where=str(folder / CONFIG))
    data, notes = record.get("data"), record.get("notes")
    whole = isinstance(data, dict) and isinstance(notes, list) and all(isinstance(note, str) for note in notes)
    whole &= "auto" not in (config.dtype, config.compile) and config.steps is not None  # every choice was made
    counts = [record.get(name, 1) for name in ("threads", "processes")]
    if not whole or not all(type(count) is int and 1 <= count <= MOST_THREADS for count in counts):
        raise DamagedFile(f"{folder / CONFIG} lacks what a run writes into it; restore it or start the run anew")
    return config, record


def read_record(run: Path, name: str, **needed: type) -> dict[str, Any]:
    """A JSON file of a run folder, with what it must hold.

    Args:
        run: the folder.
        name: of the file.
        needed: key -> type of its value; an int may stand for a float.

    Raises:
        DamagedFile: a key is missing or its value is of another type.
    """
    record = read_json(inside(run, name))
    for key, kind in needed.items():
        value = record.get(key) if isinstance(record, dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise DamagedFile(
                f"{run / name} should state {key} as {kind.__name__}, but holds {value!r}; delete the file"
            )
    return record


def check_fit(folder: Path, config: NetworkConfig) -> None:
    """Refuse a checkpoint of another network than the run's config describes, before that is made.

    Raises:
        DamagedFile: tensors are missing, left over or misshapen; all are named.
    """
    tensors, where = read_tensors(inside(folder, WEIGHTS)), str(folder / WEIGHTS)
    check_layers(config, len(tensors), where)
    complete(assemble(config, None), tensors, where)


def save_checkpoint(
    run: Path, model: Model, helpers: Mapping[str, Network], optimizer: Optimizer, state: State, keep: int
) -> Path:
    """Add a checkpoint, whole or not at all; only then are old ones removed, but for the newest `keep` and the best.

    Raises:
        InputError: the disk is full or the place cannot be written; the old checkpoints are untouched.
    """
    folder = run / CHECKPOINTS / _name(state.step)
    with atomic_folder(folder) as room:
        if model.adapter is None:
            write_model(model, room)
        else:  # beside weights that are another's
            write_tensors(_learned(model), room / LEARNED)
        for name, helper in helpers.items():
            (room / name).mkdir()
            write_model(Model(helper, model.tokenizer), room / name)
        write_tensors(optimizer.state(), room / OPTIMIZER)
        write_json(room / STATE, to_dict(state))
    kept = {*checkpoints(run)[:keep], run / CHECKPOINTS / _name(state.best_step)}
    remove(run, [old for old in checkpoints(run) if old not in kept])
    return folder


def remove(run: Path, old: list[Path]) -> None:
    """Delete checkpoints: out of sight first, in one rename each, so that a half-deleted one is never seen."""
    for folder in old:
        gone = folder.with_name(f".{folder.name}.gone")
        with disk_errors(folder):
            folder.rename(gone)
            shutil.rmtree(gone)


def load_checkpoint(folder: Path, model: Model, helpers: Mapping[str, Network], optimizer: Optimizer) -> State:
    """Take up weights, optimiser and state from an intact checkpoint.

    Raises:
        DamagedFile: a file does not fit the run.
    """
    if model.adapter is None:
        load_weights(model.network, inside(folder, WEIGHTS))
    else:
        _take(model, inside(folder, LEARNED))
    for name, helper in helpers.items():
        load_weights(helper, inside(folder / name, WEIGHTS))
    optimizer.load(read_tensors(inside(folder, OPTIMIZER)))
    return build(State, read_json(inside(folder, STATE)), where=str(folder / STATE))


def _learned(model: Model) -> dict[str, Tensor]:
    """The tensors that learn, by name."""
    named = model.network.named_parameters()
    return {name: parameter.detach() for name, parameter in named if parameter.requires_grad}


def _take(model: Model, path: Path) -> None:
    """Copy what an adapter had learned into it.

    Raises:
        DamagedFile: a tensor is missing, left over or misshapen.
    """
    mine, found = _learned(model), read_tensors(path)
    if {name: t.shape for name, t in mine.items()} != {name: t.shape for name, t in found.items()}:
        raise DamagedFile(f"{path} holds other tensors than this adapter has; start the run anew")
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(found[name])


def find_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint, or None where there is none yet; and a sentence for each damaged newer one.

    Raises:
        DamagedFile: there are checkpoints but none is intact.
    """
    reasons: list[str] = []
    found = checkpoints(run)
    for folder in found:
        try:
            verify(folder)
        except DamagedFile as error:
            reasons.append(str(error))
        else:
            return folder, [f"{reason}; the checkpoint before it is used" for reason in reasons]
    if reasons:
        raise DamagedFile(f"no intact checkpoint in {run}: {reasons[0]}")
    return None, []


def tidy(run: Path, step: int) -> None:
    """Before continuing at `step`: remove what killed saves left, and all that will be made again.

    That is checkpoints of later steps (which are damaged, or the run would continue from them) and later metrics.
    """
    for left in (run / CHECKPOINTS).glob(".step-*"):
        shutil.rmtree(left)
    for left in run.glob(".*.json*"):  # files that write_atomic had not renamed yet
        left.unlink()
    remove(run, [later for later in checkpoints(run) if later.name > _name(step)])
    lines = [json.dumps(r, ensure_ascii=False) + "\n" for r in read_metrics(run) if r["step"] <= step]
    write_atomic(run / METRICS, "".join(lines))


def _name(step: int) -> str:
    return f"step-{step:08d}"
