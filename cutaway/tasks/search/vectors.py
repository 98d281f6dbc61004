"""Search by meaning: the vectors nearest to a question's, exactly; over very many by a graph (usearch's HNSW).

Shapes: N passages, E channels of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cutaway.errors import ConfigError, DamagedFile, need
from cutaway.files import holds, inside
from cutaway.generation import Engine
from cutaway.progress import OnProgress, Progress
from cutaway.tasks.search.store import load_array

VECTORS, GRAPH = "vectors.npy", "graph.usearch"
AT_ONCE = 1024  # texts that are read before progress is told
PROBE = "A cutaway drawing shows a machine at work with its casing off."  # tells whether a model is the same
ALIKE = 0.98  # cosine of the probe's vectors, below which another model is at work


def embedded(engine: Engine, texts: Sequence[str], progress: OnProgress | None = None) -> Float[np.ndarray, "N E"]:
    """A vector of length 1 for each text, (N, E) float32.

    Args:
        engine: of a model that embeds.
        texts: none of them empty.
        progress: told now and then.
    """
    made: list[np.ndarray] = []
    for start in range(0, len(texts), AT_ONCE):
        rows = engine.embed(list(texts[start : start + AT_ONCE])).float().numpy()
        made.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
        if progress:
            progress(Progress("embedding", min(start + AT_ONCE, len(texts)), len(texts), "passages"))
    return np.concatenate(made).astype(np.float32) if made else np.zeros((0, 0), np.float32)


def check_same(engine: Engine, probe: Sequence[float], what: str) -> None:
    """Refuse a model whose vectors are not those of an index.

    Raises:
        ConfigError: says so.
    """
    found = embedded(engine, [PROBE])[0]
    if len(found) != len(probe) or float(found @ np.array(probe, np.float32)) < ALIKE:
        raise ConfigError(f"{what} makes other vectors than the model with which the index was built; build it again")


class VectorIndex:
    """The vectors of passages.

    Args:
        matrix: (N, E) float32, each of length 1.
        graph: a usearch index over its rows; None: all are compared.
    """

    def __init__(self, matrix: Float[np.ndarray, "N E"], graph: Any = None) -> None:
        self.matrix, self.graph = matrix, graph

    @classmethod
    def of(cls, matrix: Float[np.ndarray, "N E"], *, graph: bool) -> VectorIndex:
        """Index vectors, with a graph or without."""
        if not graph or not len(matrix):
            return cls(matrix)
        made = need("usearch.index", "search", "search among very many vectors").Index(
            ndim=matrix.shape[1], metric="ip", dtype="f32", connectivity=32, expansion_add=200, expansion_search=200
        )
        made.add(np.arange(len(matrix)), np.ascontiguousarray(matrix), threads=1)
        return cls(matrix, made)

    def nearest(self, vector: Float[np.ndarray, " E"], count: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the nearest passages, the nearest first, and their cosines.

        Args:
            vector: of length 1.
            count: how many.
        """
        count = min(count, len(self.matrix))
        if not count:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        if self.graph is None:
            cosines = self.matrix @ vector
            some = np.argpartition(-cosines, count - 1)[:count]
        else:
            some = np.asarray(self.graph.search(vector, count).keys).astype(np.int64)
            cosines = np.zeros(len(self.matrix), np.float32)
            cosines[some] = self.matrix[some] @ vector
        order = some[np.lexsort((some, -cosines[some]))]
        return order, cosines[order]

    def save(self, folder: Path) -> None:
        """Write the vectors, and the graph where there is one."""
        np.save(folder / VECTORS, self.matrix, allow_pickle=False)
        if self.graph is not None:
            self.graph.save(str(folder / GRAPH))

    @classmethod
    def load(cls, folder: Path, passages: int) -> VectorIndex:
        """Read what `save` wrote; vectors stay on the disk until they are compared.

        Raises:
            DamagedFile: it is not that.
        """
        matrix = load_array(folder, VECTORS, np.float32, 2)
        if len(matrix) != passages:
            raise DamagedFile(f"{folder / VECTORS} is of other passages; build the index again")
        graph = None
        if holds(folder, GRAPH):
            library = need("usearch.index", "search", "search among very many vectors")
            graph = library.Index.restore(str(inside(folder, GRAPH)))
            if graph is None or len(graph) != passages or graph.ndim != matrix.shape[1]:
                raise DamagedFile(f"{folder / GRAPH} is of other passages; build the index again")
        return cls(matrix, graph)
