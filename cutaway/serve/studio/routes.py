"""The studio's routers, in the order of the API's pages."""

from cutaway.serve.studio import (
    edit,
    examples,
    features,
    lens,
    look,
    models,
    pages,
)

STUDIO = [
    models.router,
    look.router,
    lens.router,
    edit.router,
    examples.router,
    features.router,
    pages.router,
]
from cutaway.serve.studio import look, models, pages, speak

STUDIO = [models.router, look.router, speak.router, pages.router]
