"""The application: routes, what goes wrong, and the life of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cutaway import __version__
from cutaway.serve.doors import check_doors
from cutaway.serve.errors import ApiError, as_api_error
from cutaway.serve.guard import Guard
from cutaway.serve.invalid import invalid
from cutaway.serve.models import Models
from cutaway.serve.observe import Observer, answer
from cutaway.serve.routes import ROUTERS
from cutaway.serve.server import Server
from cutaway.serve.settings import Settings
from cutaway.serve.studio.routes import STUDIO
from cutaway.serve.studio.schema import result_schemas
from cutaway.serve.studio.studio import Studio


def create_app(settings: Settings, models: Models | None = None) -> FastAPI:
    """The application, for any ASGI server (`serve` runs it with uvicorn).

    It listens at once and answers when its models are loaded; `app.state.loading` is the task that loads them.

    Args:
        settings: models, limits and doors.
        models: those of the settings, where some are being opened already.

    Raises:
        ConfigError: doors that must not be open; see `check_doors`.
    """
    check_doors(settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        server = app.state.server = Server(settings, models)
        if settings.studio is not None:
            server.studio = Studio(server, settings.studio)
        loading = app.state.loading = asyncio.create_task(server.load())
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.wait([loading])
            server.stop()

    app = App(
        title="Cutaway", version=__version__, lifespan=life, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.pages = {"/openapi.json"}  # as the log and the metrics name them, also where the guard has answered
    for router in (*ROUTERS, *(STUDIO if settings.studio is not None else ())):
        app.include_router(router)
        app.state.pages |= {getattr(route, "path", "") for route in router.routes}
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ApiError, _failed)
    app.add_exception_handler(ValueError, _failed)  # ours are ValueErrors
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Observer)
    return app


class App(FastAPI):
    """The application."""

    def openapi(self) -> dict[str, Any]:
        """The schema, without the errors that FastAPI lists and that never come: what is invalid is 400 here."""
        if self.openapi_schema is None:
            made = super().openapi()
            if any(page.startswith("/studio/") for page in made["paths"]):
                made["components"]["schemas"] |= result_schemas()
            for page in made["paths"].values():
                for operation in page.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                made["components"]["schemas"].pop(name, None)
        return super().openapi()


async def _failed(request: Request, error: Exception) -> Response:
    return answer(as_api_error(error))


async def _http(request: Request, error: Any) -> Response:
    if error.status_code == 404:
        return answer(ApiError(404, "there is no such page; /openapi.json lists what there is", code="unknown_url"))
    if error.status_code == 405:
        refused = answer(ApiError(405, f"this page does not take {request.method}", code="method_not_allowed"))
        refused.headers.update(error.headers or {})  # which methods it takes
        return refused
    return answer(ApiError(error.status_code, "the request could not be read"))


async def _invalid(request: Request, error: Any) -> Response:
    route = request.scope.get("route")
    model = getattr(getattr(route, "body_field", None), "field_info", None)
    known = getattr(getattr(model, "annotation", None), "model_fields", ())
    return answer(invalid(error.errors(), error.body, known))
