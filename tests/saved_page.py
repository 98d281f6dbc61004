"""What a saved page holds, read back as its script reads it. Not a test file."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DTYPES = {"f4": "<f4", "f8": "<f8", "i4": "<i4", "u1": "<u1"}
SCRIPT, STYLE = "'use strict';", "body{margin:0}"


class Page(HTMLParser):
    """Its elements, and the text inside those that hold some."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self.open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        self.inside[self.open] = self.inside.get(self.open, "") + data

    @property
    def policy(self) -> str:
        """Its content security policy."""
        return next(a["content"] or "" for tag, a in self.elements if tag == "meta" and "http-equiv" in a)

    @property
    def held(self) -> dict[str, Any]:
        """All that its script draws."""
        return unpacked(zlib.decompress(base64.b64decode(self.inside["data"])))

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What it shows, from top to bottom."""
        return self.held["parts"]

    @property
    def pictures(self) -> list[str]:
        """How it shows them."""
        return [part["picture"] for part in self.parts]


def unpacked(data: bytes) -> Any:
    """As studio/src/lib/wire.ts reads it."""
    (size,) = struct.unpack_from("<I", data)
    head = json.loads(data[4 : 4 + size])
    behind = -(-(4 + size) // 8) * 8

    def read(value):
        if isinstance(value, list):
            return [read(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$tensor" not in value:
            return {name: read(item) for name, item in value.items()}
        told = value["$tensor"]
        if told["at"] is None:
            return ("large", told["shape"])
        assert told["at"] % 8 == 0
        count = int(np.prod(told["shape"]))
        return np.frombuffer(data, DTYPES[told["dtype"]], count, behind + told["at"]).reshape(told["shape"])

    return read(head)


def give_script(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of this test hold a script that does nothing, whether or not the real one was built."""
    (folder / "page.js").write_text(SCRIPT, "utf-8")
    (folder / "page.css").write_text(STYLE, "utf-8")
    monkeypatch.setattr("cutaway.interp.pictures.page._built", lambda: folder)
