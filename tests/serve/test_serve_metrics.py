"""What the server counts, read as Prometheus reads it."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Served, serving, tiny_talker

from cutaway.serve import Settings
from cutaway.serve.metrics import Histogram


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    source = tiny_talker(tmp_path / "tiny", context=512)
    with serving(Settings(models={"tiny": source}, cache_memory=16 << 20)) as served:
        yield served


def figures(served: Served) -> dict[tuple[Any, ...], float]:
    """(name, label=value, …) -> number."""
    said = httpx.get(f"{served.url}/metrics")
    assert said.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(said.text))
    assert all(family.documentation for family in families)
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def ask(served: Served, **more: Any) -> httpx.Response:
    body = {"model": "tiny", "prompt": "The quick", "max_tokens": 8, "temperature": 0, **more}
    return httpx.post(f"{served.url}/v1/completions", json=body)


def test_requests_and_tokens_are_counted_by_route_status_and_model(served: Served) -> None:
    usage = ask(served).json()["usage"]
    long = "hello, how are you? " * 8
    ask(served, prompt=long)
    cached = ask(served, prompt=long).json()["usage"]
    ask(served, stream=True)
    ask(served, model="none")
    ask(served, temperature="hot")
    httpx.get(f"{served.url}/v1/models/none")
    httpx.get(f"{served.url}/v1/models", headers={"host": "another.example"})  # which the guard answers
    for path in ("/nothing/here", "/nor/there"):
        httpx.get(served.url + path)
    route = "route=/v1/completions"
    until = time.monotonic() + 10
    while (found := figures(served))["cutaway_requests_total", route, "status=200"] < 4 and time.monotonic() < until:
        time.sleep(0.02)  # a stream is counted when it has ended, which its reader may see first
    assert found["cutaway_requests_total", route, "status=200"] == 4, served.server.metrics.requests
    assert found["cutaway_requests_total", route, "status=404"] == 1
    assert found["cutaway_requests_total", route, "status=400"] == 1
    assert found["cutaway_requests_total", "route=/v1/models/{name}", "status=404"] == 1
    assert found["cutaway_requests_total", "route=/v1/models", "status=421"] == 1
    assert found["cutaway_requests_total", "route=none", "status=404"] == 2  # one name for all that there is not
    assert found["cutaway_request_seconds_count", route] == 6
    assert found["cutaway_tokens_total", "kind=written", "model=tiny"] == 8 * 4
    read, kept = (found["cutaway_tokens_total", f"kind={kind}", "model=tiny"] for kind in ("read", "cached"))
    assert kept >= 64  # a page of the long prompt was found
    assert read + kept == 2 * usage["prompt_tokens"] + 2 * cached["prompt_tokens"]
    assert found["cutaway_time_to_first_token_seconds_count", "model=tiny"] == 4
    assert found["cutaway_time_per_token_seconds_count", "model=tiny"] == 4
    assert found["cutaway_time_to_first_token_seconds_sum", "model=tiny"] > 0


def test_what_is_held_is_told(served: Served) -> None:
    ask(served, prompt="hello, how are you? " * 8)
    found = figures(served)
    assert found["cutaway_models_loaded",] == 1
    assert found["cutaway_model_bytes", "kind=pages", "model=tiny"] == 16 << 20
    assert found["cutaway_pages", "model=tiny", "state=kept"] >= 1
    assert found["cutaway_pages", "model=tiny", "state=used"] == 0
    assert found["cutaway_pages", "model=tiny", "state=most"] > 1
    assert found["cutaway_queue_running",] == found["cutaway_queue_waiting",] == 0
    assert found["process_resident_memory_bytes",] > 50e6
    assert found["process_cpu_seconds_total",] > 0


def test_every_name_is_in_the_documentation(served: Served) -> None:
    ask(served, max_tokens=2)
    ask(served, model="none")
    served.server.metrics.rejected["busy"] += 1
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
    names = {key[0].removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for key in figures(served)}
    assert len(names) > 15
    assert not [name for name in names if f"`{name}`" not in page]


def test_who_was_refused_and_why(served: Served) -> None:
    late = httpx.post(
        f"{served.url}/v1/completions",
        json={"model": "tiny", "prompt": "The", "max_tokens": 400},
        headers={"cutaway-deadline": "0.001"},
    )
    assert late.status_code == 504
    assert httpx.get(f"{served.url}/health", headers={"host": "evil.example"}).status_code == 421
    assert httpx.get(f"{served.url}/health", headers={"origin": "https://evil.example"}).status_code == 403
    served.server.queue._room, served.server.queue._most = 0, 1
    place = served.server.queue.take("tiny", "")
    assert ask(served).status_code == 429
    served.server.queue.leave(place)
    served.server.bridge._loop.call_soon_threadsafe(served.server.drain)
    while served.server.ready:
        asyncio.run(asyncio.sleep(0.01))
    assert ask(served).status_code == 503
    found = figures(served)
    reasons = {key[1]: value for key, value in found.items() if key[0] == "cutaway_rejected_total"}
    assert reasons == {f"reason={why}": 1 for why in ("deadline", "foreign_host", "forbidden", "busy", "unavailable")}


def test_nothing_that_a_client_sends_becomes_a_label(served: Served) -> None:
    for number in range(20):
        ask(served, model=f"model-{number}")
        httpx.get(f"{served.url}/v1/models/name-{number}")
        httpx.request(f"METHOD{number}", f"{served.url}/path-{number}")
    labels = {label for key in figures(served) for label in key[1:]}
    assert not [label for label in labels if "-1" in label or "METHOD" in label]


def test_a_histogram_counts_as_prometheus_has_it() -> None:
    made = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        made.add(value)
    assert made.buckets() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert made.sum == 12.0


def test_the_pages_are_exact_in_the_schema(served: Served) -> None:
    """Every status that these pages answer with is listed, and 422, which never comes, is not."""
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    assert set(paths["/health"]["get"]["responses"]) == {"200"}
    assert {"200", "401", "403", "503"} <= set(paths["/ready"]["get"]["responses"])
    assert "text/plain" in paths["/metrics"]["get"]["responses"]["200"]["content"]
    for path in ("/health", "/ready", "/metrics", "/v1/models", "/v1/models/{name}"):
        assert "422" not in paths[path]["get"]["responses"], path
