"""What follows from the logits of a step: choices, forks, tokens that are told, texts that end.

What goes wrong with one request ends it, and no other.

Shapes: W wanted rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from math import isfinite

from cutaway.errors import NonFinite
from cutaway.generation.backend import Logits, Rows
from cutaway.generation.choosing import Asked, Branch, Chooser
from cutaway.generation.held import Held
from cutaway.generation.job import Continuation, Job, Sequence
from cutaway.generation.request import Token
from cutaway.generation.sampling import likeliest

Planned = tuple[Job, Continuation, Sequence, Rows]
BROKEN = "a logit of the next token is NaN or infinite: the weights are damaged, or training diverged"
End = Callable[[Job, Exception | None], None]
_Asked = dict[Continuation, tuple[Job, list[Asked]]]


def follow(planned: Many[Planned], logits: Logits, held: Held, end: End) -> None:
    """Go on behind a step that was computed.

    Args:
        planned: whose rows, in their order.
        logits: of the wanted ones.
        held: the sequences.
        end: called with each job that is over, and what it failed with.
    """
    # plain numbers: a step reads more memory than any cache holds, and each call into a library comes back cold
    sums: list[float] = logits.log_sum.tolist()
    _score(planned, logits, end)
    asked = _asked(planned, sums, held, end)
    kinds: dict[type[Chooser], list[Continuation]] = {}
    for continuation in asked:
        kinds.setdefault(type(continuation.chooser), []).append(continuation)
    for kind, some in kinds.items():
        chosen: list[list[Branch] | Exception] = []
        for crowd in [[one] for one in some] if held.backend.apart else [some]:
            choosers = [continuation.chooser for continuation in crowd]
            chosen += kind.choose_all(choosers, [asked[continuation][1] for continuation in crowd], logits)
        for continuation, branches in zip(some, chosen, strict=True):
            job, its = asked[continuation]
            if job.ticket.ended:  # another of its continuations has failed
                continue
            if isinstance(branches, Exception):
                end(job, branches)
                continue
            try:
                _branch(continuation, its, branches, held)
                over = _tell(job, continuation, branches, logits, sums)
                if over:
                    _finish(job, continuation, held)
            except Exception as error:
                end(job, error)
                continue
            if over and all(other.ended for other in job.continuations):
                end(job, None)


def _score(planned: Many[Planned], logits: Logits, end: End) -> None:
    """Tell what the model thinks of the prompts that were read."""
    for number, scores in logits.scores.items():
        job = planned[number][0]
        if all(isfinite(score) for score, _ in scores):
            job.ticket.prompt_logprobs += scores
        else:
            end(job, NonFinite(BROKEN))


def _asked(planned: Many[Planned], sums: Many[float], held: Held, end: End) -> _Asked:
    """What each continuation is asked, if its logits are numbers."""
    asked: _Asked = {}
    fine, row = all(map(isfinite, sums)), 0
    for job, continuation, one, rows in planned:
        wanted = rows.wanted
        guesses = rows.guesses
        one.held = rows.start + len(rows.ids) - guesses
        if held.backend.chunk:
            one.products[rows.start] = len(rows.ids)
        held.seal(one, rows.start, one.held)
        if not wanted:
            continue
        first, row = row, row + wanted
        if job.ticket.ended:
            continue
        if not fine and not all(map(isfinite, sums[first:row])):
            end(job, NonFinite(BROKEN))
            continue
        tried = rows.ids[len(rows.ids) - guesses :] if guesses else []
        its = asked.setdefault(continuation, (job, []))
        its[1].append(Asked(one.ids, one.prompt, tried, first))
        if not job.prepared.count:  # it was only read
            end(job, None)
        elif not job.begun:
            job.begun = True
            try:
                for other in job.continuations[1:]:
                    other.sequences.append(held.fork(one))
                    asked[other] = job, [Asked(other.sequences[0].ids, one.prompt, [], first)]
            except Exception as error:
                end(job, error)
    return {continuation: its for continuation, its in asked.items() if not its[0].ticket.ended}


def _branch(continuation: Continuation, asked: Many[Asked], branches: Many[Branch], held: Held) -> None:
    """Fork, drop and lengthen a continuation's sequences."""
    before = continuation.sequences
    if len(before) == len(branches) == 1:
        after = before
    else:
        first: set[int] = set()
        after = []
        for branch in branches:
            one = before[branch.parent]
            after.append(held.fork(one) if branch.parent in first else one)
            first.add(branch.parent)
        for number, one in enumerate(before):
            if number not in first:
                held.close(one)
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


def _tell(job: Job, continuation: Continuation, branches: Many[Branch], logits: Logits, sums: Many[float]) -> bool:
    """Hand out what was chosen, or what a search has found; True: that was all."""
    tell, top = job.ticket.tell, job.request.logprobs
    if not continuation.chooser.tells:
        if branches:
            return False
        for number, (one, writer) in enumerate(zip(continuation.chooser.results(), continuation.writers, strict=False)):
            for i, (id, logprob) in enumerate(zip(one.ids, one.logprobs, strict=True)):
                text, finish = writer.add(id, one.finish if i == len(one.ids) - 1 else None)
                tell(Token(id, text, logprob, finish, one.top[i] if one.top else (), continuation.first + number))
                if finish is not None:
                    break
        return True
    writer, value = continuation.writers[0], logits.values.numpy().item
    for branch in branches:
        last = len(branch.ids) - 1
        for number, (id, row) in enumerate(zip(branch.ids, branch.rows, strict=True)):
            found = tuple(likeliest(logits.values.numpy()[row], sums[row], top)) if top else ()
            text, finish = writer.add(id, branch.finish if number == last else None)
            tell(Token(id, text, value(row, id) - sums[row], finish, found, continuation.first))
            if finish is not None:
                return True
    return False


def _finish(job: Job, continuation: Continuation, held: Held) -> None:
    """A continuation has ended."""
    continuation.chooser.close()
    for one in continuation.sequences:
        held.close(one)
    continuation.sequences, continuation.ended = [], True
    if continuation.tried:
        job.ticket.guesses[continuation.first] = continuation.tried, continuation.right
