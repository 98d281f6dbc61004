"""Steering as one view: dose and response, and what the model writes at each strength, beside a placebo.

Shapes: S strengths, T tokens, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.generation import generate
from cutaway.interp.inputs import inputs_of
from cutaway.interp.receipt import Clock
from cutaway.interp.record import record
from cutaway.interp.results import Cell, Panel, Table
from cutaway.interp.steering.dose import DoseResponse, dose_response
from cutaway.interp.steering.vector import SteeringVector, steering_vector, stream_after
from cutaway.interp.target import Quantity, target_of
from cutaway.models import ActiveTap, Decoder, Model, Seq2Seq
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

STRENGTHS = (-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0)


def steered_texts(
    model: Model,
    text: str,
    vector: SteeringVector,
    strengths: Sequence[float] = STRENGTHS,
    *,
    max_new_tokens: int = 24,
    progress: OnProgress | None = None,
) -> list[str]:
    """What the model writes on, likeliest token by likeliest token, with a vector added at each strength.

    The vector is added while the text is read and while it is written. A decoder writes at all strengths together.

    Args:
        model: a decoder, or an encoder–decoder, for which the text is its source.
        text: what is continued.
        vector: what is added.
        strengths: how often.
        max_new_tokens: at the most.
        progress: told after each token, or text.

    Raises:
        ConfigError: a model that writes nothing.
        InputError: an empty text, or one that leaves no room in the context.
    """
    if not isinstance(model.network, Decoder) or getattr(model.config, "head", "") != "causal_lm":
        texts = []
        for strength in strengths:
            made = generate(model, text, max_new_tokens=max_new_tokens, temperature=0, tap=vector.tap(strength))
            texts.append(made.text)
            if progress is not None:
                progress(Progress("writing", len(texts), len(strengths), "texts"))
        return texts
    inputs = inputs_of(model, text).rows(0, 1)
    read = inputs.ids.shape[1]
    room = min(max_new_tokens, model.config.context - read)
    if room < 1:
        raise InputError(f"the text has {read} tokens, and the context of {model.config.context} has no room behind it")
    by = torch.tensor([float(s) for s in strengths])

    def edit(x: Tensor) -> Tensor:
        return x + by.to(x)[:, None, None] * vector.vector.to(x)

    tap = ActiveTap(edits={vector.name: edit})
    ends = set(model.generation.eos_token_id or (model.tokenizer.end_of_text,))
    cache = model.network.new_cache(len(strengths), read + room)
    ids, written = inputs.ids.repeat(len(strengths), 1), []
    with torch.no_grad():
        for step in range(room):
            ids = model.network(ids, cache=cache, tap=tap)[:, -1].argmax(-1)[:, None]
            written.append(ids[:, 0])
            if progress is not None:
                progress(Progress("writing", step + 1, room, "tokens"))
    rows = torch.stack(written, dim=1).tolist()
    ended = [next((i for i, id_ in enumerate(row) if id_ in ends), len(row)) for row in rows]
    return [model.tokenizer.decode(row[:end]) for row, end in zip(rows, ended, strict=True)]


@dataclass(frozen=True)
class Steered(Panel):
    """`parts` holds "dose", a `DoseResponse`, and "texts", a table with a row for each strength.

    Attributes:
        layer: after which the vector was added.
        size: the vector's length.
        stream: the length of the stream it is added to, at the median token of the text.
    """

    layer: int = field(kw_only=True)
    size: float = field(kw_only=True)
    stream: float = field(kw_only=True)


@torch.no_grad()
def steer(
    model: Model,
    text: str,
    *,
    positive: Sequence[str] = (),
    negative: Sequence[str] = (),
    layer: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
    max_new_tokens: int = 24,
    source: Source | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    quantity: Quantity = "logprob",
    placebos: int = 2,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Steered:
    """Steer a model along the difference of two kinds of texts: the dose–response curve, and the texts written.

    Args:
        model: what is steered.
        text: what it reads and continues.
        positive: as in `steering_vector`.
        negative: as in `steering_vector`.
        layer: as in `steering_vector`.
        strengths: how often the vector is added, below 0 against its direction.
        max_new_tokens: how much is written at each; 0: nothing.
        source: what an encoder–decoder reads.
        token: what the curve measures, as in `dose_response`; None: the likeliest without steering.
        minus: likewise.
        quantity: likewise.
        placebos: how many random directions of the same length the curve has beside it; the first also writes.
        seed: of the first of them.
        progress: told how far it is.

    Raises:
        ConfigError: as in `dose_response`.
        InputError: as in `dose_response`.
    """
    clock = Clock(
        model, "steer", text, positive=list(positive), negative=list(negative), layer=layer,
        strengths=list(strengths), source=source, token=token, minus=minus, quantity=quantity, placebos=placebos,
        max_new_tokens=max_new_tokens, seed=seed,
    )  # fmt: skip
    name, inputs = stream_after(model, layer), inputs_of(model, text, source).rows(0, 1)
    # of the median token: the first one is often a hundred times as long
    stream = float(record(model, inputs, name)[name][0].norm(dim=-1).median())
    target_of(model, inputs, token=token, minus=minus, quantity=quantity)  # it must be there too
    if not (positive and negative):
        raise ConfigError(
            "there is nothing to steer with: give positive= and negative=, texts of the two kinds it leads between"
        )
    vector = steering_vector(model, positive, negative, layer=layer)
    dose = dose_response(
        model, text, vector=vector, strengths=strengths, source=source, token=token, minus=minus, quantity=quantity,
        placebos=placebos, seed=seed, progress=progress,
    )  # fmt: skip
    parts: dict[str, DoseResponse | Table] = {"dose": dose}
    heard = isinstance(model.network, Seq2Seq)
    if max_new_tokens and (heard or getattr(model.config, "head", "causal_lm") == "causal_lm"):
        told: str = source if heard and isinstance(source, str) else text
        columns = [
            steered_texts(model, told, one, strengths, max_new_tokens=max_new_tokens, progress=progress)
            for one in (vector, vector.placebo(seed))
        ]
        rows: list[list[Cell]] = [list(row) for row in zip(map(float, strengths), *columns, strict=True)]
        parts["texts"] = Table(
            "what it writes", ["strength", "steered", "placebo"], rows, receipt=clock.receipt(seed=seed)
        )
    size = float(vector.vector.norm())
    notes = [
        f"The vector leads {vector.what}; it is added after every token at {name}.",
        f"It is {size:.3g} long, the stream there {stream:.3g} at the median token; a placebo is random and as long.",
    ]
    figures = {"placebos move it, of the vector": dose.placebo_share, "length of the vector": size}
    return Steered(
        "Steering", dict(parts), notes, figures, layer=int(name.split("layers.")[1].split(".")[0]), size=size,
        stream=stream, receipt=clock.receipt(seed=seed),
    )  # fmt: skip
