"""The tap: how anything looks into a forward pass, or changes it, without hooks.

A network calls `x = tap("resid_pre", x)` at each named place. The tap is an argument, so nothing is installed and
nothing can leak: two threads never see each other, and gradients pass. `OFF` costs one Python call per place.

Names are paths joined by dots; `tap.at("layers.3")` gives the tap that a layer uses for its own part of the tree.
"""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import Tensor

from cutaway.errors import ConfigError, unknown


class Tap:
    """The tap that does nothing; also the interface of those that do."""

    formed = False  # see ActiveTap

    def at(self, prefix: str) -> "Tap":
        """The same tap, seen from inside `prefix`."""
        return self

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """Show `value`; use what is returned in its place."""
        return value

    def replaces(self, name: str) -> bool:
        """Whether there is an edit of this one."""
        return False

    def edit(self, name: str, value: Tensor) -> Tensor:
        """The first half of a call, for what is computed step by step: what to use in place of `value`."""
        return value

    def show(self, name: str, value: Tensor) -> None:
        """The second half of a call: `value` is what was used."""

    def wants(self, *names: str) -> bool:
        """Whether any of these is recorded or replaced, so that a network may skip computing what nobody reads."""
        return False

    def edits(self, *names: str) -> bool:
        """Whether any of these may be changed, so that the network must compute with the value that comes back.

        Where a fused kernel never forms a value (attention's pattern), a value that is only read is computed beside
        the kernel, and the result stays the kernel's own, bit for bit.
        """
        return False


OFF = Tap()

Edit = Callable[[Tensor], Tensor]


class ActiveTap(Tap):
    """Records the places in `keep` and replaces those in `edits`.

    Args:
        keep: names to record; each is handed to `sink(name, tensor)` after any edit.
        edits: name -> function from the tensor there to the tensor to use instead (same shape).
        sink: receives what is recorded.
        formed: whether fused kernels must form what is recorded on their own path (needed for gradients through it).
    """

    def __init__(
        self,
        keep: Iterable[str] = (),
        edits: Mapping[str, Edit] | None = None,
        sink: Callable[[str, Tensor], None] | None = None,
        *,
        formed: bool = False,
        prefix: str = "",
    ) -> None:
        self.keep = keep if isinstance(keep, frozenset) else frozenset(keep)
        self.replacements = edits or {}
        self.sink = sink
        self.formed = formed
        self.prefix = prefix

    def at(self, prefix: str) -> "ActiveTap":
        return ActiveTap(self.keep, self.replacements, self.sink, formed=self.formed, prefix=f"{self.prefix}{prefix}.")

    def __call__(self, name: str, value: Tensor) -> Tensor:
        value = self.edit(name, value)
        self.show(name, value)
        return value

    def edit(self, name: str, value: Tensor) -> Tensor:
        full = self.prefix + name
        edit = self.replacements.get(full)
        if edit is None:
            return value
        edited = edit(value)
        if edited.shape != value.shape:
            raise ConfigError(
                f"the edit of {full} gave shape {tuple(edited.shape)}, but {tuple(value.shape)} is needed there"
            )
        return edited

    def show(self, name: str, value: Tensor) -> None:
        full = self.prefix + name
        if full in self.keep and self.sink is not None:
            self.sink(full, value)

    def wants(self, *names: str) -> bool:
        return any(self.prefix + n in self.keep or self.prefix + n in self.replacements for n in names)

    def edits(self, *names: str) -> bool:
        if self.formed:
            return self.wants(*names)
        return any(map(self.replaces, names))

    def replaces(self, name: str) -> bool:
        return self.prefix + name in self.replacements


def match_names(patterns: str | Iterable[str], known: Iterable[str]) -> list[str]:
    """The known tap names that shell-style patterns ("layers.*.attn.pattern") select, in the network's order.

    Raises:
        ConfigError: a pattern selects nothing; near matches are named.
    """
    names = dict.fromkeys(known)  # in order
    chosen: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        # a name is the pattern of itself, and hundreds of them need not be compared with each other
        found = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise ConfigError(unknown("activation", pattern, names))
        chosen.update(found)
    return [name for name in names if name in chosen]
