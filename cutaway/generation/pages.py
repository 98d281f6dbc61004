"""Which pages of keys and values are whose. Pure bookkeeping: it never sees a key.

A page holds the keys and values of a fixed number of consecutive tokens (paged attention, Kwon et al. 2023).
Sequences that begin with the same tokens share pages; whoever writes to a shared one gets a copy first. Full pages are
found again by what they hold: the key of a page is a SHA-256 over tenant and adapter, all tokens before it and its own,
so nobody finds another tenant's pages, or another adapter's, and what is found holds just what would have been
computed.

Pages that no sequence uses any more are kept for later requests until their number or the need for free ones says
otherwise; the one unused for longest goes first.
"""

from __future__ import annotations

import hashlib
import heapq
import secrets
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """The pages of one sequence, in order.

    Attributes:
        pages: their numbers.
        root: the key that stands for the tenant and the adapter.
        keys: of its first pages, those that are full and can be found.
    """

    pages: list[int]
    root: bytes
    keys: list[bytes] = field(default_factory=list)


class Pages:
    """All pages of one backend.

    Args:
        most: how many there may be.
        size: tokens in a page.
        keep: most pages that are kept though no sequence uses them; None: any number.
    """

    def __init__(self, most: int, size: int, keep: int | None = None) -> None:
        self.most, self.size, self.keep = most, size, most if keep is None else keep
        self.made = 0  # pages in use up to now are numbered below this
        self._free: list[int] = []  # a heap: low numbers first, so that a sequence's pages tend to lie in a row
        self._users: dict[int, int] = {}  # page -> tables that hold it
        self._found: dict[bytes, int] = {}  # key -> page
        self._key: dict[int, bytes] = {}  # and back
        self._unused: dict[int, None] = {}  # pages that can be found and nobody holds, longest unused first
        self._salt = secrets.token_bytes(32)  # keys mean nothing outside of this process

    @property
    def available(self) -> int:
        """Pages that could be had now."""
        return self.most - len(self._users)

    @property
    def used(self) -> int:
        """Pages that sequences hold."""
        return len(self._users)

    @property
    def kept(self) -> int:
        """Pages that are only kept to be found again."""
        return len(self._unused)

    def needed(self, tokens: int) -> int:
        """Pages that so many tokens take."""
        return -(-tokens // self.size)

    def open(self, tenant: str, ids: Sequence[int] = (), unit: int = 0, adapter: int = 0) -> tuple[Table, int]:
        """A table for a new sequence, with the pages found that hold its first tokens.

        The last token is never found, as its logits are needed.

        Args:
            tenant: whose.
            ids: the tokens to come; none: nothing is looked for.
            unit: tokens found are a multiple of this; 0: of a page.
            adapter: what they are computed with beside the weights, by its number; 0: nothing.

        Returns:
            The table, and how many tokens it holds already.
        """
        owner = adapter.to_bytes(8, "little") + tenant.encode("utf-8", "surrogatepass")
        table = Table([], hashlib.sha256(self._salt + owner).digest())
        key = table.root
        for number in range(max(0, len(ids) - 1) // self.size):
            key = _chain(key, ids[number * self.size : (number + 1) * self.size])
            page = self._found.get(key)
            if page is None:
                break
            table.pages.append(page)
            table.keys.append(key)
        whole = max(1, unit // self.size)
        count = len(table.pages) // whole * whole
        del table.pages[count:], table.keys[count:]
        self._hold(table.pages)
        return table, count * self.size

    def fork(self, table: Table) -> Table:
        """A second table with the same pages."""
        self._hold(table.pages)
        return Table(list(table.pages), table.root, list(table.keys))

    def grow(self, table: Table, start: int, end: int) -> list[tuple[int, int]] | None:
        """Make it that tokens start … end - 1 can be written.

        Returns:
            Pages to copy first, (from, to); None: there are not enough pages, and nothing has changed.
        """
        held, first = len(table.pages), start // self.size
        shared = [i for i in range(first, min(held, self.needed(end))) if self._shared(table.pages[i])]
        new = self.needed(end) - held
        if len(shared) + max(new, 0) > self.available:
            return None
        copies = []
        for i in shared:
            page, copy = table.pages[i], self._take()
            copies.append((page, copy))
            table.pages[i] = copy
            self._drop(page)
        table.pages += [self._take() for _ in range(new)]
        return copies

    def seal(self, table: Table, ids: Sequence[int], held: int) -> None:
        """Let the full pages among the first `held` tokens be found from now on."""
        for number in range(len(table.keys), held // self.size):
            before = table.keys[-1] if table.keys else table.root
            key = _chain(before, ids[number * self.size : (number + 1) * self.size])
            table.keys.append(key)
            page = table.pages[number]
            if key not in self._found and page not in self._key:
                self._found[key], self._key[page] = page, key

    def close(self, table: Table) -> None:
        """The sequence has ended."""
        for page in reversed(table.pages):  # later ones are worth less without those before them: they go first
            self._drop(page)
        table.pages, table.keys = [], []
        while len(self._unused) > self.keep:
            self._forget(next(iter(self._unused)))

    def _shared(self, page: int) -> bool:
        return self._users[page] > 1 or page in self._key

    def _hold(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._users[page] = self._users.get(page, 0) + 1
            self._unused.pop(page, None)

    def _drop(self, page: int) -> None:
        self._users[page] -= 1
        if not self._users[page]:
            del self._users[page]
            if page in self._key:
                self._unused[page] = None
            else:
                heapq.heappush(self._free, page)

    def _take(self) -> int:
        """A page for one sequence; there must be one available."""
        if not self._free:
            if self.made < self.most:
                self.made += 1
                heapq.heappush(self._free, self.made - 1)
            else:
                self._forget(next(iter(self._unused)))
        page = heapq.heappop(self._free)
        self._users[page] = 1
        return page

    def _forget(self, page: int) -> None:
        """An unused page is free."""
        del self._unused[page]
        del self._found[self._key.pop(page)]
        heapq.heappush(self._free, page)


def _chain(before: bytes, ids: Sequence[int]) -> bytes:
    """The key of a page: of all before it, and of its tokens."""
    return hashlib.sha256(before + array("q", ids).tobytes()).digest()
