"""Texts as an encoder was trained to read them: with the special tokens that a tokenizer.json puts around them.

BERT reads [CLS] first [SEP] second [SEP], RoBERTa <s> first </s></s> second </s>.
"""

from collections.abc import Sequence
from typing import Any

from cutaway.errors import DamagedFile, InputError
from cutaway.tokenizers.tokenizer import Tokenizer

Piece = tuple[int | str, int]  # a special token's id, or the text "A" or "B"; and the token type


def frame(
    tokenizer: Tokenizer, first: Sequence[int], second: Sequence[int] | None = None, *, longest: int | None = None
) -> tuple[list[int], list[int]]:
    """Ids of one text or of two, with what its tokenizer.json puts around them, and the token types.

    Args:
        tokenizer: whose post-processor says what to add; nothing is, where it has none.
        first: ids of the text.
        second: ids of the text beside it.
        longest: most tokens in all; texts are cut to fit, always the longer one.

    Returns:
        The ids, and as many token types.

    Raises:
        DamagedFile: a post-processor that is not known.
        InputError: no room for any token of the text.
    """
    pieces = _pieces(tokenizer, second is not None)
    special = sum(not isinstance(what, str) for what, _ in pieces)
    texts = dict(zip("AB", _cut(first, second or [], longest, special), strict=True))
    ids: list[int] = []
    types: list[int] = []
    for what, kind in pieces:
        added = texts[what] if isinstance(what, str) else [what]
        ids += added
        types += [kind] * len(added)
    return ids, types


def frame_pair(
    tokenizer: Tokenizer, first: Sequence[int], second: Sequence[int], *, longest: int, apart: bool = False
) -> tuple[list[int], list[int]]:
    """Ids of two texts that are compared, and the types of their tokens.

    Args:
        tokenizer: whose post-processor says what to add. Where that puts nothing between the texts, the token that ends
            one does.
        first: ids of the text.
        second: ids of the text behind it.
        longest: most tokens in all; texts are cut to fit, always the longer one.
        apart: each is framed as a text by itself, and the types are 0 and 1: which text a token is of.

    Raises:
        DamagedFile: a post-processor that is not known.
        InputError: no room for any token of the texts.
    """
    if apart:
        both = _cut(first, second, longest, 2 * len(frame(tokenizer, [])[0]))
        made = [frame(tokenizer, ids)[0] for ids in both]
        return made[0] + made[1], [0] * len(made[0]) + [1] * len(made[1])
    if tokenizer.end_of_text is None or len(frame(tokenizer, [], [])[0]):
        return frame(tokenizer, first, second, longest=longest)
    one, other = _cut(first, second, longest, 1)
    return [*one, tokenizer.end_of_text, *other], [0] * (len(one) + 1) + [1] * len(other)


def _cut(first: Sequence[int], second: Sequence[int], longest: int | None, special: int) -> tuple[list[int], list[int]]:
    """Two texts that fit between so many special tokens; always the longer one is cut."""
    texts = list(first), list(second)
    if longest is None:
        return texts
    room = longest - special
    if room < 1:
        raise InputError(f"{longest} tokens leave no room for a text between the special tokens; give more")
    longer = 0 if len(texts[0]) > len(texts[1]) else 1
    short = len(texts[1 - longer])
    long = min(len(texts[longer]), max(short, room - short))
    if short + long > room:
        short, long = room // 2, room - room // 2
    sizes = (long, short) if longer == 0 else (short, long)
    return texts[0][: sizes[0]], texts[1][: sizes[1]]


def beginning(tokenizer: Tokenizer) -> list[int]:
    """The ids that a tokenizer.json puts before a text, such as the token that begins it.

    Raises:
        DamagedFile: a post-processor that is not known.
    """
    pieces = [what for what, _ in _pieces(tokenizer, False)]
    return [what for what in pieces[: pieces.index("A")] if isinstance(what, int)] if "A" in pieces else []


def _pieces(tokenizer: Tokenizer, pair: bool) -> list[Piece]:
    """What stands in a row, by the post-processor."""
    found: list[Piece] = [("A", 0), ("B", 1)] if pair else [("A", 0)]
    for part in tokenizer.around:
        try:
            kind = part["type"]
            if kind == "TemplateProcessing":
                found = _template(part, "pair" if pair else "single")
            elif kind in ("BertProcessing", "RobertaProcessing"):
                (_, begin), (_, end) = part["cls"], part["sep"]
                middle = [end] if kind == "BertProcessing" else [end, end]
                other = int(kind == "BertProcessing")  # RoBERTa's second text has the first one's type
                found = [(begin, 0), ("A", 0), (end, 0)]
                if pair:
                    found = [(begin, 0), ("A", 0), *((id, 0) for id in middle), ("B", other), (end, other)]
            elif kind != "ByteLevel":  # which only moves the places of tokens in the text
                raise DamagedFile(f"{tokenizer} has the post-processor {kind}, which is not known")
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFile(f"the post-processor of {tokenizer} is damaged: {error!r}") from error
    if not all(isinstance(what, str) or 0 <= what < tokenizer.vocab_size for what, _ in found):
        raise DamagedFile(f"the post-processor of {tokenizer} adds ids that its vocabulary does not have")
    return found


def _template(part: dict[str, Any], key: str) -> list[Piece]:
    found: list[Piece] = []
    for piece in part[key]:
        ((kind, value),) = piece.items()
        if kind == "Sequence":
            found.append((str(value["id"]), int(value["type_id"])))
        else:
            found += [(int(id), int(value["type_id"])) for id in part["special_tokens"][value["id"]]["ids"]]
    return found
