"""Published architectures: one small file each, plain data that is read in both directions."""

from typing import TYPE_CHECKING, Any

from cutaway.models.families._family import Family, Keys, Place, Rule, read_places, write_places

if TYPE_CHECKING:
    from cutaway.models.families.known import FAMILIES as FAMILIES

__all__ = ["FAMILIES", "Family", "Keys", "Place", "Rule", "read_places", "write_places"]


def __getattr__(name: str) -> Any:
    if name == "FAMILIES":  # loaded when it is first used: GGUF files have a table of their own
        from cutaway.models.families.known import FAMILIES

        return FAMILIES
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
