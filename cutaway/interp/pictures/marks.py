"""What the terminal's pictures are made of: plates of colour, tokens that keep to a width, titles and legends.

Every picture keeps to the width it is given, counting wide characters (Chinese, Japanese, Korean) as the two cells
that they take.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size
from rich.text import Text

# Plates from dark to light with the ink that can be read on them, so they serve dark and light terminals alike.
ORANGES = ("#ffffff on #2b241c", "#ffffff on #5f3c13", "#ffffff on #95590f", "#000000 on #d9810f", "#000000 on #ffb74d")
BLUES = ("#ffffff on #1a2733", "#ffffff on #204a70", "#ffffff on #2e72a8", "#000000 on #63aae0", "#000000 on #b8e0fd")
POSITIVE, NEGATIVE = "#e08214", "#4393c3"
BITS = (1, 3, 6, 10)  # bounds of the steps of surprise
SHARES = (0.02, 0.1, 0.3, 0.6)  # bounds of the steps of attention and probability
SHARE_NAMES = ("<2%", "2–10%", "10–30%", "30–60%", ">60%")
SHADES = " ░▒▓█"  # the same steps without colour


def show(token: str) -> str:
    """A token with its outer spaces visible."""
    inner = token.strip(" ")
    if not inner:
        return "·" * len(token) if len(token) <= 4 else f"·×{len(token)}"
    before = len(token) - len(token.lstrip(" "))
    return "·" * before + inner + "·" * (len(token) - before - len(inner))


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Text in exactly `width` cells: padded, or cut with an ellipsis."""
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip() + "…"
    pad = " " * (width - cell_len(text))
    return pad + text if right else text + pad


def percent(share: float) -> str:
    """A share in whole percent; what rounds to nothing is below 1."""
    return f"{100 * share:.0f}%" if share >= 0.01 else "<1%"


def number(value: float | None) -> str:
    """A number in four digits, with a minus that is one."""
    if value is None or value != value:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def step_of(value: float, bounds: Iterable[float]) -> int:
    """How many of the bounds a value reaches."""
    return sum(value >= bound for bound in bounds)


def heading(name: str, about: str) -> Text:
    """What a picture shows, and how it is to be read."""
    return Text.assemble((name[:1].upper() + name[1:], "bold"), (f"  {about}", "dim"))


def legend(what: str, steps: Iterable[str], styles: tuple[str, ...], colour: bool) -> Text:
    """What each plate, or shade, stands for."""
    made = Text(f"{what}  ", "dim")
    for step, style, shade in zip(steps, styles, SHADES, strict=True):
        made.append(f" {step} " if colour else f"{shade * 2} {step}  ", style if colour else "dim")
    return made
