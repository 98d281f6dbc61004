"""Every error a user can meet, in one short tree.

    CutawayError (a ValueError)
    ├── InputError       the user's texts or paths: missing, empty, binary, too short, no room on the disk
    ├── ConfigError      an option, key or value that is unknown, of the wrong type, or does not fit the others
    ├── DamagedFile      a file is not what its name, header or checksum says
    ├── MissingExtra     an optional library is needed; the message holds the pip command
    ├── NonFinite        a NaN or infinity appeared; the message says where
    ├── Closed           an engine or server has been shut down, and takes nothing more
    └── Interrupted      stopped by a signal after saving; the message says how to continue

A message says what was given, what was expected, and what to do next. The command line prints it alone and exits
with code 2 (Interrupted: 130 for Ctrl-C, 143 for SIGTERM).
"""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

LONGEST = 2000  # characters of a message


class CutawayError(ValueError):
    """The root: something the user can mend.

    Its text is one line that a terminal or a log may show as it stands, whatever a stranger's file put into it: control
    characters and halves of characters are escaped, and what is very long is cut in the middle.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > LONGEST:
            text = f"{text[: LONGEST * 2 // 3]} … {text[-LONGEST // 4 :]}"
        return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class InputError(CutawayError):
    """The user's texts or paths cannot be used as they are."""


class ConfigError(CutawayError):
    """An option, key or value is unknown, of the wrong type, or does not fit the others."""


class DamagedFile(CutawayError):
    """A file is not what its name, header or checksum says it is."""


class MissingExtra(CutawayError):
    """An optional library is needed for this."""


class NonFinite(CutawayError):
    """A NaN or an infinity appeared in a computation."""


class Closed(CutawayError):
    """What was to compute a request has been closed."""


class Interrupted(CutawayError):
    """A signal stopped the work after its state was saved."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def many(count: int, what: str) -> str:
    """A count with its noun.

    >>> many(1, "row"), many(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist: near matches if there are any, else what exists.

    >>> unknown("optimiser", "adamv", ["adam", "adamw", "muon"])
    "unknown optimiser 'adamv'; did you mean adam or adamw? Known: adam, adamw, muon"
    """
    names, given = sorted(map(str, known)), given[:200]
    near = get_close_matches(given, names, n=3, cutoff=0.6)
    meant = f"; did you mean {' or '.join(near)}?" if near else "."
    listed = ", ".join(names[:40]) + (f", … ({len(names)} in all)" if len(names) > 40 else "")
    return f"unknown {kind} {given!r}{meant} Known: {listed}"


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional library, or raise MissingExtra with the exact command that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{purpose} needs the library {error.name}, which is not installed. "
            f"Install it with: pip install 'cutaway[{extra}]'"
        ) from error
