"""Networks in GGUF files, read and written by the architectures of `gguf_architectures`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import ConfigError, DamagedFile, unknown
from cutaway.models.assemble import Network, assemble, check_layers
from cutaway.models.config import DecoderConfig
from cutaway.models.families import Place, read_places, write_places
from cutaway.models.formats.ggml import BY_NAME, Blocks
from cutaway.models.formats.gguf import GGUF
from cutaway.models.formats.gguf_architectures import ARCHITECTURES, OUTPUT, Architecture
from cutaway.models.formats.gguf_rope import FACTORS
from cutaway.models.formats.gguf_write import write_gguf
from cutaway.models.formats.quantise import WRITABLE
from cutaway.models.memory import check_memory
from cutaway.models.quantised import blocks_in, can_be_blocks, fill, floats_in

EMBEDDING, MOST_FACTORS = "token_embd.weight", 2**16
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q4_K": 14, "Q6_K": 18, "BF16": 32}
# what stands in where rows are no whole number of blocks, as in llama.cpp (src/llama-quant.cpp)
FALLBACK = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}
KEPT = ("_norm.weight", "ffn_gate_inp.weight", "position_embd.weight")  # small, and much depends on them


def open_gguf(file: GGUF, dtype: torch.dtype | None = None) -> Network:
    """The network of a file, its weights dequantised.

    Args:
        file: from `read_gguf`.
        dtype: of the weights; None: float32.

    Raises:
        ConfigError: an architecture, key or value that is not supported, named.
        DamagedFile: tensors that are missing, left over or misshapen, named.
    """
    architecture, config = describe(file)
    check_memory(config, dtype or torch.float32, str(file.path))
    expected = assemble(config, None).state_dict()
    state: dict[str, Tensor] = {}
    for place in places_in(file, architecture, config, expected):

        def load(name: str) -> Tensor:
            return file.tensors[name].load(dtype or torch.float32)

        state |= fitted(place, load, config, expected, file)
        file.release()
    return assemble(config, state, where=str(file.path))


def open_quantised(file: GGUF, dtype: torch.dtype | None = None) -> Network:
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
    expected = network.state_dict()
    state: dict[str, Tensor] = {}
    kept: dict[str, Blocks] = {}
    for place in places_in(file, architecture, config, expected):
        if all(can_be_blocks(network, name) for name in place.ours):
            kept |= _blocks(place, file, config, expected, dtype)
        else:
            state |= fitted(place, lambda name: file.tensors[name].load(dtype), config, expected, file)
    if config.tied:
        kept["lm_head.weight"] = kept["embed_tokens.weight"]
    return fill(network, state, kept)


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


def describe(file: GGUF) -> tuple[Architecture, DecoderConfig]:
    """Which architecture a file holds, and our config of it.

    Raises:
        ConfigError: an architecture, key or value that is not supported, named.
        DamagedFile: keys or tensors without which nothing can be computed are missing, named.
    """
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ConfigError(unknown(f"general.architecture in {file.path}", str(name), ARCHITECTURES))
    architecture, prefix = ARCHITECTURES[name], f"{name}."
    values = {key.removeprefix(prefix): _plain(v) for key, v in file.metadata.items() if key.startswith(prefix)}
    if missing := [key for key in architecture.needed if key not in values]:
        raise DamagedFile(f"{file.path} lacks the keys {', '.join(prefix + key for key in missing)}")
    embedding = file.tensors.get(EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise DamagedFile(f"{file.path} has no matrix {EMBEDDING}")
    if (stated := values.get("vocab_size", embedding.shape[0])) != embedding.shape[0]:
        raise DamagedFile(f"{file.path} states a vocabulary of {stated!r}, but {EMBEDDING} has {embedding.shape[0]}")
    values["vocab_size"] = embedding.shape[0]
    for factors in FACTORS:
        if (tensor := file.tensors.get(factors)) is not None:
            if len(tensor.shape) != 1 or tensor.shape[0] > MOST_FACTORS:
                raise DamagedFile(f"{factors} in {file.path} has the shape {tensor.shape}, but is one row of numbers")
            values[factors] = _plain(tensor.load().tolist())
    config = architecture.settle(architecture.to_config(values, str(file.path)), file.tensors)
    assert isinstance(config, DecoderConfig)
    check_layers(config, len(file.tensors), str(file.path))
    return architecture, config


def _plain(value: Any) -> Any:
    """Numbers as they were before they were rounded to float32: 1e-6, not 9.99999997e-07."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and abs(value) < 1e38 and float(short := np.float32(value)) == value:
        return float(str(short))
    return value


