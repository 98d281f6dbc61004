"""Weights that stay as a file holds them, and become numbers only while they are used.

A matrix keeps the blocks of a GGUF kind, memory-mapped where they lie as we need them; each product dequantises it
anew, in pieces where it is large. That costs time for memory: the numbers of the whole model never exist at once.

`weight` is there as in torch's own layers, dequantised when it is asked for, so everything that reads weights (the
ledger, an export) works. What does not: training, as there is nothing to learn, and other devices than the CPU.

Shapes: N rows, C channels, V vocabulary, E experts.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cutaway.models.assemble import Network, assemble, complete
from cutaway.models.experts import Experts
from cutaway.models.formats.ggml import Blocks
from cutaway.models.gru import Cells
from cutaway.models.products import linear

PIECE = 1 << 22  # numbers dequantised at a time: a matrix of fewer is used whole, and gives the very same bits
WHOLE = 1 << 27  # most numbers of a matrix that is dequantised once for many products


class QuantisedLinear(nn.Linear):
    """x Wᵀ + b, to its readers an nn.Linear like any other."""

    def __init__(self, blocks: Blocks, bias: nn.Parameter | None) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a matrix
        self.out_features, self.in_features = blocks.shape
        self.blocks = blocks
        self.whole: Tensor | None = None  # (N, C) while `dequantised_once` holds it
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Float[Tensor, "N C"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(N, C), dequantised now."""
        return self.blocks.numbers()

    def forward(self, input: Float[Tensor, "*S C"]) -> Float[Tensor, "*S N"]:
        """(…, C) -> (…, N)"""
        if (whole := self.whole) is not None:
            return linear(input, whole, self.bias)
        rows, width = self.blocks.shape
        step = max(1, PIECE // width)
        if rows <= step:
            return linear(input, self.weight, self.bias)
        made = torch.cat([linear(input, self.blocks[i : i + step]) for i in range(0, rows, step)], dim=-1)
        return made if self.bias is None else made + self.bias

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight


@contextmanager
def dequantised_once(network: nn.Module, name: str = "lm_head") -> Iterator[None]:
    """While this lasts, one matrix of a network is numbers, for products that are made again and again.

    Nothing changes where the network has no such matrix, holds it as numbers anyway, or it is too large to be whole.
    """
    layer = getattr(network, name, None)
    if not isinstance(layer, QuantisedLinear) or layer.whole is not None or math.prod(layer.blocks.shape) > WHOLE:
        yield
        return
    layer.whole = layer.weight
    try:
        yield
    finally:
        layer.whole = None


class QuantisedEmbedding(nn.Module):
    """In place of nn.Embedding: the rows of the tokens alone are dequantised."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.blocks = blocks

    @property
    def weight(self) -> Float[Tensor, "V C"]:
        """(V, C), dequantised now."""
        return self.blocks.numbers()

    def forward(self, ids: Int[Tensor, "*S"]) -> Float[Tensor, "*S C"]:
        """(…) -> (…, C)"""
        used, places = ids.unique(return_inverse=True)
        return self.blocks[used][places]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight


class QuantisedExperts(nn.Module):
    """In place of a parameter (E, N, C): the matrix of one expert is dequantised at a time."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.blocks = blocks

    def __getitem__(self, expert: int) -> Float[Tensor, "N C"]:
        """(N, C), dequantised now."""
        return self.blocks[expert]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix.removesuffix(".")] = self.blocks.numbers()


class QuantisedCells(Cells):
    """In place of a recurrent layer: its matrices are dequantised for every pass over a text, or step.

    Args:
        cells: the layer.
        blocks: of its matrices, by name.
    """

    def __init__(self, cells: Cells, blocks: Mapping[str, Blocks]) -> None:
        nn.Module.__init__(self)  # the other's would make matrices
        self.cell, self.gates, self.blocks = cells.cell, cells.gates, dict(blocks)
        for name, parameter in cells._parameters.items():
            if name not in self.blocks:
                self.register_parameter(name, parameter)

    def __getattr__(self, name: str) -> Any:
        blocks = self.__dict__.get("blocks", {})
        return blocks[name].numbers() if name in blocks else super().__getattr__(name)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: blocks.numbers() for name, blocks in self.blocks.items()})


