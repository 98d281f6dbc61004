"""A page that opens offline: results, and the studio's own pictures of them, in one file that asks for nothing.

Its script and style are built from studio/src/saved (studio/build_backend.py). An install that could not build them
writes the pictures of the terminal into the page instead, which need no script.

Shapes: L layers, H heads, T queries, S keys.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from cutaway.interp.receipt import Receipt

if TYPE_CHECKING:
    from rich.console import RenderableType

ATTENTION_BYTES = 8 * 2**20  # of patterns that a page holds; of a longer text it shows the last tokens
STEPS = 2**16  # of an attention weight in a page: rounded so, it packs into two bytes
WIDTH = 110  # characters of the terminal's pictures
LEVEL = 4  # of packing: a long text's patterns take seconds at the highest
MISSING = (
    "These are the terminal's pictures: those of the studio could not be built when Cutaway was installed. Run 'python "
    "studio/build_backend.py' in Cutaway's source folder, which says what it lacks, and install Cutaway again."
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{policy}}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{title}} · Cutaway</title>
<style>{{style}}</style>
</head>
<body>
{{body}}
</body>
</html>
"""
DRAWN = """<main id="page"></main>
<noscript>This page draws its pictures with a script of its own; nothing is loaded from elsewhere. \
Allow scripts to see them.</noscript>
<script type="application/octet-stream" id="data">{{data}}</script>
<script>{{script}}</script>"""
PRINTED = """<main><p>{{missing}}</p>
<pre>{{picture}}</pre></main>"""
PRINTED_STYLE = """:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:24px}
pre{font:13px/1.25 ui-monospace,"DejaVu Sans Mono",monospace;overflow-x:auto}
"""


def page(
    parts: Sequence[Mapping[str, Any]], shown: RenderableType, *, title: str = "", receipt: Receipt | None = None
) -> str:
    """The page of some results.

    A content security policy in it forbids every request, and every script but its own.

    Args:
        parts: from top to bottom; each says which `picture` draws it, and holds what that draws (`Result.page_data`).
        shown: what a terminal prints of the same, for an install without the built pictures.
        title: of the window.
        receipt: of all of it, below.
    """
    from cutaway import __version__
    from cutaway.interp.pictures.wire import packed  # it knows what results are

    title = html.escape(" ".join(title.split()) or "A look inside")
    script, style = (_built().joinpath(name) for name in ("page.js", "page.css"))
    if not (script.is_file() and style.is_file()):
        return _printed(shown, title)
    held = {"version": __version__, "parts": parts, "receipt": receipt}
    data = base64.b64encode(zlib.compress(packed(held, whole=2**62), LEVEL)).decode()
    return _filled(title, style.read_text("utf-8"), DRAWN, data=data, script=script.read_text("utf-8"))


def last(patterns: Float[Tensor, "L H T S"], *, causal: bool) -> tuple[Float[Tensor, "L H T S"], int]:
    """The part of attention patterns that a page has room for, and how many queries before it are left out.

    Of a long text the last queries are kept, of causal attention with them the last keys; weights are rounded to
    steps of 1/65536.
    """
    layers, heads, length, width = patterns.shape
    rows, columns = last_kept(layers, heads, length, width, causal=causal)
    kept = patterns[:, :, length - rows :, width - columns :].float()
    return (kept * STEPS).round() / STEPS, length - rows


def last_kept(layers: int, heads: int, length: int, width: int, *, causal: bool) -> tuple[int, int]:
    """How many last rows and columns of patterns a page has room for."""
    room = ATTENTION_BYTES // (2 * layers * heads)  # numbers of one head
    if causal:  # about n²/2: what is zero takes no room
        kept = min(length, max(1, math.isqrt(2 * room) - 1))
        return kept, kept
    return min(length, max(1, room // width)), width


def _printed(shown: RenderableType, title: str) -> str:
    """The terminal's pictures as a page."""
    from rich.console import Console

    how: dict[str, Any] = {"color_system": "truecolor", "force_terminal": True, "legacy_windows": False}
    console = Console(file=io.StringIO(), record=True, width=WIDTH, **how)
    console.print(shown)
    marked = console.export_html(code_format="{stylesheet}\0{code}")
    style, _, picture = marked.partition("\0")
    return _filled(title, PRINTED_STYLE + style, PRINTED, missing=html.escape(MISSING), picture=picture)


def _filled(title: str, style: str, body: str, **texts: str) -> str:
    policy = f"default-src 'none'; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    if "script" in texts:
        policy += f"; script-src '{_hash(texts['script'])}'"
    whole = {"title": title, "style": style, "policy": policy, "body": _put(body, texts)}
    return _put(PAGE, whole)


def _put(template: str, texts: Mapping[str, str]) -> str:
    return re.sub(r"\{\{([a-z]+)\}\}", lambda match: texts[match[1]], template)


def _built() -> Traversable:
    return resources.files("cutaway.interp.pictures").joinpath("static")


def _hash(text: str) -> str:
    """What a content security policy knows an inline element by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
