"""Trainings: begun from texts or a corpus, watched as they go, stopped, resumed; what became of a run's insides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.errors import InputError
from cutaway.interp.pictures.wire import packed
from cutaway.interp.receipt import plain
from cutaway.interp.results import Panel
from cutaway.interp.weights import over_training, ridgelines, training_report
from cutaway.models.model import CHECKPOINTS, checkpoints
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError, as_api_error
from cutaway.serve.schema.base import errors
from cutaway.serve.server import Server, server_of
from cutaway.serve.studio.frames import KIND, Answer, answered, frame
from cutaway.serve.studio.look import IN_FRAMES
from cutaway.serve.studio.models import entries
from cutaway.serve.studio.orders import (
    InsideRequest,
    ResumeRequest,
    RunNews,
    RunRecord,
    RunRequest,
    Suggested,
    Suggestions,
    SuggestRequest,
    TrainingList,
    TrainingState,
    TrainRequest,
)
from cutaway.serve.studio.studio import Studio, studio_of
from cutaway.training.metrics import METRICS
from cutaway.training.order import Order, suggest_order
from cutaway.training.watching import Tail, Training, corpora, run_state

router = APIRouter(prefix="/studio/train", route_class=JsonRoute)
LOOK = 0.4  # seconds between two looks at a run's files
MOST_WATCHED = 64  # pages that watch a training at a time
IN_NEWS: dict[int | str, dict[str, Any]] = {
    200: {"content": {KIND: {"schema": {"$ref": "#/components/schemas/RunNews"}}}, "description": "news, in frames"}
}


@router.get("", responses=errors())
async def trainings(http: HttpRequest) -> TrainingList:
    """What was trained here, and what can be trained on."""
    server, studio = server_of(http), studio_of(http)

    def look() -> TrainingList:
        own = [*studio.trainings.all()]
        listed = entries(server)
        places = {(studio.trainings.folder / one.name).resolve() for one in own}
        for entry in listed:
            place = Path(server.models.sources[entry.name])
            if (place / CHECKPOINTS).is_dir() and (place / METRICS).is_file() and place.resolve() not in places:
                own.append(run_state(place, entry.name))
        runs = [_told(server, one) for one in sorted(own, key=lambda one: -one.changed)]
        return TrainingList(runs=runs, corpora=list(corpora(studio.folder)))

    return await studio.quick(look)


@router.post("/suggest", responses=errors())
async def suggest(asked: SuggestRequest) -> Suggestions:
    """Values for the form that suit a laptop and so much text, with reasons."""
    found = suggest_order(asked.size)
    return Suggestions(suggestions=[Suggested(name=one.name, value=one.value, why=one.why) for one in found])


@router.post("/start", responses=errors(413))
async def start(asked: TrainRequest, http: HttpRequest) -> TrainingState:
    """Begin a training, as a process of its own. One runs at a time."""
    server, studio = server_of(http), studio_of(http)
    names = ("kind", "size", "context", "minutes", "steps", "vocab_size", "prompt", "seed", "clean")
    order = Order(**{name: getattr(asked, name) for name in names})

    def begin() -> TrainingState:
        corpus = None
        if asked.corpus is not None:
            corpus = corpora(studio.folder).get(asked.corpus)
            if corpus is None:
                raise InputError(f"there is no corpus called {asked.corpus!r:.100} in the studio's folder")
        studio.trainings.start(asked.name, order, texts=asked.texts, corpus=corpus)
        return _told(server, studio.trainings.state(asked.name))

    return await studio.quick(begin)


@router.post("/stop", responses=errors())
async def stop(asked: RunRequest, http: HttpRequest) -> TrainingState:
    """Ask a training to end after its step, and to save."""
    server, studio = server_of(http), studio_of(http)

    def end() -> TrainingState:
        studio.trainings.stop(asked.run)
        return _told(server, studio.trainings.state(asked.run))

    return await studio.quick(end)


@router.post("/resume", responses=errors())
async def resume(asked: ResumeRequest, http: HttpRequest) -> TrainingState:
    """Go on with a training that was stopped, killed or has failed; or take more steps with one that has ended."""
    server, studio = server_of(http), studio_of(http)

    def go_on() -> TrainingState:
        studio.trainings.resume(asked.run, minutes=asked.minutes, steps=asked.steps, calmer=asked.calmer)
        return _told(server, studio.trainings.state(asked.run))

    return await studio.quick(go_on)


@router.post("/read", responses=errors(), response_model_exclude_none=True)
async def read(asked: RunRequest, http: HttpRequest) -> RunNews:
    """All that a run has recorded until now."""
    server, studio = server_of(http), studio_of(http)

    def look() -> RunNews:
        place = _place(server, asked.run)
        state = _told(server, _state(studio, asked.run, place))
        return RunNews(state=state, again=True, records=list(_records(plain(Tail(place).read()[1]))))

    return await studio.quick(look)


@router.post("/watch", response_class=Response, responses={**errors(), **IN_NEWS})
async def watch(asked: RunRequest, http: HttpRequest) -> Response:
    """What a run has recorded and what it records, until it ends: a frame "d" for each piece of news, at last "r".

    The training neither knows nor cares whether anyone watches.
    """
    server, studio = server_of(http), studio_of(http)
    place = await studio.quick(lambda: _place(server, asked.run))
    tail = Tail(place)

    def look() -> tuple[bool, dict[str, Any]]:
        state = _state(studio, asked.run, place)
        again, records = tail.read()  # after the state: of what has ended nothing is missed
        news = {"state": _told(server, state).model_dump(), "again": again, "records": plain(records)}
        return state.running, news

    async def told() -> AsyncIterator[bytes]:
        last: dict[str, Any] = {}
        while True:
            running, news = await studio.quick(look)
            if news["records"] or news["again"] or news["state"] != last:
                last = news["state"]
                yield frame(b"d", json.dumps(news, ensure_ascii=False).encode("utf-8", "replace"))
            if not running:
                yield frame(b"r", packed({"state": news["state"], "again": False, "records": []}))
            if not running or server.draining:
                return
            await asyncio.sleep(LOOK)

    async def sent() -> AsyncIterator[bytes]:
        try:
            async for one in told():
                yield one
        except Exception as error:  # such as that its folder is no longer there
            yield frame(b"e", as_api_error(error).content)

    if studio.watching >= MOST_WATCHED:
        message = f"{MOST_WATCHED} pages watch trainings already; close some of them"
        raise ApiError(429, message, code="too_many_watch", retry=10)
    studio.watching += 1

    def close() -> None:
        studio.watching -= 1

    return Answer(sent(), close)


@router.post("/heads", response_class=Response, responses={**errors(), **IN_FRAMES})
async def heads(asked: InsideRequest, http: HttpRequest) -> Response:
    """Scores of heads at every checkpoint, on random tokens that come twice (`cutaway.interp.over_training`)."""
    return await _looked(http, asked, lambda place, reports: over_training(
        place, scores=("previous", "induction", "duplicate"), lens=False, progress=reports))  # fmt: skip


@router.post("/lens", response_class=Response, responses={**errors(), **IN_FRAMES})
async def lens(asked: InsideRequest, http: HttpRequest) -> Response:
    """The logit lens of a text at every checkpoint, layer by layer (`cutaway.interp.over_training`)."""
    return await _looked(http, asked, lambda place, reports: over_training(
        place, asked.text, scores=(), progress=reports))  # fmt: skip


@router.post("/ridges", response_class=Response, responses={**errors(), **IN_FRAMES})
async def ridges(asked: InsideRequest, http: HttpRequest) -> Response:
    """How weights and gradients are distributed at every checkpoint (`cutaway.interp.ridgelines`)."""
    return await _looked(http, asked, lambda place, reports: ridgelines(place, progress=reports))


@router.post("/report", response_class=Response, responses={**errors(), **IN_FRAMES})
async def report(asked: InsideRequest, http: HttpRequest) -> Response:
    """All of a run in one result, to be saved as one page (`cutaway.interp.training_report`)."""
    return await _looked(http, asked, lambda place, reports: training_report(place, asked.text, progress=reports))


async def _looked(http: HttpRequest, asked: InsideRequest, look: Callable[[Path, Any], Panel]) -> Response:
    server, studio = server_of(http), studio_of(http)
    place = await studio.quick(lambda: _place(server, asked.run))
    if not checkpoints(place):
        raise InputError(f"{asked.run} has no checkpoint yet; let it take some steps, or stop it, which saves one")
    return answered(studio, None, lambda reports: studio.keep(look(place, reports)))


def _records(found: list[dict[str, Any]]) -> Iterator[RunRecord]:
    """Those that are records: anybody may have written into the file."""
    for one in found:
        with suppress(ValidationError):
            yield RunRecord(**one)


def _place(server: Server, run: str) -> Path:
    """The folder of a run by its name: that of a training, or what the catalogue has found.

    Raises:
        InputError: there is none.
    """
    studio = server.studio
    assert studio is not None
    if run in studio.trainings.names():
        return studio.trainings.place(run)
    if run not in server.models.sources:
        entries(server)
    place = Path(server.models.sources.get(run, ""))
    if run not in server.models.sources or not (place / CHECKPOINTS).is_dir():
        raise InputError(f"there is no run called {run!r:.64}")
    return place


def _state(studio: Studio, run: str, place: Path) -> Training:
    return studio.trainings.state(run) if run in studio.trainings.names() else run_state(place, run)


def _told(server: Server, one: Training) -> TrainingState:
    """With the name under which its model is opened, once there is one."""
    studio = server.studio
    assert studio is not None
    model = None if one.own else one.name
    if one.own and one.steps:
        place = str(studio.trainings.folder / one.name)
        model = _name_of(server, place)
        if model is None:
            entries(server)
            model = _name_of(server, place)
    return TrainingState(**vars(one), model=model)


def _name_of(server: Server, place: str) -> str | None:
    return next((name for name, source in server.models.sources.items() if source == place), None)