def can_be_blocks(network: nn.Module, name: str) -> bool:
    """Whether a tensor is one that may be kept as blocks: a matrix of a layer, of the embedding or of experts.

    Small tables (positions, token types, routers) and convolutions are not.
    """
    home, _, part = name.rpartition(".")
    module = network.get_submodule(home)
    if isinstance(module, Experts):
        return True  # (E, N, C)
    if isinstance(module, Cells):
        return part in ("weight_ih", "weight_hh")
    embedding = isinstance(module, nn.Embedding) and home == "embed_tokens"
    return part == "weight" and (embedding or isinstance(module, nn.Linear)) and not name.endswith("router.weight")


def network_of_blocks(
    config: Any, state: Mapping[str, Tensor], blocks: Mapping[str, Blocks], where: str = "the weights"
) -> Network:
    """A network made of these very tensors and blocks.

    Args:
        config: what it is made of.
        state: its tensors by name.
        blocks: its matrices by name, those of `can_be_blocks`. A tied output matrix is left out of both.
        where: what to call them in a message.

    Raises:
        DamagedFile: a tensor is missing, left over or misshapen; all are named.
    """
    network = assemble(config, None)
    shapes = {name: torch.empty(kept.shape, dtype=kept.dtype, device="meta") for name, kept in blocks.items()}
    whole = complete(network, {**state, **shapes}, where)
    kept = dict(blocks)
    if getattr(config, "tied", False) and "lm_head.weight" in whole and "embed_tokens.weight" in kept:
        kept["lm_head.weight"] = kept["embed_tokens.weight"]
    return fill(network, {name: tensor for name, tensor in whole.items() if name not in kept}, kept)


def fill(network: Network, state: Mapping[str, Tensor], blocks: Mapping[str, Blocks]) -> Network:
    """Give a network of shapes alone its tensors and blocks, which are known to fit."""
    for name, kept in blocks.items():
        put_blocks(network, name, kept)
    network.load_state_dict(dict(state), strict=False, assign=True)
    assert not any(parameter.is_meta for parameter in network.parameters())
    network.restore()
    return network.eval()


def blocks_in(network: nn.Module) -> dict[str, Blocks]:
    """The matrices that a network keeps as blocks, by name; a tied one under both."""
    found: dict[str, Blocks] = {}
    for home, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, QuantisedLinear | QuantisedEmbedding):
            found[f"{home}.weight"] = module.blocks
        elif isinstance(module, QuantisedExperts):
            found[home] = module.blocks
        elif isinstance(module, QuantisedCells):
            found |= {f"{home}.{name}": kept for name, kept in module.blocks.items()}
    return found


def floats_in(network: nn.Module) -> dict[str, Tensor]:
    """The other tensors of a network, by name, as in its state dict."""
    return {name: p.detach() for name, p in network.named_parameters(remove_duplicate=False)}


def put_blocks(network: nn.Module, name: str, blocks: Blocks) -> None:
    """Put a matrix into its place, one of `can_be_blocks`."""
    home, _, part = name.rpartition(".")
    module = network.get_submodule(home)
    if isinstance(module, Experts):
        del module._parameters[part]
        setattr(module, part, QuantisedExperts(blocks))
        return
    above, _, called = home.rpartition(".")
    if isinstance(module, Cells):
        made = QuantisedCells(module, {**getattr(module, "blocks", {}), part: blocks})
    elif isinstance(module, nn.Embedding):
        made = QuantisedEmbedding(blocks)
    else:
        made = QuantisedLinear(blocks, module._parameters.get("bias"))
    setattr(network.get_submodule(above), called, made)
