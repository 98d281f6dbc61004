"""From a number to the first level of its ledger.

Most numbers stand at the end of a chain of steps (a line), and are opened by walking back along it. Those that do not
are sums of another form: what a part adds to a stream, what a head makes of its sources, scores, and what comes out of
a softmax.

Shapes: C channels, S keys, V outputs.
"""

from __future__ import annotations

import re
from functools import partial

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.ledger import recurrent
from cutaway.interp.ledger.address import Number
from cutaway.interp.ledger.chain import Chain
from cutaway.interp.ledger.layout import Layout, layout
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.nonlinear import Game
from cutaway.interp.ledger.parts import Attention, Mixture, Neurons, Part, at
from cutaway.interp.ledger.reading import Run, Sum
from cutaway.interp.ledger.scores import Score, Softmax
from cutaway.interp.target import Target
from cutaway.models import Recurrent

INSIDE = re.compile(r"(.*layers\.\d+\.(?:attn|cross_attn|mlp))(_out|\.\w+)")
Line = tuple[Chain, Tensor, float]  # a chain, what reads its end, and the number


def opened(run: Run, number: Number) -> Ledger:
    """Its terms, all that is not linear held as it was.

    Raises:
        InputError: a score that the query does not see, or an expert that is not used.
    """
    target = number.target
    if target is not None and target.quantity == "logprob":
        if target.other is None:
            return _logprob(run, number, target)
        run.unit = "nats"  # of a difference of two logarithms the normaliser cancels
    if isinstance(run.network, Recurrent):
        if target is not None:
            return recurrent.output(run, target, number.place or 0)
        return recurrent.inside(run, number.what, number.place or 0, number.reader, number.said)
    made = layout(run.network)
    line = _line(run, made, number)
    if line is None:
        return _other(run, made, number)
    chain, reader, total = line
    return chain.read(run, number.place, reader).ledger(run, number.said, total)


def game_of(run: Run, number: Number) -> Game:
    """The number as a function of the parts of the last sum before it.

    Raises:
        ConfigError: there is nothing that is not linear, or more than one sum.
    """
    if number.target is not None and number.target.quantity != "logit":
        raise ConfigError("only a logit is attributed through what is not linear; leave quantity at logit")
    if isinstance(run.network, Recurrent):
        reader = None if number.target is not None else number.reader
        return recurrent.game(run, number.what, number.place or 0, reader, number.said)
    line = _line(run, layout(run.network), number)
    if line is None:
        raise ConfigError(
            f"{number.what} is no function of a single sum, so there is nothing to attribute through; "
            "leave nonlinear at frozen, which opens it"
        )
    chain, reader, total = line
    parts, function = chain.game(run, number.place)
    return Game(number.said, parts.names, parts.labels, parts.values.T, lambda x: function(x) @ reader, total)


def logit(run: Run, names: list[str], place: int | None, chosen: int, factor: float) -> Ledger:
    """An output times a factor, such as a logit inside a loss; `names` is how outputs are called."""
    times = "" if factor == 1 else f" times {factor:.3g}"
    target = Target(f"logit of “{names[chosen]}”{times}", place, chosen)
    if isinstance(run.network, Recurrent):
        return recurrent.output(run, target, place or 0, factor)
    chain, reader, total = _output(run, layout(run.network), target, place)
    return chain.read(run, place, factor * reader).ledger(run, target.what, factor * total)


def output_names(run: Run) -> list[str]:
    """How the outputs are called: tokens, or labels."""
    labels: tuple[str, ...] = getattr(run.model.config, "labels", ())
    tokenizer = run.model.tokenizer.target or run.model.tokenizer
    return list(labels) or [tokenizer.token(i) for i in range(run.recording["logits"].shape[-1])]


def output_softmax(run: Run, names: list[str], place: int | None) -> Softmax:
    """The softmax over the outputs at a place."""
    kind = "label" if getattr(run.model.config, "labels", ()) else "token"
    numbers = [f"{kind}.{i}" for i in range(len(names))]
    return Softmax(run, run.at("logits", place), numbers, names, partial(logit, run, names, place), "logit")


def _logprob(run: Run, number: Number, target: Target) -> Ledger:
    run.unit = "nats"
    softmax = output_softmax(run, output_names(run), number.place)
    used = float(softmax.scores.log_softmax(0)[target.chosen])
    return softmax.entry(target.chosen, used, number.said)


