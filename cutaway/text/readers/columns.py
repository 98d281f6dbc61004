"""Which column or field of a table holds the text, and what the others say about it."""

from collections.abc import Collection, Mapping, Sequence

from cutaway.errors import ConfigError, InputError, unknown

TEXT_NAMES = (
    *("text", "content", "body", "article", "document", "passage", "story", "markdown", "raw_content", "full_text"),
    *("review", "sentence", "abstract", "comment", "message", "post", "文本", "正文", "内容", "評論", "评论"),
)
META_NAMES = {
    **{"title": "title", "标题": "title", "標題": "title", "url": "url", "link": "url", "language": "language"},
    **{"lang": "language", "date": "date", "author": "author"},
}
SAMPLE = 100  # rows that are looked at before a column is chosen


def choose(names: Collection[str], samples: Mapping[str, Sequence[str]], asked: str | None, where: str) -> str:
    """The text column: the one asked for, else the first with a usual name, else the one with the longest texts.

    Args:
        names: every column.
        samples: column -> some of its values, for those columns that hold text.
        asked: the column the user named.
        where: the file, for messages.

    Raises:
        ConfigError: no column has the name asked for.
        InputError: no column holds text.
    """
    if asked is not None:
        if asked not in names:
            raise ConfigError(unknown(f"column in {where}", asked, names))
        return asked
    lower = {name.strip().lower(): name for name in reversed([n for n in names if n in samples])}
    for name in TEXT_NAMES:
        if name in lower:
            return lower[name]
    if not samples:
        raise InputError(f"{where} has no column of text; its columns: {', '.join(names) or 'none'}")
    return max(samples, key=lambda name: sum(map(len, samples[name])) / max(1, len(samples[name])))


def about(names: Sequence[str], text: str, also: Sequence[str] = (), where: str = "") -> dict[str, str]:
    """The columns that go into Document.meta: column -> key.

    Args:
        names: every column.
        text: the one with the text.
        also: those the user asked for beside it, which keep their names.
        where: the file, for messages.

    Raises:
        ConfigError: a column asked for does not exist.
    """
    for name in also:
        if name not in names:
            raise ConfigError(unknown(f"column in {where}", name, names))
    keys = {name: META_NAMES.get(name.strip().lower(), "") for name in names if name != text}
    return {name: key for name, key in keys.items() if key} | {name: name for name in also}
