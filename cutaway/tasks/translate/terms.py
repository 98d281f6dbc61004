"""A list of terms: words of the source language, and what each has to be called in the translation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cutaway.errors import InputError

UNSPACED = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def read_terms(path: str | Path) -> dict[str, str]:
    """The terms of a file: a line each, the source term, a tab, the target term; a line that begins with # is none.

    Raises:
        InputError: no such file, no text, a line of another form, or one term with two translations; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a file with a source term, a tab and its translation in a line")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if len(cells) != 2 or not all(cells):
            raise InputError(
                f"{path}:{number} must have two terms with a tab between them, but has {len([c for c in cells if c])}"
            )
        source, target = cells
        if found.setdefault(source, target) != target:
            raise InputError(f"{path}:{number} calls {source!r} {target!r}, but {found[source]!r} before; keep one")
    if not found:
        raise InputError(f"{path} holds no terms")
    return found


def wanted(text: str, terms: Mapping[str, str]) -> list[str]:
    """The target terms whose source terms stand in a text, in their order there; of overlapping ones the longest.

    Upper and lower case are the same, but where the list itself tells them apart ("May", "may"), and so is any white
    space; words are whole, but in languages that are written without spaces.
    """
    if not terms:
        return []
    known = {_plain(source): target for source, target in terms.items()}
    alike = {source.casefold(): target for source, target in reversed(known.items())}
    pattern = "|".join(_whole(source) for source in sorted(known, key=len, reverse=True))
    spelled = (_plain(match[0]) for match in re.finditer(pattern, text, re.IGNORECASE))
    found = (known.get(source, alike.get(source.casefold())) for source in spelled)
    return list(dict.fromkeys(target for target in found if target is not None))


def _plain(term: str) -> str:
    return " ".join(term.split())


def _whole(term: str) -> str:
    """A pattern for a term as whole words."""
    before = r"(?<!\w)" if term[0].isalnum() and not UNSPACED.match(term[0]) else ""
    after = r"(?!\w)" if term[-1].isalnum() and not UNSPACED.match(term[-1]) else ""
    return before + r"\s+".join(map(re.escape, term.split())) + after
