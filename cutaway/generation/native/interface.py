"""The structures and functions of native/src/cutaway.h, field by field; what they mean stands there."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_float, c_int32, c_int64, c_void_p
from enum import IntEnum
from functools import cache

from cutaway.errors import ConfigError
from cutaway.generation.native import library


class Kind(IntEnum):
    """Of an operation."""

    EMBED = 0
    NORM = 1
    ADD = 2
    ACTIVATE = 3
    HEADS = 4
    STORE = 5
    ATTEND = 6
    PRODUCT = 7
    TAP = 8
    WANTED = 9
    LOGITS = 10
    EXPERTS = 11


class Operation(ctypes.Structure):
    """`ctw_op`."""

    _fields_ = (
        *((name, c_int32) for name in ("kind", "layer", "choice", "tap", "input", "second", "out", "table")),
        *((name, c_int32) for name in ("input_at", "second_at", "width", "first_matrix", "matrices")),
        *((name, c_int32) for name in ("window", "used", "reserved")),
        *((name, c_float) for name in ("scale", "eps", "cap", "sum_to_one")),
        ("weight", c_void_p),
        ("bias", c_void_p),
    )


class Buffer(ctypes.Structure):
    """`ctw_buffer`."""

    _fields_ = (("width", c_int64), ("product", c_int64))


class PlanOf(ctypes.Structure):
    """`ctw_plan`."""

    _fields_ = (
        *((name, c_int32) for name in ("threads", "rounding", "cache", "layers")),
        *((name, c_int32) for name in ("heads", "kv_heads", "head_dim", "turned")),
        *((name, c_int64) for name in ("vocabulary", "buffers", "ops", "matrices", "tables", "taps")),
        ("buffer", ctypes.POINTER(Buffer)),
        ("op", ctypes.POINTER(Operation)),
        ("matrix", ctypes.POINTER(c_void_p)),
    )


class Shown(ctypes.Structure):
    """`ctw_tap`."""

    _fields_ = (("tap", c_int32), ("sequence", c_int32), ("out", c_void_p))


class Batch(ctypes.Structure):
    """`ctw_batch`."""

    _fields_ = (
        *((name, c_int64) for name in ("rows", "sequences", "wanted", "taps")),
        *((name, c_void_p) for name in ("ids", "span", "pages", "row", "tap", "logits", "best", "log_sum")),
    )


class Part(ctypes.Structure):
    """`ctw_part`."""

    _fields_ = (("matrix", c_int32), ("rank", c_int32), ("a", c_void_p), ("b", c_void_p), ("factor", c_void_p))


VERSION = 1
OTHER = "the native kernels are of another version of Cutaway, so install it again (or build them with: make native)"
ERROR = 512  # bytes of a sentence about what failed
SAID = (c_char_p, c_int64)
FUNCTIONS = {
    "ctw_version": (c_int32, ()),
    "ctw_runner": (c_void_p, (ctypes.POINTER(PlanOf), *SAID)),
    "ctw_end": (None, (c_void_p,)),
    "ctw_page_tokens": (c_int64, ()),
    "ctw_page_bytes": (c_int64, (c_void_p,)),
    "ctw_table": (c_int32, (c_void_p, c_int32, c_void_p, c_int64, c_int64, *SAID)),
    "ctw_reserve": (c_int32, (c_void_p, c_int64, *SAID)),
    "ctw_copy": (c_int32, (c_void_p, c_int64, c_int64, *SAID)),
    "ctw_step": (c_int32, (c_void_p, ctypes.POINTER(Batch), *SAID)),
    "ctw_times": (None, (c_void_p, ctypes.POINTER(c_int64), c_int32)),
    "ctw_adapter": (c_int32, (c_void_p, c_int32, ctypes.POINTER(Part), c_int64, *SAID)),
    "ctw_step_adapted": (c_int32, (c_void_p, ctypes.POINTER(Batch), c_void_p, *SAID)),
}


@cache
def load() -> ctypes.CDLL:
    """The library with these functions declared too.

    Raises:
        ConfigError: there is no library, or it is of another version.
    """
    found = library.load()
    try:
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise ConfigError(f"{OTHER}: {error}") from error
    if (version := found.ctw_version()) != VERSION:
        raise ConfigError(f"{OTHER}: their interface is number {version}, not {VERSION}")
    return found
