"""The routes, one file for each family. Adding one is a file and a line here."""

from cutaway.serve.routes import chat, completions, health, models

ROUTERS = (chat.router, completions.router, models.router, health.router)
