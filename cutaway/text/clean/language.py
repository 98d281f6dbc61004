"""Which language a document is in, from a bounded sample of it (py3langid: Lui & Baldwin 2012, "langid.py")."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from cutaway.errors import ConfigError, need, unknown
from cutaway.text.documents import Document
from cutaway.text.outcome import Dropped, Outcome, is_code

SAMPLE = 600  # characters looked at, a third each from the beginning, the middle and the end
LEAST = (
    40  # bytes; in less than this (13 Chinese characters) a language cannot be told reliably, and the document is kept
)
SURVEY = 1_000_000  # characters: for the report one document in so many is identified


@lru_cache(maxsize=1)
def identifier() -> Any:
    """The model, loaded once per process (0.2 s)."""
    module = need("py3langid.langid", "documents", "language identification")
    return module.LanguageIdentifier.from_model_file(module.MODEL_FILE)


def identify(text: str) -> str:
    """The ISO 639-1 code of a text's language, or "und" (undetermined) when there is too little to go by."""
    if len(text) > SAMPLE:
        third, middle = SAMPLE // 3, len(text) // 2
        text = f"{text[:third]} {text[middle : middle + third]} {text[-third:]}"
    return identifier().classify(text)[0] if len(text.encode("utf-8", "replace")) >= LEAST else "und"


def check_languages(languages: Sequence[str]) -> None:
    """Raise ConfigError if a code is not one that can be identified."""
    known = identifier().labels
    for code in languages:
        if code not in known:
            raise ConfigError(unknown("language", code, known))


def language(documents: Sequence[Document], languages: Sequence[str] = ()) -> Outcome:
    """Keep source code, undetermined documents and those in one of `languages` (ISO 639-1 codes; none keeps all)."""
    outcome = Outcome()
    for document in documents:
        found = "und" if is_code(document) or not languages else identify(document.text)
        if found == "und" or found in languages:
            outcome.kept.append(document)
        else:
            outcome.dropped.append(Dropped(document, "language", f"in {found}, not in {', '.join(languages)}"))
    return outcome


class Survey:
    """Which languages a stream of documents is in, by a sample: the first, and one in every SURVEY characters."""

    def __init__(self) -> None:
        self._due = 0

    def __call__(self, documents: Sequence[Document]) -> Counter[str]:
        """Language -> documents, of the sampled ones among the next documents."""
        counts: Counter[str] = Counter()
        for document in documents:
            if self._due <= 0 and not is_code(document):
                counts[identify(document.text)] += 1
                self._due = SURVEY
            self._due -= len(document.text)
        return counts
