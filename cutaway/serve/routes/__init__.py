"""The routes, one file for each family. Adding one is a file and a line here."""

from cutaway.serve.routes import completions, health, models, tokens

ROUTERS = (completions.router, models.router, health.router, tokens.router)
