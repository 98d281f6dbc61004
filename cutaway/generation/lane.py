"""Which rows a backend computes in a step: who is let in, whose turn it is, who gives pages back.

Shapes: W wanted rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import TYPE_CHECKING

import torch

from cutaway.generation.backend import Backend, Rows
from cutaway.generation.held import Held
from cutaway.generation.job import Continuation, Job, Sequence
from cutaway.generation.outcome import Planned, follow
from cutaway.models import OFF

if TYPE_CHECKING:
    from cutaway.generation.engine import Engine


class Lane:
    """A backend, its pages, and the jobs that run on it.

    Args:
        backend: what computes.
        most: pages that there may be.
        keep: pages that are kept though nobody uses them.
        engine: whose.
        many: whether it computes several adapters beside each other; else all that it computes has the same, or none.
    """

    def __init__(self, backend: Backend, most: int, keep: int, engine: Engine, many: bool = True) -> None:
        self.backend, self.engine, self.many = backend, engine, many
        self.held = Held(backend, most, keep, engine.numbers)
        self.pages = self.held.pages
        self.running: list[Job] = []  # in the order in which they were let in
        self.steps = self.batch = 0  # computed, and sequences in the last one
        self._turns: dict[str, int] = {}  # tenant -> the step in which it last had a piece of a prompt
        self._paged, self._chunk = backend.page > 0, backend.chunk

    # in and out

    def admit(self, job: Job, number: int) -> bool:
        """Let a job in, unless there are too few pages."""
        sequences = job.sequences
        if self._paged and not self._find_pages(job, sequences):
            return False
        job.admitted = number
        for one in sequences:  # behind those that have waited for longer since they were served
            one.served = max(one.served, self.steps)
        self.running.append(job)
        prepared = job.prepared
        try:
            for one in sequences:
                if prepared.source is None:
                    self.backend.open(one.number)
                else:
                    self.backend.open(one.number, prepared.source, job.request.tap)
                if job.tapped and one.table is not None:  # its pages are its own from now on
                    self.held.grow(one.table, 0, min(len(one.ids) + prepared.count, prepared.context or 2**62))
        except Exception as error:  # of this request alone
            self.engine.end(job, self, error)
        return True

    def _find_pages(self, job: Job, sequences: Many[Sequence]) -> bool:
        """Tables for a job's sequences, with what is found of them; False: too few pages."""
        prepared, needed = job.prepared, 0
        for one in sequences:
            anew = job.whole or job.ticket.unscored  # what is found has no logits
            # where numbers depend on products, what it wrote itself is never that of another's prompt
            end = one.prompt if self._chunk else len(one.ids)
            ids = () if anew else one.ids[one.base : end]
            one.table, one.held = self.pages.open(job.request.tenant, ids, self._chunk, self._adapter(job))
            one.sealed = one.held
            tokens = len(one.ids) - one.base + 1
            if job.tapped:  # what was shown cannot be taken back, so it must not run out of pages
                tokens += prepared.count
            tokens = min(tokens, prepared.context or 2**62)  # behind a full context the earlier half is forgotten
            needed += self.pages.needed(tokens) - len(one.table.pages)
        active = [one for one in self.running if not one.paused]
        room = self.pages.available - min(len(active), self.pages.most // 8)  # each may soon need one more
        if needed > (room if active else self.pages.available):
            for one in sequences:
                self.held.shut(one)
            if not active and (paused := [one for one in self.running if not one.tapped]):
                self._put_back(paused[-1])
                return self._find_pages(job, sequences)
            return False
        if not job.admitted:
            job.ticket.cached_tokens = sequences[0].held
            self.engine.cached += sequences[0].held
        return True

    def close(self, job: Job) -> None:
        """A job is over: everything it holds is free."""
        runs = job in self.running
        for continuation in job.continuations:
            continuation.chooser.close()
            for one in continuation.sequences:
                if runs:
                    self.held.close(one)
            continuation.sequences = []
        if runs:
            self.running.remove(job)

    def _put_back(self, job: Job) -> None:
        """Take a job's pages; it waits and is computed again."""
        for one in job.sequences:
            one.reached = max(one.reached, one.held)
            self.held.close(one)
        self.running.remove(job)
        self.engine.again(job, self)

    def _adapter(self, job: Job) -> int:
        return job.adapter.number if job.adapter is not None and self.many else 0

    # a step

    def step(self) -> bool:
        """Compute one step; False: there was nothing to compute."""
        self.steps += 1
        planned = self._plan()
        self.batch = len(planned)
        if not planned:
            return False
        self.engine.read_tokens += sum(len(rows.ids) for job, _, _, rows in planned if not job.begun)
        together = [one for one in planned if one[0].request.tap is OFF]
        if together:
            self._compute(together)
        for one in planned:
            if one[0].request.tap is not OFF:
                self._compute_alone(one)
        return True

    def _plan(self) -> list[Planned]:
        """Which rows to compute: of those that generate all, of prompts what the engine's chunk allows."""
        planned: list[Planned] = []
        prompts: list[tuple[Job, Continuation, Sequence, int]] = []
        for job in tuple(self.running):
            if job.ticket.lazy and not job.ticket.waiting:
                continue
            for continuation in job.continuations:
                sequences = continuation.sequences
                if len(sequences) == 1:
                    one = sequences[0]
                    if len(one.ids) - one.base - one.held == 1:
                        self._take_one(job, continuation, one, planned)
                    else:  # guesses are tried as they would have been
                        prompts.append((job, continuation, one, int(bool(one.guesses))))
                    continue
                ready = all(one.pending == 1 for one in sequences)
                for one in sequences:
                    if ready:
                        self._take_one(job, continuation, one, planned)
                    elif one.pending > 1:  # the last token waits for the others
                        prompts.append((job, continuation, one, 1))
        if self._paged:  # none of a job that was put back meanwhile
            prompts = [one for one in prompts if one[2].table is not None]
        if prompts:
            turns = self._turns = {job.request.tenant: self._turns.get(job.request.tenant, 0) for job in self.running}
            prompts.sort(key=lambda it: (turns[it[0].request.tenant], it[2].served, it[2].pending))
            room = self.engine.chunk
            if len(prompts) > 2 * len(planned):  # a longer step holds up few, and keeps many from waiting for another
                room *= 2
            for job, continuation, one, but in prompts:
                served = one.served
                taken = self._take_piece(job, continuation, one, but, planned, room)
                if taken == room < self.engine.chunk or not taken:
                    one.served = served  # what others left is no turn
                else:
                    turns[job.request.tenant] = self.steps
                room -= taken
        if any(one[2].table is None for one in planned) and self._paged:  # put back by one that came after it
            planned = [one for one in planned if one[2].table is not None]
        return planned

    def _take_one(self, job: Job, continuation: Continuation, one: Sequence, planned: list[Planned]) -> None:
        """Plan a sequence's next token, and its guesses."""
        context, ids = job.prepared.context, one.ids
        if context and one.held >= context:
            self._forget(job, one)
            self._take_piece(job, continuation, one, 0, planned, self.engine.chunk)
            return
        if not one.guesses:
            if self._room(job, one, one.held, one.held + 1):
                planned.append((job, continuation, one, self._rows(job, one, ids[-1:], 1)))
            return
        most = min(len(one.guesses), continuation.writers[0].left - 1)
        if context:
            most = min(most, context - one.held - 1)
        guesses = one.guesses[: max(0, most)]
        if not self._room(job, one, one.held, one.held + 1 + len(guesses)):
            return
        planned.append((job, continuation, one, self._rows(job, one, [ids[-1], *guesses], 1 + len(guesses))))

    def _take_piece(
        self, job: Job, continuation: Continuation, one: Sequence, but: int, planned: list[Planned], room: int
    ) -> int:
        """Plan a piece of what is not computed yet of a sequence, all but the last tokens; gives its size."""
        if one.table is None and self._paged:
            return 0
        context = job.prepared.context
        if context and len(one.ids) - one.base > context:
            self._forget(job, one)
        start, end = one.held, len(one.ids) - one.base - but
        if (again := one.again()) is not None:
            return self._take_again(job, continuation, one, planned, room, *again)
        if not job.whole:
            piece = self._chunk or self.engine.chunk
            end = min(end, (start // piece + 1) * piece)
        if end - start > room and room < self.engine.chunk:  # a step computes one piece, however large
            if room < 1 or self._chunk or not self._paged or job.whole:
                return 0
            end = start + room  # where it is cut changes no number
        if not self._room(job, one, start, end):
            return 0
        wanted = 1 if end == len(one.ids) - one.base else 0
        ids = one.ids[one.base + start : one.base + end]
        planned.append((job, continuation, one, self._rows(job, one, ids, wanted)))
        return end - start

    def _take_again(
        self,
        job: Job,
        continuation: Continuation,
        one: Sequence,
        planned: list[Planned],
        room: int,
        rows: int,
        wrong: int,
    ) -> int:
        """Plan a product as it was before; gives its size."""
        start = one.held
        if (rows > room and room < self.engine.chunk) or not self._room(job, one, start, start + rows):
            return 0
        ids = one.ids[one.base + start : one.base + start + rows]
        ids += ids[-1:] * (rows - len(ids))  # in the place of guesses, which nothing depends on
        made = self._rows(job, one, ids, 0)
        made.guesses = wrong
        planned.append((job, continuation, one, made))
        return rows

    def _rows(self, job: Job, one: Sequence, ids: list[int], wanted: int) -> Rows:
        one.served = self.steps
        pages = one.table.pages if one.table is not None else []
        adapter, guesses = self._adapter(job), max(0, wanted - 1)
        if not job.ticket.unscored:
            return Rows(one.number, ids, one.held, pages, wanted, guesses, tap=job.request.tap, adapter=adapter)
        prompt, known = job.ticket.prompt_ids, len(job.ticket.prompt_logprobs)
        scored = prompt[max(known, one.held + 1) : one.held + len(ids) + 1]
        top = job.request.prompt_logprobs or 0
        return Rows(one.number, ids, one.held, pages, wanted, guesses, scored, top, job.request.tap, adapter)

    def _forget(self, job: Job, one: Sequence) -> None:
        """The context is full: go on with the later half of what was seen."""
        context = job.prepared.context
        assert context is not None
        self.held.shut(one)
        one.restart(len(one.ids) - (context // 2 or 1))
        one.table, _ = self.pages.open(job.request.tenant, adapter=self._adapter(job))

    def _room(self, job: Job, one: Sequence, start: int, end: int) -> bool:
        """Make it that a sequence's tokens start … end - 1 can be computed; False: its job was put back."""
        if one.table is None:
            return not self._paged
        try:
            while not self.held.grow(one.table, start, end):
                others = [other for other in self.running if other is not job and not other.tapped]
                paused = [other for other in others if other.paused]
                later = [other for other in others if other.admitted > job.admitted]
                victims = paused or later
                self._put_back(victims[-1] if victims else job)
                if not victims:
                    return False
        except Exception as error:  # such as too little memory: of this request alone
            self.engine.end(job, self, error)
            return False
        return True

    def _compute(self, planned: Many[Planned]) -> None:
        try:
            with torch.inference_mode():
                logits = self.backend.step([one[3] for one in planned])
        except Exception as error:
            if len(planned) == 1:
                self.engine.end(planned[0][0], self, error)
                return
            for one in planned:  # a step may be computed again: whose failure was it?
                self._compute_alone(one)
            return
        follow(planned, logits, self.held, lambda job, error: self.engine.end(job, self, error))

    def _compute_alone(self, one: Planned) -> None:
        if one[2] in one[1].sequences:  # its job has not failed since
            self._compute([one])
