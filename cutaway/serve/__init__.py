"""One HTTP application: an OpenAI-compatible API over the generation engine.

The way of a request: protocol (limits of the connection) → guard (host, origin, key, size) → routes (what is asked, as
`schema` states it) → queue (a place, or 429) → models (loaded, or loaded now) → bridge (the engine's thread) → answer.

`cutaway.serve.app.create_app(settings)` is the application, `cutaway.serve.lifecycle.serve(settings)` runs it; both
need the extra `serve`.
"""

from cutaway.serve.settings import Settings

__all__ = ["Settings"]
