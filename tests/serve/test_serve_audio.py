"""/v1/audio with OpenAI's client: what transformers' Whisper writes of the same sound; bombs; what is refused."""

import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
import transformers
from listeners import RATE, SECONDS, packed, sound, whisper
from readers import bert
from serving import Served, serving

from cutaway.serve import Settings
from cutaway.text.audio import cut_at_pauses

LONG = 5.3  # seconds


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("listeners")
    return {
        "whisper": whisper(root / "whisper"),
        "english": whisper(root / "english", multilingual=False),
        "bert": bert(root / "bert"),
    }


@pytest.fixture(scope="module")
def served(folders: dict[str, str]) -> Iterator[Served]:
    with serving(Settings(models=folders, max_audio=700_000, max_audio_seconds=20, max_recordings=2)) as found:
        yield found


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def ask(served: Served, content: bytes, job: str = "transcriptions", **asked: Any) -> httpx.Response:
    fields = {"model": "whisper", **asked}
    return httpx.post(f"{served.url}/v1/audio/{job}", data=fields, files={"file": ("a.wav", content)}, timeout=60)


@torch.no_grad()
def theirs(folder: str, samples: np.ndarray, **told: Any) -> list[int]:
    """The ids that transformers writes, from the first one that is not told."""
    network: Any = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    listens = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    features = listens(samples, sampling_rate=RATE, return_tensors="pt").input_features
    return network.generate(features, do_sample=False, num_beams=1, **told)[0].tolist()


def text_of(folder: str, ids: list[int]) -> str:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(("language", "job"), [("en", "transcribe"), ("zh", "transcribe"), ("de", "translate")])
def test_the_text_is_that_of_transformers(
    client: openai.OpenAI, served: Served, folders: dict[str, str], language: str, job: str
):
    samples = sound(SECONDS - 0.3)
    expected = text_of(folders["whisper"], theirs(folders["whisper"], samples, language=language, task=job))
    assert expected.strip()
    if job == "transcribe":
        content = packed(samples, subtype="FLOAT")
        said = client.audio.transcriptions.create(file=content, model="whisper", language=language)
        assert said.text == expected.strip()
    else:
        said = ask(served, packed(samples, subtype="FLOAT"), "translations", language=language).json()
        assert said["text"] == expected.strip()


def test_the_language_is_found_out(client: openai.OpenAI, folders: dict[str, str]):
    samples = sound(SECONDS, 1)
    network = transformers.WhisperForConditionalGeneration.from_pretrained(folders["whisper"]).eval()
    listens = transformers.WhisperFeatureExtractor.from_pretrained(folders["whisper"])
    features = listens(samples, sampling_rate=RATE, return_tensors="pt").input_features
    token = int(network.detect_language(features)[0])
    expected = text_of(folders["whisper"], theirs(folders["whisper"], samples, task="transcribe"))
    said: Any = client.audio.transcriptions.create(
        file=packed(samples, subtype="FLOAT"), model="whisper", response_format="verbose_json"
    )
    assert f"<|{said.language}|>" == transformers.AutoTokenizer.from_pretrained(folders["whisper"]).decode([token])
    assert said.text == expected.strip()
    assert said.task == "transcribe"
    (segment,) = said.segments
    assert (segment.start, segment.end, said.duration) == (0, SECONDS, SECONDS)
    assert 0 < segment.no_speech_prob < 1
    assert segment.avg_logprob < 0


def test_what_was_said_before_is_told(client: openai.OpenAI, folders: dict[str, str]):
    samples = sound(SECONDS, 2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["whisper"])
    before = tokenizer(" hello", add_special_tokens=False)["input_ids"]
    prompt = torch.tensor([tokenizer.convert_tokens_to_ids("<|startofprev|>"), *before])
    written = theirs(folders["whisper"], samples, language="en", task="transcribe", prompt_ids=prompt)
    content = packed(samples, subtype="FLOAT")
    said = client.audio.transcriptions.create(file=content, model="whisper", language="en", prompt="hello")
    plain = client.audio.transcriptions.create(file=content, model="whisper", language="en")
    text = text_of(folders["whisper"], written)
    assert said.text
    assert text.endswith(said.text)
    assert said.text != plain.text


