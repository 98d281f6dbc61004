"""Why a passage was found: what each word adds to its BM25 score, and each token to its cosine.

A mean-pooled vector is the mean of the tokens' last states, so the cosine with a question's vector is a sum with one
term for each token of the passage, exactly. Where a vector is pooled otherwise, a token's share is what the cosine loses
without it.

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
class Reasons:
    """What a hit is owed to.

    Attributes:
        words: each word of the question with what it adds to the BM25 score; the sum is the score.
        score: of BM25.
        tokens: each token of the passage with what it adds to the cosine; None where there are no vectors.
        cosine: of the question's vector and the passage's.
        exact: whether the tokens' shares add up to the cosine.
    """

    words: Table
    score: float
    tokens: TokenScores | None = None
    cosine: float | None = None
    exact: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "bm25": self.score,
            "words": [{"word": word, "adds": adds} for word, adds in self.words.rows],
            "cosine": self.cosine,
            "exact": self.exact,
            "tokens": None if self.tokens is None else self.tokens.to_json(),
        }

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

    def receipt(source: str, gap: float | None) -> Receipt:
        return Receipt(0.0, 1000 * (time.perf_counter() - started), 0, "float32", source, None, gap, code)

    said = 0.0 if hit.words is None else hit.words.score
    gap = abs(score - said) if hit.words is not None else None
    what = f"what each word adds to the BM25 score of {score:.3f}"
    table = Table(what=what, columns=["word", "adds"], rows=rows, receipt=receipt(str(index.folder), gap))
    if index.vectors is None:
        return Reasons(table, score)
    model = index.engine.model
    shares, cosine, exact = token_shares(model, question, hit.text)
    ids = framed_texts(model, [hit.text])[0]
    told = TokenScores(
        what=f"what each token adds to the cosine of {cosine:.3f}" if exact else "what the cosine loses without a token",
        unit="cosine",
        tokens=[model.tokenizer.token(id) for id in ids],
        ids=ids,
        scores=[float(one) for one in shares],
        signed=True,
        receipt=receipt(model.source, abs(float(shares.sum()) - cosine) if exact else None),
    )
    return Reasons(table, score, told, cosine, exact)


@torch.no_grad()
def token_shares(model: Model, question: str, text: str) -> tuple[np.ndarray, float, bool]:
    """(T,) each token's share in the cosine of a question's vector and a text's, the cosine, and whether they add up."""
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
