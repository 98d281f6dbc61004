"""Finds the native library, loads it and chooses its instruction set.

Nothing is loaded before it is asked for. The library is one file, `libcutaway_native`, without any Python in it; it is
in this package's folder, where the installation put it, or where CUTAWAY_NATIVE says. CUTAWAY_KERNELS names an
instruction set to use instead of the best one that the processor has, or "torch" for no native code at all.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

from cutaway.errors import ConfigError, unknown

SETS = ("avx512-vnni", "avx2-vnni", "avx2", "neon", "portable")
NAME = "libcutaway_native" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
POINTER, INT, LONG = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
# name -> what it returns, what it takes; native/src/matrix_c.h says what they do
MATRIX_FUNCTIONS = {
    "ctw_instruction_set": (ctypes.c_char_p, ()),
    "ctw_choose_instruction_set": (INT, (ctypes.c_char_p,)),
    "ctw_pack": (POINTER, (INT, POINTER, LONG, LONG, INT)),
    "ctw_release": (None, (POINTER,)),
    "ctw_packed_bytes": (LONG, (POINTER,)),
    "ctw_decode_row": (None, (POINTER, LONG, POINTER)),
    "ctw_matmul": (INT, (POINTER, POINTER, LONG, INT, POINTER, INT)),
}


def find() -> Path | None:
    """The library's file: what CUTAWAY_NATIVE names, else in this package's folders; None where there is none.

    Raises:
        ConfigError: CUTAWAY_NATIVE names a file that does not exist.
    """
    if named := os.environ.get("CUTAWAY_NATIVE"):
        if not Path(named).is_file():
            raise ConfigError(f"CUTAWAY_NATIVE names {named!r}, which is no file; build it with: make native")
        return Path(named).resolve()
    from cutaway.generation import native

    folders = map(Path, native.__path__)  # an editable installation has two: the sources' and its own
    return next((folder / NAME for folder in folders if (folder / NAME).is_file()), None)


@cache
def load() -> ctypes.CDLL:
    """The library with its functions declared and its instruction set chosen.

    Raises:
        ConfigError: there is no library, it does not load, or CUTAWAY_KERNELS asks for what it cannot do.
    """
    path = find()
    if path is None:
        raise ConfigError(
            "Cutaway was installed without its native kernels, as no C++17 compiler was found then; install one and "
            "Cutaway again, or leave the choice of kernels to Cutaway"
        )
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in MATRIX_FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise ConfigError(f"the native kernels in {path} cannot be used: {error}; install Cutaway again") from error
    asked = _asked()
    if asked in SETS and not library.ctw_choose_instruction_set(asked.encode()):
        raise ConfigError(
            f"CUTAWAY_KERNELS asks for {asked!r}, which this processor or this build does not have; best here: "
            f"{library.ctw_instruction_set().decode()}"
        )
    return library


def instruction_set() -> str:
    """Which the loaded library uses."""
    return load().ctw_instruction_set().decode()


def available() -> tuple[bool, str]:
    """Whether the native kernels compute, and why (not), in half a sentence.

    Raises:
        ConfigError: what the environment asks for does not exist here.
    """
    asked = _asked()
    if asked == "torch":
        return False, "CUTAWAY_KERNELS asks for torch"
    if not asked and find() is None:
        return False, "Cutaway was installed without a C++17 compiler; install one and Cutaway again"
    load()
    return True, "CUTAWAY_KERNELS asks for them" if asked else "the best that this processor has"


def _asked() -> str:
    """What CUTAWAY_KERNELS says; "" for nothing."""
    asked = os.environ.get("CUTAWAY_KERNELS", "")
    if asked and asked not in (*SETS, "torch"):
        raise ConfigError("CUTAWAY_KERNELS: " + unknown("instruction set", asked, (*SETS, "torch")))
    return asked