def test_long_recordings_are_heard_in_parts(client: openai.OpenAI, served: Served):
    samples = sound(LONG, 3)
    parts = cut_at_pauses(samples, SECONDS * RATE, RATE)
    alone = [
        client.audio.transcriptions.create(file=packed(samples[a:b], subtype="FLOAT"), model="whisper", language="en")
        for a, b in parts
    ]
    said: Any = client.audio.transcriptions.create(
        file=packed(samples, subtype="FLOAT"), model="whisper", language="en", response_format="verbose_json",
        timestamp_granularities=["segment"],
    )  # fmt: skip
    assert [one.text.strip() for one in said.segments] == [one.text for one in alone]
    times = [(round(a / RATE, 3), round(b / RATE, 3)) for a, b in parts]
    assert [(one.start, one.end) for one in said.segments] == times
    assert said.duration == LONG
    content = packed(samples, subtype="FLOAT")
    told = {form: ask(served, content, language="en", response_format=form).text for form in ("text", "srt", "vtt")}
    assert told["text"] == f"{said.text}\n"
    first = " ".join(alone[0].text.split())
    end = f"{parts[0][1] / RATE:.3f}"
    assert told["srt"].startswith(f"1\n00:00:00,000 --> 00:00:0{end.replace('.', ',')}\n{first}\n\n2\n")
    assert told["vtt"].startswith(f"WEBVTT\n\n00:00:00.000 --> 00:00:0{end}\n{first}\n\n00:00:0{end} --> ")


def test_the_text_comes_as_events(client: openai.OpenAI):
    content = packed(sound(LONG, 4), subtype="FLOAT")
    whole = client.audio.transcriptions.create(file=content, model="whisper", language="en", include=["logprobs"])
    assert whole.logprobs
    events: list[Any] = list(
        client.audio.transcriptions.create(
            file=content, model="whisper", language="en", stream=True, include=["logprobs"]
        )
    )
    assert [one.type for one in events] == ["transcript.text.delta"] * (len(events) - 1) + ["transcript.text.done"]
    assert "".join(one.delta for one in events[:-1]).strip() == events[-1].text == whole.text
    told = [one.logprob for event in events[:-1] for one in event.logprobs]
    assert told == [one.logprob for one in whole.logprobs]


def test_a_temperature_draws_the_same_again(client: openai.OpenAI):
    content = packed(sound(SECONDS, 5))
    drawn = [
        client.audio.transcriptions.create(file=content, model="whisper", language="en", temperature=temperature).text
        for temperature in (0.0, 1.0, 1.0)
    ]
    assert drawn[1] == drawn[2] != drawn[0]


@pytest.mark.parametrize(("form", "options"), [("FLAC", {}), ("OGG", {"subtype": "VORBIS"}), ("MP3", {})])
def test_every_format_is_heard(served: Served, form: str, options: dict[str, Any]):
    assert ask(served, packed(sound(SECONDS, rate=44_100), form, 44_100, **options), language="en").json()["text"]


@pytest.mark.parametrize("form", ["FLAC", "OGG"])
def test_t6_a_small_upload_that_unfolds_is_refused(served: Served, form: str):
    """T6: what a file may unfold to is limited while it is decoded."""
    options = {"subtype": "OPUS"} if form == "OGG" else {}
    content = packed(np.zeros(600 * 8_000, np.float32), form, 8_000, **options)
    assert len(content) < 700_000  # it is let in
    tracemalloc.start()
    answer = ask(served, content, language="en")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    assert "longer than the 20 seconds" in answer.json()["error"]["message"]
    assert peak < 600 * RATE * 4 / 4  # bytes; a quarter of what all of it would be
    assert ask(served, packed(sound(1)), language="en").status_code == 200


def test_t6_a_header_that_lies_about_the_length_gains_nothing(served: Served):
    """T6: a FLAC stream that says that it has one second, and goes on for ten minutes."""
    content = bytearray(packed(np.zeros(600 * 8_000, np.float32), "FLAC", 8_000))
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0x1F, 0x40])  # 36 bits: samples of the stream
    assert ask(served, bytes(content), language="en").json()["usage"]["seconds"] == 1


@pytest.mark.parametrize(
    ("asked", "param", "word"),
    [
        ({"language": "xx"}, "language", "language"),
        ({"language": "en", "model": "english"}, "language", "one language"),
        ({"model": "bert"}, "model", "does not listen"),
        ({"temperature": "2"}, "temperature", "at most 1"),
        ({"temperature": "nan"}, "temperature", "finite"),
        ({"prompt": "hello there " * 20}, "prompt", "takes 11"),
        ({"response_format": "diarized_json"}, "response_format", "verbose_json"),
        ({"timestamp_granularities[]": "word", "response_format": "verbose_json"}, None, "segment"),
        ({"timestamp_granularities[]": "segment"}, "timestamp_granularities[]", "verbose_json"),
        ({"include[]": "logprobs", "response_format": "text"}, "include[]", "json"),
        ({"stream": "true", "response_format": "srt"}, "stream", "srt"),
        ({"known_speaker_names[]": "x"}, "known_speaker_names[]", "not told apart"),
        ({"chunking_strategy": '{"type": "server_vad"}'}, "chunking_strategy", "auto"),
        ({"model": "../../etc/passwd"}, "model", "whisper"),
    ],
)
def test_what_cannot_be_heard(served: Served, asked: dict[str, str], param: str | None, word: str):
    answer = ask(served, packed(sound(1)), **asked)
    error = answer.json()["error"]
    assert answer.status_code == (404 if "/" in asked.get("model", "") else 400)
    assert param is None or error["param"] == param
    assert word in error["message"]


