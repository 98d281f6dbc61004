"""Is it alive, and does it answer yet?"""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cutaway.serve.server import server_of

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the program lives. The one page that never asks for a key."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(http: Request) -> Response:
    """Whether requests are answered now: 200, or 503 before the models are loaded and while the server stops."""
    good = server_of(http).ready
    return JSONResponse({"status": "ready" if good else "not ready"}, 200 if good else 503)
