"""Which training texts a model has by heart.

Shapes: N texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp.inputs import Inputs, forward
from cutaway.interp.receipt import Clock
from cutaway.interp.record import first_broken
from cutaway.interp.results import Cell, Panel, Table
from cutaway.models import Model
from cutaway.progress import OnProgress, Progress
from cutaway.tokenizers import TokenSplit, TokenStore

LOGITS = 2**24  # numbers of one batch's output, at the most
SHOWN = 20  # texts in the table
MANY = 2**20  # places, of which not all are listed
Texts = TokenStore | TokenSplit | Sequence[str]


@torch.no_grad()
def memorised(
    model: Model,
    text: Texts,
    *,
    held_out: Texts | None = None,
    prefix: int = 16,
    continuation: int = 16,
    count: int = 200,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Panel:
    """Texts that the model continues word for word as they stand, if it is given their beginning.

    A text is by heart here if the likeliest token at every step is the one that stands there: extractable with a prompt
    of `prefix` tokens, greedily (Carlini et al. 2022, "Quantifying Memorization Across Neural Language Models"). Each
    stretch is read once: greedy decoding goes its way exactly as long as each likeliest token is the true one.

    Much text is easily continued without having been seen. So the same is asked of texts that were held out, if there
    are any, and only what is above that is memory.

    Args:
        model: a model that predicts next tokens.
        text: what it was trained on: a token store (its "train"), a split, or texts.
        held_out: what it was not trained on; None: the "valid" of a store, else nothing.
        prefix: tokens that are given.
        continuation: tokens that have to follow.
        count: stretches tried at the most, drawn at random places of the texts.
        seed: of these.
        progress: told after each batch.

    Returns:
        A panel: a table of the stretches that are by heart, or nearly, longest first; as figures the share of stretches
        by heart, the mean share of a continuation up to the first mistake, and both for the texts held out.

    Raises:
        ConfigError: a model that predicts no next token, options out of range, or a store of pairs or labels.
        InputError: no text is long enough, or the stretches do not fit the context.
        NonFinite: the model computes a NaN or an infinity.
    """
    model.speaker("a search for memorised texts")
    for name, value in (("prefix", prefix), ("continuation", continuation), ("count", count)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, but {value} was given")
    length = prefix + continuation
    if model.config.kind == "decoder" and length > model.config.context:
        raise InputError(
            f"{prefix} + {continuation} tokens do not fit the context of {model.config.context}; take less"
        )
    clock = Clock(model, "memorised", text, prefix=prefix, continuation=continuation, count=count, seed=seed)
    if held_out is None and isinstance(text, TokenStore) and "valid" in text.splits:
        held_out = text["valid"]
    tried, where = _stretches(model, text, length, count, seed)
    right = _right(model, tried, prefix, progress)
    until = right.cummin(1).values.sum(1)  # tokens before the first mistake
    figures = _figures(until, continuation, "")
    notes = []
    if held_out is None:
        notes.append("There was no text to compare with, so what is easily guessed is among this.")
    else:
        control = _right(model, _stretches(model, held_out, length, count, seed)[0], prefix, progress)
        figures |= _figures(control.cummin(1).values.sum(1), continuation, " of texts held out")
        notes.append("Memory is what is above the texts held out.")
    order = until.argsort(descending=True, stable=True)[:SHOWN].tolist()
    tokenizer = model.tokenizer
    rows: list[list[Cell]] = []
    for i in order:
        ids = tried[i].tolist()
        known = int(until[i])
        rows.append([where[i], known, tokenizer.decode(ids[:prefix]), tokenizer.decode(ids[prefix : prefix + known])])
    columns = ["text", f"tokens of {continuation}", "given", "continued as it stands"]
    receipt = clock.receipt(seed=seed)
    table = Table("what is known by heart, longest first", columns, rows, receipt=receipt)
    return Panel("memorised texts", {"stretches": table}, notes, figures, receipt=receipt)


def _figures(until: Tensor, continuation: int, of: str) -> dict[str, float]:
    return {
        f"share by heart{of}": float((until == continuation).double().mean()),
        f"mean share up to the first mistake{of}": float(until.double().mean()) / continuation,
        f"stretches{of}": float(len(until)),
    }


def _right(
    model: Model, ids: Int[Tensor, "N T"], prefix: int, progress: OnProgress | None
) -> Bool[Tensor, "N continuation"]:
    """Whether the likeliest token behind everything before it is the one that stands there."""
    found: list[Tensor] = []
    rows = max(1, LOGITS // (ids.shape[1] * model.config.vocab_size))
    for batch in ids.split(rows):
        inputs = Inputs(batch.to(model.device))
        output = forward(model, inputs)
        if not output.isfinite().all():
            raise NonFinite(f"{first_broken(model, inputs, {})} holds a NaN or an infinity, and so do the logits")
        found.append(output[:, prefix - 1 : -1].argmax(-1).cpu() == batch[:, prefix:])
        if progress is not None:
            progress(Progress("reading", sum(map(len, found)), len(ids), "stretches"))
    return torch.cat(found)


def _stretches(model: Model, texts: Texts, length: int, count: int, seed: int) -> tuple[Int[Tensor, "N T"], list[str]]:
    """Stretches of texts that are long enough, at random places, and which texts they are of."""
    if isinstance(texts, TokenStore):
        if texts.kind != "texts":
            raise ConfigError(f"a store of {texts.kind} has no texts to continue; give one of texts")
        texts = texts["train"]
    if isinstance(texts, TokenSplit):
        split = texts
        if split.tokenizer.fingerprint != model.tokenizer.fingerprint:
            raise ConfigError(
                "the store was made with another tokenizer than the model's; prepare the texts with its own"
            )
        lengths = split.document_lengths(np.arange(split.documents)).tolist()

        def document(number: int) -> list[int]:
            return split.document(number).tolist()

        def name(number: int) -> str:
            return split.source(number)
    else:
        if isinstance(texts, str):
            texts = [texts]
        encoded = [model.ids(text)[0].tolist() if text else [] for text in texts]
        lengths = [len(ids) for ids in encoded]

        def document(number: int) -> list[int]:
            return encoded[number]

        def name(number: int) -> str:
            return f"text {number}"

    rooms = (torch.tensor(lengths) - length + 1).clamp(min=0)  # places at which a stretch may begin
    ends = rooms.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    if not total:
        raise InputError(f"no text has {length} tokens; give longer ones, or a smaller prefix and continuation")
    draw = torch.Generator().manual_seed(seed)
    if total <= max(MANY, 2 * count):
        places = torch.randperm(total, generator=draw)[:count].sort().values
    else:  # each place once: of so many, few are drawn again
        places = torch.randint(total, (2 * count,), generator=draw).unique()
        places = places[torch.randperm(len(places), generator=draw)[:count]].sort().values
    numbers = torch.searchsorted(ends, places, right=True)
    starts = places - (ends - rooms)[numbers]
    chosen = list(zip(numbers.tolist(), starts.tolist(), strict=True))
    ids = torch.tensor([document(number)[start : start + length] for number, start in chosen])
    return ids, [name(number) for number, _ in chosen]
