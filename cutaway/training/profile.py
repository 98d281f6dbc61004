"""A trace of a few training steps: which operation took how long, for chrome://tracing or ui.perfetto.dev."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TRACE = "trace.json"
SKIPPED = 3  # steps before the trace, which are slower than the rest


@contextmanager
def tracing(steps: int, folder: Path) -> Iterator[Callable[[], None]]:
    """Yields what to call after every step; after `steps` of them (and some first ones) the trace is written.

    Args:
        steps: how many to trace; 0 traces nothing.
        folder: gets trace.json.
    """
    if not steps:
        yield lambda: None
        return
    from torch.profiler import profile, schedule

    plan = schedule(wait=SKIPPED, warmup=1, active=steps, repeat=1)
    with profile(schedule=plan, on_trace_ready=lambda p: p.export_chrome_trace(str(folder / TRACE))) as tracer:
        yield tracer.step
