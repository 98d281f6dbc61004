"""Why a text is cut as it is: the merges, scores or matches that made each token, replayed step by step.

The replay is an implementation of its own of each algorithm; its ids must equal the tokenizer's, or `explain` says so
instead of telling a story. In what it shows, pieces are written as text, with escapes where bytes are no characters.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cutaway.errors import ConfigError
from cutaway.tokenizers.spec import continuing_prefix

if TYPE_CHECKING:
    from cutaway.tokenizers.tokenizer import Tokenizer

ALTERNATIVES = 3  # other ways to cut a word that a unigram explanation shows


@dataclass(frozen=True)
class Merge:
    """One step of byte-pair encoding: two neighbours became one piece.

    Attributes:
        left, right: the pieces.
        rank: when training learned this merge; the lowest rank in the word is applied first.
    """

    left: str
    right: str
    rank: int


@dataclass(frozen=True)
class Cut:
    """One way to cut a word (unigram).

    Attributes:
        pieces: its tokens.
        score: the sum of their log probabilities, in nats.
    """

    pieces: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class TokenExplanation:
    """One token and how it came about.

    Attributes:
        id: its id.
        text: it, to be read (as `Tokenizer.token` shows it).
        bytes: the bytes that it stands for.
        span: the characters of the text that it covers, first and one past the last; tokens that share a character
            (parts of its bytes) have the same span.
        word: which word of the text, as the pre-tokenizer cuts it, it lies in: 0, 1, 2 …
        how: a sentence for people.
        merges: bpe: the merges that made it, in the order in which they were applied.
        score: unigram: its log probability in nats, else None.
        alternatives: unigram: the best ways to cut its word, the one chosen first.
        tried: wordpiece: the longer pieces that were looked up in vain before it, longest first.
    """

    id: int
    text: str
    bytes: bytes
    span: tuple[int, int]
    word: int
    how: str
    merges: tuple[Merge, ...] = ()
    score: float | None = None
    alternatives: tuple[Cut, ...] = ()
    tried: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Step:
    """A token inside the replay of one word."""

    id: int
    how: str
    merges: tuple[tuple[str, str, int], ...] = ()
    score: float | None = None
    cuts: tuple[tuple[tuple[str, ...], float], ...] = ()
    tried: tuple[str, ...] = ()


def explain(tokenizer: Tokenizer, text: str) -> list[TokenExplanation]:
    """Explain every token of `tokenizer.encode(text)`.

    Raises:
        InputError: the text holds a lone surrogate.
        ConfigError: the tokenizer has a step that this replay does not know; `encode` still works.
    """
    encoding, words = tokenizer.cut(text)
    try:
        replay = _Replay(tokenizer.spec)
        steps = [(number, step) for number, word in enumerate(words) for step in replay.word(word)]
    except (KeyError, IndexError, TypeError):
        steps = []
    if [step.id for _, step in steps] != encoding.ids:
        raise ConfigError(
            f"{tokenizer} has a step that explain does not know, so its tokens cannot be explained; encode works"
        )
    spans = encoding.offsets
    return [
        TokenExplanation(
            id=step.id,
            text=tokenizer.token(step.id),
            bytes=tokenizer.token_bytes(step.id),
            span=spans[position],
            word=number,
            how=step.how,
            merges=tuple(Merge(tokenizer.show(a), tokenizer.show(b), rank) for a, b, rank in step.merges),
            score=step.score,
            alternatives=tuple(Cut(tuple(map(tokenizer.show, pieces)), score) for pieces, score in step.cuts),
            tried=tuple(map(tokenizer.show, step.tried)),
        )
        for position, (number, step) in enumerate(steps)
    ]


class _Replay:
    """The algorithm of a tokenizer.json's model, a word at a time."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.model = model = spec["model"]
        vocab = model["vocab"]
        self.prefix = continuing_prefix(spec)
        if isinstance(vocab, list):
            self.vocab = {piece: id for id, (piece, _) in enumerate(vocab)}
            self.scores = dict(vocab)
            self.longest = max(map(len, self.vocab), default=0)
        else:
            self.vocab = vocab
        merges = model.get("merges", [])
        pairs = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in merges]
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        replays = {
            "BPE": self._bpe,
            "Unigram": self._unigram,
            "WordPiece": self._wordpiece,
            "WordLevel": self._word_level,
        }
        self.word = replays[model["type"]]

    def _bpe(self, word: str) -> list[_Step]:
        """Apply the merge of the lowest rank, the leftmost first, until none is left."""
        if self.model.get("ignore_merges") and word in self.vocab:
            return [_Step(self.vocab[word], "the whole word is in the vocabulary")]
        pieces, merges = self._symbols(word), {}
        after = [*range(1, len(pieces)), -1]  # a linked list: the piece that follows, -1 at the end
        before = [*range(-1, len(pieces) - 1)]
        alive = [True] * len(pieces)
        queue: list[tuple[int, int, str, str]] = []

        def offer(left: int) -> None:
            if left >= 0 and (right := after[left]) >= 0 and (pair := (pieces[left], pieces[right])) in self.ranks:
                heapq.heappush(queue, (self.ranks[pair], left, *pair))

        for left in range(len(pieces)):
            offer(left)
        while queue:
            rank, left, first, second = heapq.heappop(queue)
            right = after[left] if alive[left] else -1
            if right < 0 or (pieces[left], pieces[right]) != (first, second):
                continue  # one of the two has been merged into something else meanwhile
            merges[left] = (*merges.get(left, ()), *merges.pop(right, ()), (first, second, rank))
            pieces[left] = first + second.removeprefix(self.prefix)
            alive[right] = False
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            offer(left)
            offer(before[left])
        whole = not self.ranks
        return [
            _Step(self.vocab[piece], _bpe_story(merges.get(at, ()), spelled=whole), merges.get(at, ()))
            for at, piece in enumerate(pieces)
            if alive[at]
        ]

    def _symbols(self, word: str) -> list[str]:
        """What byte-pair encoding starts from: the letters, or the byte tokens of one that the vocabulary lacks."""
        symbols: list[str] = []
        for number, letter in enumerate(word):
            letter = (self.prefix if number else "") + letter
            if letter not in self.vocab and self.model.get("byte_fallback"):
                symbols += [f"<0x{byte:02X}>" for byte in letter.encode()]
            elif letter not in self.vocab and (unknown := self.model.get("unk_token")) is not None:
                fused = self.model.get("fuse_unk") and symbols[-1:] == [unknown]
                symbols += [] if fused else [unknown]
            elif letter in self.vocab:
                symbols.append(letter)
        return symbols

    def _unigram(self, word: str) -> list[_Step]:
        """The best-scoring path through the word's pieces (Viterbi), and the next best ones."""
        # best[end]: the best few (score, start, its rank there) ways to cut word[:end]
        best: list[list[tuple[float, int, int]]] = [[(0.0, -1, -1)]]
        unknown_score = min(self.scores.values(), default=0.0) - 10.0
        for end in range(1, len(word) + 1):
            ways = []
            for start in range(max(0, end - self.longest), end):
                piece = word[start:end]
                score = self.scores.get(piece, unknown_score if end - start == 1 else -math.inf)
                ways += (
                    [(before + score, start, rank) for rank, (before, _, _) in enumerate(best[start])]
                    if score > -math.inf
                    else []
                )
            best.append(sorted(ways, key=lambda way: (-way[0], way[1]))[: ALTERNATIVES + 1])
        cuts = tuple(_path(word, best, rank) for rank in range(len(best[-1])))
        steps = []
        for piece in cuts[0][0] if word else ():
            if piece in self.vocab:
                how = f"log probability {self.scores[piece]:.2f} in the likeliest cut of its word"
                steps.append(_Step(self.vocab[piece], how, score=self.scores[piece], cuts=cuts))
            elif self.model.get("byte_fallback"):
                steps += [
                    _Step(self.vocab[f"<0x{b:02X}>"], "not in the vocabulary: spelled in bytes") for b in piece.encode()
                ]
            elif not steps or steps[-1].id != self.model["unk_id"]:  # unknown neighbours make one token
                steps.append(_Step(self.model["unk_id"], "not in the vocabulary"))
        return steps

    def _wordpiece(self, word: str) -> list[_Step]:
        """The longest piece of the vocabulary from the left, then from where it ended, and so on."""
        steps, start = [], 0
        unknown = [_Step(self.vocab[self.model["unk_token"]], "not in the vocabulary")]
        if len(word) > self.model.get("max_input_chars_per_word", 100):
            return unknown
        while start < len(word):
            mark, tried = self.prefix if start else "", []
            for end in range(len(word), start, -1):
                piece = mark + word[start:end]
                if piece in self.vocab:
                    steps.append(_Step(self.vocab[piece], "the longest piece that fits here", tried=tuple(tried)))
                    start = end
                    break
                tried.append(piece)
            else:
                return unknown
        return steps

    def _word_level(self, word: str) -> list[_Step]:
        known = word in self.vocab
        how = "the whole word is in the vocabulary" if known else "not in the vocabulary"
        return [_Step(self.vocab[word if known else self.model["unk_token"]], how)]


def _bpe_story(merges: tuple[tuple[str, str, int], ...], *, spelled: bool) -> str:
    if merges:
        return f"{len(merges)} merge{'s' * (len(merges) > 1)}, the last of rank {merges[-1][2]}"
    return (
        "its word is not in the vocabulary: spelled in bytes"
        if spelled
        else "a single byte or letter: no merge applied"
    )


def _path(word: str, best: list[list[tuple[float, int, int]]], rank: int) -> tuple[tuple[str, ...], float]:
    """The pieces and the score of the way that ends with `best[-1][rank]`."""
    pieces, end, total = [], len(word), best[-1][rank][0]
    while end > 0:
        _, start, rank = best[end][rank]
        pieces.append(word[start:end])
        end = start
    return tuple(reversed(pieces)), total
