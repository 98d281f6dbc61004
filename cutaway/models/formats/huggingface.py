"""Hugging Face folders: config.json and safetensors, in one file or in shards with an index.

Data only: nothing in a folder is ever run, and pickled weights are refused.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cutaway.errors import ConfigError, DamagedFile, InputError, unknown
from cutaway.files import holds, inside, read_json, write_json
from cutaway.models.assemble import DTYPES, Network, assemble, check_layers, write_tensors
from cutaway.models.config import DecoderConfig, EncoderConfig, NetworkConfig
from cutaway.models.embedding import bare, beneath, read_embedding, write_embedding
from cutaway.models.families import FAMILIES, Family, read_places, write_places
from cutaway.models.families._heads import PROBLEMS
from cutaway.models.memory import check_memory

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
SHARD = 5 * 10**9  # bytes of the largest file written


@dataclass(frozen=True)
class Origin:
    """What a network was read from, so that it can be written back as it was.

    Attributes:
        family: its model_type.
        config: config.json, as it stands.
        prefixed: whether the tensors' names begin with the family's prefix.
    """

    family: str
    config: Mapping[str, Any]
    prefixed: bool


class Shards:
    """The tensors of a folder, memory-mapped, by name.

    Raises:
        InputError: there are none, or only pickled ones.
        DamagedFile: an index that names what is not there, or a file that is no safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._home: dict[str, str] = {}  # tensor -> file
        if holds(folder, INDEX):
            stated = read_json(inside(folder, INDEX))
            index = stated.get("weight_map") if isinstance(stated, dict) else None
            if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
                raise DamagedFile(f"{folder / INDEX} has no weight_map from tensors to files")
            for name in sorted(set(index.values())):
                self._open(name)
            if wrong := [tensor for tensor, name in index.items() if self._home.get(tensor) != name]:
                raise DamagedFile(f"{folder / INDEX} lists tensors that are not where it says: {', '.join(wrong[:5])}")
        elif (folder / WEIGHTS).is_file():
            self._open(WEIGHTS)
        else:
            pickled = [path.name for path in folder.iterdir() if path.suffix in PICKLED]
            if pickled:
                raise InputError(
                    f"{folder} holds its weights only as {pickled[0]}, a format that can run code when it is opened; "
                    "convert it to safetensors where you trust it (transformers: model.save_pretrained(folder)) "
                    "and open that"
                )
            raise InputError(f"{folder} holds no {WEIGHTS} and no {INDEX}")

    def _open(self, name: str) -> None:
        path = inside(self.folder, name)
        try:
            file = safe_open(path, framework="pt")
            names = list(file.keys())
        except (SafetensorError, OSError) as error:
            raise DamagedFile(f"{path} cannot be read as safetensors: {error}") from error
        for tensor in names:
            if tensor in self._home:
                raise DamagedFile(f"{tensor} is in {self._home[tensor]} and in {name}; there can be one of it")
            self._home[tensor] = name
        self._files[name] = file

    def names(self) -> set[str]:
        """All tensors."""
        return set(self._home)

    def __getitem__(self, name: str) -> Tensor:
        """One of them, a view of the file."""
        return self._files[self._home[name]].get_tensor(name)


