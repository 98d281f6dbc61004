"""Which tokens lie beside a token in the embedding, and in the matrix that reads the output.

Shapes: V vocabulary, C channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Cell, Table
from cutaway.models import Model

EMBEDDINGS = ("input", "output", "both")


@torch.no_grad()
def neighbours(
    model: Model, text: Text, *, embedding: str = "both", top: int = 8, centred: bool = True, special: bool = False
) -> Table:
    """The tokens whose vectors point most nearly the same way, by cosine.

    Args:
        model: of any kind.
        text: whose tokens to look up, each once.
        embedding: "input" (how a token is read), "output" (how it is said) or "both"; where the two are one matrix,
            it is looked at once.
        top: how many neighbours of each.
        centred: whether the mean of all vectors is taken away first: embeddings share a large common part, which makes
            all of them look alike.
        special: whether special tokens may be neighbours.

    Returns:
        A row for each neighbour: token, embedding, rank, neighbour, its id and cosine.

    Raises:
        ConfigError: an unknown embedding, or an output matrix of a model without one.
        InputError: empty text, or top below 1.
    """
    if embedding not in EMBEDDINGS:
        raise ConfigError(unknown("embedding", str(embedding), EMBEDDINGS))
    if top < 1:
        raise InputError(f"top must be at least 1, but {top} was given")
    clock = Clock(model, "neighbours", text, embedding=embedding, top=top, centred=centred, special=special)
    if isinstance(text, str):  # no token around it, as a model that reads it would have
        text = (model.tokenizer.target or model.tokenizer).encode(text)
    ids = list(dict.fromkeys(model.ids(text).flatten().tolist()))  # pyright: ignore[reportArgumentType]
    known = min(model.config.vocab_size, model.tokenizer.vocab_size)
    hidden = [] if special else [id for id in model.tokenizer.special.values() if id < known]
    rows: list[list[Cell]] = []
    for name, matrix in _matrices(model, embedding).items():
        vectors = matrix[:known].detach().double()
        vectors = vectors - vectors.mean(0) if centred else vectors
        vectors = vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-300)
        cosines = vectors[[id for id in ids if id < known]] @ vectors.T  # (tokens asked for, V)
        for id, cosine in zip(ids, cosines, strict=False):
            cosine[hidden] = -2
            cosine[id] = -2
            found = cosine.topk(min(top, known - 1))
            for rank, (value, other) in enumerate(zip(found.values.tolist(), found.indices.tolist(), strict=True), 1):
                if value >= -1.5:
                    rows.append([model.tokenizer.token(id), name, rank, model.tokenizer.token(other), other, value])
    columns = ["token", "embedding", "rank", "neighbour", "id", "cosine"]
    return Table("neighbours by cosine", columns, rows, receipt=clock.receipt())


def _matrices(model: Model, embedding: str) -> dict[str, Float[Tensor, "V C"]]:
    network = model.network
    found = {"input": network.embed_tokens.weight}
    head = getattr(network, "lm_head", None)
    if head is None:
        if embedding == "output":
            raise ConfigError("this model's head names no tokens, so it has no output matrix; look at the input")
    elif not getattr(model.config, "tied", False) or embedding == "output":
        found["output"] = head.weight
    if embedding == "both":
        return found
    return {embedding: found[embedding]}  # pyright: ignore[reportReturnType]
