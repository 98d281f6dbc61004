"""Tables of examples: read as they were pasted, answered by a task's model, explained, and read out of activations."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.errors import InputError
from cutaway.interp.probes import erase, probe
from cutaway.serve.body import JsonRoute
from cutaway.serve.schema.base import Asked, ModelName, Told, errors
from cutaway.serve.server import Work, server_of
from cutaway.serve.studio.frames import answered
from cutaway.serve.studio.look import IN_FRAMES
from cutaway.serve.studio.studio import studio_of
from cutaway.serve.tasking import TaskEngine, task_of
from cutaway.text.rows import rows_of_text

if TYPE_CHECKING:
    from cutaway.generation import Engine
    from cutaway.tasks import TaskModel

router = APIRouter(prefix="/studio", route_class=JsonRoute)
MOST = 5000  # rows of a table
Cells = dict[str, Any]
Rows = Annotated[list[Cells], Field(min_length=1, max_length=MOST, description="Column -> value, of each row.")]
Texts = Annotated[
    list[Annotated[str, Field(max_length=200_000)]],
    Field(min_length=1, max_length=MOST, description="What the model reads."),
]
Labels = Annotated[list[str | int | float], Field(min_length=1, max_length=MOST, description="One for each text.")]


class TableRequest(Asked):
    """A table as text: CSV, TSV, JSON or JSON Lines."""

    table: Annotated[str, Field(max_length=32 << 20)]


class TableRow(Told):
    """A row of it."""

    source: str
    values: Cells


class TableRows(Told):
    """What was read."""

    columns: list[str]
    rows: list[TableRow]
    skipped: list[str]


class AnswersRequest(Asked):
    """Ask a task's model, or one that labels texts, about every row."""

    model: ModelName
    rows: Rows
    columns: Annotated[
        dict[str, str], Field(default_factory=dict, max_length=8, description="Role -> column, where names do not say.")
    ]


class WhyRequest(Asked):
    """Ask what an answer is owed to."""

    model: ModelName
    given: Annotated[Cells, Field(max_length=8, description="Role -> value.")]
    method: Literal["", "occlusion", "integrated_gradients", "gradient"] = ""
    part: Annotated[int, Field(ge=0, le=10_000, description="Of an answer of several parts, which.")] = 0


class ProbeRequest(Asked):
    """Read labels out of activations (`cutaway.interp.probe`)."""

    model: ModelName
    texts: Texts
    labels: Labels
    position: int = -1
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.3
    seed: Annotated[int, Field(ge=0)] = 0


class EraseRequest(ProbeRequest):
    """Erase them from activations (`cutaway.interp.erase`)."""

    names: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=64)]


@router.post("/table", responses=errors(413))
async def table(asked: TableRequest, http: HttpRequest) -> TableRows:
    """Read a table that was pasted or dropped; a path is never read."""

    def read() -> TableRows:
        skipped: list[str] = []
        left = lambda what: skipped.append(f"{what.source}: {what.reason}")  # noqa: E731
        rows = list(islice(rows_of_text(asked.table, asked=("text", "label"), skipped=left), MOST + 1))
        if len(rows) > MOST:
            raise InputError(f"the table has more than {MOST:,} rows, which is the most that a page works on")
        columns = list(dict.fromkeys(name for row in rows for name in row.values))
        told = [TableRow(source=row.source, values=row.values) for row in rows]
        return TableRows(columns=columns, rows=told, skipped=skipped)

    return await studio_of(http).quick(read)


@router.post("/answers", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def answers(asked: AnswersRequest, http: HttpRequest) -> Response:
    """What a model says of every row, and how good that is where the truth is given."""
    from cutaway.tasks import answer_rows  # it takes a moment to import, which few pages need

    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)
    made = model_of(work)
    return answered(
        studio,
        work,
        lambda reports: studio.keep(answer_rows(made, asked.rows, columns=asked.columns, progress=reports)),
    )


@router.post("/why", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def why(asked: WhyRequest, http: HttpRequest) -> Response:
    """What the answer to one row is owed to."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)
    made = model_of(work)
    return answered(studio, work, lambda _: studio.keep(made.why(asked.given, method=asked.method, part=asked.part)))


@router.post("/probe", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def probes(asked: ProbeRequest, http: HttpRequest) -> Response:
    """What a linear probe reads out of each layer, beside its controls."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)
    how = {"position": asked.position, "held_out": asked.held_out, "seed": asked.seed}
    return answered(
        studio,
        work,
        lambda reports: studio.keep(probe(work.loaded.model, asked.texts, asked.labels, **how, progress=reports)),
    )


@router.post("/erase", response_class=Response, responses={**errors(404, 413, 504), **IN_FRAMES})
async def erased(asked: EraseRequest, http: HttpRequest) -> Response:
    """What a probe reads once a concept was erased."""
    studio, work = studio_of(http), await server_of(http).begin(http, asked.model)
    how = {"position": asked.position, "held_out": asked.held_out, "seed": asked.seed}
    return answered(
        studio,
        work,
        lambda reports: studio.keep(
            erase(work.loaded.model, asked.texts, asked.labels, asked.names, **how, progress=reports)
        ),
    )


def model_of(work: Work) -> TaskModel:
    """What answers rows: a task's model, or one that labels texts, with an engine that waits for the server's.

    Raises:
        ConfigError: the model is neither.
    """
    if work.loaded.task is not None:
        return task_of(work)
    from cutaway.tasks.report import labelling_model

    try:
        return replace(labelling_model(work.loaded.model), engine=cast("Engine", TaskEngine(work)))
    except BaseException:
        work.close()
        raise
