"""How long work reports on itself: one small record, handed to a callable that the caller chose.

Library functions take `progress: OnProgress | None = None` and never print. The command line hands in a live display,
a server would hand in a queue.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One report.

    Attributes:
        stage: what is being done, in a word or two ("reading", "training").
        done: how much of it is done, in `unit`.
        total: how much there is, or None while unknown.
        unit: "bytes", "documents", "steps" …
        figures: what else is worth seeing now, name -> text or number, in the order to show.
    """

    stage: str
    done: float
    total: float | None = None
    unit: str = ""
    figures: Mapping[str, object] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]
