"""A model's parameters as a tree: names, shapes, and how each tensor's numbers are spread."""

from __future__ import annotations

from math import prod

from torch import nn

from cutaway.interp.receipt import Clock
from cutaway.interp.results import Cell
from cutaway.interp.strips import COLUMNS, TensorEntry, Tensors, children, strips
from cutaway.interp.weights.tensors import tensors_of
from cutaway.models import Model
from cutaway.models.formats.ggml import Blocks

Shape = tuple[tuple[int, ...], str]  # and the dtype, or how it is quantised


def parameters(model: Model, *, branch: str = "") -> Tensors:
    """What a branch of a model's parameters holds, with the shape of every tensor and the spread of its numbers.

    Only the tensors that stand directly in the branch are read; of what lies deeper shapes alone are asked for.

    Args:
        model: of any kind; quantised tensors are dequantised one by one.
        branch: such as "layers.0" or "layers.0.self_attn"; "" is the root.

    Returns:
        A row for each branch and tensor in it, in the order of computation.

    Raises:
        ConfigError: no such branch; near matches are named.
        NonFinite: a weight is a NaN or an infinity.
    """
    clock = Clock(model, "parameters", None, branch=branch or None)
    shapes = shapes_of(model)
    inside = children(shapes, branch)
    read = [name for name, names in inside.items() if names == [name]]
    seen = {name: strips(tensor) for name, tensor in tensors_of(model, read)} if read else {}
    entries = []
    for name, names in inside.items():
        count = sum(prod(shapes[one][0]) for one in names)
        if name in seen:
            shape, dtype = shapes[name]
            entries.append(TensorEntry(name, True, list(shape), dtype, count, seen[name][0]))
        else:
            entries.append(TensorEntry(name, False, [], "", count, None))
    return listed(f"parameters of {branch or 'the model'}", branch, entries, seen, clock)


def listed(what: str, branch: str, entries: list[TensorEntry], seen: dict, clock: Clock) -> Tensors:
    """Entries with their strips, as a table too."""
    rows: list[list[Cell]] = [[e.name, " × ".join(map(str, e.shape)), e.dtype, e.count, e.size] for e in entries]
    by_row = {name: rows for name, (_, rows, _) in seen.items() if rows is not None}
    by_column = {name: columns for name, (_, _, columns) in seen.items()}
    return Tensors(what, COLUMNS, rows, branch, entries, by_row, by_column, receipt=clock.receipt())


def shapes_of(model: Model) -> dict[str, Shape]:
    """The shape of every tensor by name, and its dtype, or how it is quantised; nothing is dequantised."""
    tied = getattr(model.config, "tied", False) and getattr(model.config, "head", "causal_lm").endswith("_lm")
    found: dict[str, Shape] = {}
    for home, module in model.network.named_modules():
        prefix = f"{home}." if home else ""
        for name, blocks in _blocks(module).items():
            found[prefix + name if name else home] = blocks.shape, blocks.kind
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in own:
            if name not in module._non_persistent_buffers_set:
                found[prefix + name] = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    if tied:  # it is the embedding
        found.pop("lm_head.weight", None)
    return found


def _blocks(module: nn.Module) -> dict[str, Blocks]:
    """The blocks of a module by the name of what they are numbers of; "" is the module itself."""
    blocks = module.__dict__.get("blocks")
    if isinstance(blocks, Blocks):
        return {"weight" if isinstance(getattr(type(module), "weight", None), property) else "": blocks}
    return dict(blocks or {})
