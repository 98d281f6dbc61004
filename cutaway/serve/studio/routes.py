"""The studio's routers, in the order of the API's pages."""

from cutaway.serve.studio import look, models, pages

STUDIO = [models.router, look.router, pages.router]
