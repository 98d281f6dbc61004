"""A form with one file in it, read into memory: no part of it touches the disk, and no name in it is ever opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from cutaway.serve.errors import ApiError

FIELDS, LARGEST = 32, 64 << 10  # of a form, beside its file, and characters of each

Asked = TypeVar("Asked", bound=BaseModel)


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 62  # bytes from which on it would write to the disk


async def read_upload(http: HttpRequest, kind: type[Asked], most: int) -> tuple[Asked, bytes]:
    """What is asked, and the content of the field `file`.

    Args:
        http: the request, whose body is read here.
        kind: what the other fields must be.
        most: bytes of the file.

    Raises:
        ApiError: 400, no form or one without a file; 413, larger than is taken.
        RequestValidationError: fields that are not as they must be.
    """

    large = ApiError(413, f"a recording may have {most:,} bytes here; this one has more", code="too_large")

    async def limited() -> AsyncIterator[bytes]:
        came = 0
        async for part in http.stream():
            came += len(part)
            if came > most + 2 * LARGEST:
                raise large
            yield part

    if "boundary=" not in http.headers.get("content-type", ""):
        raise ApiError(400, "the body must be multipart/form-data, with a recording in its field file")
    parser = _InMemory(
        http.headers,
        limited(),  # pyright: ignore[reportArgumentType]  # a generator
        max_files=1,
        max_fields=FIELDS,
        max_part_size=LARGEST,
    )
    try:
        parts = await parser.parse()
    except MultiPartException as error:
        why = error.message[:100].rstrip(".")
        raise ApiError(400, f"the form cannot be read: {why}", code="invalid_form") from None
    except ClientDisconnect:
        raise ApiError(499, "the client has gone", code="cancelled") from None
    fields: dict[str, Any] = {}
    content = None
    try:
        for name, value in parts.multi_items():
            if isinstance(value, UploadFile):
                given = await value.read()
                if name != "file":
                    raise ApiError(
                        400, f"{name[:64]!r} is a file; the recording stands in the field file", param="file"
                    )
                content = given
            elif name.endswith("[]"):
                fields.setdefault(name, []).append(value)
            elif name in fields:
                raise ApiError(400, f"{name[:64]!r} is given twice", code="invalid_value", param=name[:64])
            else:
                fields[name] = value
    finally:
        await parts.close()  # also where something before the recording is wrong
    if not content:
        raise ApiError(400, "the form has no recording in its field file", code="missing_parameter", param="file")
    if len(content) > most:
        raise large
    try:
        return kind.model_validate(fields), content
    except ValidationError as error:
        raise RequestValidationError(error.errors(), body=fields) from None
