"""Memory that a step frees is kept for the next step."""

import ctypes
import functools
import sys

# mallopt's names for its settings, from malloc.h
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3


@functools.cache  # it holds for the process from then on
def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of giving them back; True where it listens.

    A training step frees and asks again for the same tensors of many megabytes. By default each goes back to the system
    and is paged in anew, zeroed, at every step, which costs a tenth of a small model's step, or of a recording. Up to
    1 GB is kept. Other allocators (musl, macOS, Windows) keep to their own ways.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    large = 1 << 30
    return all(
        mallopt(name, value) for name, value in ((MMAP_THRESHOLD, large), (TRIM_THRESHOLD, large), (TOP_PAD, 64 << 20))
    )
