"""SentencePiece tokenizers (Kudo & Richardson 2018) as a tokenizer.json: its two kinds, unigram and BPE.

A SentencePiece model is a list of pieces with a score and a type each, and a few settings of what is done to a text
first. All of it, also out of GGUF metadata, goes through `unigram_spec` and `bpe_spec`, the one account of:

    normalise     the charsmap (its own compiled table), runs of spaces made one, "▁" for a space and before the text
    cut           unigram: the likeliest cut (Viterbi). BPE: two neighbours that make a piece, the best score first
    what is left  a byte piece per byte <0x0A>, or one <unk> for a run of unknown characters
    decode        "▁" is a space again, bytes become text, the space before the text goes

Only normal and user-defined pieces can come out of a text: a text that spells <s> or <0x0A> is spelled with others.
Marks piled on a letter, and Hangul in parts, are normalised as the tokenizers library does it, which is not always
SentencePiece's way: it drops what follows a known beginning within five bytes, and composes nothing longer.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cutaway.errors import DamagedFile
from cutaway.tokenizers.spec import LONGEST_PIECE, Spec

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of pieces, in GGUF too
SPACE = "▁"
MOST_MERGES = 2**17  # that a small model may have; 16 per piece come on top
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}  # how an added token is found


@dataclass(frozen=True)
class SpmRules:
    """What is done around the pieces; the defaults are SentencePiece's.

    Attributes:
        charsmap: the compiled table that normalises characters (b"": none).
        dummy_prefix: a space is put before the text.
        remove_extra_whitespaces: spaces around the text go, and of several in a row all but one.
        byte_fallback: what no piece spells is spelled in byte pieces.
    """

    charsmap: bytes = b""
    dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    byte_fallback: bool = False


def unigram_spec(
    pieces: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    rules: SpmRules,
    *,
    unk: int,
    where: str = "the SentencePiece model",
) -> Spec:
    """The tokenizer.json of a unigram model.

    Args:
        pieces: by id.
        scores: of each the log probability in nats.
        types: of each NORMAL … BYTE.
        rules: around them.
        unk: the id of the unknown piece.
        where: what to call the source in a message.

    Raises:
        DamagedFile: lists that do not fit each other, a piece twice, or no such unknown piece.
    """
    _check(pieces, scores, types, unk, where)
    normal = [score for score, kind in zip(scores, types, strict=True) if kind == NORMAL]
    worst = min(normal, default=0.0)
    # an unknown character costs 10 more than the worst piece; so must no unused piece be worse than that one
    usable = [score if kind == NORMAL else max(score, worst) for score, kind in zip(scores, types, strict=True)]
    hidden = {piece for piece, kind in zip(pieces, types, strict=True) if kind == UNUSED}
    model = {
        "type": "Unigram",
        "unk_id": unk,
        "vocab": [
            [_hide(piece) if piece in hidden else piece, score] for piece, score in zip(pieces, usable, strict=True)
        ],
        "byte_fallback": rules.byte_fallback,
    }
    return _spec(model, pieces, types, rules)


def bpe_spec(
    pieces: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    rules: SpmRules,
    *,
    unk: int,
    where: str = "the SentencePiece model",
) -> Spec:
    """The tokenizer.json of a BPE model, whose merges are every way to make a piece of two, the best score first.

    Args:
        pieces: by id.
        scores: of each; the higher, the earlier it is merged.
        types: of each NORMAL … BYTE.
        rules: around them.
        unk: the id of the unknown piece.
        where: what to call the source in a message.

    Raises:
        DamagedFile: lists that do not fit each other, a piece twice, or no such unknown piece.
    """
    _check(pieces, scores, types, unk, where)
    mergeable = {piece: s for piece, s, kind in zip(pieces, scores, types, strict=True) if kind in (NORMAL, UNUSED)}
    frozen = any(kind == USER_DEFINED for kind in types)
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces[unk],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": rules.byte_fallback,
        "ignore_merges": frozen,  # a user-defined piece, which the pre-tokenizer cuts out, is made by no merge
        "vocab": {piece: id for id, piece in enumerate(pieces)},
        "merges": merges_of(mergeable, where),
    }
    return _spec(model, pieces, types, rules)


def merges_of(scores: Mapping[str, float], where: str) -> list[list[str]]:
    """Every way to make a piece of two others, those of the best score first.

    Raises:
        DamagedFile: there are far too many.
    """
    merges: list[tuple[float, int, str]] = []
    for piece, value in scores.items():
        cuts = range(1, len(piece))
        merges += [(-value, cut, piece) for cut in cuts if piece[:cut] in scores and piece[cut:] in scores]
        if len(merges) > MOST_MERGES + 16 * len(scores):
            raise DamagedFile(f"{where} has pieces that fall into others in far more ways than those of any language")
    merges.sort()
    return [[piece[:cut], piece[cut:]] for _, cut, piece in merges]


def _check(pieces: Sequence[str], scores: Sequence[float], types: Sequence[int], unk: int, where: str) -> None:
    if not len(pieces) == len(scores) == len(types) or not pieces:
        raise DamagedFile(f"{where} has {len(pieces)} pieces, but {len(scores)} scores and {len(types)} types")
    if len(set(pieces)) != len(pieces) or "" in pieces:
        raise DamagedFile(f"{where} has an empty piece, or one twice; each stands for an id of its own")
    if len(longest := max(pieces, key=len)) > LONGEST_PIECE:
        raise DamagedFile(f"{where} has a piece of {len(longest):,} characters; the longest may have {LONGEST_PIECE:,}")
    if not 0 <= unk < len(pieces):
        raise DamagedFile(f"{where} gives the unknown piece the id {unk}, but has the ids 0 … {len(pieces) - 1}")
    if not all(-1e9 < score < 1e9 for score in scores):  # a NaN fails too
        raise DamagedFile(f"{where} has a score that is no number or beyond 1e9")


def _hide(piece: str) -> str:
    """A spelling that no text has."""
    return f"\U0010ffff{piece}"


def _spec(model: dict[str, Any], pieces: Sequence[str], types: Sequence[int], rules: SpmRules) -> Spec:
    added = [
        {"id": id, "content": piece, "special": True} | PLAIN
        for id, (piece, kind) in enumerate(zip(pieces, types, strict=True))
        if kind in (CONTROL, UNKNOWN)
    ]
    users = [piece for piece, kind in zip(pieces, types, strict=True) if kind == USER_DEFINED]
    normal = (piece for piece, kind in zip(pieces, types, strict=True) if kind == NORMAL)
    cuts = []
    if users:
        longest_first = sorted(users, key=lambda piece: (-len(piece), piece))
        cuts.append(_split({"Regex": "|".join(map(re.escape, longest_first))}, "Isolated"))
    if rules.byte_fallback and (users or model["type"] == "Unigram"):  # a text that spells a byte piece is not one
        cuts.append(_split({"Regex": "(?<=<)0x[0-9A-F]{2}>"}, "Isolated"))
    if not any(SPACE in piece[1:] for piece in (*normal, *users)):  # no piece goes over a space: cut words there
        cuts.append(_split({"String": SPACE}, "MergedWithNext"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(rules)},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts} if cuts else None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": _decoders(rules)},
        "model": model,
    }


def _split(pattern: dict[str, str], behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": False}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _normalizers(rules: SpmRules) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if rules.charsmap:
        table = base64.b64encode(rules.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": table})
    if rules.remove_extra_whitespaces:
        steps += [_replace({"Regex": " {2,}"}, " "), _replace({"Regex": r"\A "}, "")]
    if rules.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append(_replace({"String": " "}, SPACE))
    if rules.remove_extra_whitespaces:  # the look behind keeps the search linear
        steps.append(_replace({"Regex": rf"(?<!{SPACE}){SPACE}+\z"}, ""))
    return steps


def _decoders(rules: SpmRules) -> list[dict[str, Any]]:
    steps = [_replace({"String": SPACE}, " ")]
    steps += [{"type": "ByteFallback"}] * rules.byte_fallback
    steps.append({"type": "Fuse"})
    if rules.dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return steps
