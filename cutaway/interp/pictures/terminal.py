"""Results as pictures in a terminal: shaded cells and bars where there is colour, characters and numbers where not.

Every picture keeps to the width it is given, counting wide characters (Chinese, Japanese, Korean) as the two cells
that they take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from cutaway.interp.ledger.ledger import Ledger, Term
from cutaway.interp.pictures.marks import (
    BITS,
    BLUES,
    NEGATIVE,
    ORANGES,
    POSITIVE,
    SHADES,
    SHARE_NAMES,
    SHARES,
    fit,
    heading,
    legend,
    number,
    percent,
    show,
    step_of,
)
from cutaway.interp.pictures.terminal_graphs import chances, graph, panel, tree
from cutaway.interp.pictures.terminal_numbers import curve, matrix, plate, table
from cutaway.interp.results import Attention, Lens, Panel, TokenScores

if TYPE_CHECKING:
    from cutaway.interp.attention.overview import AttentionOverview
    from cutaway.interp.look import Look

MOST_TOKENS, MOST_ROWS = 240, 32
RAIL = 6  # characters of a token above its column
TILE = 8  # sides of a head's thumbnail, in half characters
MOST_TILES = 8  # layers that get thumbnails
HABITS = {"previous": "P", "first": "F", "itself": "S", "last": "L", "others": "O"}


def look(made: Look, width: int, colour: bool) -> Iterator[Text]:
    """All pictures of a look, from the text down to the logit."""
    about = made.about
    facts = f"{about['parameters']:,} parameters, {about['shape']}, vocabulary {about['vocabulary']:,}"
    yield Text.assemble((about["name"], "bold"), f"  {about['kind']}  ", (facts, "dim"))
    if made.likeliest:
        where = (
            "the text" if made.position is None else f"{show(made.tokens[made.position])} (position {made.position})"
        )
        after = Text(f"{'after' if made.surprisal else 'at'} {where}:")
        for token, share in made.likeliest:
            after.append(f"  {show(token)} ", "bold").append(percent(share), "dim")
        yield after
    for name, result in made.parts.items():
        yield Text()
        if name in ("encoder attention", "cross-attention"):
            yield Text(name, "bold underline")
        yield from PICTURES[result.picture](result, width, colour)
    for sentence in made.missing:
        yield from (Text(), Text(sentence, "italic"))
    receipt = made.receipt
    yield Text()
    yield Text(
        f"recorded run – plain run: {receipt.difference:g}   {receipt.bytes / 2**20:.1f} MB recorded   "
        f"{receipt.milliseconds:.0f} ms   {receipt.dtype}",
        "dim",
    )


def token_scores(scores: TokenScores, width: int, colour: bool) -> Iterator[Text]:
    """Tokens, and under each its number."""
    bits = scores.unit == "bits" and not scores.signed
    most = max((abs(score) for score in scores.scores if score is not None), default=0.0) or 1.0
    mean = "" if scores.mean is None else f", {number(round(scores.mean, 3))} on average"
    yield heading(scores.what, f"{scores.unit} at each token{mean}")
    first = max(0, len(scores.tokens) - MOST_TOKENS)
    if first:
        yield Text(f"the last {MOST_TOKENS} of {len(scores.tokens)} tokens", "dim")
    above, below = Text(), Text()
    for token, score in list(zip(scores.tokens, scores.scores, strict=True))[first:]:
        figure = "–" if score is None else f"{score:+.2f}".replace("-", "−") if scores.signed else f"{score:.1f}"
        shown = fit(show(token), min(max(cell_len(show(token)), len(figure) + scores.signed, 4), width - 2))
        style = ""
        if colour and score is not None:
            style = ORANGES[step_of(score, BITS)] if bits else plate(score / most)
        if above.cell_len + cell_len(shown) + 1 > width:
            yield from (above, below)
            above, below = Text(), Text()
        above.append(shown, style).append(" ")
        below.append(fit(figure, cell_len(shown)) + " ", "dim")
        if token.endswith("\\n"):
            yield from (above, below)
            above, below = Text(), Text()
    if above:
        yield from (above, below)
    if colour and bits:
        yield legend(scores.unit, ("<1", "1–3", "3–6", "6–10", ">10"), ORANGES, colour)


def attention(made: Attention, width: int, colour: bool) -> Iterator[Text]:
    """One head large: rows look at columns. Then every head small, with where it looks most."""
    layer, head = made.shown
    tokens = [show(token) for token in made.tokens]
    keys = tokens if made.keys is None else [show(key) for key in made.keys]
    side = min(12, max(map(cell_len, tokens)))
    room = max(1, (width - side - 1) // 2)
    count, across = min(len(tokens), MOST_ROWS), min(len(keys), room)
    if made.keys is None:
        count = across = min(count, across)
    first, left = len(tokens) - count, len(keys) - across
    which = f"layer {layer}, head {head}: each row's token looks {'back ' * made.causal}at the columns"
    yield heading("Attention", which + (f" (last {count} of {len(tokens)} tokens)" if first else ""))
    yield from _rail([_shorten(key) for key in keys[left:]], side + 1)
    pattern = made.patterns[layer, head, first:, left:].tolist()
    for row, token in enumerate(tokens[first:]):
        line = Text(fit(token, side, right=True) + " ")
        for share in pattern[row][: row + 1 if made.causal else None]:
            step = step_of(share, SHARES)
            line.append("  " if colour else (SHADES[step] * 2 if step else "· "), BLUES[step] if colour else "")
        yield line
    yield legend("share", SHARE_NAMES, BLUES, colour)
    yield Text("every head, and in % its habit: P the token before, F the first, S itself, O all others", "dim")
    tiles = (
        colour
        and made.causal
        and made.patterns.shape[0] <= MOST_TILES
        and 9 + made.patterns.shape[1] * (TILE + 2) <= width
    )
    for place, habits in enumerate(made.habits()):
        if tiles:
            yield from _tiles(made.patterns[place])
        line = Text(fit(f"layer {place}", 9))
        for index, (where, share) in enumerate(habits):
            if line.cell_len % width + 5 > width:
                line.append("\n" + " " * 9)
            style = BLUES[step_of(share, SHARES)] if colour and where != "others" and not tiles else "dim"
            style = "bold underline" if (place, index) == made.shown else style
            line.append(f"{HABITS[where]}{min(99, round(100 * share)):02d}", style)
            line.append(" " * (TILE - 1 if tiles else 1))
        line.rstrip()
        yield line


def _rail(columns: list[str], indent: int) -> Iterator[Text]:
    """The tokens above their columns, top to bottom, standing on the picture."""
    for line in range(max(map(len, columns)), 0, -1):
        letters = (column[-line] if line <= len(column) else " " for column in columns)
        yield Text(" " * indent + "".join(fit(letter, 2) for letter in letters).rstrip(), "dim")


def _shorten(token: str) -> str:
    return token[: RAIL - 1] + "…" if len(token) > RAIL else token


KINDS = {
    "previous": "P",
    "next": "N",
    "first": "F",
    "last": "L",
    "itself": "S",
    "same place": "=",
    "duplicate": "D",
    "induction": "I",
}


def heads(made: AttentionOverview, width: int, colour: bool) -> Iterator[Text]:
    """For every head the kind that its pattern is most like, and how much."""
    layer, head = made.shown
    what = (
        f"{made.part}: every head, and in % what lies where its kind looks; the sharpest is layer {layer}, head {head}"
    )
    yield heading("Attention", what)
    for place, row in enumerate(made.kinds()):
        line = Text(fit(f"layer {place}", 9))
        for index, (kind, share) in enumerate(row):
            if line.cell_len % width + 5 > width:
                line.append("\n" + " " * 9)
            style = BLUES[step_of(share, SHARES)] if colour else ""
            style = f"{style} bold underline".strip() if (place, index) == made.shown else style
            line.append(f"{KINDS[kind]}{min(99, round(100 * share)):02d}", style)
            line.append(" ")
        line.rstrip()
        yield line
    yield Text("; ".join(f"{KINDS[kind]} {kind}" for kind in made.scores), "dim")
    yield legend("share", SHARE_NAMES, BLUES, colour)


def _tiles(patterns: Tensor) -> Iterator[Text]:
    """Thumbnails of one layer's heads, (H, T, T): each cell is the strongest it stands for, the future is bare."""
    side = min(TILE, patterns.shape[-1])
    small = adaptive_max_pool2d(patterns[None], (side, side))[0].sqrt()
    for top in range(0, side, 2):
        line = Text(" " * 9)
        for tile in small.tolist():
            for column in range(side):
                upper = _ink(tile[top][column]) if column <= top else ""
                lower = _ink(tile[top + 1][column]) if column <= top + 1 < side else ""
                if upper:
                    line.append("▀", upper + (f" on {lower}" if lower else ""))
                else:
                    line.append("▄" if lower else " ", lower)
            line.append(" " * (TILE + 2 - side))
        line.rstrip()
        yield line


