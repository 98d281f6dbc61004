"""Which matrix becomes blocks of which kind, and which stay numbers; every exception with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cutaway.errors import ConfigError, unknown
from cutaway.generation.quantize.grid import GRIDS
from cutaway.models import Network
from cutaway.models.memory import PLAIN
from cutaway.models.quantised import blocks_in, can_be_blocks, floats_in

FALLBACK = {"Q4_K": "Q4_1", "Q6_K": "Q8_0"}  # where rows are no whole number of blocks
OUTPUTS = ("embed_tokens.weight", "lm_head.weight")
FEW_BITS = ("Q4_0", "Q4_1", "Q4_K", "Q5_0")


@dataclass(frozen=True)
class Plan:
    """What becomes of a network's tensors.

    Attributes:
        kinds: name of a matrix -> kind of its blocks, in the network's order; a tied output matrix is left out.
        notes: what is not as it was asked for, and why, a sentence each.
    """

    kinds: Mapping[str, str]
    notes: tuple[str, ...]


def kind_named(name: str) -> str:
    """A kind by its name or its plain name, "int8" or "int4".

    Raises:
        ConfigError: there is none; near matches are named.
    """
    found = PLAIN.get(str(name).lower(), str(name).upper())
    if found not in GRIDS:
        raise ConfigError(unknown("kind to quantise to", found, [*PLAIN, *GRIDS]))
    return found


def plan(network: Network, kind: str = "int8", *, output: str | None = None, keep: Sequence[str] = ()) -> Plan:
    """Choose a kind for every matrix.

    Args:
        network: whose.
        kind: of all but the embedding and the output matrix.
        output: of these two; None: Q8_0 where `kind` has fewer bits, as they decide about tokens that are rarely seen.
        keep: shell-style patterns of names of matrices that stay numbers.

    Raises:
        ConfigError: an unknown kind, a pattern that fits no matrix, or a network in which nothing could become blocks.
    """
    kind = kind_named(kind)
    ends = kind_named(output) if output is not None else "Q8_0" if kind in FEW_BITS else kind
    tied = getattr(network.config, "tied", False)
    shapes = {name: kept.shape for name, kept in blocks_in(network).items()}
    floats = floats_in(network)
    shapes |= {n: tuple(t.shape) for n, t in floats.items() if t.ndim >= 2 and can_be_blocks(network, n)}
    order = (
        [name for name in network.state_dict(keep_vars=True) if name in shapes] if not blocks_in(network) else shapes
    )
    matrices = [name for name in order if not (tied and name == "lm_head.weight")]
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in matrices):
            raise ConfigError(unknown("matrix to keep", pattern, matrices))
    kinds: dict[str, str] = {}
    changed: dict[str, list[str]] = {}
    for name in matrices:
        if any(fnmatchcase(name, pattern) for pattern in keep):
            changed.setdefault("left as numbers, as asked for", []).append(name)
            continue
        wanted = ends if name in OUTPUTS else kind
        fits, width = wanted, shapes[name][-1]
        while fits and width % GRIDS[fits].numbers:
            fits = FALLBACK.get(fits, "")
        if fits:
            kinds[name] = fits
        if fits != wanted:
            how = f"stored as {fits} instead of {wanted}" if fits else "left as numbers"
            changed.setdefault(f"{how}: rows of {width} are no whole number of blocks of {wanted}", []).append(name)
    if not kinds:
        raise ConfigError(
            f"no matrix of this {network.config.kind} can become {kind}: "
            + ("; ".join(f"{', '.join(names[:3])} {why}" for why, names in changed.items()) or "it has none")
        )
    if len(kinds) == len(floats) + len(blocks_in(network)) - tied:  # something must say of which kind numbers are
        first = next(iter(kinds))
        del kinds[first]
        changed.setdefault("left as a matrix of numbers, as a network of blocks alone has none", []).append(first)
    notes = [f"{_listed(names)} {why}" for why, names in changed.items()]
    small = sorted(n for n, t in floats.items() if t.ndim >= 2 and n not in shapes)
    if small:
        notes.append(f"{_listed(small)} left as numbers: small tables and convolutions never become blocks")
    if ends != kind and any(name in kinds for name in OUTPUTS):
        others = f", the others {kind}" if kind in kinds.values() else ""  # all may have had to become another
        notes.append(f"the embedding and the output matrix become {ends}{others}")
    return Plan(kinds, tuple(notes))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
