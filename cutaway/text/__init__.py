"""Raw material -> clean documents: readers, cleaning, duplicates, splits. Names are loaded when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cutaway.text.documents import Document as Document
    from cutaway.text.readers import READERS as READERS
    from cutaway.text.readers import Limits as Limits
    from cutaway.text.readers import Part as Part
    from cutaway.text.readers import Skipped as Skipped
    from cutaway.text.readers import find as find
    from cutaway.text.readers import read as read
    from cutaway.text.readers import read_part as read_part

_HOME = {"Document": "cutaway.text.documents"} | dict.fromkeys(
    ("READERS", "Limits", "Part", "Skipped", "find", "read", "read_part"), "cutaway.text.readers"
)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
