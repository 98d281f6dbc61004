"""docs/families.md, written from the family files: `python -m cutaway.models.families > docs/families.md`."""

from collections.abc import Iterable, Mapping

from cutaway.models.families import FAMILIES
from cutaway.models.families._family import ACTIVATION_NAMES, BOOKKEEPING, Family

HEAD = """\
# Published families

One decoder, one encoder, one encoder–decoder: a family file says how a published architecture spells their features, in
both directions. A config key that is neither handled nor knowingly ignored is an error that names it, and so is a
tensor that is missing or left over. This page is written from `cutaway/models/families/`, and a test keeps it so.

```text
cutaway get OWNER/NAME                 fetch a checkpoint from the hub
cutaway generate OWNER/NAME -p "…"     use it
cutaway convert RUN FOLDER             write what you trained as the first family that can express it
cutaway doctor --model OWNER/NAME      compare with transformers, number by number
```
"""


def page() -> str:
    """The page."""
    rows = ["| model_type | network | heads | paper |", "|---|---|---|---|"]
    rows += [
        f"| [{name}](#{name}) | {family.config.kind} | {', '.join(family.heads)} | [link]({family.source}) |"
        for name, family in FAMILIES.items()
    ]
    common = [
        "## In every family",
        "",
        f"Activations: {_code(ACTIVATION_NAMES)}.",
        "",
        f"Keys that change no number of a forward pass: {_by_reason(dict(sorted(BOOKKEEPING.items())))}.",
    ]
    return "\n".join([HEAD, *rows, "", *common, "", *(line for f in FAMILIES.values() for line in _section(f))])


def _section(family: Family) -> list[str]:
    lines = [f"## {family.model_type}", ""]
    lines += [
        "| its key | Cutaway's |",
        "|---|---|",
        *(f"| `{theirs}` | `{ours}` |" for theirs, ours in family.keys.items()),
        "",
    ]
    if family.features:
        always = ", ".join(f"`{name}` {value!r}" for name, value in family.features.items())
        lines += [f"Always: {always}.", ""]
    if family.read.__doc__ and family.read.__name__ != "_nothing":
        lines += [f"Read together: {_lower(family.read.__doc__.splitlines()[0])}", ""]
    if family.only:
        limits = ", ".join(f"`{key}` {' or '.join(map(repr, values))}" for key, values in family.only.items())
        lines += [f"Supported at these values alone: {limits}.", ""]
    if family.ignored:
        lines += [f"Ignored: {_by_reason(family.ignored)}.", ""]
    if family.spellings:
        older = ", ".join(f"`…{old}` for `…{new}`" for old, new in family.spellings.items())
        lines += [f"Older names of tensors: {older}.", ""]
    if family.copies:
        lines += [f"Tensors that may be there once more: {_code(family.copies)}.", ""]
    if family.skipped:
        lines += [f"Tensors left out: {', '.join(f'`…{end}` ({why})' for end, why in family.skipped.items())}.", ""]
    return lines


def _by_reason(ignored: Mapping[str, str]) -> str:
    """Keys that have the same reason stand together."""
    reasons = dict.fromkeys(ignored.values())
    return "; ".join(f"{_code(key for key in ignored if ignored[key] == why)} ({why})" for why in reasons)


def _lower(text: str) -> str:
    return text if text[:2].isupper() or text[1:2].isupper() else text[:1].lower() + text[1:]


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
