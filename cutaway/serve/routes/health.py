"""Is it alive, and does it answer yet?"""

from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cutaway.serve.schema.base import Told, errors
from cutaway.serve.server import server_of

router = APIRouter()


class Health(Told):
    """It lives."""

    status: Literal["ok"] = "ok"


class Ready(Told):
    """Whether it answers."""

    status: Literal["ready", "loading", "stopping"]


@router.get("/health")
async def health() -> Health:
    """Whether the program lives. The one page that never asks for a key."""
    return Health()


@router.get("/ready", response_model=Ready, responses={**errors(), 503: {"model": Ready, "description": "not now"}})
async def ready(http: Request) -> Response:
    """Whether requests are answered now: 200, or 503 before the models are loaded and while the server stops."""
    server = server_of(http)
    status = "ready" if server.ready else "stopping" if server.draining else "loading"
    return JSONResponse({"status": status}, 200 if server.ready else 503)
