"""Tasks at work: which there are, and what was measured of a model. Their answers are those of /v1/tasks/predict."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request as HttpRequest

from cutaway.errors import DamagedFile, InputError
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.schema.base import Asked, ModelName, Told, errors
from cutaway.serve.server import caller_of, server_of
from cutaway.serve.studio.studio import studio_of

router = APIRouter(prefix="/studio", route_class=JsonRoute)


class KnownRole(Told):
    """A column that a task learns from."""

    name: str
    what: str
    needed: bool
    answer: bool


class KnownTask(Told):
    """A task, and what its table holds."""

    name: str
    summary: str
    roles: list[KnownRole]


class KnownTasks(Told):
    """All tasks."""

    tasks: list[KnownTask]


class EvaluationRequest(Asked):
    """What was measured of a task's model (`cutaway.tasks.stored_report`)."""

    model: ModelName


class Interval(Told):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class EvaluatedFigure(Told):
    """A figure beside the baseline's."""

    name: str
    figure: Interval
    baseline: Interval | None
    p: float | None


class Evaluation(Told):
    """What a report says."""

    task: str
    split: str
    examples: int
    wrong: int
    trained_on: int | None
    baseline_name: str
    figures: list[EvaluatedFigure]
    calibration: float | None
    notes: list[str]


@router.get("/tasks", responses=errors())
async def tasks(http: HttpRequest) -> KnownTasks:
    """The tasks that can be trained, and their columns."""

    def known() -> KnownTasks:
        from cutaway.tasks import TASKS  # it takes a moment to import, which few pages need

        told = []
        for name, task in TASKS.items():
            roles = [KnownRole(name=r.name, what=r.what, needed=r.needed, answer=r.answer) for r in task.roles]
            told.append(KnownTask(name=name, summary=task.summary, roles=roles))
        return KnownTasks(tasks=told)

    return await studio_of(http).quick(known)


@router.post("/evaluation", responses=errors(404, 413))
async def evaluation(asked: EvaluationRequest, http: HttpRequest) -> Evaluation:
    """The report that a model's training wrote."""
    server = server_of(http)
    server.models.check(asked.model, caller_of(http))
    folder = Path(server.models.sources[asked.model])

    def read() -> Evaluation:
        from cutaway.tasks import stored_report

        return Evaluation.model_validate(stored_report(folder), from_attributes=True)

    try:
        return await studio_of(http).quick(read)
    except (InputError, DamagedFile, ValidationError) as error:  # what it names is a place on this machine
        message = f"{asked.model} has no report that can be read: cutaway task evaluate writes one beside the model"
        raise ApiError(404, message, code="no_report", param="model") from error
