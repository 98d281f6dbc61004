"""The studio's routers, in the order of the API's pages."""

from cutaway.serve.studio import heads, look, models, pages

STUDIO = [models.router, look.router, heads.router, pages.router]