def places_in(
    file: GGUF, architecture: Architecture, config: DecoderConfig, expected: Mapping[str, Tensor]
) -> list[Place]:
    """Where every tensor of a network is in a file.

    Args:
        file: from `read_gguf`.
        architecture: its own.
        config: of the network.
        expected: the network's state dict, for names.

    Raises:
        DamagedFile: tensors that are missing or left over, named.
    """
    free = {name: tensor for name, tensor in expected.items() if not (config.tied and name == "lm_head.weight")}
    places = architecture.places(config, free)
    wanted = {name for place in places for name in place.theirs}
    present = file.tensors.keys() - set(FACTORS)
    missing, left = sorted(wanted - present), sorted(present - wanted)
    problems = [f"missing: {', '.join(missing[:8])}"] * bool(missing)
    problems += [f"left over: {', '.join(left[:8])}"] * bool(left)
    if problems:
        raise DamagedFile(f"the tensors of {file.path} do not fit its metadata; {'; '.join(problems)}")
    return places


def fitted(
    place: Place, load: Callable[[str], Tensor], config: DecoderConfig, expected: Mapping[str, Tensor], file: GGUF
) -> dict[str, Tensor]:
    """Our tensors of one place, their shapes checked.

    Raises:
        DamagedFile: a shape that does not fit, named.
    """
    try:
        state = read_places([place], load, config)
    except (RuntimeError, ValueError):
        state = {}
    for name in place.ours:
        if name not in state or state[name].shape != expected[name].shape:
            found = ", ".join(f"{theirs} the shape {file.tensors[theirs].shape}" for theirs in place.theirs)
            wanted = " and ".join(str(tuple(expected[ours].shape)) for ours in place.ours)
            raise DamagedFile(f"in {file.path} has {found}, which does not make {wanted}")
    return state


def expressible(config: Any, name: str | None = None) -> tuple[Architecture, dict[str, Any]]:
    """The architecture that can express a network, and its keys.

    Args:
        config: of the network.
        name: of an architecture, or None for the first that can.

    Raises:
        ConfigError: none can; names the features that stand in the way of the nearest.
    """
    if name is not None and name not in ARCHITECTURES:
        raise ConfigError(unknown("GGUF architecture", name, ARCHITECTURES))
    if not isinstance(config, DecoderConfig):
        raise ConfigError(f"a network of the kind {config.kind} cannot be written as GGUF; decoders can")
    reasons = []
    for candidate in [ARCHITECTURES[name]] if name else ARCHITECTURES.values():
        try:
            return candidate, candidate.from_config(config)
        except ConfigError as error:
            reasons.append(str(error))
    raise ConfigError(min(reasons, key=len) + "; GGUF has no word for that, so save it in Cutaway's own format")


