"""How much memory things take: a source before it is opened, a model when it is, the program, a request.

What is stated here bounds what the process takes up (its resident set), and a test holds it to that.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cutaway.generation.reading import LIMIT
from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.models.model import GGUF_FILE, checkpoints
from cutaway.models.quantised import blocks_in, floats_in
from cutaway.serve.settings import Settings

WORD = 1100  # bytes of an entry of a vocabulary, with its merges, in all tables that are made of it
PACKED = 1.07  # blocks as the native kernels pack them, over what they are in a file
BODY = 4  # what a body of JSON becomes, over its bytes
NUMBERS = 8.0  # float32 over blocks
LEAST = 16 << 20  # bytes of keys and values that every model gets
ROWS = 1024  # tokens of prompts in a step of the engine, at the most


@dataclass(frozen=True)
class Sizes:
    """What one model takes, in bytes.

    Attributes:
        weights: with the tables of its tokenizer.
        pages: keys and values at the most.
        work: space that a step computes in, at the most.
    """

    weights: int
    pages: int
    work: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.pages + self.work


def spoken(bytes: float) -> str:
    """A size to be read.

    >>> spoken(4_200_000_000), spoken(98_500_000)
    ('4.2 GB', '98 MB')
    """
    return f"{bytes / 1e9:.1f} GB" if bytes >= 1e9 else f"{bytes / 1e6:.0f} MB"


def estimated(path: Path, *, native: bool, dequantise: bool) -> int:
    """Bytes that a model's weights and tokenizer will take, told from its files; 0: there are none yet.

    Args:
        path: what `load_model` opens.
        native: whether native kernels compute it.
        dequantise: whether numbers are made of blocks.
    """
    if path.is_dir() and (found := checkpoints(path)):
        path = found[0]
    files = [path] if path.is_file() else [*path.glob("*.safetensors")] or [*path.glob(f"*{GGUF_FILE}")][:1]
    on_disk = sum(file.stat().st_size for file in files)
    if not files or files[0].suffix != GGUF_FILE:
        return on_disk
    return int(on_disk * (PACKED if native and not dequantise else NUMBERS if dequantise else 1))


def weights(model: Model, *, native: bool) -> int:
    """Bytes of an opened model's weights, with the tables of its tokenizer."""
    numbers = _bytes([*floats_in(model.network).values(), *model.network.buffers()])
    blocks = _bytes([kept.data for kept in blocks_in(model.network).values()])
    return int(numbers + blocks * (PACKED if native else 1)) + WORD * model.tokenizer.vocab_size


def work(model: Model, max_batch: int, *, native: bool) -> int:
    """Bytes that a step computes in, at the most: buffers of its rows, and the logits of those that are wanted."""
    config = model.config
    width, hidden = getattr(config, "width", 1024), getattr(config, "mlp_width", None) or 4096
    rows = ROWS + 4 * max_batch if isinstance(model.network, Decoder) else LIMIT
    each = 4 * (12 * width + 4 * hidden)  # a row's buffers, float32
    logits = 4 * config.vocab_size * max_batch * 6  # and what drawing makes of them
    return rows * each * (1 if native else 3) + logits


def token_bytes(model: Model, cache: str, *, native: bool) -> int:
    """Bytes of the keys and values of a token; 0 of a network that keeps none in pages."""
    config, blocks = model.config, blocks_in(model.network)
    if not isinstance(config, DecoderConfig) or config.head != "causal_lm":
        return 0
    auto = 2 if native and blocks else 4
    number = {"float32": 4.0, "float16": 2.0, "int8": 1.25}.get(cache, auto)  # int8 with its scales
    return int(2 * config.layers * config.kv_heads * config.head_dim * number)


def for_requests(settings: Settings) -> int:
    """Bytes that requests take which are read or answered, as they come in and as what they say."""
    return BODY * settings.max_bodies


def _bytes(tensors: list[Tensor]) -> int:
    """Of all of them, each memory once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def resident() -> int:
    """Bytes that this process takes up now; 0 where that cannot be told."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def give_back() -> None:
    """Return to the system what is free, which the C library keeps otherwise."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def forget_file(model: Model) -> None:
    """Let go of pages of a model's file that were read once, and were packed; they can be read again."""
    if not hasattr(mmap, "MADV_DONTNEED") or not sys.platform.startswith("linux"):
        return
    spans = _mapped_files()
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for kept in blocks_in(model.network).values():
        for start, end in spans:  # never memory of our own, which would be lost
            if start <= kept.data.data_ptr() < end:
                advise(start, end - start, mmap.MADV_DONTNEED)
                spans.remove((start, end))
                break


def _mapped_files() -> list[tuple[int, int]]:
    """Where files lie that can be read only."""
    found = []
    for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
        place, rights, _, _, number, *_ = line.split(maxsplit=5)
        if rights.startswith("r--") and number != "0":
            start, _, end = place.partition("-")
            found.append((int(start, 16), int(end, 16)))
    return found
