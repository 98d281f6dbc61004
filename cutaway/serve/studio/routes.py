"""The studio's routers, in the order of the API's pages."""

from cutaway.serve.studio import (
    edit,
    examples,
    features,
    heads,
    learn,
    lens,
    look,
    models,
    pages,
    speak,
    train,
    work,
)

STUDIO = [
    models.router,
    look.router,
    speak.router,
    heads.router,
    lens.router,
    edit.router,
    examples.router,
    features.router,
    train.router,
    work.router,
    learn.router,
    pages.router,
]