def write_network(
    network: Network,
    path: Path,
    kind: str | None = None,
    *,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> None:
    """Write a network as a GGUF file.

    Matrices are stored as `kind`; norms, biases, routers and learned positions stay float32, and where a kind of four
    bits is asked for, the matrix that makes the logits is Q6_K, all as llama.cpp has it.

    Args:
        network: what to write.
        path: of the file.
        kind: one of WRITABLE; None: F16, and matrices that are blocks are written as they are.
        name: of the architecture to write it as; None: the first that can express it.
        metadata: further keys, such as the tokenizer's.
        note: told of every choice that was made.

    Raises:
        ConfigError: an unknown kind, or a network that GGUF cannot express; names the features that stand in the way.
        NonFinite: a weight that the kind cannot hold.
        InputError: the disk is full or the place cannot be written.
    """
    if kind is not None and kind not in WRITABLE:
        raise ConfigError(unknown("kind to write", str(kind), WRITABLE))
    architecture, values = expressible(network.config, name)
    config = network.config
    assert isinstance(config, DecoderConfig)
    floats, blocks = floats_in(network), blocks_in(network)
    ours = {**floats, **blocks}
    if config.tied and not architecture.own_output:
        ours.pop("lm_head.weight", None)
    tensors: dict[str, Tensor] = {}
    kept: dict[str, Blocks] = {}
    for place in architecture.places(config, ours):
        found = [blocks[name] for name in place.ours if name in blocks]
        if kind is None and len(found) == len(place.ours) and len({one.kind for one in found}) == 1:
            rows = write_places([place], {name: blocks[name].data for name in place.ours}, config)
            kept |= {theirs: Blocks(found[0].kind, data, found[0].dtype) for theirs, data in rows.items()}
        else:
            numbers = {n: blocks[n].numbers() if n in blocks else floats[n].cpu() for n in place.ours}
            tensors |= write_places([place], numbers, config)
    kind = kind or "F16"
    most = Counter(one.kind for one in kept.values()).most_common(1)
    stored = most[0][0] if most else kind
    how = f"kept as they are, most of them {stored}" if kept else f"as {kind}"
    note(f"written as {architecture.model_type}, its matrices {how}")
    chosen = _kinds(tensors, kind, note)
    if config.rotary_scaling is not None and config.rotary_scaling.kind == "longrope":
        note("llama.cpp chooses between short and long factors by the context that it is started with, not by the text")
    if architecture.model_type == "phi3" and any(config.windows):
        note("llama.cpp leaves Phi-3's windows out; texts longer than one will differ")
    for factors in FACTORS:
        if factors in values:
            tensors[factors], chosen[factors] = torch.tensor(values[factors]), "F32"
    head: dict[str, Any] = {"general.architecture": architecture.model_type}
    head |= {"general.file_type": FILE_TYPES[stored]} if stored in FILE_TYPES else {}
    head |= {"general.quantization_version": 2} if BY_NAME[stored].decode is not None else {}
    prefix = f"{architecture.model_type}."
    keys = {prefix + key: v for key, v in values.items() if v is not None and key not in (*FACTORS, "model_type")}
    stored_as = {**kept, **{name: (tensor, chosen[name]) for name, tensor in tensors.items()}}
    write_gguf(path, head | keys | dict(metadata or {}), stored_as)


def _kinds(tensors: Mapping[str, Tensor], kind: str, note: Callable[[str], None]) -> dict[str, str]:
    """How each tensor is stored."""
    output = OUTPUT if OUTPUT in tensors else EMBEDDING
    chosen: dict[str, str] = {}
    changed: dict[tuple[str, int], list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or name.endswith(KEPT):
            chosen[name] = "F32"
            continue
        wanted = "Q6_K" if name == output and kind in ("Q4_0", "Q4_1", "Q4_K") else kind
        fits = wanted
        while tensor.shape[-1] % BY_NAME[fits].numbers:
            fits = FALLBACK.get(fits, "F16")
        chosen[name] = fits
        if fits != wanted:
            changed.setdefault((f"{wanted} as {fits}", tensor.shape[-1]), []).append(name)
    if (
        output in chosen
        and chosen[output] not in (kind, "F32")
        and not any(output in names for names in changed.values())
    ):
        note(f"{output} makes the logits and is stored as {chosen[output]}")
    for (change, width), names in changed.items():
        note(
            f"{len(names)} matrices with rows of {width}, no whole number of blocks, are stored for {change}: "
            f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
        )
    return chosen
