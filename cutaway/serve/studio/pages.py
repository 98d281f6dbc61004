"""The built pages: one document, and its scripts and styles by names that hold their checksum.

The document's policy lets it load nothing but these, and ask nobody but this server. They tell nothing of any model, so
they are given to whoever asks.
"""

from __future__ import annotations

import mimetypes
import re
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.serve.errors import ApiError

router = APIRouter()
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
NAME = re.compile(r"[A-Za-z0-9_-]{1,80}(\.[A-Za-z0-9]{1,8}){1,2}")
MISSING = (
    "the studio's pages could not be built when Cutaway was installed: run 'python studio/build_backend.py' in "
    "Cutaway's source folder, which says what it lacks, and install Cutaway again"
)


def is_page(path: str) -> bool:
    """Whether a path is one of the pages' files, which are asked for without a token."""
    return path in ("/", "/favicon.svg", "/example.bin") or path.startswith("/assets/")


@router.get("/", include_in_schema=False)
async def index() -> Response:
    """The document."""
    headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
    return Response(_bytes(_folder().joinpath("index.html")), media_type="text/html", headers=headers)


@router.get("/{name}", include_in_schema=False)
async def beside(name: str) -> Response:
    """What stands beside it: the icon, the stored example."""
    if not is_page(f"/{name}"):
        raise ApiError(404, "there is no such page; /openapi.json lists what there is", code="unknown_url")
    return Response(_bytes(_folder().joinpath(name)), media_type=_type(name), headers={"cache-control": "no-cache"})


@router.get("/assets/{name}", include_in_schema=False)
async def asset(name: str, http: HttpRequest) -> Response:
    """A script, a style or a font."""
    if not NAME.fullmatch(name):
        raise ApiError(404, "there is no such file", code="unknown_url")
    plain = _folder().joinpath("assets", name)
    headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
    small = _folder().joinpath("assets", f"{name}.gz")
    if "gzip" in http.headers.get("accept-encoding", "") and small.is_file():
        return Response(_bytes(small), media_type=_type(name), headers={**headers, "content-encoding": "gzip"})
    return Response(_bytes(plain), media_type=_type(name), headers=headers)


def _type(name: str) -> str:
    known = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}
    suffix = f".{name.rpartition('.')[2]}"
    return known.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _folder() -> Traversable:
    return resources.files("cutaway.serve").joinpath("static")


def built() -> bool:
    """Whether the pages were built."""
    return _folder().joinpath("index.html").is_file()


def _bytes(file: Traversable) -> bytes:
    if not file.is_file():
        if not built():
            raise ApiError(501, MISSING, code="not_built")
        raise ApiError(404, "there is no such file", code="unknown_url")
    return file.read_bytes()
