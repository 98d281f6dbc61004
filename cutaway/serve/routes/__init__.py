"""The routes, one file for each family. Adding one is a file and a line here."""

from cutaway.serve.routes import completions, health, metrics, models, tokens

ROUTERS = (
    completions.router,
    models.router,
    tokens.router,
    health.router,
    metrics.router,
)
