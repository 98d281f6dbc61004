"""The last lesson: from the chances of the next token to the one that is written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from cutaway.errors import ConfigError, InputError
from cutaway.generation.options import Sampling
from cutaway.generation.sampling import distribution
from cutaway.interp.inputs import Text
from cutaway.interp.lessons.worked import Opens, Shown, Worked, cells, given_to, model_of, names_of, place_in
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.target import name_of
from cutaway.models import Model
from cutaway.models.model import Source

TOP = 12  # tokens that are shown


@torch.no_grad()
def sampling_by_hand(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    position: int = -1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    uniform: float = 0.5,
) -> Worked:
    """The next token: logits by the temperature, softmax, what is cut off, and the token that a number finds.

    Args:
        model: that writes.
        text: what it goes on from.
        source: what an encoder–decoder reads.
        position: after which token.
        temperature: divides the logits; 0 takes the likeliest.
        top_k: keep the k likeliest; None: all.
        top_p: keep the likeliest that together reach p (Holtzman et al. 2020); None: all.
        uniform: the number in [0, 1) that draws.

    Returns:
        A row for each of the likeliest tokens: "logit", its "chance" at temperature 1 with nothing cut off, its chance
        to be "drawn", and the "sum" of those up to it. The engine lays out the tokens in the order of the vocabulary to
        draw among them (`cutaway.generation`); here, as in textbooks, they stand in the order of their chances, the
        likeliest first, and the token "taken" is the one whose sum first exceeds the number. Figures: "kept" tokens,
        the "entropy" of the draw in bits, the "chance" of the token taken. Facts: it, and the likeliest.

    Raises:
        ConfigError: a model that writes nothing, or an option out of its range.
        InputError: a position outside the text, or a number outside [0, 1).
    """
    run = model_of(model)
    if getattr(run.config, "head", "causal_lm") != "causal_lm":
        raise ConfigError("this model reads and writes nothing, so there is no next token to draw")
    if not 0 <= uniform < 1:
        raise InputError(f"the number that draws lies in [0, 1), but {uniform} was given")
    clock = Clock(run, "sampling_by_hand", model if isinstance(model, Recording) else text, source=source,
                  position=position, temperature=temperature, top_k=top_k, top_p=top_p, uniform=uniform)  # fmt: skip
    how = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    recording = recording_of(model, text, ["logits"], source=source, first=True)
    ids = given_to(model, text, source).ids[0]
    place = place_in(position, len(ids))
    scores = recording.logits[0, place].float()
    plain = scores.double().softmax(-1)
    drawn = distribution(scores.double(), how)
    order = torch.argsort(scores, descending=True, stable=True)
    sums = drawn[order].cumsum(0)
    at = min(int((sums > uniform).to(torch.int64).argmax()), len(order) - 1)
    taken, shown = int(order[at]), order[: min(TOP, len(order))]
    some = drawn[drawn > 0]
    figures = [
        Shown("kept", len(some)),
        Shown("entropy", float(-(some * some.log()).sum()) / math.log(2)),
        Shown("chance", float(drawn[taken])),
        Shown("rank", at + 1),
    ]
    names = [name_of(run, id) for id in shown.tolist()]
    opens: list[Opens | None] = [{"what": "logits", "position": place, "token": id} for id in shown.tolist()]
    rows = cells(names, shown, scores[shown], plain[shown], drawn[shown], sums[: len(shown)])
    facts = {"token": names_of(run, ids)[place], "taken": name_of(run, taken), "likeliest": names[0]}
    tokens = names_of(run, ids)
    return Worked(
        "the next token", ["token", "id", "logit", "chance", "drawn", "sum"], rows, figures, facts, {"logit": opens},
        tokens=tokens, places=list(range(len(tokens))), place=place,
        receipt=clock.receipt(bytes=recording.receipt.bytes),
    )  # fmt: skip
