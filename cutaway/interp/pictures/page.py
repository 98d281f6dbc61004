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
    style, script = _asset("page.css"), _asset("page.js")
    filled = {
        "title": html.escape(title or "A look inside"),
        "style": style,
        "script": script,
        "style-hash": _hash(style),
        "script-hash": _hash(script),
        "data": data,
    }
    return re.sub(r"\{\{([a-z-]+)\}\}", lambda match: filled[match[1]], _asset("page.html"))


def packed(patterns: Tensor) -> dict[str, Any]:
    """Attention patterns, (L, H, T, T), for the page: steps of 1/65535 from 0 to 1, rows cut at the diagonal.

    Layer by layer, head by head, row by row; two bytes each, little endian, in base64.
    """
    layers, heads, length, _ = patterns.shape
    room = ATTENTION_BYTES // (2 * layers * heads)  # numbers of one triangle, about n²/2
    kept = min(length, max(1, math.isqrt(2 * room) - 1))
    rows, columns = torch.tril_indices(kept, kept)
    numbers = patterns[:, :, length - kept :, length - kept :].cpu()[:, :, rows, columns]
    steps = (numbers.double() * 65535).round().contiguous().numpy().astype("<u2")
    return {
        "layers": layers,
        "heads": heads,
        "first": length - kept,
        "steps": base64.b64encode(steps.tobytes()).decode(),
    }


def _asset(name: str) -> str:
    return resources.files("cutaway.interp.pictures").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    """What a content security policy knows an inline element by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
