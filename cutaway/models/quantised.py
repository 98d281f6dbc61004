"""Weights that stay as a file holds them, and become numbers only while they are used.

A matrix keeps the blocks that a GGUF file stores, memory-mapped where they lie as we need them; each product
dequantises it anew, in pieces where it is large. That costs time for memory: the numbers of the whole model never exist
at once.

`weight` is there as in torch's own layers, dequantised when it is asked for, so everything that reads weights (the
ledger, an export) works. What does not: training, as there is nothing to learn, and other devices than the CPU.

Shapes: N rows, C channels, V vocabulary, E experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from cutaway.errors import DamagedFile
from cutaway.models.assemble import assemble
from cutaway.models.decoder import Decoder
from cutaway.models.experts import Experts
from cutaway.models.families import Place
from cutaway.models.formats.ggml import BY_NAME, dequantise
from cutaway.models.formats.gguf import GGUF
from cutaway.models.formats.gguf_models import describe, fitted, places_in
from cutaway.models.products import linear

PIECE = 1 << 22  # numbers dequantised at a time: a matrix of fewer is used whole, and gives the very same bits


@dataclass(frozen=True)
class Blocks:
    """A matrix, or several of one shape, as blocks.

    Attributes:
        kind: how its numbers are stored, such as "Q4_K".
        data: the bytes of each row, (…, N, bytes) uint8.
        dtype: of its numbers once they are dequantised.
    """

    kind: str
    data: UInt8[Tensor, "*S N bytes"]
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its numbers."""
        how = BY_NAME[self.kind]
        return (*self.data.shape[:-1], self.data.shape[-1] // how.bytes * how.numbers)

    def __getitem__(self, which: Any) -> Float[Tensor, "*S C"]:
        """The numbers of some rows, or of one of several matrices."""
        data = self.data[which]
        return dequantise(data.reshape(-1), self.kind, self.dtype).view(*data.shape[:-1], self.shape[-1])

    def numbers(self) -> Float[Tensor, "*S C"]:
        """All of them."""
        return self[...]


class QuantisedLinear(nn.Linear):
    """x Wᵀ + b, to its readers an nn.Linear like any other."""

    def __init__(self, blocks: Blocks, bias: nn.Parameter | None) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a matrix
        self.out_features, self.in_features = blocks.shape
        self.blocks = blocks
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Float[Tensor, "N C"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(N, C), dequantised now."""
        return self.blocks.numbers()

    def forward(self, input: Float[Tensor, "*S C"]) -> Float[Tensor, "*S N"]:
        """(…, C) -> (…, N)"""
        rows, width = self.blocks.shape
        step = max(1, PIECE // width)
        if rows <= step:
            return linear(input, self.weight, self.bias)
        made = torch.cat([linear(input, self.blocks[i : i + step]) for i in range(0, rows, step)], dim=-1)
        return made if self.bias is None else made + self.bias

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight


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


def open_quantised(file: GGUF, dtype: torch.dtype | None = None) -> Decoder:
    """The network of a file, its matrices kept as they are stored.

    Args:
        file: from `read_gguf`, which stays mapped for as long as the network lives.
        dtype: of the numbers that matrices become; None: float32.

    Raises:
        ConfigError: an architecture, key or value that is not supported, named.
        DamagedFile: tensors that are missing, left over or misshapen, named.
    """
    dtype = dtype or torch.float32
    architecture, config = describe(file)
    network = assemble(config, None)
    assert isinstance(network, Decoder)
    expected = network.state_dict()
    state: dict[str, Tensor] = {}
    kept: dict[str, Blocks] = {}
    for place in places_in(file, architecture, config, expected):
        if all(_stays(network, name) for name in place.ours):
            kept |= _blocks(place, file, config, expected, dtype)
        else:
            state |= fitted(place, lambda name: file.tensors[name].load(dtype), config, expected, file)
    if config.tied:
        kept["lm_head.weight"] = kept["embed_tokens.weight"]
    for name, blocks in kept.items():
        _put(network, name, blocks)
    # what is left are norms and biases; nothing else may be without memory
    network.load_state_dict(state, strict=False, assign=True)
    assert not any(parameter.is_meta for parameter in network.parameters())
    network.restore()
    return network.eval()


def _stays(network: nn.Module, name: str) -> bool:
    """Whether a tensor is one that is kept as blocks: a matrix of a layer, of the embedding or of experts."""
    home, _, part = name.rpartition(".")
    module = network.get_submodule(home)
    if isinstance(module, Experts):
        return True  # (E, N, C)
    embedding = isinstance(module, nn.Embedding) and home != "embed_positions"
    return part == "weight" and (embedding or isinstance(module, nn.Linear)) and not name.endswith("router.weight")


def _blocks(
    place: Place, file: GGUF, config: Any, expected: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Blocks]:
    """Ours of one place. Layouts move whole rows, so they are done on the rows' bytes.

    Raises:
        DamagedFile: a shape that does not fit, named.
    """
    fitted(place, lambda name: torch.empty(file.tensors[name].shape, device="meta"), config, expected, file)
    kinds = {file.tensors[name].kind for name in place.theirs}
    if len(kinds) > 1:
        raise DamagedFile(f"{', '.join(place.theirs)} in {file.path} are stored in different ways")
    rows = [_rows(file, name) for name in place.theirs]
    found: Sequence[Tensor] = place.layout.into(rows, config)
    return {name: Blocks(kinds.copy().pop(), data, dtype) for name, data in zip(place.ours, found, strict=True)}


def _rows(file: GGUF, name: str) -> Tensor:
    """(…, N, bytes) uint8"""
    tensor = file.tensors[name]
    return tensor.data.view(*tensor.shape[:-1], -1)


def _put(network: nn.Module, name: str, blocks: Blocks) -> None:
    """Put a matrix into its place."""
    home, _, part = name.rpartition(".")
    module = network.get_submodule(home)
    if isinstance(module, Experts):
        del module._parameters[part]
        setattr(module, part, QuantisedExperts(blocks))
        return
    above, _, called = home.rpartition(".")
    bias = module._parameters.get("bias")
    made = QuantisedEmbedding(blocks) if isinstance(module, nn.Embedding) else QuantisedLinear(blocks, bias)
    setattr(network.get_submodule(above), called, made)
