"""A model in fewer bits: its matrices become blocks of a GGUF kind, and stay open to every look inside.

made = quantize(model, "int4", calibrate=texts, method="gptq", text=held_out)
made.model.generate("…");  print(made.report.growth);  save_quantized(made, "smaller")
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.files import atomic_folder, write_json
from cutaway.generation.quantize.calibrate import calibrated
from cutaway.generation.quantize.measure import compare, matrix_costs
from cutaway.generation.quantize.plan import plan
from cutaway.generation.quantize.report import REPORT, Report, report_of
from cutaway.generation.quantize.rounding import check_finite, round_matrix
from cutaway.generation.quantize.texts import Given, rows_of
from cutaway.generation.request import check_whole
from cutaway.models import Model, Network, save_model
from cutaway.models.assemble import assemble
from cutaway.models.formats.ggml import Blocks
from cutaway.models.model import GGUF_FILE, write_model
from cutaway.models.quantised import blocks_in, floats_in, put_blocks
from cutaway.progress import OnProgress, Progress

CALIBRATION, MEASURED = 16_384, 16_384  # tokens
ALONE = 512  # tokens that each matrix is tried out on by itself


@dataclass(frozen=True)
class Quantized:
    """What `quantize` made.

    Attributes:
        model: the quantised model.
        report: what it cost.
    """

    model: Model
    report: Report


def quantize(
    model: Model,
    kind: str = "int8",
    *,
    output: str | None = None,
    keep: Sequence[str] = (),
    calibrate: Sequence[Given] = (),
    method: str = "gptq",
    text: Sequence[Given] = (),
    matrices: int = 0,
    tokens: int = MEASURED,
    progress: OnProgress | None = None,
) -> Quantized:
    """Make a model's matrices blocks of few bits. The model itself stays as it is.

    Each group's scale is the best of some twenty by the squared error, or with calibration texts by the error of what
    the matrix writes on them.

    Args:
        model: of any kind.
        kind: "int8" (Q8_0), "int4" (Q4_1), or Q8_0, Q6_K, Q5_0, Q4_K, Q4_1, Q4_0.
        output: of the embedding and the output matrix; None: Q8_0 where `kind` has fewer bits.
        keep: shell-style patterns of names of matrices that stay numbers, such as "layers.0.*".
        calibrate: texts like those that the model will see; none: each matrix is rounded by itself.
        method: with these, "gptq" (errors are made good by later columns) or "awq" (channels that matter are scaled).
        text: held-out texts to measure on; none: nothing is measured but the matrices' own errors.
        matrices: how many matrices are tried out alone, to say what each costs.
        tokens: of `text` that are measured on, at most.
        progress: told how far it is.

    Raises:
        ConfigError: an unknown kind or method, fewer than no matrices, a pattern that fits none, or nothing that could
            become blocks.
        InputError: texts that say nothing.
        NonFinite: a weight that is NaN, infinite or too large; or a NaN computed on the way.
    """
    check_whole("matrices", matrices, 0)
    started, show = time.perf_counter(), progress or (lambda _: None)
    chosen = plan(model.network, kind, output=output, keep=keep)
    total, done = len(chosen.kinds), 0
    work = _copy(model.network)

    def put(name: str, blocks: Blocks) -> None:
        _put(work, name, blocks)

    def count(name: str) -> None:
        nonlocal done
        done += 1
        show(Progress("quantising", done, total, "matrices", {"matrix": name}))

    named: list[str] = []
    if calibrate:
        texts = rows_of(model, calibrate, most=CALIBRATION)
        for name in calibrated(work, chosen.kinds, texts, method, put):
            named.append(name)
            count(name)
    for name, wanted in chosen.kinds.items():
        if name not in named:
            matrix = _tensor(work, name)
            check_finite(name, matrix)
            put(name, round_matrix(matrix, wanted))
            count(name)
    seconds = time.perf_counter() - started
    made = Model(work.eval(), model.tokenizer, model.source, None, model.mel, model.generation)
    notes = list(chosen.notes)
    if calibrate and (rest := [name for name in chosen.kinds if name not in named]):
        notes.append(f"{', '.join(rest[:3])}{' …' if len(rest) > 3 else ''} rounded without calibration")
    head: dict[str, Any] = {
        "kind": kind,
        "method": method if calibrate else "nearest",
        "bytes_before": size_of(model.network),
        "bytes_after": size_of(work),
        "seconds": round(seconds, 2),
        "notes": tuple(notes),
    }
    return Quantized(made, _measured(model, made, chosen.kinds, head, text, matrices, tokens, show))


def _measured(
    model: Model,
    made: Model,
    kinds: Any,
    head: dict[str, Any],
    text: Sequence[Given],
    matrices: int,
    tokens: int,
    show: OnProgress,
) -> Report:
    plain, quantised = _float32(model.network), made.network

    def told(stage: str) -> Any:
        return lambda done, total: show(Progress(stage, done, total))

    quality = rows = None
    if text:
        rows = rows_of(model, text, most=tokens)
        quality = compare(plain, quantised, rows, progress=told("measuring"))
    short = [] if rows is None or not matrices else rows_of(model, text, most=ALONE)
    errors, costs = matrix_costs(plain, quantised, short, most=matrices if short else 0, progress=told("one by one"))
    return report_of(head, quality, errors, costs, kinds, lambda ids: "".join(map(made.tokenizer.token, ids)))


def size_of(network: Network) -> int:
    """Bytes of a network's weights; what is tied counts once."""
    seen = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in floats_in(network).values()}
    seen |= {blocks.data.data_ptr(): blocks.data.numel() for blocks in blocks_in(network).values()}
    return sum(seen.values())


def _tensor(network: Network, name: str) -> Tensor:
    return network.get_parameter(name).detach()


def _float32(network: Network) -> Network:
    """The network if its numbers are float32, else one like it whose are."""
    if all(tensor.dtype == torch.float32 for tensor in floats_in(network).values()):
        return network
    return assemble(network.config, {name: tensor.float() for name, tensor in network.state_dict().items()})


def _copy(network: Network) -> Network:
    """A network of the same float32 weights, in the same memory where they are float32 already."""
    state = {name: tensor.detach().cpu().float() for name, tensor in network.state_dict().items()}
    return assemble(network.config, state)


def _put(network: Network, name: str, blocks: Blocks) -> None:
    """Put blocks into a network, a tied matrix in both its places."""
    put_blocks(network, name, blocks)
    if getattr(network.config, "tied", False) and name == "embed_tokens.weight" and hasattr(network, "lm_head"):
        put_blocks(network, "lm_head.weight", blocks)


def save_quantized(made: Quantized, out: str | Path) -> Path:
    """Write a quantised model and its report: a model folder, or a GGUF file where the name ends in .gguf.

    Raises:
        ConfigError: GGUF cannot express the model.
        InputError: there is something already, the disk is full, or the place cannot be written.
    """
    out = Path(out)
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} exists; give another place, or remove it first")
    if out.suffix == GGUF_FILE:
        return save_model(made.model, out, "gguf")
    with atomic_folder(out) as room:
        write_model(made.model, room)
        write_json(room / REPORT, made.report.to_json())
    return out
