"""Which models there are."""

from fastapi import APIRouter
from starlette.requests import Request

from cutaway.serve.schema.base import errors
from cutaway.serve.schema.models import ModelCard, ModelList
from cutaway.serve.server import Server, caller_of, server_of

router = APIRouter(prefix="/v1")


@router.get("/models", responses=errors())
async def models(http: Request) -> ModelList:
    """All names that a request may give as its model."""
    server, caller = server_of(http), caller_of(http)
    return ModelList(data=[_card(server, name) for name in server.models.names if caller.may_use(name)])


@router.get("/models/{name}", responses=errors(404))
async def model(name: str, http: Request) -> ModelCard:
    """One of them."""
    server = server_of(http)
    server.models.check(name, caller_of(http))
    return _card(server, name)


def _card(server: Server, name: str) -> ModelCard:
    adapter = server.models.adapters.get(name)
    return ModelCard(id=name, created=int(server.started), parent=None if adapter is None else adapter.base)
