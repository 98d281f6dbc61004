"""The studio's routers, in the order of the API's pages."""

from cutaway.serve.studio import edit, lens, look, models, pages

STUDIO = [models.router, look.router, lens.router, edit.router, pages.router]
