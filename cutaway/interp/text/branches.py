"""How a text may go on: a tree of continuations, with the probability of each.

Shapes: B open branches, T tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp.inputs import Text, evaluating, inputs_of
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Branch, Tree
from cutaway.models import Model, Seq2Seq
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

OTHERS = "others"
MOST = 4096  # branches open at a time


@dataclass
class _Open:
    """A branch while the tree grows."""

    token: int
    share: float
    total: float
    branches: list[_Open] = field(default_factory=list)
    others: float | None = None  # share of what is not shown; None: nothing was looked at


@torch.no_grad()
def generation_tree(
    model: Model,
    text: Text,
    *,
    source: Source | None = None,
    depth: int = 3,
    width: int = 3,
    least: float = 0.01,
    temperature: float = 1.0,
    progress: OnProgress | None = None,
) -> Tree:
    """How the model may go on after a text, with the probability of every branch.

    All branches of one depth are computed in one step, from one cache.

    Args:
        model: a model that predicts next tokens.
        text: what it has read; of several texts the first. Of an encoder–decoder the target so far.
        source: what an encoder–decoder reads.
        depth: how many tokens further.
        width: how many branches of each branch are followed at the most, likeliest first.
        least: a branch below this probability (all the way from the text) is not shown.
        temperature: logits are divided by it first.
        progress: told after each token.

    Returns:
        Each branch has its share of its parent and its probability from the text on; what is not shown of a branch is
        its last, "others", so that shares sum to 1. A branch that ends the text has none behind it.

    Raises:
        ConfigError: a model that predicts no next token, or options out of range.
        InputError: empty text, or text and depth above the context.
        NonFinite: the model computes a NaN or an infinity.
    """
    network: Any = model.network if isinstance(model.network, Seq2Seq) else model.speaker("a tree of continuations")
    if depth < 1 or width < 1 or not 0 <= least < 1 or not temperature > 0:
        raise ConfigError(
            "a tree needs depth and width of at least 1, least within 0 … 1 and a temperature above 0, but "
            f"depth={depth}, width={width}, least={least}, temperature={temperature} were given"
        )
    options = {"depth": depth, "width": width, "least": least, "temperature": temperature}
    clock = Clock(model, "generation_tree", text, source=source, **options)
    inputs = inputs_of(model, text, source).rows(0, 1)
    ids = inputs.ids if inputs.mask is None else inputs.ids[:, inputs.mask[0]]
    length = ids.shape[1]
    bounded = not isinstance(model.network, Seq2Seq) or model.network.config.ends
    if model.config.kind != "recurrent" and bounded and length + depth - 1 > model.config.context:
        raise InputError(
            f"a text of {length} tokens and {depth - 1} more do not fit the context of {model.config.context}; shorten "
            "the text or make the tree less deep"
        )
    ends = {*(model.generation.eos_token_id or ()), model.tokenizer.end_of_text}
    root = _Open(-1, 1.0, 1.0)
    front = [root]
    with evaluating(model):
        if isinstance(model.network, Seq2Seq):
            read = None if inputs.source_mask is None else inputs.source_mask
            cache = network.new_cache(inputs.source, mask=read, capacity=length + depth)
        else:
            cache = network.new_cache(1, length + depth)
        for level in range(depth):
            output = network(ids, cache=cache)[:, -1].float()
            if not output.isfinite().all():
                raise NonFinite("the logits hold a NaN or an infinity; record(model, text) names where it begins")
            shares = (output.double() / temperature).softmax(-1)
            children = [_branch(branch, row, width, least) for branch, row in zip(front, shares, strict=True)]
            pairs = [(i, child) for i, found in enumerate(children) for child in found if child.token not in ends]
            if progress is not None:
                progress(Progress("branching", level + 1, depth, "tokens", {"branches": len(pairs)}))
            if not pairs or level == depth - 1:
                break
            if len(pairs) > MOST:
                raise ConfigError(
                    f"{len(pairs):,} branches are open after {level + 1} tokens, more than {MOST:,}; give a smaller "
                    "width or a larger least"
                )
            cache.select(torch.tensor([i for i, _ in pairs], device=model.device))
            ids = torch.tensor([[child.token] for _, child in pairs], device=model.device)
            front = [child for _, child in pairs]
    shown = text if isinstance(text, str) else model.tokenizer.decode(inputs.ids[0].tolist())
    what = "what may follow, with the probability of every branch"
    return Tree(what, _closed(root, model, shown), receipt=clock.receipt())


def _branch(branch: _Open, shares: Tensor, width: int, least: float) -> list[_Open]:
    """Give a branch its likeliest continuations, (V,) shares."""
    values, tokens = shares.topk(min(width, len(shares)))
    for share, token in zip(values.tolist(), tokens.tolist(), strict=True):
        if branch.total * share >= least and share > 0:
            branch.branches.append(_Open(token, share, branch.total * share))
    branch.others = max(0.0, 1.0 - sum(child.share for child in branch.branches))
    return branch.branches


def _closed(branch: _Open, model: Model, label: str | None = None) -> Branch:
    below = [_closed(child, model) for child in branch.branches]
    if branch.others:
        below.append(Branch(OTHERS, branch.others, branch.total * branch.others))
    if label is not None:
        return Branch(label, branch.share, branch.total, tuple(below))
    tokenizer = model.tokenizer.target or model.tokenizer
    return Branch(tokenizer.token(branch.token), branch.share, branch.total, tuple(below), branch.token)
