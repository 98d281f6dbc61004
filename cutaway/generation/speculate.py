"""Guessing ahead: several tokens for one step's time, and not another text.

Guessed tokens are computed together with the last sure one, and each is then chosen as if nothing had been guessed
(Leviathan et al. 2023; Chen et al. 2023): a guess costs a row of a step and saves a step if it was right. Two things
guess. `Lookup` supposes that a text goes on as it did before, where its last tokens stood earlier (prompt look-up,
Saxena 2023): it is nearly free, and right where a text is edited, quoted or summed up. A draft (see `drafts`) is a
smaller model that continues the text first.

How many to guess follows from how often guesses were right. Look-up learns that without guessing: every token shows
whether its guess would have been right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

COST = 0.2  # of one more row in a step, where a step of one row costs 1 (native kernels: 0.1, more on a busy machine)
LEAST_GAIN = 1.1  # what is less than this faster by estimation is not tried


class Rates:
    """How often guesses are right, for several kinds of guesses.

    Args:
        begin: the rate that is supposed of each kind before there is any experience.
    """

    WEIGHT, MEMORY = 4.0, 50.0  # of what is supposed, and of experience, in guesses

    def __init__(self, begin: Sequence[float]) -> None:
        self._right = [rate * self.WEIGHT for rate in begin]
        self._all = [self.WEIGHT] * len(begin)

    def learn(self, kind: int, right: bool) -> None:
        """A guess was right or not; what is long past counts less and less."""
        if self._all[kind] >= self.MEMORY:
            self._all[kind] *= 1 - 1 / self.MEMORY
            self._right[kind] *= 1 - 1 / self.MEMORY
        self._all[kind] += 1
        self._right[kind] += right

    def rate(self, kind: int) -> float:
        """The share of right ones."""
        return self._right[kind] / self._all[kind]


class Lookup:
    """Guesses that a text goes on as it did where its last tokens stood before. O(1) a token.

    Args:
        ids: the text so far.
        most: guesses at a time.
    """

    MOST = 10
    LENGTHS = (3, 2, 1)  # of the tokens that are looked up, the longest first
    SUPPOSED = (0.05, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # rates after so many equal tokens, from 1 on

    def __init__(self, ids: Sequence[int] = (), most: int = MOST) -> None:
        self.most, self.rates = most, Rates(self.SUPPOSED)
        self._ids: list[int] = []
        self._ends: tuple[dict[tuple[int, ...], int], ...] = tuple({} for _ in self.LENGTHS)  # -> behind its last place
        self._next, self._equal = 0, 0  # what is supposed to come is ids[next], as so many tokens before are equal
        for id in ids:
            self.add(id)

    def add(self, id: int) -> None:
        """The text has one more token."""
        ids = self._ids
        if self._equal:
            right = ids[self._next] == id
            self.rates.learn(self._kind(self._equal), right)
            self._next, self._equal = self._next + 1, self._equal + 1 if right else 0
        ids.append(id)
        for length, ends in zip(self.LENGTHS, self._ends, strict=True):
            if length <= len(ids):
                key = tuple(ids[-length:])
                if length > self._equal and (end := ends.get(key)) is not None:
                    self._next, self._equal = end, length
                ends[key] = len(ids)

    def guess(self, cost: float = COST) -> list[int]:
        """What may come next; as many as pay, with what one more row costs."""
        if not self._equal:
            return []
        most = min(self.most, len(self._ids) - self._next)
        rates = (self.rates.rate(self._kind(self._equal + i)) for i in range(most))
        return self._ids[self._next : self._next + worth(rates, cost)]

    def _kind(self, equal: int) -> int:
        return min(equal, len(self.SUPPOSED)) - 1


def worth(rates: Iterable[float], cost: float, first: float = 0.0) -> int:
    """How many guesses to try, so that most tokens come of a step's time; 0 if none pay.

    Args:
        rates: of each guess, how often it is right if those before it are.
        cost: of each, in steps of one row.
        first: what the first costs beside that.
    """
    best, count, tokens, reached = LEAST_GAIN, 0, 1.0, 1.0
    for number, rate in enumerate(rates, 1):
        reached *= rate
        tokens += reached
        gain = tokens / (1 + first + cost * number)
        if gain > best:
            best, count = gain, number
    return count
