"""/v1/audio: what is said in a recording, written down or translated into English."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.generation import Request, Token
from cutaway.generation.speech import Job, Speech, speech
from cutaway.models import Model
from cutaway.serve.errors import ApiError
from cutaway.serve.events import Events, event
from cutaway.serve.schema.audio import (
    Duration,
    Segment,
    SpokenToken,
    Transcription,
    TranscriptionRequest,
    TranslationRequest,
    VerboseTranscription,
    form,
)
from cutaway.serve.schema.base import errors
from cutaway.serve.server import Work, server_of
from cutaway.serve.texts import told as json_of
from cutaway.serve.upload import read_upload
from cutaway.text.audio import cut_at_pauses, read_audio

router = APIRouter(prefix="/v1/audio")
UNKNOWN = "und"  # ISO 639: undetermined
STRING = {"schema": {"type": "string"}}
ALL = {**errors(404, 413, 501, 504), 200: {"description": "the text", "content": {"text/plain": STRING}}}
STREAMED = {**ALL, 200: {"description": "the text", "content": {"text/plain": STRING, "text/event-stream": STRING}}}
ANSWER = Transcription | VerboseTranscription


@router.post("/transcriptions", response_model=ANSWER, responses=STREAMED, openapi_extra=form(TranscriptionRequest))
async def transcriptions(http: HttpRequest) -> Response:
    """Write down what is said."""
    heard = await _hear(http, TranscriptionRequest, "transcribe")
    asked = heard.asked
    assert isinstance(asked, TranscriptionRequest)
    if asked.stream:
        return Events(heard.work, heard.events(bool(asked.include)))
    return await heard.answer(bool(asked.include))


@router.post("/translations", response_model=ANSWER, responses=ALL, openapi_extra=form(TranslationRequest))
async def translations(http: HttpRequest) -> Response:
    """Write in English what is said in another language."""
    return await (await _hear(http, TranslationRequest, "translate")).answer(False)


async def _hear(http: HttpRequest, kind: type[TranslationRequest], job: Job) -> Heard:
    """Take a recording in and decode it; whoever gets it answers, which closes the work."""
    server = server_of(http)
    if server.recordings >= server.settings.max_recordings:
        message = f"{server.recordings} recordings are being heard, which is all that may; try again later"
        raise ApiError(429, message, code="busy", retry=5)
    server.recordings += 1
    try:
        asked, content = await read_upload(http, kind, server.settings.max_audio)
        if isinstance(asked, TranscriptionRequest):
            _check(asked)
        work = await server.begin(http, asked.model)
    except BaseException:
        server.recordings -= 1
        raise
    work.closing = server.heard
    try:
        return await work.attended(_listen(work, asked, job, content))
    except BaseException:
        work.close()
        raise


def _check(asked: TranscriptionRequest) -> None:
    """What a schema cannot say."""
    if asked.timestamp_granularities and asked.response_format != "verbose_json":
        raise _refuse("timestamp_granularities[]", "are told in verbose_json alone; ask for that response_format")
    if asked.include and asked.response_format != "json":
        raise _refuse("include[]", "adds to json alone; ask for that response_format")
    if asked.stream and asked.response_format not in ("json", "text"):
        raise _refuse("stream", f"goes with json and text; without it {asked.response_format} comes as a whole")


def _refuse(param: str, why: str, code: str = "unsupported_value") -> ApiError:
    return ApiError(400, f"{param} {why}", code=code, param=param)


async def _listen(work: Work, asked: TranslationRequest, job: Job, content: bytes) -> Heard:
    """The samples of a recording, and how the model is told what to write."""
    model, settings = work.loaded.model, work.server.settings
    try:
        known = speech(model)
    except ConfigError as error:
        raise ApiError(400, str(error), code="model_not_suitable", param="model") from None
    assert model.mel is not None
    before = (asked.prompt or "").strip()
    said = model.tokenizer.encode(f" {before}") if before else []
    told: list[tuple[str, str | None, Job, list[int]]] = [
        ("model", None, job, []),
        ("prompt", None, "transcribe", said),
        ("language", asked.language, "transcribe", []),
    ]
    for param, language, wanted, first in told:
        try:
            known.target(language, wanted, first)
        except (ConfigError, InputError) as error:
            raise ApiError(400, f"{param}: {error}", code="invalid_value", param=param) from None
    rate, longest = model.mel.sampling_rate, settings.max_audio_seconds
    cut = model.mel.samples

    def decode() -> tuple[np.ndarray, list[tuple[int, int]]]:
        samples = read_audio(content, rate, longest=longest)
        return samples, cut_at_pauses(samples, cut, rate)

    try:
        samples, parts = await work.server.bridge.aside(decode)
    except (InputError, DamagedFile) as error:
        raise ApiError(400, f"file: {error}", code="invalid_value", param="file") from None
    return Heard(work, asked, job, known, said, samples, parts, rate)


@dataclass
class Heard:
    """A recording while it is written down, part by part: each as long as the model hears at once, at the most.

    Attributes:
        work: of the request; closed when it is answered.
        asked: what is wanted.
        job: to write it down or to translate it.
        known: what the model can be told.
        said: ids of what was said before.
        samples: the recording.
        parts: where each part begins and ends.
        rate: samples per second.
        language: its code; found out by the first part where it was not given.
    """

    work: Work
    asked: TranslationRequest
    job: Job
    known: Speech
    said: list[int]
    samples: np.ndarray
    parts: list[tuple[int, int]]
    rate: int

    def __post_init__(self) -> None:
        self.language = self.asked.language
        self.silence = [0.0] * len(self.parts)
        self._special = set(self.model.tokenizer.special.values())

    @property
    def model(self) -> Model:
        """What hears it."""
        return self.work.loaded.model

    @property
    def seconds(self) -> float:
        """Of the recording."""
        return round(len(self.samples) / self.rate, 3)

    async def tokens(self) -> AsyncIterator[tuple[int, list[Token]]]:
        """The tokens of each part in turn, as they come; of those that stand for no text none."""
        for number, (begin, end) in enumerate(self.parts):
            part = self.samples[begin:end]
            if self.known.languages and (self.language is None or self.asked.response_format == "verbose_json"):
                found, self.silence[number] = await self._first(part)
                self.language = self.language or found
            target = self.known.target(self.language, self.job, self.said)
            stream = await self.work.submit(self._request(part, target, self.model.config.context - len(target)))
            async for tokens in stream:
                yield number, tokens

    async def _first(self, part: np.ndarray) -> tuple[str | None, float]:
        """Which language is spoken, and how likely nobody speaks: what the model would begin with."""
        request = self._request(part, [self.known.start], 1, logprobs=self.model.config.vocab_size)
        async for tokens in await self.work.submit(request):
            return self.known.heard(tokens[0].top)
        return None, 0.0

    def _request(self, part: np.ndarray, target: list[int], count: int, logprobs: int = 0) -> Request:
        return Request(
            part,
            {"temperature": self.asked.temperature},
            max_new_tokens=max(1, count),
            target=target,
            logprobs=logprobs,
            tenant=self.work.caller.tenant,
        )

    def shown(self, token: Token) -> str:
        """The text of a token."""
        return "" if token.id in self._special else token.text

    def spoken(self, tokens: list[Token]) -> Iterator[SpokenToken]:
        """Tokens with their log-probabilities."""
        for token in tokens:
            if token.id not in self._special:
                spelled = self.model.tokenizer.token_bytes(token.id)
                yield SpokenToken(token=spelled.decode("utf-8", "replace"), bytes=list(spelled), logprob=token.logprob)

    async def events(self, logprobs: bool) -> AsyncGenerator[bytes]:
        """The text as events, and at last the whole of it."""
        text = ""
        async for _, tokens in self.tokens():
            delta = "".join(map(self.shown, tokens))
            delta = delta if text else delta.lstrip()
            text += delta
            if delta or logprobs:
                beside = {"logprobs": [one.model_dump() for one in self.spoken(tokens)]} if logprobs else {}
                yield event({"type": "transcript.text.delta", "delta": delta, **beside})
        yield event({"type": "transcript.text.done", "text": text.strip()})

    async def answer(self, logprobs: bool) -> Response:
        """The whole, in the form that is asked for."""
        with self.work:
            parts: list[list[Token]] = [[] for _ in self.parts]

            async def read() -> None:
                async for number, tokens in self.tokens():
                    parts[number] += tokens

            await self.work.attended(read())
            text = "".join(self.shown(token) for tokens in parts for token in tokens).strip()
            usage = Duration(seconds=self.seconds)
            match self.asked.response_format:
                case "json":
                    spoken = [one for tokens in parts for one in self.spoken(tokens)] if logprobs else None
                    return json_of(Transcription(text=text, logprobs=spoken, usage=usage), exclude_none=True)
                case "text":
                    return PlainTextResponse(f"{text}\n")
                case "verbose_json":
                    return json_of(
                        VerboseTranscription(
                            task=self.job,
                            language=self.language or UNKNOWN,
                            duration=self.seconds,
                            text=text,
                            segments=list(self._segments(parts)),
                            usage=usage,
                        )
                    )
                case form:
                    return PlainTextResponse(subtitles(list(self._segments(parts)), form))

    def _segments(self, parts: list[list[Token]]) -> Iterator[Segment]:
        for number, ((begin, end), tokens) in enumerate(zip(self.parts, parts, strict=True)):
            text = "".join(map(self.shown, tokens))
            packed = len(zlib.compress(text.encode()))
            yield Segment(
                id=number,
                seek=begin * 100 // self.rate,
                start=round(begin / self.rate, 3),
                end=round(end / self.rate, 3),
                text=text,
                tokens=[token.id for token in tokens if token.id not in self._special],
                temperature=self.asked.temperature,
                avg_logprob=sum(token.logprob for token in tokens) / max(1, len(tokens)),
                compression_ratio=len(text.encode()) / packed,
                no_speech_prob=self.silence[number],
            )


def subtitles(segments: list[Segment], form: str) -> str:
    """Segments as a file of subtitles, "srt" or "vtt"; those without a text are left out."""
    shown = [(one, " ".join(one.text.split()).replace("-->", "->")) for one in segments if one.text.strip()]
    point = "," if form == "srt" else "."

    def time(seconds: float) -> str:
        whole, thousandths = divmod(round(seconds * 1000), 1000)
        return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{thousandths:03}"

    cues = [f"{time(one.start)} --> {time(one.end)}\n{text}\n" for one, text in shown]
    if form == "srt":
        cues = [f"{number}\n{cue}" for number, cue in enumerate(cues, 1)]
    return "\n".join((["WEBVTT\n"] if form == "vtt" else []) + cues)
