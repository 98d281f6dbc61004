"""`/look` of `cutaway chat`: the last answer's tokens as a table, or one of them with its alternatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from cutaway.cli._frame import harmless
from cutaway.errors import InputError
from cutaway.generation.hindsight import Weighed
from cutaway.interp.pictures.marks import BLUES, SHARE_NAMES, SHARES, fit, legend, show, step_of
from cutaway.models import Model

OTHERS, OPENED, BAR = 3, 10, 30  # alternatives beside a token, of one that is opened, and cells of a bar
MOST = 200  # tokens in a table


def chosen(word: str, count: int) -> int | None:
    """The number of the token to open; None: all of them.

    Raises:
        InputError: it is no number of a token.
    """
    if not word:
        return None
    if not word.isdecimal() or not 1 <= int(word) <= count:
        raise InputError(f"/look takes the number of a token, 1 … {count}, but {word[:40]!r} was given")
    return int(word)


def to_json(model: Model, tokens: Sequence[Weighed], number: int | None) -> dict[str, Any]:
    """As plain data: of every token, or of the one that is opened."""
    shown = range(1, len(tokens) + 1) if number is None else [number]
    return {"tokens": [_data(model, i, tokens[i - 1], OTHERS if number is None else None) for i in shown]}


def _data(model: Model, number: int, token: Weighed, most: int | None) -> dict[str, Any]:
    tokenizer = model.tokenizer
    return {
        "number": number,
        "id": token.id,
        "token": tokenizer.token(token.id),
        "probability": math.exp(token.logprob),
        "rank": token.rank,
        "bits": _bits(token.logprob),
        "top": [
            {"id": id, "token": tokenizer.token(id), "probability": math.exp(logprob)}
            for id, logprob in token.top[:most]
        ],
    }


def table(model: Model, tokens: Sequence[Weighed], console: Console) -> None:
    """Every token in a line: its probability, its rank, how surprising it was, and what else was likely."""
    width, colour = console.width, console.color_system is not None
    names = [_named(model, token.id) for token in tokens]
    widest = min(max(5, *(Text(name).cell_len for name in names)), max(5, width // 3))
    digits = max(2, len(str(len(tokens))))
    head = f"{'#':>{digits}}  {fit('token', widest)}  probability  rank   bits  likeliest others"
    console.print(Text(fit(head, width).rstrip(), "dim"))
    for number, (token, name) in enumerate(zip(tokens[:MOST], names, strict=False), 1):
        chance = math.exp(token.logprob)
        rank = f">{len(token.top)}" if token.rank is None else str(token.rank)
        line = Text(f"{number:>{digits}}  ")
        line.append(fit(name, widest), BLUES[step_of(chance, SHARES)] if colour else "")
        line.append(f"  {percent(chance):>11}  {rank:>4}  {_bits(token.logprob):5.1f}  ")
        others = [(id, logprob) for id, logprob in token.top if id != token.id][:OTHERS]
        beside = "  ".join(f"{_named(model, id)} {percent(math.exp(logprob))}" for id, logprob in others)
        line.append(fit(beside, max(1, width - line.cell_len)).rstrip(), "dim")
        console.print(line, overflow="crop", no_wrap=True)
    if len(tokens) > MOST:
        console.print(Text(f"… the first {MOST} of {len(tokens)}; /look N opens any of them", "dim"))
    bits = sum(_bits(token.logprob) for token in tokens)
    console.print(Text(f"{len(tokens)} tokens, {bits:.1f} bits, {bits / len(tokens):.2f} a token", "dim"))
    if colour:
        console.print(legend("probability", SHARE_NAMES, BLUES, colour))


def opened(model: Model, number: int, token: Weighed, console: Console) -> None:
    """One token: the likeliest in its place as bars, and where to look further."""
    chance = math.exp(token.logprob)
    rank = f"not among the {len(token.top)} likeliest" if token.rank is None else f"rank {token.rank}"
    told = f"{percent(chance)}, {rank}, {_bits(token.logprob):.1f} bits"
    console.print(Text.assemble((f"token {number}  {_named(model, token.id)}", "bold"), (f"  {told}", "dim")))
    rows = list(token.top[:OPENED])
    if all(id != token.id for id, _ in rows):
        rows.append((token.id, token.logprob))
    widest = min(max(Text(_named(model, id)).cell_len for id, _ in rows), max(5, console.width // 3))
    for id, logprob in rows:
        share = math.exp(logprob)
        mark = "→" if id == token.id else " "
        line = Text(f"{mark} {fit(_named(model, id), widest)}  {percent(share):>6}  ")
        line.append("█" * round(share * BAR), "#63aae0" if console.color_system is not None else "")
        console.print(line, overflow="crop", no_wrap=True)
    left = 1 - sum(math.exp(logprob) for _, logprob in token.top[:OPENED])
    console.print(Text(f"  all others  {percent(max(0.0, left))}", "dim"))
    console.print(
        Text(f"/look {number} FILE.html writes what each layer and head did; cutaway look does it for any text", "dim"),
        soft_wrap=True,
    )


def _named(model: Model, id: int) -> str:
    return harmless(show(model.tokenizer.token(id)))


def _bits(logprob: float) -> float:
    return max(0.0, -logprob / math.log(2))  # not −0


def percent(share: float) -> str:
    """A probability to a tenth of a percent."""
    return f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