def family_of(values: Mapping[str, Any], where: str) -> Family:
    """The family that a config names.

    Raises:
        ConfigError: none is named, or one that is not supported.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ConfigError(unknown(f"model_type in {where}", str(kind), FAMILIES))
    return FAMILIES[kind]


def open_huggingface(folder: Path, dtype: torch.dtype | None = None) -> tuple[Network, Origin]:
    """The network of a folder.

    Args:
        folder: with config.json and safetensors.
        dtype: of the weights; None: as they are stored, but float32 for float16, which a CPU computes slowly.

    Raises:
        ConfigError: a family, key or value that is not supported, named.
        DamagedFile: a file that cannot be read; tensors that are missing, left over or misshapen, named.
        InputError: no weights, or pickled ones only.
    """
    where, values = str(folder / CONFIG), read_json(inside(folder, CONFIG))
    if not isinstance(values, dict):
        raise DamagedFile(f"{where} must hold a JSON object, but holds {type(values).__name__}")
    family = family_of(values, where)
    stated, head = family.to_config(values, where), _head(family, values, where)
    shards = Shards(folder)
    stored = {family.spelled(name): name for name in shards.names()}
    if len(stored) < len(shards.names()):
        raise DamagedFile(f"the weights in {folder} hold a tensor twice, under an older name and a newer")
    config = stated = family.settle(stated, stored)
    check_layers(config, len(stored), f"the weights in {folder}")
    wanted = dict(assemble(config, None).state_dict())
    prefixed = any(name.startswith(family.prefix_of(config)) for name in stored)
    tied = getattr(config, "tied", False)
    # a tied output matrix may be in the file once more, and so may what the family says
    free = family.places(replace(config, tied=False), wanted, prefixed=prefixed)  # pyright: ignore[reportCallIssue]
    speaks = not tied and any(place.ours == ("lm_head.weight",) and stored.keys() >= {*place.theirs} for place in free)
    if isinstance(stated, DecoderConfig | EncoderConfig) and not speaks:  # files of vectors may name the architecture
        config = read_embedding(folder, stated)  # of a language model, but hold no output matrix
    if tied or head == "none" or config is not stated:
        wanted.pop("lm_head.weight", None)
    places = family.places(config, wanted, prefixed=prefixed)
    theirs = {name for place in places for name in place.theirs}
    left = {name for name in stored.keys() - theirs if not family.skips(name)}
    again = {place.theirs[0]: place.ours[0] for place in free if tied and left.issuperset(place.theirs)}
    again |= {(family.prefix if prefixed else "") + name: ours for name, ours in family.copies.items()}
    copies = {name: ours for name, ours in again.items() if name in left}
    lacking, left = theirs - stored.keys(), left - copies.keys()
    problems = [f"missing: {', '.join(sorted(lacking)[:8])}"] * bool(lacking)
    problems += [f"left over: {', '.join(sorted(left)[:8])}"] * bool(left)
    if problems:
        raise DamagedFile(f"the weights in {folder} do not fit their config; {'; '.join(problems)}")
    try:
        state = read_places(places, lambda name: shards[stored[name]], config)
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise DamagedFile(f"the weights in {folder} do not fit their config: {error}") from error
    for name, ours in copies.items():
        if not torch.equal(shards[stored[name]], state.get(ours, state["embed_tokens.weight"])):
            raise DamagedFile(f"{where} says that {name} is the embedding once more, but in {folder} it is another")
    if others := {str(tensor.dtype) for tensor in state.values() if tensor.dtype not in DTYPES}:
        raise ConfigError(
            f"the weights in {folder} are stored as {', '.join(sorted(others))}; float32, float16, bfloat16 and "
            "float64 are supported"
        )
    dtype = dtype or _stored(state)
    if dtype != _most(state):  # else the files stay mapped
        check_memory(config, dtype, str(folder))
    network = assemble(config, {name: tensor.to(dtype) for name, tensor in state.items()}, where=str(folder))
    return network, Origin(family.model_type, values, prefixed)


def _head(family: Family, values: Mapping[str, Any], where: str) -> str:
    named = values.get("architectures") or [next(iter(family.heads))]
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str) or named[0] not in family.heads:
        raise ConfigError(unknown(f"architecture in {where}", str(named), family.heads))
    return family.heads[named[0]]


def _stored(state: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of most numbers; float32 in place of float16."""
    dtype = _most(state)
    return torch.float32 if dtype == torch.float16 else dtype


