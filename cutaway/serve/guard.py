"""What every request meets before any route: host, origin, key, content type, size. What is not allowed is refused."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cutaway.errors import CutawayError
from cutaway.serve.doors import HOST, check_doors
from cutaway.serve.errors import ApiError, as_api_error
from cutaway.serve.keys import ANYONE, Caller, Keys
from cutaway.serve.limits import WRONG, Body, Failures, too_large
from cutaway.serve.settings import Settings
from cutaway.serve.studio.pages import is_page

log = logging.getLogger("cutaway.serve")

OPEN = ("/health",)  # asks for no key
WATCHING = ("/metrics", "/ready")  # ask for the scope "metrics", everything else for "infer"
ONCE = ("host", "origin", "authorization", "content-type", "content-length", "content-encoding")
UPLOADS = re.compile(r"/v1/audio/[a-z]+")  # where a recording comes as a form, and nothing else does
JSON = re.compile(r'application/json *(; *charset="?utf-8"?)?', re.I)
FORM = re.compile(r'multipart/form-data *; *boundary=[\w\'()+,./:=?" -]{1,72}', re.I | re.A)
AROUND = 64 << 10  # bytes of a form beside the recording
NAMES = re.compile(r"[A-Za-z0-9-]{1,64}(, *[A-Za-z0-9-]{1,64}){0,30}")  # of headers
ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
TOLD = ", ".join(
    ["x-request-id", "retry-after"]
    + [f"x-ratelimit-{part}-{what}" for what in ("requests", "tokens") for part in ("limit", "remaining", "reset")]
)


class Guard:
    """Lets in what may come in (pure ASGI: nothing is buffered, streams pass as they are).

    Args:
        app: what is guarded.
        settings: whom to let in.

    Attributes:
        failures: wrong keys, by address.
        pause: how whoever guesses is made to wait.

    Raises:
        ConfigError: see `check_doors`.
        InputError: the file of keys cannot be used.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self.keys = Keys(settings.keys) if settings.keys is not None else None
        self.failures = Failures()
        self.pause: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.hosts = check_doors(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        body = Body(receive, self.settings.idle, max(self.settings.idle, self.settings.deadline))
        answer = _Answer(send, body)
        try:
            headers = _read(scope)
            self._check_host(scope, headers)
            if self._check_origin(scope, headers, answer.fields):
                await answer({"type": "http.response.start", "status": 204, "headers": []})
                await answer({"type": "http.response.body", "body": b""})
                return
            body.whole = _bodiless(headers)
            scope["caller"] = await self._caller(scope, headers, answer.fields)
            body.most = self._room(scope, headers)
            await self.app(scope, body.receive, answer)
        except Exception as error:
            if answer.status:
                raise
            await answer.fail(as_api_error(error))

    def _check_host(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """A page of another site may have a name that leads here (DNS rebinding); its requests bear that name."""
        if "host" not in headers:
            raise ApiError(400, "a request needs a Host header", code="no_host")
        found = HOST.fullmatch(headers["host"].lower())
        if found is None or (found[1] not in self.hosts and found[1] != _address(scope.get("server"))):
            message = "the Host header names another server than this; names are given at the start, with --allow-host"
            raise ApiError(421, message, code="unknown_host")

    def _check_origin(self, scope: Scope, headers: Mapping[str, str], fields: dict[str, str]) -> bool:
        """Whether this only asks what a page may ask for, which is answered here."""
        if self.settings.origins:
            fields["vary"] = "Origin"
        origin = headers.get("origin")
        if origin is None or origin.lower() in (
            f"{scheme}://{headers['host'].lower()}" for scheme in ("http", "https")
        ):
            return False
        if origin not in self.settings.origins:
            message = "pages of this origin may not use the server; --allow-origin names those that may"
            raise ApiError(403, message, code="unknown_origin")
        fields["access-control-allow-origin"] = origin
        fields["access-control-expose-headers"] = TOLD
        asked = headers.get("access-control-request-headers", "authorization, content-type")
        if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
            return False
        fields["access-control-allow-methods"] = "GET, POST"
        fields["access-control-allow-headers"] = asked if NAMES.fullmatch(asked) else "authorization, content-type"
        fields["access-control-max-age"] = "600"
        return True

    async def _caller(self, scope: Scope, headers: Mapping[str, str], fields: dict[str, str]) -> Caller:
        if self.settings.studio is not None and is_page(scope["path"]):
            return ANYONE
        if self.settings.token is not None:
            shown = headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
            if not hmac.compare_digest(shown, self.settings.token.encode()):
                message = "the studio's token is needed: open the address that it printed when it was started"
                raise ApiError(401, message, code="missing_token")
            return ANYONE
        if self.keys is None or scope["path"] in OPEN:
            return ANYONE
        caller = await self._holder(_address(scope.get("client")), headers)
        needed = "metrics" if scope["path"] in WATCHING else "infer"
        if needed not in caller.scopes:
            message = f"the key {caller.name} has not the scope {needed!r} that this page asks for"
            raise ApiError(403, message, code="missing_scope")
        if caller.meter is not None and needed == "infer":
            full = caller.meter.full()
            if full is None and caller.meter.requests is not None:
                caller.meter.requests.spend(1)
            fields.update(caller.meter.headers())
            if full is not None:
                message = f"the key {caller.name} may use {full[0]}, which it has; try again in {full[1]:.0f} s"
                raise ApiError(429, message, code="rate_limit_exceeded", retry=full[1])
        return caller

    async def _holder(self, address: str, headers: Mapping[str, str]) -> Caller:
        """Whose key a request bears."""
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secret.strip():
            raise ApiError(401, "a key is needed: Authorization: Bearer sk-cutaway-…", code="missing_api_key")
        crowd: ApiError | None = None
        if self.failures.many(address):
            try:
                self.failures.enter(address)
            except ApiError as error:
                crowd = error  # for wrong keys alone: else one who guesses shuts out all who come from where he does
            else:
                try:
                    await self.pause(1.0)
                finally:
                    self.failures.leave(address)
        try:
            caller = self.keys.find(secret.strip().encode("latin-1")) if self.keys is not None else None
        except (CutawayError, OSError) as error:
            log.error("nobody is let in, for the keys cannot be read: %s", error)
            raise ApiError(503, "keys cannot be checked now; the server's log says why", retry=10) from None
        if caller is None and crowd is not None:
            raise crowd
        if caller is None:
            wrong = self.failures.add(address)
            if wrong <= WRONG:
                slowed = "; who comes from there waits a second for a minute" if wrong == WRONG else ""
                log.warning("a wrong key came from %s, the %d. in this minute%s", address, wrong, slowed)
            raise ApiError(401, "this key is none of this server's, or no longer", code="invalid_api_key")
        return caller

    def _room(self, scope: Scope, headers: Mapping[str, str]) -> int:
        """Bytes that the body may have."""
        kind = headers.get("content-type", "")
        if _bodiless(headers) and not kind:  # which no route takes for more than it is
            return 0
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(415, "bodies that are packed are not taken; send it as it is, without Content-Encoding")
        form = UPLOADS.fullmatch(scope["path"]) is not None
        if not (FORM if form else JSON).fullmatch(kind):
            needed = "multipart/form-data" if form else "application/json"
            raise ApiError(415, f"the body must be {needed}, and its Content-Type must say so", code="content_type")
        most = self.settings.max_audio + AROUND if form else self.settings.max_body
        if int(headers.get("content-length", "0")) > most:
            raise too_large(most)
        return most


class _Answer:
    """What is sent back, with the headers that every answer has; what was wrong with the body goes before anything."""

    def __init__(self, send: Send, body: Body) -> None:
        self._send, self._body = send, body
        self._replaced = False
        self.fields = {**ALWAYS, "x-request-id": uuid.uuid4().hex}
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """For the application to call."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            if self._body.fault is not None:
                await self.fail(self._body.fault)
                return
            self.status = message["status"]
            headers = [*message.get("headers", ())]
            own = {name.lower() for name, _ in headers}
            added = [(name.encode(), value.encode("latin-1")) for name, value in self.fields.items()]
            message = {**message, "headers": headers + [pair for pair in added if pair[0] not in own]}
        await self._send(message)

    async def fail(self, error: ApiError) -> None:
        """Answer with an error; a body that has not been read goes with its connection."""
        content = error.content
        fields = {"content-type": "application/json", "content-length": str(len(content)), **error.headers}
        if not self._body.whole:
            fields["connection"] = "close"
        headers = [(name.encode(), value.encode("latin-1")) for name, value in {**self.fields, **fields}.items()]
        self.status, self._replaced = error.status, True
        await self._send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})


def _read(scope: Scope) -> dict[str, str]:
    """Headers by name; one that says who asks or what comes may be there once."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in found and name in ONCE:
            raise ApiError(400, f"the request has two headers {name}", code="duplicate_header")
        found[name] = value.decode("latin-1").strip()
    if "content-length" in found and ("transfer-encoding" in found or not found["content-length"].isdecimal()):
        raise ApiError(400, "the request's length cannot be told", code="bad_length")
    return found


def _bodiless(headers: Mapping[str, str]) -> bool:
    return "transfer-encoding" not in headers and int(headers.get("content-length", "0")) == 0


def _address(pair: tuple[str, int | None] | None) -> str:
    """An address as a Host header writes it."""
    host = (pair or ("", 0))[0].removeprefix("::ffff:")
    return f"[{host}]" if ":" in host else host
