"""What every cleaning step gives back: the documents it kept, those it dropped and why, and what it changed."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cutaway.text.documents import Document

EXCERPT = 160  # characters of a document that a report shows


@dataclass(frozen=True)
class Dropped:
    """A document that a step took out.

    Attributes:
        document: the document as the step saw it.
        step: the step's name in STEPS.
        reason: why, the same words for every document dropped for that reason, so that they can be counted.
    """

    document: Document
    step: str
    reason: str

    @property
    def excerpt(self) -> str:
        """The beginning of the document, one line."""
        return excerpt(self.document.text)


@dataclass
class Outcome:
    """The result of one step over one batch.

    Attributes:
        kept: what goes on to the next step, in the order it came.
        dropped: what does not, each with its reason.
        changed: what was mended -> number of documents.
        examples: what was mended -> the first place where it was, before or after as the step finds telling.
    """

    kept: list[Document] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    changed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def keep(self, document: Document, text: str, what: str, example: Callable[[], str] | None = None) -> None:
        """Keep `document` with `text`; count it as changed by `what` (and show an example) if the text differs.

        A change that is not worth telling has no `what`.
        """
        if text != document.text:
            if what:
                self.changed[what] += 1
                if what not in self.examples:
                    self.examples[what] = example() if example else first_difference(document.text, text)
            document = replace(document, text=text)
        self.kept.append(document)


def excerpt(text: str, start: int = 0) -> str:
    """At most EXCERPT characters from `start`, white space made single spaces, an ellipsis where it is cut."""
    cut = text[max(0, start) : start + 4 * EXCERPT]
    line = " ".join(cut.split())
    return line if len(line) <= EXCERPT and start + len(cut) >= len(text) else line[: EXCERPT - 1] + "…"


def first_difference(before: str, after: str) -> str:
    """The first place where two texts differ, as "before → after", with a few characters around it made visible."""
    low, shorter = 0, min(len(before), len(after))
    for block in (4096, 64, 1):  # slices compare at the speed of memory
        while low < shorter and before[low : low + block] == after[low : low + block]:
            low += block
    low = min(low, shorter)
    start = max(0, low - 20)
    return f"{ascii_visible(before[start : low + 20])} → {ascii_visible(after[start : low + 20])}"


def ascii_visible(text: str) -> str:
    """The text with control and other invisible characters spelled as escapes such as \\x07 or \\u200b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_code(document: Document) -> bool:
    """Whether a document is source code, which keeps its white space and is not judged as prose."""
    return document.meta.get("kind") == "code"


def batches(documents: Sequence[Document], characters: int) -> list[list[Document]]:
    """Consecutive documents in groups of about `characters` (at least one document each)."""
    groups: list[list[Document]] = []
    room = 0
    for document in documents:
        if room <= 0:
            groups.append([])
            room = characters
        groups[-1].append(document)
        room -= len(document.text)
    return groups
