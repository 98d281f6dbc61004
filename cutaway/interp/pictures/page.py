"""A page that opens offline: the template, its style and script, and the data, in one file that asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import torch
from torch import Tensor

SCRIPTS = ("base", "look", "scores", "attention", "lens", "ledger", "matrix", "curve", "table")
SCRIPTS += ("graph", "chances", "task", "main")
ATTENTION_BYTES = 8 * 2**20  # of patterns that a page holds; of a longer text it shows the last tokens


def page(parts: Sequence[tuple[str, Any]], *, title: str = "") -> str:
    """The page of some results.

    A content security policy in it forbids every request, and every script but its own.

    Args:
        parts: which picture, and the data that the scripts draw it from, from top to bottom.
        title: of the window.
    """
    from cutaway import __version__

    # "<" never appears inside the data, so no text can end the element that holds it
    data = json.dumps({"parts": parts, "version": __version__}, ensure_ascii=False, allow_nan=False).replace(
        "<", "\\u003c"
    )
    style, script = _asset("page.css"), "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    filled = {
        "title": html.escape(title or "A look inside"),
        "style": style,
        "script": script,
        "style-hash": _hash(style),
        "script-hash": _hash(script),
        "data": data,
    }
    return re.sub(r"\{\{([a-z-]+)\}\}", lambda match: filled[match[1]], _asset("page.html"))


def packed(patterns: Tensor, *, causal: bool = True) -> dict[str, Any]:
    """Attention patterns, (L, H, T, S), for the page: steps of 1/65535 from 0 to 1.

    Layer by layer, head by head, row by row, of causal ones cut at the diagonal; two bytes each, little endian, in
    base64. Of a long text only the last rows, and of self-attention the last columns, are kept.
    """
    layers, heads, length, width = patterns.shape
    kept, across = last_kept(layers, heads, length, width, causal=causal)
    numbers = patterns[:, :, length - kept :, width - across :].cpu()
    if causal:
        rows, columns = torch.tril_indices(kept, kept)
        numbers = numbers[:, :, rows, columns]
    steps = (numbers.double() * 65535).round().contiguous().numpy().astype("<u2")
    return {
        "layers": layers,
        "heads": heads,
        "first": length - kept,
        "causal": causal,
        "steps": base64.b64encode(steps.tobytes()).decode(),
    }


def last_kept(layers: int, heads: int, length: int, width: int, *, causal: bool) -> tuple[int, int]:
    """How many last rows and columns of patterns a page has room for."""
    room = ATTENTION_BYTES // (2 * layers * heads)  # numbers of one head
    if causal:  # about n²/2
        kept = min(length, max(1, math.isqrt(2 * room) - 1))
        return kept, kept
    return min(length, max(1, room // width)), width


def _asset(name: str) -> str:
    return resources.files("cutaway.interp.pictures").joinpath("assets", name).read_text("utf-8")


def _hash(text: str) -> str:
    """What a content security policy knows an inline element by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
