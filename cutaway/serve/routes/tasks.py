"""/v1/tasks: what models of tasks read, their answers, and what these are owed to."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.errors import CutawayError
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.models import task_record
from cutaway.serve.schema.base import Usage, errors
from cutaway.serve.schema.tasks import Predicted, Prediction, PredictRequest, TaskCard, TaskList, TaskRole
from cutaway.serve.server import Server, caller_of, server_of
from cutaway.serve.tasking import check, examples_of, in_thread, task_of
from cutaway.serve.texts import told

if TYPE_CHECKING:
    from cutaway.tasks import Answer, TaskModel

router = APIRouter(prefix="/v1", route_class=JsonRoute)
MOST_WHY = 8  # inputs whose answers are explained in a request: each takes many passes through the network


@router.get("/tasks", responses=errors())
async def tasks(http: HttpRequest) -> TaskList:
    """The models that were made for a task, and what each reads."""
    server, caller = server_of(http), caller_of(http)
    names = [name for name in server.models.sources if caller.may_use(name)]
    return TaskList(data=await server.bridge.aside(lambda: [card for name in names if (card := _card(server, name))]))


@router.post("/tasks/predict", response_model=Prediction, responses=errors(404, 413, 501, 504))
async def predict(asked: PredictRequest, http: HttpRequest) -> Response:
    """The answers of a task's model, calibrated as it was measured, and what each is owed to."""
    with await server_of(http).begin(http, asked.model) as work:
        made = task_of(work)
        check(work, asked.inputs, "inputs")
        if asked.why and len(asked.inputs) > MOST_WHY:
            message = f"inputs holds {len(asked.inputs):,}, but why is told of {MOST_WHY} at most; send them in parts"
            raise ApiError(400, message, code="too_many_inputs", param="inputs")
        data = await in_thread(work, lambda: _answers(made, asked))
        usage = Usage(
            prompt_tokens=work.prompt_tokens + sum(stream.ticket.prompt_tokens for stream in work.streams),
            completion_tokens=sum(stream.written for stream in work.streams),
            total_tokens=work.prompt_tokens
            + sum(stream.ticket.prompt_tokens + stream.written for stream in work.streams),
        )
        made_of = {"model": asked.model, "task": made.task.name, "data": data, "usage": usage}
        return told(Prediction(id=f"task-{uuid.uuid4().hex}", created=int(time.time()), **made_of))


def _answers(made: TaskModel, asked: PredictRequest) -> list[Predicted]:
    """In a thread for tasks."""
    examples = examples_of(made, asked.inputs, "inputs")
    answers = made.predict(examples)
    reasons: list[Any] = [None] * len(answers)
    if asked.why:
        both = enumerate(zip(examples, answers, strict=True), 1)
        reasons = [_why(made, asked, number, example, answer) for number, (example, answer) in both]
    return [
        Predicted(index=n, answer=one.answer, probability=one.probability, more=_plain(one.more), why=reason)
        for n, (one, reason) in enumerate(zip(answers, reasons, strict=True))
    ]


def _why(made: TaskModel, asked: PredictRequest, number: int, example: Any, answer: Answer) -> dict[str, Any]:
    try:
        found = made.why(example, method=asked.method, part=asked.part, answer=answer)
    except CutawayError as error:
        raise ApiError(400, f"input {number}: {error}", code="invalid_value", param="why") from None
    return _plain(found.to_json())


def _plain(value: Any) -> Any:
    """As JSON has it: tuples as lists, names as texts."""
    return json.loads(json.dumps(value, ensure_ascii=False))


def _card(server: Server, name: str) -> TaskCard | None:
    """What a model of this name reads; None: it is of no task."""
    from cutaway.tasks import TASKS

    loaded = server.models.loaded.get(name)
    if loaded is not None:
        task, labels = (None, ()) if loaded.task is None else (type(loaded.task.task), loaded.task.labels)
    else:
        record = task_record(Path(server.models.sources[name])) or {}
        stated = record.get("task")
        task = TASKS.get(str(stated.get("name"))) if isinstance(stated, dict) else None
        known = record.get("labels")
        labels = [str(label) for label in known] if isinstance(known, list) else []
    if task is None:
        return None
    roles = [TaskRole(name=one.name, what=one.what, needed=one.needed) for one in task.roles if not one.answer]
    return TaskCard(id=name, task=task.name, summary=task.summary, roles=roles, labels=list(labels))
