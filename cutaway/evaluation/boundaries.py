"""Where a context ends and what is scored begins, token by token.

The rule is lm-evaluation-harness's (`TemplateLM._encode_pair` and `loglikelihood` of 0.4.13), so that figures can be
compared: context and continuation are encoded as one text, of which as many tokens as the context alone has are left
out, and the rest is scored behind the context's own; white space at the end of the context belongs to the continuation;
and without a context the token that begins a text, or ends one, stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cutaway.errors import InputError
from cutaway.models import Model
from cutaway.tokenizers.frame import beginning


@dataclass(frozen=True)
class Cut:
    """A text as a model reads it.

    Attributes:
        ids: context and continuation.
        start: where the continuation begins; at least 1, as nothing predicts the first token.
    """

    ids: list[int]
    start: int

    def within(self, context: int | None) -> Cut:
        """The last tokens of it, as many as a model sees at once; None: all."""
        over = 0 if context is None else max(0, len(self.ids) - context)
        return Cut(self.ids[over:], max(1, self.start - over)) if over else self


def prefix(model: Model) -> int:
    """The token that stands before a text without a context: what begins one, or ends the one before.

    Raises:
        InputError: the tokenizer has neither.
    """
    tokenizer = model.tokenizer
    begin = tokenizer.end_of_text if tokenizer.begin_of_text is None else tokenizer.begin_of_text
    begin = model.generation.bos_token_id if begin is None else begin
    if begin is None:
        raise InputError(
            f"the tokenizer of {model.source or 'this model'} has no token that begins or ends a text, so nothing can "
            "predict a text's first token; give a context"
        )
    return begin


def cut(model: Model, context: str, continuation: str) -> Cut:
    """The ids of a context and what follows it, and where that begins.

    Args:
        model: whose tokenizer cuts. What its file puts before every text is put before a context, too.
        context: may be empty.
        continuation: what is scored.

    Raises:
        InputError: nothing to score, or no context and no token in its place.
    """
    bare = context.rstrip()
    continuation, context = context[len(bare) :] + continuation, bare
    encode = model.tokenizer.encode
    if not context:
        ids = encode(continuation)
        begin = prefix(model)
        made = Cut(ids if ids[:1] == [begin] else [begin, *ids], 1)
    else:
        before = [*beginning(model.tokenizer), *encode(context)]
        whole = [*beginning(model.tokenizer), *encode(context + continuation)]
        made = Cut([*before, *whole[len(before) :]], len(before))
    if made.start >= len(made.ids):
        raise InputError(f"{continuation[:60]!r} adds no token to {context[-60:]!r}, so there is nothing to score")
    return made


def windows(ids: Sequence[int], window: int, stride: int) -> list[Cut]:
    """A long text as overlapping windows, in which each token but the first is scored once.

    Every window moves on by `stride`, and scores what the one before it did not see: so each scored token has at least
    `window - stride` tokens before it, but for those at the beginning of the text.

    Args:
        ids: of the text, with what stands before it.
        window: tokens seen at once.
        stride: of these, scored at once; at most window - 1.
    """
    made, seen = [], 1
    while seen < len(ids):
        end = min(len(ids), window if seen == 1 else seen + stride)
        begin = max(0, end - window)
        made.append(Cut(list(ids[begin:end]), seen - begin))
        seen = end
    return made
