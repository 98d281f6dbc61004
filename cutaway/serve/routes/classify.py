"""/v1/classify: the labels of texts, with their probabilities."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from cutaway.models.heads import probabilities
from cutaway.serve.body import JsonRoute
from cutaway.serve.errors import ApiError
from cutaway.serve.schema.base import errors
from cutaway.serve.schema.classify import Classification, Classified, ClassifyRequest
from cutaway.serve.server import server_of
from cutaway.serve.tasking import answers
from cutaway.serve.texts import as_list, framed, needs, told, usage

if TYPE_CHECKING:
    from cutaway.tasks import Answer

router = APIRouter(route_class=JsonRoute)


@router.post("/classify", include_in_schema=False, response_model=Classification)
@router.post("/v1/classify", response_model=Classification, responses=errors(404, 413, 504))
async def classify(asked: ClassifyRequest, http: HttpRequest) -> Response:
    """What texts are: of each label how likely it is."""
    with await server_of(http).begin(http, asked.model) as work:
        config = needs(work.loaded.model, "sequence_classification", "classifying texts")
        if config.labelling == "number":
            message = f"{work.loaded.name} says a number of a text, no label; /v1/rerank orders documents by it"
            raise ApiError(400, message, code="model_not_suitable", param="model")
        if work.loaded.task is not None:
            labels, data = _of_task(config.labels, await answers(work, as_list(asked.input), "classify"))
        else:
            texts = await framed(work, as_list(asked.input), "input")
            rows = probabilities(torch.stack(await work.read(texts.ids)), config).tolist()
            labels = list(config.labels)
            data = [
                Classified(index=number, label=labels[row.index(max(row))], probs=row, num_classes=len(row))
                for number, row in enumerate(rows)
            ]
        return told(
            Classification(
                id=f"classify-{uuid.uuid4().hex}",
                created=int(time.time()),
                model=asked.model,
                labels=labels,
                labelling=config.labelling,
                data=data,
                usage=usage(work),
            )
        )


def _of_task(known: Sequence[str], made: Sequence[Answer]) -> tuple[list[str], list[Classified]]:
    """What a task's model answers: calibrated, by its thresholds, and perhaps that a text is of none of the labels."""
    labels = [*known, *(made[0].more["probabilities"].keys() - {*known})]  # out of scope is one that it may add
    data = []
    for number, one in enumerate(made):
        row = [float(one.more["probabilities"].get(label, 0.0)) for label in labels]
        said = one.answer if isinstance(one.answer, list) else [one.answer] if one.answer is not None else []
        best = max(said, key=lambda label: row[labels.index(label)], default=None)
        data.append(Classified(index=number, label=best, probs=row, num_classes=len(row), said=said))
    return labels, data
