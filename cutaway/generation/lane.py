"""What one backend computes within a step: which rows, what is chosen behind them, and what follows from that.

Shapes: W wanted rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from math import isfinite
from typing import TYPE_CHECKING

import torch

from cutaway.errors import NonFinite
from cutaway.generation.backend import Backend, Logits, Rows
from cutaway.generation.choosing import Asked, Branch, Chooser, Hypothesis
from cutaway.generation.job import Continuation, Job, Sequence
from cutaway.generation.pages import Pages
from cutaway.generation.request import Token
from cutaway.generation.sampling import likeliest
from cutaway.models import OFF

if TYPE_CHECKING:
    from cutaway.generation.engine import Engine

Planned = tuple[Job, Continuation, Sequence, Rows]
Told = tuple[Job, Continuation, Branch]


class Lane:
    """A backend, its pages, and the jobs that run on it.

    Args:
        backend: what computes.
        most: pages that there may be.
        keep: pages that are kept though nobody uses them.
        engine: whose.
    """

    def __init__(self, backend: Backend, most: int, keep: int, engine: Engine) -> None:
        self.backend, self.engine = backend, engine
        self.pages = Pages(most, backend.page or 1, keep)
        self.running: list[Job] = []  # in the order in which they were let in
        self.steps = 0
        self._paged, self._reserved = backend.page > 0, 0
        self._chunk = backend.chunk

    # in and out

    def admit(self, job: Job, number: int) -> bool:
        """Let a job in, unless there are too few pages."""
        sequences = job.sequences
        if self._paged and not self._find_pages(job, sequences):
            return False
        job.admitted = number
        self.running.append(job)
        prepared = job.prepared
        try:
            for one in sequences:
                if prepared.source is None:
                    self.backend.open(one.number)
                else:
                    self.backend.open(one.number, prepared.source, job.request.tap)
        except Exception as error:  # of this request alone
            self.engine.end(job, self, error)
        return True

    def _find_pages(self, job: Job, sequences: Many[Sequence]) -> bool:
        """Tables for a job's sequences, with what is found of them; False: too few pages."""
        prepared, needed = job.prepared, 0
        for one in sequences:
            ids = () if job.whole else one.ids[one.base :] if one.base else one.ids
            one.table, one.held = self.pages.open(job.request.tenant, ids, self._chunk)
            one.sealed = one.held
            tokens = len(one.ids) - one.base + 1
            if job.tapped:  # what was shown cannot be taken back, so it must not run out of pages
                tokens = min(tokens + prepared.count, prepared.context or 2**62)
            needed += self.pages.needed(tokens) - len(one.table.pages)
        active = [one for one in self.running if not one.paused]
        room = self.pages.available - min(len(active), self.pages.most // 8)  # each may soon need one more
        if needed > (room if active else self.pages.available):
            for one in sequences:
                self._shut(one)
            if not active and (paused := [one for one in self.running if not one.tapped]):
                self._put_back(paused[-1])
                return self._find_pages(job, sequences)
            return False
        if not job.begun:
            job.ticket.cached_tokens = sequences[0].held
        if job.tapped:
            most = prepared.context or 2**62
            return all(self._room(job, one, 0, min(len(one.ids) + prepared.count, most)) for one in sequences)
        return True

    def close(self, job: Job) -> None:
        """A job is over: everything it holds is free."""
        runs = job in self.running
        for continuation in job.continuations:
            continuation.chooser.close()
            for one in continuation.sequences:
                self._shut(one)
                if runs:
                    self.backend.close(one.number)
            continuation.sequences = []
        if runs:
            self.running.remove(job)

    def _shut(self, one: Sequence) -> None:
        """Give a sequence's pages back."""
        if one.table is not None:
            self.pages.close(one.table)
        one.restart(one.base)

    def _put_back(self, job: Job) -> None:
        """Take a job's pages; it waits and is computed again."""
        for one in job.sequences:
            self._shut(one)
            self.backend.close(one.number)
        self.running.remove(job)
        self.engine.again(job, self)

    # a step

    def step(self) -> bool:
        """Compute one step; False: there was nothing to compute."""
        self.steps += 1
        planned = self._plan()
        if not planned:
            return False
        together = [one for one in planned if one[0].request.tap is OFF]
        if together:
            self._compute(together)
        for one in planned:
            if one[0].request.tap is not OFF:
                self._compute([one])
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
                    else:
                        prompts.append((job, continuation, one, 0))
                    continue
                ready = all(one.pending == 1 for one in sequences)
                for one in sequences:
                    if ready:
                        self._take_one(job, continuation, one, planned)
                    elif one.pending > 1:  # the last token waits for the others
                        prompts.append((job, continuation, one, 1))
        if prompts:
            prompts.sort(key=lambda prompt: prompt[2].served)
            room = self.engine.chunk
            for job, continuation, one, but in prompts:
                taken = self._take_piece(job, continuation, one, but, planned, room)
                room -= taken
        if any(one[2].table is None for one in planned) and self._paged:  # put back by one that came after it
            planned = [one for one in planned if one[2].table is not None]
        # a search goes on with all of its sequences or with none
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
        if not job.whole:
            piece = self._chunk or self.engine.chunk
            end = min(end, (start // piece + 1) * piece)
        if end - start > room and room < self.engine.chunk:  # a step computes one piece, however large
            return 0
        if not self._room(job, one, start, end):
            return 0
        wanted = 1 if end == len(one.ids) - one.base else 0
        ids = one.ids[one.base + start : one.base + end]
        planned.append((job, continuation, one, self._rows(job, one, ids, wanted)))
        return end - start

    def _rows(self, job: Job, one: Sequence, ids: list[int], wanted: int) -> Rows:
        one.served = self.steps
        pages = one.table.pages if one.table is not None else []
        return Rows(one.number, ids, one.held, pages, wanted, job.request.tap)

    def _forget(self, job: Job, one: Sequence) -> None:
        """The context is full: go on with the later half of what was seen."""
        context = job.prepared.context
        assert context is not None
        self._shut(one)
        one.restart(len(one.ids) - (context // 2 or 1))
        one.table, _ = self.pages.open(job.request.tenant)

    def _room(self, job: Job, one: Sequence, start: int, end: int) -> bool:
        """Make it that a sequence's tokens start … end - 1 can be computed; False: its job was put back."""
        table = one.table
        if table is None:
            return not self._paged
        while (copies := self.pages.grow(table, start, end)) is None:
            others = [other for other in self.running if other is not job and not other.tapped]
            paused = [other for other in others if other.paused]
            later = [other for other in others if other.admitted > job.admitted]
            victims = paused or later
            self._put_back(victims[-1] if victims else job)
            if not victims:
                return False
        if self.pages.made > self._reserved:
            wanted = min(self.pages.most, max(self.pages.made, 2 * self._reserved))
            try:
                self.backend.reserve(wanted)
            except Exception as error:  # such as too little memory: of this request alone
                self.engine.end(job, self, error)
                return False
            self._reserved = wanted
        for source, target in copies:
            self.backend.copy(source, target)
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
                if one[2] in one[1].sequences:
                    self._compute([one])
            return
        self._go_on(planned, logits)

    # what follows from a step

    def _go_on(self, planned: Many[Planned], logits: Logits) -> None:
        asked: dict[Continuation, tuple[Job, list[Asked]]] = {}
        # plain numbers: a step reads more memory than any cache holds, and each call into a library comes back cold
        sums: list[float] = logits.log_sum.tolist()
        fine, row, broken = all(map(isfinite, sums)), 0, []
        for job, continuation, one, rows in planned:
            end, wanted = rows.start + len(rows.ids), rows.wanted
            guesses = wanted - 1 if wanted else 0
            one.held = end - guesses
            self._seal(one, rows.start, one.held)
            if not wanted:
                continue
            if not fine and not all(map(isfinite, sums[row : row + wanted])):
                broken.append(job)
            tried = rows.ids[len(rows.ids) - guesses :] if guesses else []
            for_one = asked.get(continuation)
            if for_one is None:
                asked[continuation] = job, [Asked(one.ids, one.prompt, tried, row)]
            else:
                for_one[1].append(Asked(one.ids, one.prompt, tried, row))
            if not job.begun:
                job.begun = True
                for other in job.continuations[1:]:
                    other.sequences.append(self._fork(one))
                    asked[other] = job, [Asked(other.sequences[0].ids, one.prompt, [], row)]
            row += wanted
        for job in broken:
            error = NonFinite(
                "a logit of the next token is NaN or infinite: the weights are damaged, or training diverged"
            )
            self.engine.end(job, self, error)
        if broken:
            asked = {continuation: found for continuation, found in asked.items() if found[0] not in broken}
        if asked:
            self._choose(asked, logits, sums)

    def _choose(self, asked: dict[Continuation, tuple[Job, list[Asked]]], logits: Logits, sums: Many[float]) -> None:
        kinds: dict[type[Chooser], list[Continuation]] = {}
        for continuation in asked:
            kinds.setdefault(type(continuation.chooser), []).append(continuation)
        told: list[Told] = []
        for kind, some in kinds.items():
            choosers = [continuation.chooser for continuation in some]
            chosen = kind.choose_all(choosers, [asked[continuation][1] for continuation in some], logits)
            for continuation, branches in zip(some, chosen, strict=True):
                job, its = asked[continuation]
                if isinstance(branches, Exception):
                    self.engine.end(job, self, branches)
                    continue
                self._branch(continuation, its, branches)
                if continuation.chooser.tells:
                    told += [(job, continuation, branch) for branch in branches]
                elif not branches:
                    self._tell_all(job, continuation)
        if told:
            self._tell(told, logits, sums)

    def _branch(self, continuation: Continuation, asked: Many[Asked], branches: Many[Branch]) -> None:
        """Fork, drop and lengthen a continuation's sequences."""
        before = continuation.sequences
        if len(before) == len(branches) == 1:
            after = before
        else:
            first: set[int] = set()
            after = []
            for branch in branches:
                one = before[branch.parent]
                after.append(self._fork(one) if branch.parent in first else one)
                first.add(branch.parent)
            for number, one in enumerate(before):
                if number not in first:
                    self._shut(one)
                    self.backend.close(one.number)
            continuation.sequences = after
        for one, branch in zip(after, branches, strict=True):
            tried = asked[branch.parent].guesses
            if tried:
                right = 0
                while right < min(len(tried), len(branch.ids)) and tried[right] == branch.ids[right]:
                    right += 1
                one.held += right
                continuation.tried += len(tried)
                continuation.right += right
            one.ids.extend(branch.ids)
            one.guesses = branch.guesses

    def _tell(self, told: Many[Told], logits: Logits, sums: Many[float]) -> None:
        """Hand out the tokens of a step."""
        value = logits.values.numpy().item
        for job, continuation, branch in told:
            request, writer, ended = job.request, continuation.writers[0], False
            last = len(branch.ids) - 1
            for number, (id, row) in enumerate(zip(branch.ids, branch.rows, strict=True)):
                top = ()
                if request.logprobs:
                    top = tuple(likeliest(logits.values.numpy()[row], float(logits.log_sum[row]), request.logprobs))
                text, finish = writer.add(id, branch.finish if number == last else None)
                job.ticket.tell(Token(id, text, value(row, id) - sums[row], finish, top, continuation.first))
                if finish is not None:
                    ended = True
                    break
            if ended:
                self._finish(job, continuation)

    def _tell_all(self, job: Job, continuation: Continuation) -> None:
        """Hand out the texts that a search has found."""
        found: list[Hypothesis] = continuation.chooser.results()
        for number, (one, writer) in enumerate(zip(found, continuation.writers, strict=False)):
            for i, (id, logprob) in enumerate(zip(one.ids, one.logprobs, strict=True)):
                text, finish = writer.add(id, one.finish if i == len(one.ids) - 1 else None)
                top = one.top[i] if one.top else ()
                job.ticket.tell(Token(id, text, logprob, finish, top, continuation.first + number))
                if finish is not None:
                    break
        self._finish(job, continuation)

    def _finish(self, job: Job, continuation: Continuation) -> None:
        """A continuation has ended."""
        continuation.chooser.close()
        for one in continuation.sequences:
            self._shut(one)
            self.backend.close(one.number)
        continuation.sequences, continuation.ended = [], True
        if continuation.tried:
            job.ticket.guesses[continuation.first] = continuation.tried, continuation.right
        if all(other.ended for other in job.continuations):
            self.engine.end(job, self)

    def _fork(self, one: Sequence) -> Sequence:
        new = Sequence(next(self.engine.numbers), list(one.ids), one.prompt, one.base, one.held)
        new.sealed, new.served = one.sealed, one.served
        if one.table is not None:
            new.table = self.pages.fork(one.table)
        self.backend.fork(one.number, new.number)
        return new

    def _seal(self, one: Sequence, start: int, end: int) -> None:
        """Let full pages be found, where what they hold does not depend on how it was computed."""
        table = one.table
        if table is None:
            return
        size = self.pages.size
        if not self._chunk:
            if end // size > len(table.keys):
                self.pages.seal(table, one.ids[one.base : one.base + end], end)
        elif start == one.sealed and start % self._chunk == 0 and end - start == self._chunk:
            one.sealed = end
            self.pages.seal(table, one.ids[one.base : one.base + end], end)
