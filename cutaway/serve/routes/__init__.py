"""The routes, one file for each family. Adding one is a file and a line here."""

from cutaway.serve.routes import classify, completions, embeddings, health, models, rerank, tag

ROUTERS = (
    completions.router,
    embeddings.router,
    rerank.router,
    classify.router,
    tag.router,
    models.router,
    health.router,
)
