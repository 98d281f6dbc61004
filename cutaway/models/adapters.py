"""Adapters: low-rank parts beside a model's weights, in PEFT's files (adapter_config.json, adapter_model.safetensors).

A model with an adapter is a `Model` like any other. It shares every tensor of its base, so that a hundred adapters take
the memory of one base and a hundred small files. Names go through the base's family both ways (`docs/families.md`); a
matrix that a published model joins (GPT-2's c_attn) has parts that its pieces share.

Shapes: N rows (channels out), C channels in, r rank.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cutaway.errors import ConfigError, DamagedFile, InputError, NonFinite, unknown
from cutaway.files import MANIFEST, atomic_folder, holds, inside, read_json, verify, write_json
from cutaway.models.adapter_config import AdapterConfig, ends, read_config, write_config
from cutaway.models.assemble import DTYPES, Network, assemble, write_tensors
from cutaway.models.embedding import bare
from cutaway.models.families._layouts import Experts, Joined, Layout, Turned
from cutaway.models.formats.ggml import Blocks
from cutaway.models.low_rank import LowRankEmbedding, LowRankLinear, parts_of
from cutaway.models.memory import SMALL, SPARE, free_memory
from cutaway.models.model import Model
from cutaway.models.products import Linear
from cutaway.models.quantised import QuantisedEmbedding, QuantisedLinear

if TYPE_CHECKING:
    from cutaway.models.families import Family, Place

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
OUTER = "base_model.model."  # what PEFT puts before the names of a model
A, B, MAGNITUDE, EMBEDDING_A, EMBEDDING_B = PARTS = (
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_magnitude_vector",
    ".lora_embedding_A",
    ".lora_embedding_B",
)
BASE = ".base_layer."
MOST_TENSORS = 1 << 18


@dataclass(frozen=True)
class Adapter:
    """What a model has beside the weights of its base.

    Attributes:
        config: as its file says.
        own: names of our tensors that are the adapter's own as a whole: biases, and layers in modules_to_save.
        prefixed: whether published names begin with the family's prefix, as those of a model with a head do.
        source: where it came from.
    """

    config: AdapterConfig
    own: tuple[str, ...] = ()
    prefixed: bool = True
    source: str = ""


def load_adapter(model: Model, folder: str | Path) -> Model:
    """A model with an adapter beside its weights, all of which it shares.

    Args:
        model: the base.
        folder: with adapter_config.json and adapter_model.safetensors.

    Raises:
        ConfigError: a base of no published family or that has an adapter; a key or value that is not supported, named.
        DamagedFile: a file that cannot be read; tensors that are missing, left over or misshapen, named.
        InputError: no such folder, pickled tensors, or too little memory.
        NonFinite: a NaN or an infinity among the numbers.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give that of an adapter, with {CONFIG} and {WEIGHTS}")
    if not holds(folder, CONFIG):
        raise InputError(f"{folder} holds no {CONFIG}, so it is no adapter")
    if not holds(folder, WEIGHTS):
        if holds(folder, PICKLED):
            raise InputError(
                f"{folder} holds its adapter only as {PICKLED}, a format that can run code when it is opened; convert "
                "it to safetensors where you trust it (PEFT: model.save_pretrained(folder)) and open that"
            )
        raise InputError(f"{folder} holds no {WEIGHTS}")
    if holds(folder, MANIFEST):
        verify(folder)
    path = inside(folder, CONFIG)
    config = read_config(read_json(path), str(path))
    return _Reader(model, config, inside(folder, WEIGHTS)).read(str(folder))