def test_translations_take_no_options_of_transcriptions(served: Served):
    error = ask(served, packed(sound(1)), "translations", stream="true").json()["error"]
    assert (error["code"], error["param"]) == ("unknown_parameter", "stream")
    error = ask(served, packed(sound(1)), "translations", model="english").json()["error"]
    assert "cannot translate" in error["message"]
    assert ask(served, packed(sound(1)), model="english").json()["text"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "no recording"),
        (b"RIFF", "not a sound file"),
        (b"#!/bin/sh\nexit", "not a sound file"),
        (packed(sound(1))[:20_000], "cut short"),
        (packed(np.zeros(0, np.float32)), "no sound"),
        (packed(np.zeros((100, 17), np.float32)), "17 channels"),
    ],
)
def test_what_is_no_recording(served: Served, content: bytes, word: str):
    answer = ask(served, content)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    assert word in answer.json()["error"]["message"]


def test_t7_an_upload_is_content_and_never_a_path(served: Served, folders: dict[str, str], tmp_path: Any):
    """T7, T12: the name of an upload is never opened, and no field names a file or an address."""
    there = tmp_path / "there.wav"
    there.write_bytes(packed(sound(1)))
    for files, data in (
        ({"file": (str(there), b"no sound")}, {}),
        ({}, {"file": str(there)}),
        ({}, {"file": f"file://{there}"}),
        ({"other": ("a.wav", packed(sound(1)))}, {}),
    ):
        answer = httpx.post(
            f"{served.url}/v1/audio/transcriptions",
            data={"model": "whisper", **data},
            files=files or {"none": (None, "")},  # type: ignore[dict-item]
        )
        assert answer.status_code == 400
        assert str(there) not in answer.text


def test_more_bytes_than_are_taken(served: Served):
    answer = ask(served, packed(sound(25)))
    assert answer.status_code == 413
    assert "700,000" in answer.json()["error"]["message"] or "765,536" in answer.json()["error"]["message"]


def test_more_recordings_than_are_heard_at_a_time(served: Served):
    content = packed(sound(12), "FLAC")
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(served, content, language="en"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert all(int(answer.headers["retry-after"]) for answer in answers if answer.status_code == 429)
    _all_given_back(served)


def test_a_client_that_goes_away_gives_its_place_back(served: Served):
    asked: dict[str, Any] = {"files": {"file": packed(sound(19), "FLAC")}, "timeout": httpx.Timeout(30, read=0.02)}
    url = f"{served.url}/v1/audio/transcriptions"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, data={"model": "whisper"}, **asked)
    _all_given_back(served)
    asked["timeout"] = 30
    with httpx.stream("POST", url, data={"model": "whisper", "stream": "true"}, **asked) as events:
        assert next(events.iter_raw())
    _all_given_back(served)


def _all_given_back(served: Served) -> None:
    until = time.monotonic() + 10
    engine = served.server.models.loaded["whisper"].engine
    while (served.server.recordings or served.server.works or not engine.idle) and time.monotonic() < until:
        time.sleep(0.01)
    assert served.server.recordings == 0
    assert not served.server.works
    assert engine.idle


def test_what_is_heard_is_given_back_where_texts_stand_in_the_log(
    folders: dict[str, str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    with serving(Settings(models={"whisper": folders["whisper"]}, log_texts=True)) as served:
        answer = ask(served, packed(sound(SECONDS)), language="en")
        assert answer.status_code == 200
        _all_given_back(served)
    assert "whisper was asked: sound (" in caplog.text


def test_a_client_that_goes_between_two_parts_ends_all(served: Served, monkeypatch: pytest.MonkeyPatch):
    """Of the parts until then everything was handed out, which is not all of the answer."""
    engine = served.server.models.loaded["whisper"].engine
    submit, here, go, count = engine.submit, threading.Event(), threading.Event(), 0

    def slow(request: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            here.set()
            assert go.wait(20)
        return submit(request)

    monkeypatch.setattr(engine, "submit", slow)
    fields = {"model": "whisper", "stream": "true", "language": "en"}
    files = {"file": packed(sound(19), "FLAC")}
    with httpx.stream("POST", f"{served.url}/v1/audio/transcriptions", data=fields, files=files, timeout=20):
        assert here.wait(20)
        (work,) = served.server.works
    time.sleep(0.3)
    go.set()
    _all_given_back(served)
    assert work.error is not None
    assert work.error.status == 499
    assert count == 2


def test_nothing_of_a_long_recording_is_done_in_the_event_loop(served: Served, monkeypatch: pytest.MonkeyPatch):
    threads = []

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return cut_at_pauses(*given)

    monkeypatch.setattr("cutaway.serve.routes.audio.cut_at_pauses", noted)
    assert ask(served, packed(sound(LONG)), language="en").status_code == 200
    assert [name.startswith("beside") for name in threads] == [True]
