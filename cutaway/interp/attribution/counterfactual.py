"""What if the text were another: tokens changed or deleted in place, and the answer's number before and after.

Shapes: N places of the source, then of the text; T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.attribution.faithfulness import METHODS
from cutaway.interp.attribution.question import UNITS, Attribution, Question, answer, looked_up, question_of
from cutaway.interp.inputs import Inputs, Text, forward, inputs_of
from cutaway.interp.receipt import Clock
from cutaway.interp.results import Cell, Panel, Table
from cutaway.interp.target import Quantity, Target, at_position, name_of
from cutaway.models import Model
from cutaway.models.model import Source

Change: TypeAlias = Sequence[Any]  # (position, text or ids that stand there instead; None or "": nothing)
TOP = 5  # answers that are named


@dataclass(frozen=True)
class Counterfactual(Panel):
    """What `counterfactual` found.

    Attributes:
        target: the number, in words.
        chosen: which of the model's answers is asked about: the same before and after.
        other: which is subtracted.
        before: the number of the text as it was.
        after: of the changed one.
        expected: the change that the saliency predicts: that with each changed token its score goes.
        first_order: the change that the gradient predicts, (new vector - old vector) · gradient summed over the changed
            tokens; None where tokens are deleted or stand in place of more or fewer.
        tokens: of the changed text (with a source that is text: of that, then of the text), to be read.
        ids: of the changed text (of an encoder–decoder the target).
        text: it, as a text that the model reads as just these tokens; None where there is none.
        position: where in it the answer is read; None: of the whole text.
    """

    target: str = field(kw_only=True)
    chosen: int = field(kw_only=True)
    other: int | None = field(kw_only=True)
    before: float = field(kw_only=True)
    after: float = field(kw_only=True)
    expected: float = field(kw_only=True)
    first_order: float | None = field(kw_only=True)
    tokens: list[str] = field(kw_only=True)
    ids: list[int] = field(kw_only=True)
    text: str | None = field(kw_only=True)
    position: int | None = field(kw_only=True)


def counterfactual(
    model: Model,
    text: Text,
    changes: Sequence[Change] = (),
    *,
    source: Source | Sequence[str] | None = None,
    source_changes: Sequence[Change] = (),
    method: str = "integrated_gradients",
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
) -> Counterfactual:
    """Change or delete tokens in place, and compare the answer's number with what a saliency predicted.

    A saliency says what an answer owes to each token. If that is so, taking a token away costs the answer its score;
    what stands there instead may add something of its own, which no score of the old text knows. The gradient does
    predict replacements, to first order (HotFlip, Ebrahimi et al. 2018).

    Args:
        model: of any kind.
        text: of several texts the first.
        changes: (position, new text) of each token that is changed, positions from 0 of the text as it was, special
            tokens counted; the new text is what stands there instead, with its spaces, or ids; "" or None deletes.
        source: what an encoder–decoder reads.
        source_changes: likewise, of the source's tokens.
        method: the saliency: "integrated_gradients", "gradient_x_input", "occlusion", "shapley" or
            "attention_x_gradient".
        token: which output is asked about, as in `target_of`; None takes the likeliest of the text as it was.
        minus: another output, which is subtracted.
        position: after or at which token of the text as it was. Where it is deleted the answer is read after what
            stands before it.
        quantity: "logit", "logprob" or "prob".

    Returns:
        A panel: the table "changes" (predicted and actual change of each alone), the likeliest answers before and
        after, and the saliency of both texts.

    Raises:
        ConfigError: an unknown method, or no changes.
        InputError: a change outside the text or given twice, sound, or nothing that would be left.
    """
    if method not in METHODS:
        raise ConfigError(unknown("method", str(method), METHODS))
    asked: dict[str, Any] = {"token": token, "minus": minus, "position": position, "quantity": quantity}
    clock = Clock(
        model, "counterfactual", text, changes=[list(one) for one in changes] or None, source=source,
        source_changes=[list(one) for one in source_changes] or None, method=method, **asked,
    )  # fmt: skip
    inputs = _alone(inputs_of(model, text, source))
    question = question_of(model, inputs, **asked)
    target = question.target
    if not changes and not source_changes:
        raise ConfigError("give at least one change, (position, new text): what the text would be otherwise")
    edits = {"source": _read(model, inputs, source_changes, "source"), "text": _read(model, inputs, changes, "text")}
    whole, place = _changed(model, inputs, target, edits)
    with torch.no_grad():
        outputs = [forward(model, inputs), forward(model, whole)]
    moved = changed(target, position=place)
    before, after = float(target(outputs[0], inputs)[0]), float(moved(outputs[1], whole)[0])
    fixed: dict[str, Any] = {"token": target.chosen, "minus": target.other, "quantity": quantity}
    saliency: list[Attribution] = []
    for some, at in ((inputs, position), (whole, -1 if place is None else place)):
        saliency.append(METHODS[method](model, some, **fixed, position=at))
    scores = {place: score or 0.0 for places, score in zip(saliency[0].places, saliency[0].scores, strict=True)
              for place in places}  # fmt: skip
    slopes = _slopes(question)
    rows: list[list[Cell]] = []
    expected, first_order = 0.0, []
    for side, made in edits.items():
        for at, ids in made.items():
            n = at + (sum(question.counts[:-1]) if side == "text" else 0)
            alone, alone_place = _changed(model, inputs, target, {"source": {}, "text": {}, side: {at: ids}})
            with torch.no_grad():
                number = float(answer(question.model, alone, changed(target, position=alone_place), {})[0])
            guess = None
            if len(ids) == 1:
                vector = looked_up(question.model, torch.tensor(ids, device=question.vectors.device))[0]
                guess = float((vector - question.vectors[n]) @ slopes[n])
            expected -= scores[n]
            first_order.append(guess)
            old = int((inputs.ids if side == "text" else _ids_of_source(inputs))[0, at])
            spelled = _tokens(model, [old], side)[0], "".join(_tokens(model, ids, side))
            rows.append([at, *spelled, -scores[n], guess, number - before])
    by_gradient = None if None in first_order else sum(g for g in first_order if g is not None)
    receipt = clock.receipt(gap=saliency[0].receipt.gap)
    unit = UNITS[quantity]
    heads = ["position", "was", "is", "predicted by the saliency", "by the gradient", "actual, alone"]
    parts: dict[str, Any] = {"changes": Table(f"Change of the {target.what}, in {unit}", heads, rows, receipt=receipt)}
    if table := _answers(model, outputs, (inputs, whole), (target, moved), receipt):
        parts["answers"] = table
    parts |= {"saliency before": saliency[0], "saliency after": saliency[1]}
    notes = [
        f"{saliency[0].what}: with each changed token its score is predicted to go.",
        "A replacement adds something of its own that scores of the old text do not know; the gradient does, to first "
        "order.",
    ]
    figures = {"before": before, "after": after, "change": after - before, "predicted by the saliency": expected}
    figures |= {} if by_gradient is None else {"predicted by the gradient": by_gradient}
    heard = whole.source is not None and whole.source.is_floating_point()
    read = [] if whole.source is None or heard else whole.source[0].tolist()
    return Counterfactual(
        f"If the text were changed: {target.what}", parts, notes, figures, target=target.what, chosen=target.chosen,
        other=target.other, before=before, after=after, expected=expected, first_order=by_gradient, position=place,
        tokens=[*_tokens(model, read, "source"), *_tokens(model, whole.ids[0].tolist(), "text")],
        ids=whole.ids[0].tolist(), text=_read_back(model, whole), receipt=receipt,
    )  # fmt: skip


def _alone(inputs: Inputs) -> Inputs:
    """The first text, without padding."""
    one = inputs.rows(0, 1)
    if one.mask is not None:
        kept = one.mask[0]
        types = None if one.token_types is None else one.token_types[:, kept]
        one = changed(one, ids=one.ids[:, kept], token_types=types, mask=None)
    if one.source_mask is not None and one.source is not None and not one.source.is_floating_point():
        one = changed(one, source=one.source[:, one.source_mask[0]], source_mask=None)
    return one


def _read(model: Model, inputs: Inputs, changes: Sequence[Change], side: str) -> dict[int, list[int]]:
    """Position -> the ids that stand there instead.

    Raises:
        InputError: a change that is none.
    """
    if not changes:
        return {}
    count = (inputs.ids if side == "text" else _ids_of_source(inputs)).shape[1]
    tokenizer = (model.tokenizer.target or model.tokenizer) if side == "text" else model.tokenizer
    found: dict[int, list[int]] = {}
    for one in changes:
        if len(one) != 2 or not isinstance(one[0], int) or isinstance(one[0], bool):
            raise InputError(f"a change is (position, new text), but {list(one)!r:.80} was given")
        at, new = one
        if not -count <= at < count:
            raise InputError(f"position {at} is outside the {side} of {count} tokens (0 … {count - 1})")
        at %= count
        if at in found:
            raise InputError(f"position {at} of the {side} is changed twice; give it once")
        if not isinstance(new, str | list | tuple | type(None)):
            raise InputError(f"what stands at position {at} must be text or ids, but {new!r:.80} was given")
        if isinstance(new, str):  # the name of a special token alone is that token
            new = [tokenizer.special[new]] if new in tokenizer.special else tokenizer.encode(new)
        ids = list(new or ())
        if wrong := [id for id in ids if not isinstance(id, int) or not 0 <= id < model.config.vocab_size]:
            raise InputError(f"{wrong[0]!r:.80} is no id of this model's {model.config.vocab_size:,} tokens")
        found[at] = [int(id) for id in ids]
    return dict(sorted(found.items()))


def _ids_of_source(inputs: Inputs) -> Tensor:
    if inputs.source is None:
        raise InputError("this model reads no source; give changes= of its text")
    if inputs.source.is_floating_point():
        raise InputError("this model listens: frames of sound cannot be changed as tokens; change its text")
    return inputs.source


def _changed(
    model: Model, inputs: Inputs, target: Target, edits: dict[str, dict[int, list[int]]]
) -> tuple[Inputs, int | None]:
    """The changed text, and where the answer is read in it."""
    ids, types, moved = [], [], []
    for at, id in enumerate(inputs.ids[0].tolist()):
        new = edits["text"].get(at, [id])
        moved.append(len(ids) + len(new) - 1)  # of what stands there, the last; of what is deleted, the one before
        ids += new
        if inputs.token_types is not None:
            types += [int(inputs.token_types[0, at])] * len(new)
    if not ids:
        raise InputError("nothing would be left of the text; keep at least one token")
    if len(ids) > model.config.context:
        raise InputError(f"the changed text has {len(ids)} tokens, but the model reads {model.config.context} at once")
    made = changed(inputs, ids=inputs.ids.new_tensor([ids]))
    if inputs.token_types is not None:
        made = changed(made, token_types=inputs.token_types.new_tensor([types]))
    if edits["source"]:
        read = [n for at, id in enumerate(_ids_of_source(inputs)[0].tolist()) for n in edits["source"].get(at, [id])]
        if not read:
            raise InputError("nothing would be left of the source; keep at least one token")
        made = changed(made, source=_ids_of_source(inputs).new_tensor([read]))
    if target.position is None:
        return made, None
    return made, max(0, moved[int(inputs.places(target.position)[0])])


def _read_back(model: Model, inputs: Inputs) -> str | None:
    """The text of ids, if it gives just these again."""
    ids = inputs.ids[0].tolist()
    text = (model.tokenizer.target or model.tokenizer).decode(ids, skip_special=True)
    try:
        return text if model.ids(text)[0].tolist() == ids else None
    except InputError:  # nothing but special tokens
        return None


def _slopes(question: Question) -> Tensor:
    """(N, C) the gradient of the number with respect to each token's vector."""
    with torch.enable_grad():
        vectors = question.vectors[None].clone().requires_grad_()
        (slopes,) = torch.autograd.grad(question(vectors).sum(), vectors)
    return question.finite(slopes[0])


