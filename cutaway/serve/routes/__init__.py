"""The routes, one file for each family. Adding one is a file and a line here."""

from cutaway.serve.routes import (
    audio,
    chat,
    classify,
    completions,
    embeddings,
    health,
    metrics,
    models,
    rerank,
    tag,
    tasks,
    tokens,
)

ROUTERS = (
    chat.router,
    completions.router,
    embeddings.router,
    rerank.router,
    classify.router,
    tag.router,
    tasks.router,
    audio.router,
    tokens.router,
    models.router,
    health.router,
    metrics.router,
)
