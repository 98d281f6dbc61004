"""Recordings on disk: memory-mapped files with a manifest, for what does not fit in memory."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cutaway.errors import DamagedFile, InputError
from cutaway.files import inside, read_json, write_json

MANIFEST = "recording.json"
DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
}


class Spill(Mapping[str, Tensor]):
    """Tensors by name, each a file that is mapped into memory: reading one page of it reads no more.

    Args:
        folder: where to; None: a temporary one, removed when nothing holds this any longer.
        needed: bytes, for which there must be room.

    Raises:
        InputError: the disk has no room, or the folder holds something already.
    """

    def __init__(self, folder: Path | None, needed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cutaway-recording-")) if folder is None else folder
        if folder is None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()):
            raise InputError(f"{self.folder} holds something already; name a new folder with spill=")
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise InputError(
                f"the recording takes {needed / 2**20:,.0f} MB, but the disk has {free / 2**20:,.0f} MB left; shorten "
                "the text, name fewer activations, or name another folder with spill="
            )
        self._values: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Write one tensor."""
        mapped = _mapped(self.folder / f"{name}.bin", value.dtype, tuple(value.shape), writing=True)
        mapped.copy_(value)
        self._values[name] = mapped

    def close(self, ids: Tensor, source: str) -> None:
        """Write the manifest, without which the files mean nothing."""
        shapes = {
            name: {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
            for name, value in self._values.items()
        }
        write_json(self.folder / MANIFEST, {"model": source, "ids": ids.tolist(), "activations": shapes})

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def open_spill(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of a recording that was spilled to a folder of its own, memory-mapped.

    Raises:
        DamagedFile: a manifest that states no tensors, or a file that does not hold what it states.
    """
    folder = Path(folder)
    stated = read_json(folder / MANIFEST)
    found = stated.get("activations") if isinstance(stated, dict) else None
    if not isinstance(found, dict):
        raise DamagedFile(f"{folder / MANIFEST} names no activations")
    values = {}
    for name, about in found.items():
        try:
            dtype, shape = DTYPES[about["dtype"]], tuple(int(size) for size in about["shape"])
        except (KeyError, TypeError, ValueError):
            raise DamagedFile(f"{folder / MANIFEST}: {name} has no shape and dtype") from None
        path = inside(folder, f"{name}.bin")
        if min(shape, default=0) < 0 or path.stat().st_size != math.prod(shape) * dtype.itemsize:
            raise DamagedFile(f"{path} does not hold {' x '.join(map(str, shape))} numbers of {about['dtype']}")
        values[name] = _mapped(path, dtype, shape, writing=False)
    return values


def _mapped(path: Path, dtype: torch.dtype, shape: tuple[int, ...], *, writing: bool) -> Tensor:
    size = math.prod(shape)
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.from_file(str(path), shared=writing, size=size, dtype=dtype).view(shape)