def _line(run: Run, made: Layout, number: Number) -> Line | None:
    """The chain that ends in a number; None where it is a sum of another form."""
    what, place, reader = number.what, number.place, number.reader
    if number.target is not None:
        return _output(run, made, number.target, place)
    for chain in made.chains:
        if what in chain.places:
            return chain.until(what), reader, float(run.at(what, place) @ reader)
    part, name = _inside(made, what)
    if isinstance(part, Attention) and name in ("q", "k", "v"):
        used = run.heads(what)[number.head, place].double()
        return part.inner(name, number.head), reader, float(used @ reader)
    if isinstance(part, Neurons) and name in ("pre", "post"):
        which = reader.nonzero().flatten()  # one neuron is one of many
        chain = part.gate(which) if name == "pre" else part.inner(which)
        return chain, reader[which], float(run.at(what, place) @ reader)
    return None


def _inside(made: Layout, what: str) -> tuple[Part, str]:
    """The part that an activation is inside of, and its name there."""
    found = INSIDE.fullmatch(what)
    assert found is not None
    return made.parts[found[1]], found[2].removeprefix(".")


def _output(run: Run, made: Layout, target: Target, place: int | None) -> Line:
    chosen = [target.chosen] if target.other is None else [target.chosen, target.other]
    signs = torch.tensor([1.0, -1.0][: len(chosen)], dtype=torch.float64)
    if made.output is not None:
        which = torch.tensor(chosen)
        return made.outputs(which), signs, float(run.at("logits", place)[which] @ signs)
    value = run.at(made.main.last, place)
    reader = torch.zeros_like(value).index_add_(0, torch.tensor(chosen), signs)
    return made.main, reader, float(value @ reader)


def _other(run: Run, made: Layout, number: Number) -> Ledger:
    """What is no line."""
    part, name = _inside(made, number.what)
    place, head, reader = number.place, number.head, number.reader
    assert place is not None
    if isinstance(part, Mixture) and name == "router":
        return _router(run, part, number, place)
    if isinstance(part, Attention) and name == "scores":
        return Score(run, made, part, head, place, number.key).ledger()
    if isinstance(part, Attention) and name == "pattern":
        return _pattern(run, made, part, number, place)
    if isinstance(part, Attention) and name == "z":
        return part.sources(run, place, head, reader, float(run.heads(number.what)[head, place].double() @ reader))
    parts = Sum()
    part.read_written(run, place, reader, (), parts)
    return parts.ledger(run, number.said, float(run.at(number.what, place) @ reader))


def _pattern(run: Run, made: Layout, part: Attention, number: Number, query: int) -> Ledger:
    head, key = number.head, number.key
    scores = run.heads(f"{part.name}.scores")[head, query].double()  # (S,)
    seen = scores.isfinite().nonzero().flatten().tolist()
    used = run.heads(number.what)[head, query, key].double()
    if key not in seen or not used:
        raise InputError(f"position {query} gives nothing to position {key}; the logarithm of 0 is not a number")
    labels = [run.token(s, part.reads_source) for s in seen]

    def opener(i: int, factor: float) -> Ledger:
        return Score(run, made, part, head, query, seen[i]).ledger(factor)

    where = at(run, part.head_name(head), query, part.stream.source)
    said = f"logarithm of what {where} gives to “{run.token(key, part.reads_source)}” ({key}), {float(used):.3g}"
    softmax = Softmax(run, scores[seen], [f"key.{s}" for s in seen], labels, opener)
    return softmax.entry(seen.index(key), float(used.log()), said, edit=number.what)


def _router(run: Run, part: Mixture, number: Number, place: int) -> Ledger:
    """An expert's weight, out of a softmax over all experts, or where weights sum to 1 over those that are used."""
    weights, chain, expert = run.at(number.what, place), part.router(), number.key
    if not weights[expert]:
        used = ", ".join(map(str, weights.nonzero().flatten().tolist()))
        raise InputError(f"at position {place} {number.what} uses the experts {used}; choose one of them by index=")
    scores = chain.value(run, len(chain.steps), place)
    counted = list(range(len(scores)))
    if part.module.sum_to_one:
        counted = sorted(scores.topk(part.module.used).indices.tolist())

    def opener(i: int, factor: float) -> Ledger:
        reader = torch.zeros_like(scores)
        reader[counted[i]] = factor
        what = f"score of expert {counted[i]} at “{run.token(place)}” ({place}), by what fed it"
        return chain.read(run, place, reader).ledger(run, what, float(scores[counted[i]]) * factor)

    run.unit, names = "nats", [f"expert.{e}" for e in counted]
    said = f"logarithm of the weight of expert {expert} in {at(run, part.layer, place, False)}"
    softmax = Softmax(run, scores[counted], names, [""] * len(names), opener)
    return softmax.entry(counted.index(expert), float(weights[expert].log()), said, edit=number.what)
