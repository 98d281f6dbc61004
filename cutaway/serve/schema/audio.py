"""/v1/audio: what is said in a recording."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cutaway.serve.schema.base import ModelName, Told

AudioFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]


class TranslationRequest(BaseModel):
    """What is asked of /v1/audio/translations, as the fields of a form; which are all text."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    model: ModelName
    language: Annotated[
        str | None,
        Field(max_length=8, description="That is spoken, as its ISO 639 code (en); null: the model finds out."),
    ] = None
    prompt: Annotated[
        str | None, Field(max_length=4096, description="What was said before: names in it are spelled alike.")
    ] = None
    response_format: AudioFormat = "json"
    temperature: Annotated[float, Field(ge=0, le=1, description="0: always the likeliest token.")] = 0.0


class TranscriptionRequest(TranslationRequest):
    """What is asked of /v1/audio/transcriptions."""

    stream: Annotated[bool, Field(description="Whether the text comes as events, as it is written.")] = False
    timestamp_granularities: Annotated[
        list[Literal["segment"]],
        Field(
            alias="timestamp_granularities[]",
            description="Of verbose_json. A segment is a part of the recording that is heard at once, up to 30 "
            "seconds, cut at pauses; times of words are not known.",
        ),
    ] = []
    include: Annotated[
        list[Literal["logprobs"]],
        Field(alias="include[]", description="logprobs: beside each token, of json and of streams."),
    ] = []
    chunking_strategy: Annotated[
        Literal["auto"] | None, Field(description="Recordings are always cut at pauses, which is what auto means.")
    ] = None


class Duration(Told):
    """How much was heard."""

    type: Literal["duration"] = "duration"
    seconds: float


class SpokenToken(Told):
    """One token of the text."""

    token: str
    bytes: list[int]
    logprob: float


class Transcription(Told):
    """The answer as json."""

    text: str
    logprobs: list[SpokenToken] | None = None
    usage: Duration


class Segment(Told):
    """A part of the recording that was heard at once."""

    id: int
    seek: Annotated[int, Field(description="Where it begins, in hundredths of a second.")]
    start: Annotated[float, Field(description="Seconds.")]
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: Annotated[float, Field(description="Bytes of the text ÷ those that zlib packs it into.")]
    no_speech_prob: Annotated[float, Field(description="0 where the model has no token that says so.")]


class VerboseTranscription(Told):
    """The answer as verbose_json."""

    task: Literal["transcribe", "translate"]
    language: Annotated[str, Field(description="Its code; und: the model knows but one, and does not say which.")]
    duration: float
    text: str
    segments: list[Segment]
    usage: Duration


def form(asked: type[BaseModel]) -> dict[str, Any]:
    """The body of a route that takes a form, for its `openapi_extra`."""
    schema = asked.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "A WAV, FLAC, Ogg (Vorbis, Opus) or MP3 file."}
    schema["properties"] = {"file": file, **schema["properties"]}
    schema["required"] = ["file", *schema.get("required", [])]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