def _tokens(model: Model, ids: Sequence[int], side: str) -> list[str]:
    tokenizer = (model.tokenizer.target or model.tokenizer) if side == "text" else model.tokenizer
    return [tokenizer.token(id) for id in ids]


def _answers(
    model: Model, outputs: list[Tensor], inputs: tuple[Inputs, Inputs], targets: tuple[Target, Target], receipt: Any
) -> Table | None:
    """The likeliest answers of both texts with their probabilities; None of a model that has none."""
    head, labelling = getattr(model.config, "head", "causal_lm"), getattr(model.config, "labelling", "one")
    if head in ("none", "embedding", "replaced_token", "span_extraction") or labelling == "number":
        return None
    chances = []
    for output, some, target in zip(outputs, inputs, targets, strict=True):
        row = output if target.position is None else at_position(output, some, target.position)
        chances.append(row[0].double().sigmoid() if labelling == "several" else row[0].double().softmax(-1))
    asked = [number for number in (targets[0].chosen, targets[0].other) if number is not None]
    likely: list[int] = [i for some in chances for i in some.topk(min(TOP, len(some))).indices.tolist()]
    named = list(dict.fromkeys([*asked, *likely]))
    rows: list[list[Cell]] = [
        [name_of(model, i), float(chances[0][i]), float(chances[1][i]), float(chances[1][i] - chances[0][i])]
        for i in named
    ]
    return Table("Probability of the likeliest answers", ["answer", "before", "after", "change"], rows, receipt=receipt)
