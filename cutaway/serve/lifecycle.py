"""From the start to the end: load, say what there is, answer, drain, leave nothing behind."""

from __future__ import annotations

import uvicorn

from cutaway.serve.protocol import uvicorn_options
from cutaway.serve.settings import Settings


def serve(settings: Settings) -> None:
    """Serve until a signal says to stop.

    Args:
        settings: models, limits and doors.

    Raises:
        InputError: the port is in use, or a model cannot be loaded.
    """
    from cutaway.serve.app import create_app

    options = {"host": settings.host, "port": settings.port, "log_level": "warning", **uvicorn_options(settings)}
    uvicorn.run(create_app(settings), **options)
