"""What a server counts, for Prometheus (docs/serving.md lists the names).

Counting is adding plain numbers in the event loop; what Prometheus reads is made when it asks. Labels have names of
routes, models and reasons, all of which come from the program or the command line: nobody's request makes a new one.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cutaway.serve.sizes import resident

if TYPE_CHECKING:
    from cutaway.serve.server import Server, Work

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
REASONS = {
    401: "no_key",
    403: "forbidden",
    408: "too_slow",
    413: "too_large",
    421: "foreign_host",
    429: "busy",
    499: "client_gone",
    503: "unavailable",
    504: "deadline",
}


class Histogram:
    """How often values were at most each of some limits.

    Args:
        limits: in rising order.
    """

    def __init__(self, limits: Sequence[float]) -> None:
        self.limits, self.counts, self.sum = limits, [0] * (len(limits) + 1), 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.limits, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Each limit with how many values are not above it, as Prometheus has it."""
        made, total = [], 0
        for limit, count in zip((*map(str, self.limits), "+Inf"), self.counts, strict=True):
            total += count
            made.append((limit, float(total)))
        return made


class Metrics:
    """What one server counts.

    Args:
        server: whose queue, models and engines are looked at when somebody asks.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.requests: Counter[tuple[str, str]] = Counter()  # (route, status)
        self.rejected: Counter[str] = Counter()  # reason
        self.tokens: Counter[tuple[str, str]] = Counter()  # (model, "read", "cached" or "written")
        self.seconds: dict[str, Histogram] = {}  # by route
        self.first: dict[str, Histogram] = {}  # time to the first token, by model
        self.each: dict[str, Histogram] = {}  # time from a token to the next, by model

    def ended(self, route: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            route: as the program writes it, such as /v1/models/{name}.
            status: of HTTP; 499: the client had gone.
            seconds: from its head to the end of its answer.
        """
        self.requests[route, str(status)] += 1
        self.seconds.setdefault(route, Histogram(SECONDS)).add(seconds)
        if status in REASONS:
            self.rejected[REASONS[status]] += 1

    def answered(self, work: Work) -> None:
        """A request has given its place back: what was read and written for it."""
        model = work.model
        self.tokens[model, "read"] += work.prompt_tokens - work.cached_tokens
        self.tokens[model, "cached"] += work.cached_tokens
        self.tokens[model, "written"] += work.completion_tokens
        for stream in work.streams:
            if stream.times is not None:
                first, last = stream.times
                self.first.setdefault(model, Histogram(SECONDS)).add(first - work.began)
                if stream.written > 1:
                    each = self.each.setdefault(model, Histogram(TOKEN_SECONDS))
                    each.add((last - first) / (stream.written - 1))

    def text(self) -> tuple[bytes, str]:
        """All of it as Prometheus reads it, and the content type of that."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self, self._server))  # pyright: ignore[reportArgumentType]
        return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collector:
    """What prometheus_client asks for what there is."""

    def __init__(self, metrics: Metrics, server: Server) -> None:
        self._metrics, self._server = metrics, server

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        def counter(name: str, text: str, labels: Sequence[str], values: Any) -> Any:
            made = CounterMetricFamily(name, text, labels=labels)
            for key, value in sorted(values.items()):
                made.add_metric([key] if isinstance(key, str) else key, value)
            return made

        def gauge(name: str, text: str, labels: Sequence[str], values: Any) -> Any:
            made = GaugeMetricFamily(name, text, labels=labels)
            for key, value in values.items():
                made.add_metric(key, value)
            return made

        def histogram(name: str, text: str, label: str, values: dict[str, Histogram]) -> Any:
            made = HistogramMetricFamily(name, text, labels=[label])
            for key, value in sorted(values.items()):
                made.add_metric([key], value.buckets(), value.sum)
            return made

        own, queue, models = self._metrics, self._server.queue, self._server.models
        yield counter("cutaway_requests", "Requests answered.", ("route", "status"), dict(own.requests))
        yield histogram("cutaway_request_seconds", "From head to end of answer.", "route", dict(own.seconds))
        yield counter("cutaway_rejected", "Requests that were not answered.", ("reason",), dict(own.rejected))
        yield counter(
            "cutaway_tokens", "Tokens read, found in the cache, written.", ("model", "kind"), dict(own.tokens)
        )
        yield histogram("cutaway_time_to_first_token_seconds", "From a request's head.", "model", dict(own.first))
        yield histogram("cutaway_time_per_token_seconds", "From a token to the next.", "model", dict(own.each))
        yield gauge("cutaway_queue_waiting", "Places that requests wait for.", (), {(): queue.waiting})
        yield gauge("cutaway_queue_running", "Places taken.", (), {(): queue.running})
        loaded = list(models.loaded.values())
        counts = {one.name: one.engine.counts() for one in loaded if one.adapter is None}
        yield gauge("cutaway_models_loaded", "Models in memory.", (), {(): len(loaded)})
        kinds = ("weights", "pages", "work")
        sizes = {(one.name, kind): getattr(one.sizes, kind) for one in loaded for kind in kinds}
        yield gauge("cutaway_model_bytes", "What a model may take.", ("model", "kind"), sizes)
        batch = {(name,): found["sequences"] for name, found in counts.items()}
        yield gauge("cutaway_batch_sequences", "Sequences that are computed together.", ("model",), batch)
        states = ("used", "kept", "most")
        pages = {(name, state): found[state] for name, found in counts.items() for state in states}
        yield gauge("cutaway_pages", "Pages of keys and values.", ("model", "state"), pages)
        yield gauge("process_resident_memory_bytes", "Memory of the process.", (), {(): resident()})
        yield gauge("process_start_time_seconds", "Since 1970.", (), {(): self._server.started})
        times = os.times()
        made = CounterMetricFamily("process_cpu_seconds", "Time computed.")
        made.add_metric([], times.user + times.system)
        yield made
        yield gauge("cutaway_up_seconds", "Since the start.", (), {(): time.time() - self._server.started})
