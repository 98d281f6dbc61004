"""Places: how many requests are let in, and when the others may come again."""

from __future__ import annotations

from cutaway.serve.errors import ApiError
from cutaway.serve.settings import Settings


class Queue:
    """Lets requests in, up to a limit of those that run and those that wait.

    Args:
        settings: max_batch run and `queue` wait.
    """

    def __init__(self, settings: Settings) -> None:
        self.most = settings.max_batch + settings.queue
        self.taken = 0
        self.draining = False

    def enter(self) -> None:
        """Take a place.

        Raises:
            ApiError: 429 where all are taken, 503 where the server is about to stop.
        """
        if self.draining:
            raise ApiError(503, "the server is stopping and takes no new requests", code="stopping", retry=5)
        if self.taken >= self.most:
            raise ApiError(
                429, f"{self.taken} requests run or wait, which is all that may; try again later", code="busy", retry=1
            )
        self.taken += 1

    def leave(self) -> None:
        """Give it back."""
        self.taken -= 1