def _most(state: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of most numbers."""
    counts: Counter[torch.dtype] = Counter()
    for tensor in state.values():
        counts[tensor.dtype] += tensor.numel()
    return counts.most_common(1)[0][0]


def expressible(config: NetworkConfig, family: str | None = None) -> tuple[Family, dict[str, Any]]:
    """The family that can express a network, and the published config.

    Args:
        config: of the network.
        family: a model_type, or None for the first that can.

    Raises:
        ConfigError: none can; names the features that stand in the way of the nearest.
    """
    config = bare(config)
    if family is not None and family not in FAMILIES:
        raise ConfigError(unknown("family", family, FAMILIES))
    reasons = []
    for candidate in [FAMILIES[family]] if family else FAMILIES.values():
        if isinstance(config, candidate.config):
            try:
                return candidate, candidate.from_config(config)
            except ConfigError as error:
                reasons.append(str(error))
    if not reasons:
        raise ConfigError(f"no published family is of the kind {config.kind}; save it in Cutaway's own format")
    raise ConfigError(min(reasons, key=len) + "; save it in Cutaway's own format, or train without these features")


def published_head(config: NetworkConfig, origin: Origin | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the head that a family's published class has, for a network that gets such a head.

    Args:
        config: of the network as it is.
        origin: what it was read from, if anything.
        fields: `head` that is asked for, with `labels` and `labelling` where it has such.

    Raises:
        ConfigError: no published family has such layers, or theirs has no such class.
    """
    config = bare(config)
    if origin is not None:
        family, values = FAMILIES[origin.family], dict(origin.config)
    else:
        family, values = expressible(config)
    named = [name for name, head in family.heads.items() if head == fields["head"]]
    if not named:
        raise ConfigError(f"{family.model_type} is published without a head for {fields['head']}; leave it to the task")
    values |= {"architectures": named[:1], "problem_type": PROBLEMS[fields.get("labelling", "one")]}
    if "labels" in fields:
        values |= {"id2label": {str(number): label for number, label in enumerate(fields["labels"])}}
    made = family.to_config(values, f"the {family.model_type} config")
    names = ("head", "labels", "labelling", "pooling", "head_activation", "head_norm", "head_dense_bias", "head_bias")
    return {name: getattr(made, name) for name in names if hasattr(made, name)}


def write_huggingface(
    network: Network, folder: Path, *, family: str | None = None, origin: Origin | None = None, extra: Mapping[str, Any]
) -> None:
    """Write config.json and safetensors into an existing folder.

    Args:
        network: what to write.
        folder: where to.
        family: as which; None: as it was read, or the first family that can express it.
        origin: what it was read from. If the config is still that one, it is written as it stood.
        extra: further keys of a config, such as the tokenizer's special ids.

    Raises:
        ConfigError: no family can express it; names the features that stand in the way.
    """
    config, prefixed = network.config, True
    if origin is not None and family in (None, origin.family):
        chosen = FAMILIES[origin.family]
        prefixed = origin.prefixed
        stated = beneath(chosen.to_config(origin.config), config)
        if chosen.settle(stated, ()) == chosen.settle(bare(config), ()):
            values = dict(origin.config)
        else:
            values = {**origin.config, **chosen.from_config(bare(config))}
    else:
        chosen, values = expressible(config, family)
        dtype = str(next(network.parameters()).dtype).removeprefix("torch.")
        # said, as families have defaults for them
        roles = ("bos", "eos", "pad", *(("cls", "sep") if isinstance(config, EncoderConfig) else ()))
        ids = {f"{role}_token_id": None for role in roles}
        said = {"architectures": [next(iter(chosen.heads))], "torch_dtype": dtype, **ids, **extra}
        values = said | values  # a family may need the padding's id, or name the architecture of a head
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    if getattr(config, "tied", False):
        state.pop("lm_head.weight", None)
    tensors = write_places(chosen.places(config, state, prefixed=prefixed), state, config)
    write_json(folder / CONFIG, values)
    if isinstance(config, DecoderConfig | EncoderConfig) and config.head == "embedding":
        write_embedding(folder, config)
    _write_shards(tensors, folder)


def _write_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    groups: list[dict[str, Tensor]] = [{}]
    room = SHARD
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if groups[-1] and size > room:
            groups.append({})
            room = SHARD
        room -= size
        groups[-1][name] = tensor.contiguous()
    if len(groups) == 1:
        write_tensors(groups[0], folder / WEIGHTS, metadata={"format": "pt"})
        return
    names = [f"model-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        write_tensors(group, folder / name, metadata={"format": "pt"})
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    home = {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group}
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": home})