def add_adapter(model: Model, config: AdapterConfig, *, seed: int = 0) -> Model:
    """A model with a fresh adapter, which changes nothing until it has learned; only its parameters learn.

    Args:
        model: the base, whose tensors it shares.
        config: which layers get parts, and of which rank.
        seed: of A's numbers; B begins at zero.

    Raises:
        ConfigError: a base that cannot have one, or names that match no layer.
    """
    names = _Names(model)
    network, generator = _shared(model.network), torch.Generator().manual_seed(seed)
    dtype, found = _dtype(network), 0
    for theirs, place in names.matrices(True):
        homes = [name.removesuffix(".weight") for name in place.ours]
        bases = [network.get_submodule(home) for home in homes]
        linear = all(isinstance(base, nn.Linear) for base in bases)
        saved = config.modules_to_save is not None and saves(theirs, config.modules_to_save)
        inner = linear and not homes[0].startswith(("lm_head", "head.out"))
        if saved or not config.targets(theirs, inner) or not (linear or homes == ["embed_tokens"]):
            continue
        rank, width, rows = config.rank(theirs), _width(bases[0]), sum(_rows(base) for base in bases)
        a = torch.empty(rank, width, dtype=dtype).uniform_(-(width**-0.5), width**-0.5, generator=generator)
        b, magnitude = torch.zeros(rows, rank, dtype=dtype), None
        if not linear:  # an embedding's B is drawn
            a, b = torch.zeros_like(a), torch.empty_like(b).normal_(generator=generator)
        if config.use_dora:
            weights = [base.weight for base in bases if isinstance(base, nn.Linear)]
            lengths = [torch.linalg.vector_norm(weight.detach(), dim=1) for weight in weights]
            magnitude = _outputs(place.layout).back(lengths, names.config)[0]
        parts = a.to(model.device), b.to(model.device), magnitude
        _put_parts(network, place, names.config, parts, config.scale(theirs), config)
        found += 1
    own = [name for name in names.others(config, True) if config.modules_to_save or config.bias != "none"]
    if not found and not own:
        raise ConfigError(unknown("target_modules", str(config.target_modules), [n for n, _ in names.matrices(True)]))
    for name in own:
        _put(network, name, _get(network, name).clone())
    headless = getattr(model.config, "head", "") in ("none", "embedding")  # of a class without a head, so no prefix
    return _with(model, network, Adapter(config, tuple(own), not headless))


def merge_adapter(model: Model) -> Model:
    """One model of a base and its adapter: W + s·BA in place of W in copies of the matrices that have parts.

    Those of a quantised base become numbers: rounded back to few bits, an adapter loses much of what it is, as it is
    mostly smaller than the steps between them (docs/adapters.md has figures). `quantize` makes few bits of all.

    Raises:
        ConfigError: a model without an adapter.
    """
    if model.adapter is None:
        raise ConfigError("this model has no adapter to merge")
    network = _shared(model.network)
    for name, part in parts_of(network).items():
        weight = nn.Parameter(part.weight.detach().clone())
        _replace(network, name, _plain(part, weight, getattr(part, "bias", None)))
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    config = network.config
    changed = {*parts_of(model.network), *(name.removesuffix(".weight") for name in model.adapter.own)}
    if getattr(config, "tied", False) and changed & {"embed_tokens", "lm_head"}:
        network.config = replace(config, tied=False)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return _with(model, network, None)


def save_adapter(model: Model, folder: str | Path) -> Path:
    """Write a model's adapter as PEFT does, whole or not at all; PEFT opens it on the published base.

    Raises:
        ConfigError: a model without an adapter.
        InputError: the disk is full or the place cannot be written.
    """
    if model.adapter is None:
        raise ConfigError("this model has no adapter to save; save_model writes the whole model")
    adapter, names, parts = model.adapter, _Names(model), parts_of(model.network)
    tensors: dict[str, Tensor] = {}
    for theirs, place in names.matrices(adapter.prefixed):
        found = [part for name in place.ours if (part := parts.get(name.removesuffix(".weight"))) is not None]
        if not found:
            continue
        joined = _outputs(place.layout).back([part.lora_B.detach() for part in found], names.config)
        kinds = (EMBEDDING_A, EMBEDDING_B) if isinstance(found[0], LowRankEmbedding) else (A, B)
        tensors[OUTER + theirs + kinds[0]] = found[0].lora_A.detach()
        tensors[OUTER + theirs + kinds[1]] = joined[0]
        if adapter.config.use_dora:
            magnitudes = [part.get_parameter("magnitude").detach() for part in found]
            tensors[OUTER + theirs + MAGNITUDE] = _outputs(place.layout).back(magnitudes, names.config)[0]
    for theirs, place in names.places(adapter.prefixed):
        if set(place.ours) & set(adapter.own):
            (tensor,) = place.layout.back([_get(model.network, name) for name in place.ours], names.config)
            home = theirs.rpartition(".")[0]
            has_parts = OUTER + home + A in tensors
            tensors[OUTER + (f"{home}{BASE}{theirs.rpartition('.')[2]}" if has_parts else theirs)] = tensor
    turned = any(_turned(place.layout) for theirs, place in names.matrices(True) if OUTER + theirs + A in tensors)
    folder = Path(folder)
    with atomic_folder(folder) as room:
        write_json(room / CONFIG, write_config(adapter.config, turned))
        whole = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
        write_tensors(whole, room / WEIGHTS, metadata={"format": "pt"})
    return folder


