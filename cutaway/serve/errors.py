"""What goes wrong, as OpenAI's clients expect to be told: {"error": {"message", "type", "param", "code"}} and a status.

A message is one of ours, written for whoever sent the request. Nothing of the program's inside stands in one: no path,
address, traceback or class.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect

from cutaway.errors import Closed, ConfigError, CutawayError, DamagedFile, InputError, MissingExtra, NonFinite

log = logging.getLogger("cutaway.serve")

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    411: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    501: "not_supported_error",
    503: "overloaded_error",
    504: "timeout_error",
}
OURS = "something went wrong inside; the server's log says what"


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: one sentence: what was given, what was expected, what to do.
        code: a word for programs, such as model_not_found.
        param: the parameter that is to blame.
        retry: seconds after which it may be tried again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry = status, message, code, param, retry

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI's API shapes it."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def content(self) -> bytes:
        """The body as JSON."""
        return json.dumps(self.body, ensure_ascii=False).encode("utf-8", "replace")

    @property
    def headers(self) -> Mapping[str, str]:
        """Those that say when to try again, or how to identify oneself."""
        made = {"retry-after": str(max(1, math.ceil(self.retry)))} if self.retry is not None else {}
        return {**made, "www-authenticate": "Bearer"} if self.status == 401 else made


def as_api_error(error: BaseException) -> ApiError:
    """What a request is answered with that failed with this; what is our own bug goes to the log, not to the caller."""
    match error:
        case ApiError():
            return error
        case ClientDisconnect():
            return ApiError(499, "the client has gone", code="cancelled")
        case NonFinite():
            return ApiError(500, str(error), code="non_finite")
        case MissingExtra():
            return ApiError(501, str(error), code="missing_extra")
        case DamagedFile():  # it names a place on this machine
            log.error("%s", error)
            return ApiError(500, "a file that is needed for it is damaged; the server's log says which", code="damaged")
        case InputError() | ConfigError():
            return ApiError(400, str(error), code=_code(error))
        case Closed():
            return ApiError(503, "the model was unloaded meanwhile; try again", code="model_unavailable", retry=1)
        case CutawayError():
            return ApiError(500, str(error))
        case MemoryError():
            return ApiError(503, "there is not enough memory for this request now; try a shorter one", retry=10)
    log.error("a request failed", exc_info=error)
    return ApiError(500, OURS, code="internal_error")


def _code(error: CutawayError) -> str | None:
    text = str(error)
    return "context_length_exceeded" if "tokens" in text and ", but this model" in text else None
