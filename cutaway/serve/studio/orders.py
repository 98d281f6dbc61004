"""What the routes of trainings are asked, and what they tell."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from cutaway.serve.schema.base import Asked, Told
from cutaway.serve.studio.schema import StudioText
from cutaway.training.order import MOST_CONTEXT, MOST_MINUTES, MOST_SIZE, MOST_STEPS, MOST_VOCAB

MOST_TEXT = 64 << 20
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,47}$", description="Of a training: its folder.")]
RunName = Annotated[str, Field(min_length=1, max_length=64, description="Of a training, or of a run that is listed.")]
Minutes = Annotated[float, Field(gt=0, le=MOST_MINUTES)] | None
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)] | None


class TrainRequest(Asked):
    """Begin a training (`cutaway.training.Order`) on texts, or on a corpus of the studio's folder."""

    name: Name
    texts: Annotated[dict[Annotated[str, Field(max_length=200)], Annotated[str, Field(max_length=MOST_TEXT)]],
                     Field(max_length=500, description="File name to text.")] | None = None  # fmt: skip
    corpus: Annotated[str, Field(max_length=300, description="A name that /studio/train lists.")] | None = None
    kind: Literal["decoder", "gru"] = "decoder"
    size: Annotated[int, Field(ge=1, le=MOST_SIZE)] = 2
    context: Annotated[int, Field(ge=8, le=MOST_CONTEXT)] = 128
    minutes: Minutes = None
    steps: Steps = None
    vocab_size: Annotated[int, Field(ge=260, le=MOST_VOCAB)] = 1024
    prompt: Annotated[str, Field(max_length=500)] = ""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    clean: bool = True


class SuggestRequest(Asked):
    """What suits a text of so many bytes."""

    size: Annotated[int, Field(ge=0)]


class RunRequest(Asked):
    """Something about a run."""

    run: RunName


class InsideRequest(RunRequest):
    """Look into every checkpoint of a run. `steps` says how many there are: pages ask again when one is new."""

    text: StudioText = ""
    steps: Annotated[int, Field(ge=0)] = 0


class ResumeRequest(Asked):
    """Go on with a training (`cutaway.training.Trainings.resume`)."""

    run: Name
    minutes: Minutes = None
    steps: Steps = None
    calmer: bool = False


class Suggested(Told):
    """A value for the form, and why."""

    name: str
    value: float
    why: str


class Suggestions(Told):
    """Those of all fields."""

    suggestions: list[Suggested]


class TrainingState(Told):
    """How a training stands (`cutaway.training.Training`)."""

    name: str
    state: str
    stage: str
    done: float
    total: float | None
    unit: str
    figures: dict[str, str]
    message: str
    code: str
    changed: float
    planned: int
    steps: list[int]
    own: bool
    settings: dict[str, str | int | float | None]
    notes: list[str]
    baseline: float | None
    model: str | None


class TrainingList(Told):
    """All trainings and runs, the newest first; and the corpora on which one can begin."""

    runs: list[TrainingState]
    corpora: list[str]


class RunRecord(Told):
    """A line of metrics.jsonl: of a step, an evaluation or a sample; other objectives have other figures beside."""

    model_config = ConfigDict(extra="allow")
    step: int
    loss: float | None = None
    lr: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    share_of_peak: float | None = None
    seconds: float | None = None
    valid_loss: float | None = None
    bits_per_byte: float | None = None
    better_than_ngram: float | None = None
    prompt: str | None = None
    sample: str | None = None


class RunNews(Told):
    """What is new of a run; `again`: what was told before is to be forgotten."""

    state: TrainingState
    again: bool
    records: list[RunRecord]