class _Names:
    """A model's tensors by their published names.

    Args:
        model: of a published family, or one that such a family can express.

    Raises:
        ConfigError: no family can; or it has an adapter already.
    """

    def __init__(self, model: Model) -> None:
        from cutaway.models.families import FAMILIES
        from cutaway.models.formats.huggingface import expressible

        origin, config = model.origin, model.config
        if origin is not None:
            self.family: Family = FAMILIES[origin.family]
        else:
            try:
                self.family = expressible(config)[0]
            except ConfigError:  # the layers have names, though the family may know no such head
                if getattr(config, "head", "none") in ("none", "causal_lm", "masked_lm"):
                    raise
                self.family = expressible(_headless(config))[0]
        if getattr(config, "tied", False):  # the output matrix may have parts, though it is the embedding
            config = replace(config, tied=False)  # pyright: ignore[reportCallIssue]
        self.config = config
        self.shapes: dict[str, Tensor] = dict(assemble(config, None).state_dict())
        if "lm_head.weight" in self.shapes and getattr(config, "head", "") == "embedding":
            self.shapes.pop("lm_head.weight")

    def places(self, prefixed: bool) -> list[tuple[str, Place]]:
        """Every tensor that is one in the published model, by its name there."""
        found = self.family.places(self.config, self.shapes, prefixed=prefixed)
        return [(place.theirs[0], place) for place in found if not isinstance(place.layout, Experts)]

    def matrices(self, prefixed: bool) -> list[tuple[str, Place]]:
        """Those that are a layer's matrix, by the layer's name."""
        found = (
            (theirs.removesuffix(".weight"), p) for theirs, p in self.places(prefixed) if theirs.endswith(".weight")
        )
        return [(name, place) for name, place in found if self.shapes[place.ours[0]].ndim == 2]

    def others(self, config: AdapterConfig, prefixed: bool) -> Iterable[str]:
        """Our tensors that are an adapter's own as a whole."""
        parted = {n for n, _ in self.matrices(prefixed) if config.targets(n, not n.endswith(("lm_head", "score")))}
        for theirs, place in self.places(prefixed):
            home = theirs.rpartition(".")[0]
            whole = config.modules_to_save is not None and saves(home, config.modules_to_save)
            biased = theirs.endswith(".bias") and (
                config.bias == "all" or (config.bias == "lora_only" and home in parted)
            )
            if whole or biased:
                yield from place.ours


def _headless(config: Any) -> Any:
    """A network's config without what stands on top."""
    return bare(replace(config, head="embedding", labels=(), labelling="one"))


def named_parts(model: Model) -> dict[str, tuple[str, ...]]:
    """What a model's tensors are called in its published form, without the family's prefix -> our names.

    Raises:
        ConfigError: no published family has such layers.
    """
    names = _Names(model)
    return {theirs: place.ours for theirs, place in names.places(False)}


def saves(home: str, listed: tuple[str, ...]) -> bool:
    """Whether a layer is one of those listed, or stands inside of one."""
    pieces = home.split(".")
    return any(ends(".".join(pieces[: i + 1]), listed) for i in range(len(pieces)))