def _ink(strength: float) -> str:
    """From dark to light blue, as BLUES."""
    low, high = (26, 39, 51), (184, 224, 253)
    return "#" + "".join(f"{round(a + (b - a) * min(1.0, strength)):02x}" for a, b in zip(low, high, strict=True))


def lens(made: Lens, width: int, colour: bool) -> Iterator[Text]:
    """What each layer would say after each of the last tokens that fit."""
    side, cell = 10, 11
    count = max(1, min(len(made.tokens), (width - side) // (cell + 1)))
    cut = f" (last {count} of {len(made.tokens)} tokens)" if count < len(made.tokens) else ""
    yield heading("Logit lens", f"what each layer would say next, and how surely in %; the last row is the model{cut}")
    line = Text(" " * side)
    for token in made.tokens[-count:]:
        line.append(fit(show(token), cell), "bold").append(" ")
    yield line
    for name, row in zip(made.layers, made.cells, strict=True):
        line = Text(fit(name, side))
        for token, share in (found.top[0] for found in row[-count:]):
            text = fit(show(token), cell - 4) + f"{min(99, round(100 * share)):>3d} "
            line.append(text, BLUES[step_of(share, SHARES)] if colour else "").append(" ")
        yield line
    if colour:
        yield legend("probability", SHARE_NAMES, BLUES, colour)


def ledger(made: Ledger, width: int, colour: bool) -> Iterator[Text]:
    """The largest terms as bars around one zero; the largest that opens, opened; then whether it all adds up."""
    yield heading("Ledger", f"the {made.what}, as the sum of what each part wrote")
    yield from _bars(made, 12, width)
    opened = next((term for term in made.top() if term.opens), None)
    if opened:
        inner = made.expand(opened.name)
        yield from (Text(), Text(f"{inner.what} (the largest term that opens)", "dim"))
        yield from _bars(inner, 6, width)


def name_of(term: Term) -> str:
    """A term's name to be read: "layer 2 head 3", "encoder layer 0 mlp", "4 ·the", "layer 1 resid_post (edited)"."""
    if term.name == "others":
        return term.label
    name = term.name.removesuffix(".edit")
    parts = name.replace("layers.", "layer.").replace("cross_head", "cross head").split(".")
    if parts[0] in ("source", "step"):  # what they are, the level says
        parts = parts[1:]
    label = "(edited)" if name != term.name else show(term.label) if term.label else ""
    return " ".join([*parts, label]).strip()


def _bars(made: Ledger, count: int, width: int) -> Iterator[Text]:
    side, figures = 24, 9
    half = max(4, (width - side - figures - 3) // 2)
    terms = made.brief(count)
    most = max((abs(term.value) for term in terms), default=0) or 1.0
    for term in terms:
        full, partial = divmod(round(2 * half * abs(term.value) / most), 2)
        line = Text(fit(name_of(term), side) + " ", "dim" if term.name == "others" else "")
        if term.value < 0:
            line.append(("▐" * partial + "█" * full).rjust(half), NEGATIVE).append("│" + " " * half)
        else:
            line.append(" " * half + "│").append(("█" * full + "▌" * partial).ljust(half), POSITIVE)
        yield line.append(f" {term.value:+{figures}.3f}".replace("-", "−"))
    total = sum(term.value for term in made.terms)
    line = f"sum {total:+.4f}   the model's {made.total:+.4f}   error {made.error:.1e}".replace("-", "−")
    yield Text(fit(f"{line}  ({made.unit})" if made.unit else line, width).rstrip(), "bold")


def panels(made: Panel, width: int, colour: bool) -> Iterator[Text]:
    """Several results, one after the other."""
    yield from panel(made, width, colour)
    for name, part in made.parts.items():
        yield from (Text(), Text(name, "bold underline"))
        yield from PICTURES[part.picture](part, width, colour)


PICTURES: dict[str, Callable[[Any, int, bool], Iterator[Text]]] = {
    "attention": attention,
    "chances": chances,
    "curve": curve,
    "graph": graph,
    "heads": heads,
    "ledger": ledger,
    "lens": lens,
    "look": look,
    "matrix": matrix,
    "panel": panels,
    "scores": token_scores,
    "table": table,
    "tree": tree,
}
