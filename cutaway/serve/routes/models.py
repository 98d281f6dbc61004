"""Which models there are."""

from fastapi import APIRouter
from starlette.requests import Request

from cutaway.serve.schema.base import errors
from cutaway.serve.schema.models import ModelCard, ModelList
from cutaway.serve.server import caller_of, server_of

router = APIRouter(prefix="/v1")


@router.get("/models", responses=errors())
async def models(http: Request) -> ModelList:
    """All names that a request may give as its model."""
    server, caller = server_of(http), caller_of(http)
    return ModelList(data=[_card(name, server.started) for name in server.models.sources if caller.may_use(name)])


@router.get("/models/{name}", responses=errors(404))
async def model(name: str, http: Request) -> ModelCard:
    """One of them."""
    server = server_of(http)
    server.models.check(name, caller_of(http))
    return _card(name, server.started)


def _card(name: str, started: float) -> ModelCard:
    return ModelCard(id=name, created=int(started))
