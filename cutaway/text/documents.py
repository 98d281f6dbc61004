"""A document: some text and where it came from. Readers make them, cleaning passes them on."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of text with its origin.

    Attributes:
        text: what it says.
        source: where it came from, readable and unique: "notes/a.txt", "dump.xml.bz2#Title", "reviews.csv:17",
            "crawl.warc.gz#https://…".
        meta: what the source says about it: "title", "url", "language" …; "kind" is "code" for source code.
    """

    text: str
    source: str
    meta: Mapping[str, str] = field(default_factory=dict)