class _Reader:
    def __init__(self, model: Model, config: AdapterConfig, path: Path) -> None:
        if model.adapter is not None:
            raise ConfigError("this model has an adapter already; merge it first, or give its base")
        self.model, self.config, self.path, self.names = model, config, path, _Names(model)
        try:
            self.file = safe_open(path, framework="pt")
            self.stored = {key: tuple(self.file.get_slice(key).get_shape()) for key in self.file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DamagedFile(f"{path} cannot be read as safetensors: {error}") from error
        if len(self.stored) > MOST_TENSORS:
            raise DamagedFile(f"{path} holds {len(self.stored):,} tensors, more than any adapter has")
        self.prefixed = dict(self.names.matrices(True))
        self.matrices = dict(self.names.matrices(False)) | self.prefixed
        self.places = dict(self.names.places(False)) | dict(self.names.places(True))
        self.left = set(self.stored)
        self.wrong: list[str] = []

    def read(self, source: str) -> Model:
        """The model with the adapter: everything is checked by its shape before any number is taken."""
        parts = self._parts()
        own = self._own({name for name, _ in parts})
        missing = [] if parts or own else ["any part"]
        problems = [f"missing: {', '.join(missing)}"] * bool(missing) + self.wrong[:8]
        problems += [f"left over: {', '.join(sorted(self.left)[:8])}"] * bool(self.left)
        if problems:
            raise DamagedFile(f"the adapter in {self.path} does not fit {self._base()}; {'; '.join(problems)}")
        self._check_memory()
        network = _shared(self.model.network)
        dtype, kept, config = _dtype(network), [], self.names.config
        for name, keys in parts:
            place = self.matrices[name]
            taken = tuple(self._take(key, dtype) if key else None for key in keys)
            _put_parts(network, place, config, taken, self.config.scale(name), self.config)  # pyright: ignore[reportArgumentType]
        for key, place in own:
            for ours, tensor in zip(place.ours, place.layout.into([self._take(key, dtype)], config), strict=True):
                if not torch.equal(tensor, _get(network, ours)):
                    _put(network, ours, tensor.clone())
                    kept.append(ours)
        prefixed = all(name in self.prefixed for name, _ in parts)
        return _with(self.model, network, Adapter(self.config, tuple(kept), prefixed, source))

    def _base(self) -> str:
        return self.model.source or "the base"

    def _parts(self) -> list[tuple[str, tuple[str, str, str | None]]]:
        """Layers with the keys of A, B and magnitude."""
        found = []
        firsts = [key for key in self.stored if key.endswith((A, EMBEDDING_A))]
        for key in firsts:
            kind = A if key.endswith(A) else EMBEDDING_A
            stem = key.removesuffix(kind)
            name, other = stem.removeprefix(OUTER), stem + (B if kind == A else EMBEDDING_B)
            place = self.matrices.get(name)
            if not stem.startswith(OUTER) or place is None or other not in self.stored or not self.config.lists(name):
                continue  # it is left over, and named
            bases = [self.model.network.get_submodule(ours.removesuffix(".weight")) for ours in place.ours]
            if not all(
                isinstance(base, nn.Linear if kind == A else nn.Embedding | QuantisedEmbedding) for base in bases
            ):
                continue
            rank, width, rows = self.config.rank(name), _width(bases[0]), sum(_rows(base) for base in bases)
            self._expect(key, (rank, width))
            self._expect(other, (rows, rank))
            magnitude = None
            if self.config.use_dora:
                if kind == EMBEDDING_A:
                    raise ConfigError(f"{self.path} has magnitudes for an embedding, which is not supported")
                magnitude = next((k for k in (stem + MAGNITUDE, stem + MAGNITUDE + ".weight") if k in self.stored), "")
                if not magnitude:
                    self.wrong.append(f"{stem + MAGNITUDE} is missing, though the config says use_dora")
                    continue
                self._expect(magnitude, (rows,))
            found.append((name, (key, other, magnitude)))
        return found

    def _own(self, parted: set[str]) -> list[tuple[str, Place]]:
        """What is the adapter's own as a whole."""
        found, config = [], self.config
        for key in sorted(self.left):
            name = key.removeprefix(OUTER).replace(BASE, ".")
            place = self.places.get(name)
            if not key.startswith(OUTER) or place is None:
                continue
            home = name.rpartition(".")[0]
            whole = config.modules_to_save is not None and saves(home, config.modules_to_save)
            biased = name.endswith(".bias") and config.bias != "none" and (config.bias == "all" or home in parted)
            if whole or biased or (BASE in key and home in parted):
                shapes = [self.names.shapes[ours] for ours in place.ours]
                self._expect(key, tuple(place.layout.back(shapes, self.names.config)[0].shape))
                found.append((key, place))
        return found

    def _expect(self, key: str, shape: tuple[int, ...]) -> None:
        self.left.discard(key)
        if self.stored[key] != shape:
            self.wrong.append(f"{key} has shape {self.stored[key]} instead of {shape}")

    def _check_memory(self) -> None:
        size = 4 * sum(math.prod(shape) for shape in self.stored.values())
        free = free_memory() if size >= SMALL else None
        if free is not None and size > SPARE * free:
            raise InputError(
                f"the adapter in {self.path} takes {size / 1e9:.2f} GB, but {free / 1e9:.2f} GB of memory are free"
            )

    def _take(self, key: str, dtype: torch.dtype) -> Tensor:
        try:
            tensor = self.file.get_tensor(key)
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise DamagedFile(f"{self.path} cannot be read: {error}") from error
        if tensor.dtype not in DTYPES:
            named = str(tensor.dtype).removeprefix("torch.")
            raise ConfigError(
                f"{key} in {self.path} is stored as {named}; float32, float16, bfloat16 and float64 are supported"
            )
        tensor = tensor.to(dtype, copy=True)
        if not torch.isfinite(tensor).all():
            raise NonFinite(f"{key} in {self.path} holds a NaN or an infinity: the file is damaged")
        return tensor.to(self.model.device)


def _put_parts(
    network: Network,
    place: Place,
    network_config: object,
    parts: tuple[Tensor, Tensor, Tensor | None],
    scale: float,
    config: AdapterConfig,
) -> None:
    """Give the layers of a place their parts; several that are one in the published model share A."""
    first, second, magnitude = parts
    layout = _outputs(place.layout)
    a, lower = nn.Parameter(first), layout.into([second], network_config)
    lengths = [None] * len(place.ours) if magnitude is None else layout.into([magnitude], network_config)
    for name, b, length in zip(place.ours, lower, lengths, strict=True):
        home = name.removesuffix(".weight")
        base = network.get_submodule(home)
        own = nn.Parameter(b.clone())
        if isinstance(base, nn.Linear):
            long = nn.Parameter(length.clone()) if length is not None else None
            made: nn.Module = LowRankLinear(base, a, own, scale, long, config.lora_dropout)
        else:
            made = LowRankEmbedding(base, a, own, scale)
        _replace(network, home, made.train(base.training))


def _outputs(layout: Layout) -> Layout:
    """How what stands for a matrix's rows (B, magnitudes) lies, by how the matrix does: PEFT never turns these."""
    if isinstance(layout, Turned):
        return Layout()
    return Joined(layout.rows) if isinstance(layout, Joined) else layout


def _turned(layout: Layout) -> bool:
    return isinstance(layout, Turned) or (isinstance(layout, Joined) and layout.turned)


def _rows(module: nn.Module) -> int:
    """What B has rows for: N; of an embedding its width."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.blocks.shape[1] if isinstance(module, QuantisedEmbedding) else module.embedding_dim  # pyright: ignore[reportReturnType]


def _width(module: nn.Module) -> int:
    """What A has columns for: C; of an embedding the tokens."""
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.blocks.shape[0] if isinstance(module, QuantisedEmbedding) else module.num_embeddings  # pyright: ignore[reportReturnType]


def _dtype(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


def _shared(network: Network) -> Network:
    """The same network once more: modules of its own, on the very same tensors, which do not learn there."""
    memo: dict[int, object] = {id(network.config): network.config}
    parts = {id(p) for part in parts_of(network).values() for p in part.parameters(recurse=False)}
    memo |= {id(p): nn.Parameter(p.detach(), requires_grad=id(p) in parts) for p in network.parameters()}
    memo |= {id(buffer): buffer for buffer in network.buffers()}
    for module in network.modules():
        held = getattr(module, "blocks", None)
        for blocks in held.values() if isinstance(held, dict) else (held,):
            if isinstance(blocks, Blocks):
                memo[id(blocks)] = blocks
    return copy.deepcopy(network, memo)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    above, _, called = name.rpartition(".")
    setattr(network.get_submodule(above), called, module)


def _get(network: nn.Module, name: str) -> Tensor:
    """A tensor by our name, whether its layer has parts or not."""
    home, _, part = name.rpartition(".")
    module = network.get_submodule(home)
    module = module.base if isinstance(module, LowRankLinear | LowRankEmbedding) else module
    return getattr(module, part).detach()


def _put(network: nn.Module, name: str, tensor: Tensor) -> None:
    """Give a layer a tensor of the adapter's own, which learns."""
    home, _, part = name.rpartition(".")
    module, parameter = network.get_submodule(home), nn.Parameter(tensor)
    if isinstance(module, LowRankLinear | LowRankEmbedding):
        home, module = f"{home}.base", module.base
    if part == "weight" and isinstance(module, QuantisedLinear | QuantisedEmbedding):
        _replace(network, home, _plain(module, parameter, getattr(module, "bias", None)))
    else:
        setattr(module, part, parameter)


def _plain(like: nn.Module, weight: nn.Parameter, bias: Tensor | None) -> nn.Module:
    """A layer of numbers in place of another."""
    rows, width = weight.shape
    with torch.device("meta"):
        made: nn.Module = Linear(width, rows, bias=False) if isinstance(like, nn.Linear) else nn.Embedding(rows, width)
    made.weight = weight
    if bias is not None:
        made.bias = bias  # pyright: ignore[reportAttributeAccessIssue]
    return made.train(like.training)


def _with(model: Model, network: Network, adapter: Adapter | None) -> Model:
    made = Model(network, model.tokenizer, model.source, model.origin, model.mel, model.generation)
    made.adapter = adapter
    return made


__all__ = ["Adapter", "AdapterConfig", "add_adapter", "load_adapter", "merge_adapter", "named_parts", "save_adapter"]
