"""From the name of a recorded activation to the ledger of one number of it.

Shapes: B texts, T tokens, C channels, H heads, D head dim, V outputs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Inputs, Text, inputs_of
from cutaway.interp.ledger import recurrent
from cutaway.interp.ledger.chain import Chain
from cutaway.interp.ledger.layout import Layout, layout
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.nonlinear import Game, integrated, shapley
from cutaway.interp.ledger.parts import Attention, Mixture, Neurons, Part, at
from cutaway.interp.ledger.reading import Run, Sum
from cutaway.interp.ledger.scores import Score, Softmax
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, recording_of
from cutaway.interp.results import Matrix
from cutaway.interp.target import Target, target_of
from cutaway.models import Model, Recurrent
from cutaway.models.model import Source

WAYS = ("frozen", "shapley", "integrated")  # through what is not linear
BY_HEAD = ("q", "k", "v", "z", "scores", "pattern")
INSIDE = re.compile(r"(.*layers\.\d+)\.(attn|cross_attn|mlp)(_out|\.\w+)")


def needed(model: Model, what: str = "logits") -> list[str]:
    """The names of the activations that a ledger of a number reads at any of its levels."""
    last = what.rsplit(".", 1)[-1]
    spared = ("scores",) if last == "pattern" else ("q", "k", "scores")
    keep = () if last in ("scores", "pattern") else (last,)
    names = model.network.tap_names()
    if last in ("scores", "pattern"):
        return names
    return [name for name in names if name.rsplit(".", 1)[-1] not in spared or name.rsplit(".", 1)[-1] in keep]


@torch.no_grad()
def ledger(
    model: Recording | Model,
    text: Text = "",
    what: str = "logits",
    *,
    source: Source | Sequence[str] | None = None,
    position: int = -1,
    token: str | int | None = None,
    minus: str | int | None = None,
    head: int | None = None,
    index: int | Tensor | None = None,
    row: int = 0,
    nonlinear: str = "frozen",
    samples: int = 64,
    seed: int = 0,
) -> Ledger:
    """Open one number of a run into the terms that sum to it.

    Args:
        model: a model with a text; or a recording, whose run (with its edits, if it was edited) is opened.
        text: what the model reads.
        what: the name of an activation; "logits" is the model's output, whatever its head makes.
        source: what an encoder–decoder reads.
        position: of which token, -1 is the last; of "logits" after which. Of scores and patterns it is the query's;
            of names that begin with "encoder." and of keys and values of the source it is one of the source.
        token: of "logits" which one: a token as text or id, a label or channel; None takes the likeliest.
        minus: another one, which is subtracted: why the one rather than the other.
        head: of names that end in q, k, v, z, scores or pattern, which head.
        index: which number of the last dimension: channel, neuron, unit, or of scores and patterns the key. A vector
            (C,) instead reads all of them: its product with them is opened, such as along a probe.
        row: of a batch, which text.
        nonlinear: how what is not linear between the parts and the number is passed: "frozen" holds it at what it was,
            and every term opens; "shapley" (sampled) and "integrated" attribute through the last of it, the final norm
            and all behind it, or into an MLP its norm, gate and activation.
        samples: orders that are drawn for "shapley", or nodes of "integrated".
        seed: of the orders.

    Returns:
        The terms in float64. For a model in float32 their sum is within 1e-4 of the number, in float64 within 1e-9,
        relative to the largest of them.

    Raises:
        InputError: a name, position, head or index that is not there; a token that is not one token; a score that the
            query does not see.
        LedgerError: the terms do not add up.
    """
    run_model = model.model if isinstance(model, Recording) else model
    options = {"what": what, "source": source, "position": position, "token": token, "minus": minus, "head": head}
    options |= {"index": index, "row": row, "nonlinear": nonlinear}
    if nonlinear not in WAYS:
        raise ConfigError(unknown("way through what is not linear", nonlinear, WAYS))
    clock = Clock(run_model, "ledger", model if isinstance(model, Recording) else text, **options)
    names = run_model.network.tap_names()
    if what != "logits" and what not in names:
        raise InputError(unknown("recorded activation", what, names))
    first = model if isinstance(model, Recording) else inputs_of(run_model, text, source)
    rows = len(first.ids if isinstance(first, Recording) else first)
    if not 0 <= row < rows:
        raise InputError(f"there are {rows} texts, 0 … {rows - 1}, but row {row} was asked for")
    if isinstance(first, Inputs):  # only what is opened has to run
        first, row = first.rows(row, row + 1), 0
    recording = recording_of(model, first if isinstance(first, Inputs) else "", needed(run_model, what))
    run = Run(recording, row, "logits" if what == "logits" else "nats" if what.endswith("pattern") else "")
    run.receipt = clock.receipt(
        difference=recording.receipt.difference,
        bytes=recording.receipt.bytes,
        seed=seed if nonlinear == "shapley" else None,
    )
    asked = _Asked(run, what, position, token, minus, head, index)
    if nonlinear == "frozen":
        return asked.ledger()
    game = asked.game()
    return shapley(run, game, samples, seed) if nonlinear == "shapley" else integrated(run, game, samples)


class _Asked:
    """One number that was asked for.

    Args:
        run: that is read.
        what: the name of the activation.
        position: as it was given, as all others are.
    """

    def __init__(
        self,
        run: Run,
        what: str,
        position: int,
        token: str | int | None,
        minus: str | int | None,
        head: int | None,
        index: int | Tensor | None,
    ) -> None:
        self.run, self.what, self.position, self.index, self.head = run, what, position, index, head
        self.output = what in ("logits", run.network.tap_names()[-1])
        if self.output:
            if head is not None or index is not None:
                raise InputError("an output is chosen by token= and minus=; leave head and index out")
            rows = run.inputs.rows(run.row, run.row + 1)
            output = run.recording.logits[run.row : run.row + 1]
            self.target: Target = target_of(run.model, rows, token=token, minus=minus, position=position, output=output)
            at = self.target.position
            self.place = None if at is None else int(rows.places(at)[0])
            return
        if token is not None or minus is not None:
            raise InputError(f"token and minus choose a logit; of {what} choose a number by index=")
        recorded, last = run.recording[what], what.rsplit(".", 1)[-1]
        by_head = last in BY_HEAD
        if (head is None) == by_head:
            have = f"has heads 0 … {recorded.shape[1] - 1}; choose one by head=" if by_head else "has no heads"
            raise InputError(f"{what} {have}")
        if by_head and not 0 <= (head or 0) < recorded.shape[1]:
            raise InputError(f"{what} has heads 0 … {recorded.shape[1] - 1}, but {head} was asked for")
        whole = recorded.ndim == 2  # of a whole text
        source = what.startswith("encoder.") or (".cross_attn." in what and last in ("k", "v"))
        self.place = None if whole else _place(run, position, source, recorded.shape[-2])
        size = recorded.shape[-1]
        if last in ("scores", "pattern"):
            if not isinstance(index, int):
                raise InputError(f"{what} has a number for each key: choose one by index=, a position")
            self.index = _place(run, index, what.startswith("encoder.") or ".cross_attn." in what, size)
            return
        self.reader = _reader(what, index, size)

    @property
    def said(self) -> str:
        """The number, to be read."""
        if self.output:
            return self.target.what
        which = f"number {self.index}" if isinstance(self.index, int) else "reading"
        head = "" if self.head is None else f" head {self.head}"
        source = self.what.startswith("encoder.") or re.search(r"cross_attn\.[kv]$", self.what) is not None
        where = self.what if self.place is None else at(self.run, self.what, self.place, source)
        return f"{which} of{head} {where}"

    def ledger(self) -> Ledger:
        """With all that is not linear held as it was."""
        run = self.run
        if isinstance(run.network, Recurrent):
            if self.output:
                return recurrent.output(run, self.target, self.place or 0)
            return recurrent.inside(run, self.what, self.place or 0, self.reader, self.said)
        made = layout(run.network)
        if self.output:
            chain, reader, total = _output(run, made, self.target, self.place)
            return chain.read(run, self.place, reader).ledger(run, self.said, total)
        found = INSIDE.fullmatch(self.what)
        if found and self.what not in made.main.places and (made.source is None or self.what not in made.source.places):
            return self._inside(made, made.parts[f"{found[1]}.{found[2]}"], found[3].removeprefix("."))
        total = float(run.at(self.what, self.place) @ self.reader)
        chain = next(chain for chain in made.chains if self.what in chain.places)
        return chain.read(run, self.place, self.reader, place=self.what).ledger(run, self.said, total)

    def _inside(self, made: Layout, part: Part, name: str) -> Ledger:
        """Of what stands inside an attention or MLP."""
        run, place, head = self.run, self.place, self.head or 0
        assert place is not None
        if name == "_out":
            sum = Sum()
            part.read_written(run, place, self.reader, (), sum)
            return sum.ledger(run, self.said, float(run.at(self.what, place) @ self.reader))
        if name == "router":
            return self._router(part, place)
        if isinstance(part, Neurons):
            chain = part.gate() if name == "pre" else part.inner()
            total = float(run.at(self.what, place) @ self.reader)
            return chain.read(run, place, self.reader).ledger(run, self.said, total)
        assert isinstance(part, Attention)
        if name == "scores":
            assert isinstance(self.index, int)
            return Score(run, made, part, head, place, self.index).ledger()
        if name == "pattern":
            return self._pattern(made, part, head, place)
        total = float(run.heads(self.what)[head, place].double() @ self.reader)
        if name == "z":
            return part.sources(run, place, head, self.reader, total)
        return part.inner(name, head).read(run, place, self.reader).ledger(run, self.said, total)

    def _pattern(self, made: Layout, part: Attention, head: int, query: int) -> Ledger:
        run, key = self.run, self.index
        assert isinstance(key, int)
        scores = run.heads(f"{part.name}.scores")[head, query].double()  # (S,)
        seen = scores.isfinite().nonzero().flatten().tolist()
        used = float(run.heads(self.what)[head, query, key])
        if key not in seen or not used:
            raise InputError(f"position {query} gives nothing to position {key}; the logarithm of 0 is not a number")
        labels = [run.token(s, part.reads_source) for s in seen]

        def opener(i: int, factor: float) -> Ledger:
            return Score(run, made, part, head, query, seen[i]).ledger(factor)

        where = at(run, part.head_name(head), query, part.stream.source)
        said = f"logarithm of what {where} gives to “{run.token(key, part.reads_source)}” ({key}), which is {used:.3g}"
        log = float(torch.tensor(used, dtype=torch.float64).log())
        names = [f"key.{s}" for s in seen]
        return Softmax(run, scores[seen], names, labels, opener).entry(seen.index(key), log, said, edit=self.what)

    def _router(self, part: Part, place: int) -> Ledger:
        """A weight of an expert: what its softmax gave, where experts not used count if the weights do not sum to 1."""
        run = self.run
        assert isinstance(part, Mixture)
        weights, chain = run.at(self.what, place), part.router()
        if not isinstance(self.index, int) or not weights[self.index]:
            used = ", ".join(map(str, weights.nonzero().flatten().tolist()))
            raise InputError(f"at position {place} {self.what} uses the experts {used}; choose one of them by index=")
        scores = chain.value(run, len(chain.steps), place)
        counted = torch.arange(len(scores))
        if part.module.sum_to_one:
            counted = scores.topk(part.module.used).indices.sort().values

        def opener(i: int, factor: float) -> Ledger:
            reader = torch.zeros_like(scores)
            reader[counted[i]] = factor
            number = int(counted[i])
            what = f"score of expert {number} at “{run.token(place)}” ({place}), by what fed it"
            return chain.read(run, place, reader).ledger(run, what, float(scores[number]) * factor)

        names = [f"expert.{e}" for e in counted.tolist()]
        said = f"logarithm of the weight of expert {self.index} in {at(run, part.layer, place, False)}"
        chosen, log = counted.tolist().index(self.index), float(weights[self.index].log())
        softmax = Softmax(run, scores[counted], names, [""] * len(names), opener)
        return softmax.entry(chosen, log, said, edit=self.what)

    def game(self) -> Game:
        """The number as a function of the parts of the last sum before it.

        Raises:
            ConfigError: there is nothing that is not linear, or more than one sum.
        """
        run, place = self.run, self.place
        if isinstance(run.network, Recurrent):
            return recurrent.game(run, self.what, place or 0, self.reader if not self.output else None, self.said)
        made, found = layout(run.network), INSIDE.fullmatch(self.what)
        if self.output:
            chain, reader, total = _output(run, made, self.target, place)
        elif found and f"{found[1]}.{found[2]}" in made.parts and found[3][1:] in ("q", "k", "v", "pre", "post"):
            part, name = made.parts[f"{found[1]}.{found[2]}"], found[3][1:]
            if isinstance(part, Attention):
                chain, used = part.inner(name, self.head or 0), run.heads(self.what)[self.head, place].double()
                reader, total = self.reader, float(used @ self.reader)
            else:
                assert isinstance(part, Neurons)
                which = self.reader.nonzero().flatten()  # one neuron is one of many
                chain = part.gate(which) if name == "pre" else part.inner(which)
                reader, total = self.reader[which], float(run.at(self.what, place) @ self.reader)
        elif any(self.what in chain.places for chain in made.chains):
            full = next(chain for chain in made.chains if self.what in chain.places)
            chain, reader, total = full.until(self.what), self.reader, float(run.at(self.what, place) @ self.reader)
        else:
            raise ConfigError(
                f"{self.what} is no function of a single sum, so there is nothing to attribute through; "
                "leave nonlinear at frozen, which opens it"
            )
        sum, function = chain.game(run, place)
        return Game(self.said, sum.names, sum.labels, sum.values.T, lambda x: function(x) @ reader, total)


def _output(run: Run, made: Layout, target: Target, place: int | None) -> tuple[Chain, Tensor, float]:
    """The chain to an output, what reads its end, and the number."""
    chosen = [target.chosen] if target.other is None else [target.chosen, target.other]
    signs = torch.tensor([1.0, -1.0][: len(chosen)], dtype=torch.float64)
    if made.output is not None:
        which = torch.tensor(chosen)
        return made.outputs(which), signs, float(run.at("logits", place)[which] @ signs)
    value = run.at(made.main.last, place)
    reader = torch.zeros_like(value).index_add_(0, torch.tensor(chosen), signs)
    return made.main, reader, float(value @ reader)


def logit(run: Run, chosen: int, position: int | None, factor: float, name: str) -> Ledger:
    """An output times a factor, such as a logit inside a loss; `name` is how it is called."""
    target, times = Target(f"logit of “{name}”", position, chosen), "" if factor == 1 else f" times {factor:.3g}"
    if isinstance(run.network, Recurrent):
        return recurrent.output(run, target, position or 0, factor)
    chain, reader, total = _output(run, layout(run.network), target, position)
    return chain.read(run, position, factor * reader).ledger(run, f"{target.what}{times}", factor * total)


def _place(run: Run, position: int, source: bool, length: int) -> int:
    """Where a position stands, padding left out.

    Raises:
        InputError: outside the text, or the source.
    """
    mask = run.mask(source)
    rows = Inputs(torch.zeros(1, length, dtype=torch.int64), None if mask is None else mask[run.row : run.row + 1])
    return int(rows.places(position)[0])


def _reader(what: str, index: int | Tensor | None, size: int) -> Tensor:
    if isinstance(index, Tensor):
        if index.shape != (size,):
            raise InputError(f"{what} is read by a vector of {size} numbers, but one of {tuple(index.shape)} was given")
        return index.double()
    if index is None or not -size <= index < size:
        given = "none was chosen" if index is None else f"{index} was asked for"
        raise InputError(f"{what} has {size} numbers at a position, 0 … {size - 1}, but {given}; choose one by index=")
    reader = torch.zeros(size, dtype=torch.float64)
    reader[index] = 1
    return reader


def score_pairs(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    layer: str = "layers.0.attn",
    head: int = 0,
    position: int = -1,
    key: int = 0,
    row: int = 0,
) -> Matrix:
    """An attention score as all pairs of what the query and what the key is made of.

    Args:
        model: a model with a text; or a recording.
        text: what the model reads.
        source: what an encoder–decoder reads.
        layer: which attention, such as "layers.3.attn" or "layers.0.cross_attn".
        head: of it.
        position: the query's.
        key: the key's.
        row: of a batch, which text.

    Returns:
        Rows are what fed the query, columns what fed the key, in the unit of the score. They sum to it but for what a
        distance (T5) or an edit of the score itself adds; the receipt's gap says by how much they miss it.

    Raises:
        InputError: as in `ledger`.
    """
    run_model = model.model if isinstance(model, Recording) else model
    options = {"layer": layer, "head": head, "position": position, "key": key, "row": row}
    clock = Clock(run_model, "score_pairs", model if isinstance(model, Recording) else text, source=source, **options)
    what = f"{layer}.scores"
    if what not in run_model.network.tap_names():
        known = [name.removesuffix(".scores") for name in run_model.network.tap_names() if name.endswith(".scores")]
        raise InputError(unknown("attention", layer, known))
    recording = recording_of(model, text, needed(run_model, what), source=source)
    run = Run(recording, row)
    asked = _Asked(run, what, position, None, None, head, key)
    assert not isinstance(run.network, Recurrent)
    assert isinstance(asked.index, int)
    assert asked.place is not None
    made = layout(run.network)
    part = made.parts[layer]
    assert isinstance(part, Attention)
    with torch.no_grad():
        score = Score(run, made, part, head, asked.place, asked.index)
        rows, columns, values = score.pairs()
    rest = score.used - score.distance
    receipt = clock.receipt(gap=abs(float(values.sum()) - rest), bytes=recording.receipt.bytes)
    return Matrix(score.what, "score", rows, columns, values.float(), "query", "key", receipt=receipt)
