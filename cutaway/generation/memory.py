"""How much memory there is, and what a model and its keys and values take of it."""

from __future__ import annotations

import os
from pathlib import Path


def available_bytes() -> int:
    """Memory that could be had now without pushing anything out; where the system does not say, half of all."""
    try:
        for line in Path("/proc/meminfo").read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (OSError, ValueError, AttributeError):
        return 4 << 30
