"""Search a folder of documents by words and by meaning: an index on disk, brought up to date in place."""

from cutaway.tasks.search.fusion import Hit, fuse
from cutaway.tasks.search.index import Changes, Index, IndexSettings, build_index, open_index
from cutaway.tasks.search.reasons import Reasons

__all__ = ["Changes", "Hit", "Index", "IndexSettings", "Reasons", "build_index", "fuse", "open_index"]
