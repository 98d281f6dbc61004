"""Cleaning: steps that keep, mend or drop documents and say why.

Every step is a pure function over a batch of documents that returns an Outcome. It knows nothing of files, of
processes or of other batches, so the same function is mapped by a process pool here and by a cluster's scheduler
elsewhere.

    outcome = STEPS["quality"](documents, Cleaning())
    outcome.kept, outcome.dropped[0].reason, outcome.changed
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cutaway.errors import ConfigError, unknown
from cutaway.text import dedup
from cutaway.text.clean import boilerplate, characters, language
from cutaway.text.clean import quality as _quality
from cutaway.text.clean.quality import WEB, Quality
from cutaway.text.documents import Document
from cutaway.text.outcome import Dropped, Outcome

__all__ = ["STEPS", "USUAL", "WEB", "Cleaning", "Dropped", "Outcome", "Quality", "check_steps", "clean"]


@dataclass(frozen=True)
class Cleaning:
    """What the steps may be told.

    Attributes:
        quality: thresholds of the quality step.
        languages: ISO 639-1 codes to keep; none keeps all.
    """

    quality: Quality = field(default_factory=Quality)
    languages: tuple[str, ...] = ()


Step = Callable[[Sequence[Document], Cleaning], Outcome]

STEPS: Mapping[str, Step] = {
    "unicode": lambda documents, _: characters.unicode(documents),
    "characters": lambda documents, _: characters.characters(documents),
    "whitespace": lambda documents, _: characters.whitespace(documents),
    "boilerplate": lambda documents, _: boilerplate.boilerplate(documents),
    "language": lambda documents, config: language.language(documents, config.languages),
    "quality": lambda documents, config: _quality.quality(documents, config.quality),
    "exact_duplicates": lambda documents, _: dedup.exact_duplicates(documents),
    "near_duplicates": lambda documents, _: dedup.near_duplicates(documents),
}

USUAL = ("unicode", "characters", "whitespace", "boilerplate", "language", "quality", "exact_duplicates")


def check_steps(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple, in the order of STEPS, whatever order they were given in.

    Raises:
        ConfigError: a step that does not exist; the message offers near matches.
    """
    given = [names] if isinstance(names, str) else list(names)
    for name in given:
        if name not in STEPS:
            raise ConfigError(unknown("cleaning step", name, STEPS))
    return tuple(name for name in STEPS if name in given)


def clean(
    documents: Sequence[Document], steps: Iterable[str] = USUAL, config: Cleaning | None = None
) -> tuple[list[Document], dict[str, Outcome]]:
    """Run the named steps over one batch, one after the other.

    Returns:
        The documents left, and each step's Outcome by name.

    Raises:
        ConfigError: a step that does not exist.
        MissingExtra: a step needs a library that is not installed.
    """
    config = config or Cleaning()
    outcomes: dict[str, Outcome] = {}
    kept = list(documents)
    for name in check_steps(steps):
        outcomes[name] = STEPS[name](kept, config)
        kept = outcomes[name].kept
    return kept, outcomes
