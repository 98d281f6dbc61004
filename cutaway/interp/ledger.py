"""The ledger: one logit, opened into the terms that sum to it, with the rounding error stated.

A decoder's last residual stream is a sum: the embedding, what each head wrote, what each MLP wrote, and biases. The
final norm is taken at its actual scale, which makes the logit linear in that sum; so it unfolds exactly (Elhage et al.
2021, "A Mathematical Framework for Transformer Circuits"). A recurrent model's logit is the sum over the units of its
last hidden state.

Shapes: T tokens, C channels, H query heads, D head dim, M channels inside the MLP, V vocabulary, N hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.errors import CutawayError, InputError, unknown
from cutaway.interp.record import Receipt, Recording, Text, record
from cutaway.models import Decoder, Model, Recurrent
from cutaway.models.layers import RMSNorm

SHOWN = 12  # neurons or units listed one by one; the others are one term
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # error allowed, relative to the largest term if above 1


class LedgerError(CutawayError):
    """The terms do not add up: a part of the model is missing from the ledger, which is a bug of ours."""


@dataclass(frozen=True)
class Term:
    """One part of a sum.

    Attributes:
        name: "embed", "layers.2.head.3", "layers.1.mlp", "layers.0.mlp.neuron.17", "source.4" …
        value: what it adds, in logits.
        label: to be read, such as the token of a source.
        opens: whether `expand` has a next level for it.
    """

    name: str
    value: float
    label: str = ""
    opens: bool = False


@dataclass(frozen=True)
class Ledger:
    """Terms that sum to a number.

    Attributes:
        what: the number, to be read.
        terms: in the order of computation.
        total: the number as the model computed it.
        receipt: of the recorded run; None below the first level.
    """

    what: str
    terms: tuple[Term, ...]
    total: float
    receipt: Receipt | None = None
    _openers: dict[str, Callable[[], Ledger]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def error(self) -> float:
        """How far the sum of the terms is from the total."""
        return abs(sum(term.value for term in self.terms) - self.total)

    def expand(self, name: str) -> Ledger:
        """One level down: the terms that sum to one term, without running the model again.

        Raises:
            InputError: no such term, or it is a leaf.
        """
        if name not in self._openers:
            if name in {term.name for term in self.terms}:
                raise InputError(f"{name} is a leaf of this ledger; it opens: {', '.join(self._openers) or 'nothing'}")
            raise InputError(unknown("term", name, [term.name for term in self.terms]))
        return self._openers[name]()

    def top(self, count: int = SHOWN) -> list[Term]:
        """The largest terms by absolute value."""
        return sorted(self.terms, key=lambda term: -abs(term.value))[:count]

    def to_json(self, depth: int = 0) -> dict[str, Any]:
        """As plain data, with `depth` more levels opened."""
        rows = []
        for term in self.terms:
            row: dict[str, Any] = {"name": term.name, "value": term.value, "label": term.label}
            if depth and term.name in self._openers:
                row["opened"] = self.expand(term.name).to_json(depth - 1)
            rows.append(row)
        made: dict[str, Any] = {"what": self.what, "total": self.total, "error": self.error, "terms": rows}
        return made | ({"receipt": self.receipt.to_json()} if self.receipt else {})


def ledger(
    model: Model, text: Text, *, position: int = -1, token: str | int | None = None, minus: str | int | None = None
) -> Ledger:
    """Open the logit of one next token.

    Args:
        model: a decoder or a recurrent model.
        text: text or ids; of a batch, the first row.
        position: after which token; -1 is the last.
        token: which next token, as text or id; None takes the likeliest.
        minus: another token whose logit is subtracted: why the one rather than the other.

    Returns:
        The terms in float64. For a model in float32 their sum is within 1e-4 of the logit, in float64 within 1e-9.

    Raises:
        InputError: a position outside the text, or a token that is not one token.
        LedgerError: the terms do not add up.
    """
    names = ("embed", "layers.*.attn.z", "layers.*.attn.pattern", "layers.*.attn.v", "layers.*.mlp.post")
    if isinstance(model.network, Recurrent):
        names = ("layers.*",)
    else:
        names = (*names, f"layers.{model.network.config.layers - 1}.resid_post")
    recording = record(model, model.ids(text)[:1], [*names, "logits"])
    length = recording.ids.shape[1]
    if not -length <= position < length:
        raise InputError(f"position {position} is outside the text of {length} tokens (-{length} … {length - 1})")
    position %= length
    logits = recording["logits"][0, position].double()
    chosen = int(logits.argmax()) if token is None else _token(model, token)
    other = None if minus is None else _token(model, minus)
    total = float(logits[chosen] - (logits[other] if other is not None else 0))
    direction = model.network.lm_head.weight.detach().double()  # (V, C)
    direction = direction[chosen] - (direction[other] if other is not None else 0)  # (C,)
    what = f"logit of {model.tokenizer.token(chosen)!r}"
    what += f" minus {model.tokenizer.token(other)!r}" if other is not None else ""
    what += f" after {model.tokenizer.token(int(recording.ids[0, position]))!r} (position {position})"
    if isinstance(model.network, Decoder):
        made = _decoder(model.network, recording, position, direction, what, total)
    else:
        made = _recurrent(model.network, recording, position, direction, what, total)
    return _checked(made, next(model.network.parameters()).dtype)


def _token(model: Model, token: str | int) -> int:
    if isinstance(token, str):
        return model.tokenizer.id(token)
    if not 0 <= token < model.config.vocab_size:
        raise InputError(f"token ids must lie in 0 … {model.config.vocab_size - 1}, but {token} was given")
    return token


def _checked(made: Ledger, dtype: torch.dtype) -> Ledger:
    scale = max([1.0, *(abs(term.value) for term in made.terms)])
    allowed = TOLERANCE.get(dtype, 1e-1) * scale
    if not made.error <= allowed:
        raise LedgerError(f"the terms of the {made.what} miss it by {made.error:.3g}, more than rounding explains")
    return made


def _decoder(
    network: Decoder, recording: Recording, position: int, direction: Tensor, what: str, total: float
) -> Ledger:
    config = network.config
    final = recording[f"layers.{config.layers - 1}.resid_post"][0, position].double()  # (C,)
    norm = network.norm
    assert isinstance(norm, RMSNorm | nn.LayerNorm)
    scale = norm.weight.detach().double()
    if isinstance(norm, nn.LayerNorm):
        spread = (final.var(correction=0) + config.norm_eps).sqrt()
        read = direction * scale / spread
        read = read - read.mean()  # centring the stream is the same as centring what reads it
        bias = float(direction @ norm.bias.detach().double())
    else:
        read = direction * scale / (final.square().mean() + config.norm_eps).sqrt()
        bias = 0.0

    terms: list[Term] = []
    openers: dict[str, Callable[[], Ledger]] = {}
    embedded = recording["embed"][0, position].double()
    word = network.embed_tokens.weight.detach()[recording.ids[0, position]].double()
    terms.append(Term("embed", float(word @ read), recording.tokens[position]))
    if config.position in ("learned", "sinusoidal"):
        terms.append(Term("position", float((embedded - word) @ read), str(position)))
    for i, block in enumerate(network.blocks):
        prefix = f"layers.{i}"
        output = block.self_attn.o_proj
        through = (read @ output.weight.detach().double()).view(config.heads, config.head_dim)  # (H, D)
        written = (recording[f"{prefix}.attn.z"][0, :, position].double() * through).sum(-1)  # (H,)
        for head in range(config.heads):
            name = f"{prefix}.head.{head}"
            terms.append(Term(name, float(written[head]), opens=True))
            openers[name] = _opener(_sources, recording, i, head, position, through[head], name, float(written[head]))
        if output.bias is not None:
            terms.append(Term(f"{prefix}.attn.bias", float(output.bias.detach().double() @ read)))
        down = block.mlp.down_proj
        neurons = recording[f"{prefix}.mlp.post"][0, position].double() * (read @ down.weight.detach().double())  # (M,)
        name = f"{prefix}.mlp"
        terms.append(Term(name, float(neurons.sum()), opens=True))
        openers[name] = _opener(_parts, name, "neuron", neurons)
        if down.bias is not None:
            terms.append(Term(f"{prefix}.mlp.bias", float(down.bias.detach().double() @ read)))
    if config.norm == "layernorm":
        terms.append(Term("final_norm.bias", bias))
    return Ledger(what, tuple(terms), total, recording.receipt, openers)


def _opener(make: Callable[..., Ledger], *arguments: Any) -> Callable[[], Ledger]:
    return lambda: make(*arguments)


def _sources(
    recording: Recording, layer: int, head: int, position: int, through: Tensor, name: str, total: float
) -> Ledger:
    """A head's term by the token that it read: pattern x value, through the output matrix."""
    pattern = recording[f"layers.{layer}.attn.pattern"][0, head, position].double()  # (T,)
    values = recording[f"layers.{layer}.attn.v"][0]  # (K, T, D)
    group = recording[f"layers.{layer}.attn.z"].shape[1] // values.shape[0]
    amounts = pattern * (values[head // group].double() @ through)  # (T,)
    tokens = recording.tokens
    terms = tuple(Term(f"source.{s}", float(amounts[s]), tokens[s]) for s in range(position + 1))
    return Ledger(f"{name}, by the token it read", terms, total)


def _parts(name: str, kind: str, amounts: Tensor, opened: dict[str, Callable[[], Ledger]] | None = None) -> Ledger:
    """The largest of many small terms one by one, and the others as one."""
    largest = amounts.abs().topk(min(SHOWN, amounts.numel())).indices.tolist()
    terms = [Term(f"{name}.{kind}.{i}", float(amounts[i]), opens=bool(opened)) for i in largest]
    rest = amounts.numel() - len(largest)
    if rest:
        left = float(amounts.sum()) - sum(term.value for term in terms)
        terms.append(Term(f"{name}.{kind}s.other", left, f"{rest:,} other {kind}s"))
    openers = {key: value for key, value in (opened or {}).items() if key in {term.name for term in terms}}
    return Ledger(f"{name}, by {kind}", tuple(terms), float(amounts.sum()), None, openers)


def _recurrent(
    network: Recurrent, recording: Recording, position: int, direction: Tensor, what: str, total: float
) -> Ledger:
    """The units of the last hidden state; a unit opens into what it carried over and what it took up, per step."""
    last = f"layers.{network.config.layers - 1}"
    hidden = recording[f"{last}.hidden"][0].double()  # (T, N)
    amounts = hidden[position] * direction
    names = {n: recording[f"{last}.{n}"][0].double() for n in _GATES[network.config.cell]}
    openers = {
        f"{last}.unit.{i}": _opener(_steps, network.config.cell, names, hidden, recording.tokens, position, i, float(d))
        for i, d in enumerate(direction)
    }
    made = _parts(last, "unit", amounts, openers)
    return Ledger(what, made.terms, total, recording.receipt, made._openers)


_GATES = {"gru": ("update", "candidate"), "lstm": ("input", "forget", "output", "candidate", "cell")}


def _steps(
    cell: str,
    gates: dict[str, Tensor],
    hidden: Tensor,
    tokens: list[str],
    position: int,
    unit: int,
    weight: float,
) -> Ledger:
    """One unit's hidden value as the sum over steps of what was taken up there and kept until now.

    GRU: h_t = (1 - z_t) n_t + z_t h_{t-1}. LSTM: h_t = o_t tanh(c_t) with c_t = i_t g_t + f_t c_{t-1}; the last tanh
    and output gate are taken at their actual ratio h / c.
    """
    total = float(hidden[position, unit]) * weight
    if cell == "gru":
        keep = gates["update"][: position + 1, unit]
        take = (1 - keep) * gates["candidate"][: position + 1, unit]
        ratio = 1.0
    else:
        keep = gates["forget"][: position + 1, unit]
        take = gates["input"][: position + 1, unit] * gates["candidate"][: position + 1, unit]
        state = float(gates["cell"][position, unit])
        ratio = float(hidden[position, unit]) / state if state else 0.0
    kept = torch.ones_like(keep)
    kept[:-1] = keep.flip(0).cumprod(0).flip(0)[1:]  # what later steps let through
    amounts = take * kept * ratio * weight
    terms = tuple(Term(f"step.{t}", float(amounts[t]), tokens[t]) for t in range(position + 1))
    return Ledger(f"unit {unit}, by the step that wrote it", terms, total)
