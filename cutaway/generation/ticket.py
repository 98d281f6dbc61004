"""What a caller holds of a request: its tokens as they come, and the way to end it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cutaway.generation.prepare import shown
from cutaway.generation.request import Generation, Request, Score, Token

if TYPE_CHECKING:
    from cutaway.generation.engine import Engine
    from cutaway.generation.job import Job


class Ticket:
    """What `Engine.submit` gives: the tokens of a request as they come.

    Iterating it steps the engine where no other thread does. Tokens are handed out once; `result` knows all of them.

    Attributes:
        request: what was asked.
        prompt_ids: the prompt as the model reads it, with the token that begins a text where it has one.
        prompt_tokens: how many these are.
        prompt_logprobs: of each of them as far as it is read, if they were asked for; complete before the first token.
            Of the first, which nothing predicts, it is None.
        cached_tokens: of these, how many were found computed already.
        lazy: computed only while somebody waits for its next token.
        beams: of its search; 1: tokens are drawn, and told as they come.
        waiting: somebody does.
    """

    def __init__(self, engine: Engine, request: Request, prompt_ids: list[int], lazy: bool, beams: int = 1) -> None:
        self.request, self.prompt_ids, self.cached_tokens = request, prompt_ids, 0
        self.prompt_logprobs: list[Score | None] = [] if request.prompt_logprobs is None else [None]
        self.lazy, self.waiting, self.beams = lazy, False, beams
        self.later: Job | None = None  # of a lazy one that nobody has waited for yet
        self.ended = False
        self.error: Exception | None = None
        self.guesses: dict[int, tuple[int, int]] = {}  # continuation -> tokens guessed, and how many were right
        self._engine = engine
        self._fresh: deque[Token] = deque()
        self._all: list[list[Token]] = [[] for _ in range(request.n)]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt_ids)

    @property
    def unscored(self) -> int:
        """Tokens of the prompt whose log-probabilities are still to be told."""
        return len(self.prompt_ids) - len(self.prompt_logprobs) if self.prompt_logprobs else 0

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.ended

    @property
    def news(self) -> bool:
        """Whether there is something to hand out, or to say that there is no more."""
        return bool(self._fresh) or self.ended

    @property
    def told(self) -> bool:
        """Whether it has ended, and all of it was handed out."""
        return self.ended and not self._fresh

    def tell(self, token: Token) -> None:
        """One more token (the engine's to call)."""
        self._engine.written += 1
        self._all[token.sample].append(token)
        self._fresh.append(token)

    def end(self, error: Exception | None = None) -> None:
        """There is no more (the engine's to call)."""
        self.error, self.ended = error, True

    def __iter__(self) -> Iterator[Token]:
        """The tokens that were not handed out yet; of n > 1 continuations as they come (`Token.sample`).

        Raises:
            Exception: what this request failed with.
        """
        while True:
            while not self._fresh and not self.ended:
                self._engine.pull(self)
            if self._fresh:
                yield self._fresh.popleft()
            elif self.error is not None:
                raise self.error
            else:
                return

    def take(self) -> list[Token]:
        """The tokens that were not handed out yet, without waiting for more."""
        taken = []
        while self._fresh:
            taken.append(self._fresh.popleft())
        return taken

    def texts(self) -> list[str]:
        """What was written until now, of each continuation."""
        return ["".join([token.text for token in tokens]) for tokens in self._all]

    def cancel(self) -> None:
        """End it now, from any thread; its pages are free after the step that runs."""
        self._engine.cancel(self)

    def result(self) -> Generation:
        """Wait for the end; of several continuations the first (of a beam search the best)."""
        return self.results()[0]

    def results(self) -> list[Generation]:
        """Wait for the end of all n."""
        self._engine.pull(self, whole=True)
        if self.error is not None:
            raise self.error
        return [self._generation(sample, tokens) for sample, tokens in enumerate(self._all)]

    def _generation(self, sample: int, tokens: list[Token]) -> Generation:
        guessed, right = self.guesses.get(sample, (0, 0))
        nothing = "length" if self.request.max_new_tokens == 0 and not self.unscored else "cancelled"
        return Generation(
            prompt=shown(self.request.prompt),
            text="".join([token.text for token in tokens]),
            ids=[token.id for token in tokens],
            logprobs=[token.logprob for token in tokens],
            finish_reason=(tokens[-1].finish_reason if tokens else None) or nothing,
            seed=self.request.seed,
            top=[token.top for token in tokens] if self.request.logprobs else [],
            guessed=guessed,
            acceptance=right / guessed if guessed else None,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            prompt_ids=list(self.prompt_ids) if self.prompt_logprobs else [],
            prompt_logprobs=list(self.prompt_logprobs),
        )
