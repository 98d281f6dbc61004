"""What the server counts, for Prometheus."""

from importlib import import_module

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cutaway.serve.schema.base import errors
from cutaway.serve.server import server_of

router = APIRouter()
TEXT = {200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/metrics", response_class=Response, responses={**TEXT, **errors()})
async def metrics(http: Request) -> Response:
    """Requests, tokens, times, queue, models and memory; docs/serving.md says what each is."""
    server = server_of(http)
    await server.bridge.aside(lambda: import_module("prometheus_client.exposition"))  # once it takes a while
    text, kind = server.metrics.text()
    return Response(text, headers={"content-type": kind})
