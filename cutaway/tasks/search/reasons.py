"""Why a passage was found: what each word adds to its BM25 score, and each token to its cosine.

A mean-pooled vector is the mean of the tokens' last states, so the cosine with a question's vector is a sum with one
term for each token of the passage, exactly. Where a vector is pooled otherwise, a token's share is what the cosine
loses without it.

Shapes: T tokens, C channels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cutaway.interp.receipt import Receipt
from cutaway.interp.results import Table, TokenScores
from cutaway.models import Model
from cutaway.models.embedding import framed_texts

if TYPE_CHECKING:
    from cutaway.tasks.search.fusion import Hit
    from cutaway.tasks.search.index import Index


@dataclass(frozen=True)
class Shares(TokenScores):
    """What each token of a text adds to the cosine of two vectors.

    Attributes:
        cosine: of the two.
        exact: whether the shares add up to it.
    """

    cosine: float = 0.0
    exact: bool = False


@dataclass(frozen=True)
class Reasons:
    """What a hit is owed to.

    Attributes:
        words: each word of the question with what it adds to the BM25 score; the sum is the score.
        score: of BM25.
        tokens: each token of the passage with what it adds to the cosine; None where there are no vectors.
    """

    words: Table
    score: float
    tokens: Shares | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        words = [{"word": word, "adds": adds} for word, adds in self.words.rows]
        return {"bm25": self.score, "words": words, "vectors": self.tokens and self.tokens.to_json()}

    def __rich_console__(self, console: Any, options: Any) -> Any:
        """In a terminal: both, one below the other."""
        yield self.words
        if self.tokens is not None:
            yield self.tokens


def reasons(index: Index, question: str, hit: Hit) -> Reasons:
    """What a hit of a question is owed to.

    Args:
        index: that found it.
        question: that was asked.
        hit: of the index.
    """
    started = time.perf_counter()
    terms = index.words.terms(index.cut(question), hit.passage)
    rows: list[list[Any]] = [[word, adds] for word, adds in sorted(terms.items(), key=lambda one: -one[1])]
    score = float(sum(terms.values()))
    code = (
        "from cutaway.tasks.search import open_index\n\n"
        f"index = open_index({str(index.folder)!r})\n"
        f"hits = index.search({question!r}, top=100)\n"
        f"result = index.why({question!r}, next(hit for hit in hits if hit.passage == {hit.passage}))\n"
    )
    gap = None if hit.words is None else abs(score - hit.words.score)
    spent = 1000 * (time.perf_counter() - started)
    receipt = Receipt(0.0, spent, 0, "float32", str(index.folder), gap=gap, code=code)
    what = f"what each word adds to the BM25 score of {score:.3f}"
    table = Table(what=what, columns=["word", "adds"], rows=rows, receipt=receipt)
    if index.vectors is None:
        return Reasons(table, score)
    return Reasons(table, score, shares_of(index.engine.model, question, hit.text, code=code))


def shares_of(model: Model, question: str, text: str, *, code: str = "") -> Shares:
    """What each token of a text adds to the cosine of its vector and a question's.

    Args:
        model: that embeds.
        question: the other text.
        text: whose tokens are asked about.
        code: the Python that makes it, for the receipt.
    """
    started = time.perf_counter()
    code = code or (
        "import cutaway\nfrom cutaway.tasks.search.reasons import shares_of\n\n"
        f"model = cutaway.load_model({model.source!r})\nresult = shares_of(model, {question!r}, {text!r})\n"
    )
    shares, cosine, exact = token_shares(model, question, text)
    ids = framed_texts(model, [text])[0]
    gap = abs(float(shares.sum()) - cosine) if exact else None
    spent = 1000 * (time.perf_counter() - started)
    lost = "what the cosine loses without a token"
    return Shares(
        what=f"what each token adds to the cosine of {cosine:.3f}" if exact else lost,
        unit="cosine",
        tokens=[model.tokenizer.token(id) for id in ids],
        ids=ids,
        scores=[float(one) for one in shares],
        signed=True,
        cosine=cosine,
        exact=exact,
        receipt=Receipt(0.0, spent, 0, "float64", model.source, gap=gap, code=code),
    )


@torch.no_grad()
def token_shares(model: Model, question: str, text: str) -> tuple[np.ndarray, float, bool]:
    """(T,) each token's share in the cosine of the vectors of two texts, the cosine, and whether they add up to it."""
    network: Any = model.network
    asked, read = (torch.tensor([ids]) for ids in framed_texts(model, [question, text]))
    training = network.training
    network.eval()
    try:
        vectors = [network(ids.to(model.device)).double().cpu()[0] for ids in (asked, read)]
        toward = vectors[0] / vectors[0].norm()
        if model.config.pooling == "mean":  # pyright: ignore[reportAttributeAccessIssue]
            states = network.finish(network.stream(read.to(model.device))).double().cpu()[0]  # (T, C)
            mean = states.mean(0)
            shares = states @ toward / (len(states) * mean.norm())
            return shares.numpy(), float(toward @ mean / mean.norm()), True
        cosine = float(toward @ vectors[1] / vectors[1].norm())
        lost = []
        for place in range(read.shape[1]):
            left = torch.cat((read[:, :place], read[:, place + 1 :]), dim=1)
            other = network(left.to(model.device)).double().cpu()[0] if left.shape[1] else vectors[1]
            lost.append(cosine - float(toward @ other / other.norm()))
        return np.array(lost), cosine, False
    finally:
        network.train(training)
