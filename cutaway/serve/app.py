"""The application: routes, what goes wrong, and the life of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cutaway import __version__
from cutaway.serve.errors import ApiError, as_api_error
from cutaway.serve.guard import Guard
from cutaway.serve.invalid import invalid
from cutaway.serve.routes import ROUTERS
from cutaway.serve.server import Server
from cutaway.serve.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The application, for any ASGI server (`serve` runs it with uvicorn).

    Args:
        settings: models, limits and doors.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        server = app.state.server = Server(settings)
        try:
            yield
        finally:
            server.stop()

    app = FastAPI(title="Cutaway", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ApiError, _failed)
    app.add_exception_handler(ValueError, _failed)  # ours are ValueErrors
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Guard, settings=settings)
    return app


def answer(error: ApiError) -> Response:
    """An error as a response."""
    return Response(error.content, error.status, dict(error.headers), media_type="application/json")


async def _failed(request: Request, error: Exception) -> Response:
    return answer(as_api_error(error))


async def _http(request: Request, error: Any) -> Response:
    if error.status_code == 404:
        return answer(ApiError(404, "there is no such page; /openapi.json lists what there is", code="unknown_url"))
    if error.status_code == 405:
        return answer(ApiError(405, f"this page does not take {request.method}", code="method_not_allowed"))
    return answer(ApiError(error.status_code, "the request could not be read"))


async def _invalid(request: Request, error: Any) -> Response:
    route = request.scope.get("route")
    model = getattr(getattr(route, "body_field", None), "field_info", None)
    known = getattr(getattr(model, "annotation", None), "model_fields", ())
    return answer(invalid(error.errors(), error.body, known))
