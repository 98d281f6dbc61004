"""The studio's routers, in the order of the API's pages."""

from cutaway.serve.studio import examples, features, look, models, pages

STUDIO = [models.router, look.router, examples.router, features.router, pages.router]
