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


class _Usage(ctypes.Structure):
    """What mallinfo2 tells, of all arenas."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def give_back(above: int = 1 << 28) -> bool:
    """Give freed memory back to the system where more than so many bytes of it are kept; True where that was done.

    Blocks of many sizes that come and go beside others that stay leave holes that fit nothing later, and more so in
    threads, each of which has heaps of its own. Only glibc is told; see `keep_freed_memory`.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        usage, trim = libc.mallinfo2, libc.malloc_trim
    except (OSError, AttributeError):
        return False
    usage.restype = _Usage
    return usage().fordblks > above and bool(trim(0))
