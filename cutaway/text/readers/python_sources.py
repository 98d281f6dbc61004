"""The texts that every Python brings along: the standard library's sources and the topics of its help system."""

import sysconfig
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from cutaway.errors import InputError
from cutaway.text.documents import Document
from cutaway.text.readers.base import Input, Part, Reader

NAME = "python:"
# Installed packages and tests are not the library; encodings, pydoc_data and lib2to3 are tables and fixtures.
_LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "encodings",
    "pydoc_data",
    "__pycache__",
}


def python_sources() -> list[Path]:
    """The Python files of the running interpreter's standard library, sorted; about 10 MB.

    Raises:
        InputError: this Python keeps its library elsewhere (in a zip, as embedded ones do).
    """
    root = Path(sysconfig.get_path("stdlib"))
    found = sorted(
        path
        for path in root.rglob("*.py")
        if _LEFT_OUT.isdisjoint(path.relative_to(root).parts) and not path.name.startswith("_sysconfigdata")
    )
    if not found:
        raise InputError(
            f"the standard library's sources are not in {root}; name a folder of texts instead of {NAME!r}"
        )
    return found


def parts() -> list[Part]:
    """The sources, and the help topics as one part."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [
        Part(str(path), NAME + path.relative_to(root).as_posix(), path.stat().st_size, ".py")
        for path in python_sources()
        if path.stat().st_size
    ]
    topics = import_module("pydoc_data.topics")
    return [*files, Part(str(topics.__file__), f"{NAME}topics", Path(str(topics.__file__)).stat().st_size, NAME)]


def read_topics(source: Input) -> Iterator[Document]:
    """A document for each topic of `help()`, English prose about the language."""
    for topic, text in sorted(import_module("pydoc_data.topics").topics.items()):
        yield Document(text, f"{source.name}#{topic}", {"title": topic, "language": "en"})


TOPICS = Reader(read_topics)
