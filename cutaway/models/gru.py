"""Recurrent networks: GRU (Cho et al. 2014) and LSTM (Hochreiter & Schmidhuber 1997), from embedding to logits.

The gates are computed as torch.nn.GRU and torch.nn.LSTM do, whose fused kernels are used unless a tap changes something
inside a cell. What a tap only reads is computed beside the kernel, so the logits stay the kernel's own, bit for bit.

A language model carries one state from token to token. Under a head over whole texts a second state may read each
layer from the end (Schuster & Paliwal 1997); what stands of it at a token is what it has read from the end up to there.

Shapes: B batch, T tokens, C channels of the embedding, N hidden units, S what a layer makes (N, or 2 N of both states),
V vocabulary, L labels.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.models.config import RecurrentConfig
from cutaway.models.config_parts import POOLED
from cutaway.models.heads import Head
from cutaway.models.products import Linear
from cutaway.models.tap import OFF, Tap

# in the order of torch's stacked weights; the cell's further values follow
GATES = {"gru": ("reset", "update", "candidate"), "lstm": ("input", "forget", "candidate", "output")}
VALUES = {"gru": (*GATES["gru"], "hidden"), "lstm": (*GATES["lstm"], "cell", "hidden")}
Turn = Callable[[Tensor], Tensor]  # the order in which tokens are read; twice the same leads back


def forward_order(x: Tensor) -> Tensor:
    """From the first token to the last."""
    return x


def backward_order(mask: Bool[Tensor, "B T"] | None) -> Turn:
    """From the last token of each text to its first; padding behind stays where it is."""
    if mask is None:
        return lambda x: x.flip(1)
    rows, steps = torch.arange(len(mask), device=mask.device)[:, None], torch.arange(mask.shape[1], device=mask.device)
    place = torch.where(mask, mask.sum(1, keepdim=True) - 1 - steps, steps)  # (B, T)
    place = (rows * mask.shape[1] + place).flatten()  # of all tokens in a row: so gradients are as cheap as values
    return lambda x: x.flatten(0, 1).index_select(0, place).view_as(x)


class RecurrentState:
    """What a recurrent model remembers: of each layer the hidden state (B, N), and an LSTM's cell (B, N)."""

    def __init__(self, hidden: list[Tensor], cells: list[Tensor]) -> None:
        self.hidden, self.cells = hidden, cells
        self.length = 0  # tokens taken in so far; there is no limit

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """Keep or repeat rows of the batch, (B',) int64."""
        self.hidden = [state[rows] for state in self.hidden]
        self.cells = [state[rows] for state in self.cells]


class Cells(nn.Module):
    """One recurrent layer."""

    def __init__(self, cell: str, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell, self.gates = cell, len(GATES[cell])
        self.weight_ih = nn.Parameter(torch.empty(self.gates * hidden, inputs))
        self.weight_hh = nn.Parameter(torch.empty(self.gates * hidden, hidden))
        self.bias_ih = nn.Parameter(torch.empty(self.gates * hidden))
        self.bias_hh = nn.Parameter(torch.empty(self.gates * hidden))

    def forward(
        self,
        x: Float[Tensor, "B T I"],
        hidden: Float[Tensor, "B N"],
        cell: Float[Tensor, "B N"],
        tap: Tap,
        turn: Turn = forward_order,
    ) -> tuple[Float[Tensor, "B T N"], Float[Tensor, "B N"], Float[Tensor, "B N"]]:
        """(B, T, inputs) and the states (B, N) before -> outputs (B, T, N) and the states after.

        Args:
            x: what it reads.
            hidden: the state before.
            cell: an LSTM's cell before.
            tap: reads or replaces, token by token as they stand in the text.
            turn: the order in which it reads them.
        """
        names, x = VALUES[self.cell], turn(x)
        if tap.edits(*names):
            return self._by_steps(x, hidden, cell, tap, turn)
        out, last, last_cell = self._by_kernel(x, hidden, cell)
        if tap.wants(*names):  # all steps at once, as the kernel has told the hidden states before them
            from_x = F.linear(x, self.weight_ih, self.bias_ih)
            before = torch.cat((hidden[:, None], out[:, :-1]), dim=1)  # (B, T, N)
            from_h = F.linear(before, self.weight_hh, self.bias_hh)

            def show(name: str, value: Tensor) -> Tensor:
                tap(name, turn(out if name == "hidden" else value))
                return value

            self._equations(from_x, from_h, before, cell, show)
        return turn(out), last, last_cell

    def _by_kernel(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        # arguments: has biases, layers, dropout, training, bidirectional, batch first
        options = (True, 1, 0.0, self.training, False, True)
        if self.cell == "gru":
            out, last = torch._VF.gru(x, hidden[None].contiguous(), weights, *options)  # pyright: ignore  # untyped
            return out, last[0], cell
        states = [hidden[None].contiguous(), cell[None].contiguous()]
        out, last, last_cell = torch._VF.lstm(x, states, weights, *options)  # pyright: ignore  # untyped
        return out, last[0], last_cell[0]

    def _by_steps(self, x: Tensor, hidden: Tensor, cell: Tensor, tap: Tap, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """The same step by step, so that what a tap changes at one step is carried on to the next."""
        from_x = F.linear(x, self.weight_ih, self.bias_ih)  # (B, T, gates · N)
        steps = Steps(tap, x.shape[1], turn)
        for t in range(x.shape[1]):
            from_h = F.linear(hidden, self.weight_hh, self.bias_hh)
            hidden, cell = self._equations(from_x[:, t], from_h, hidden, cell, steps)
        return steps.end()["hidden"], hidden, cell

    def _equations(
        self, from_x: Tensor, from_h: Tensor, hidden: Tensor, cell: Tensor, at: Callable[[str, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The states after a step; or after each step, where the hidden states before them are known.

        Args:
            from_x: the input's part of the gates before their activations, (B, gates · N) or (B, T, gates · N).
            from_h: the hidden state's part of them.
            hidden: before the step, (B, N) or (B, T, N).
            cell: of an LSTM before the (first) step, (B, N).
            at: shown every value by name, returns the one to go on with.
        """
        x, h = from_x.chunk(self.gates, dim=-1), from_h.chunk(self.gates, dim=-1)
        if self.cell == "gru":
            reset = at("reset", (x[0] + h[0]).sigmoid())
            update = at("update", (x[1] + h[1]).sigmoid())
            candidate = at("candidate", (x[2] + reset * h[2]).tanh())
            return at("hidden", (1 - update) * candidate + update * hidden), cell
        take = at("input", (x[0] + h[0]).sigmoid())
        keep = at("forget", (x[1] + h[1]).sigmoid())
        candidate = at("candidate", (x[2] + h[2]).tanh())
        show = at("output", (x[3] + h[3]).sigmoid())
        cell = at("cell", _carry(cell, keep, take * candidate))
        return at("hidden", show * cell.tanh()), cell


def _carry(cell: Tensor, keep: Tensor, taken: Tensor) -> Tensor:
    """keep · cell + taken; over T steps in turn where these are (B, T, N)."""
    if keep.ndim == cell.ndim:
        return keep * cell + taken
    steps = []
    for kept, new in zip(keep.unbind(1), taken.unbind(1), strict=True):
        cell = kept * cell + new
        steps.append(cell)
    return torch.stack(steps, dim=1)


class Steps:
    """A tap inside a recurrence, where a value of one step depends on the values used at the steps before.

    An edit is asked at every step, with what was computed at all steps so far, before any edit, and zeros for the steps
    to come; its row of this step counts. What was used is shown whole at the end.

    Where gradients through what is shown are needed (`tap.formed`), that is a leaf of its own, whose gradient at a step
    is that of the value used there, with all that follows from it.

    Args:
        tap: of the layer.
        length: T.
        turn: the order in which tokens are read; the tap sees them as they stand in the text.
    """

    def __init__(self, tap: Tap, length: int, turn: Turn = forward_order) -> None:
        self.tap, self.length, self.turn = tap, length, turn
        self.computed: dict[str, list[Tensor]] = {}
        self.used: dict[str, list[Tensor]] = {}
        self.leaves: dict[str, Tensor] = {}
        self.parts: dict[str, tuple[Tensor, ...]] = {}  # the steps of the leaves

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """The value to use for (B, N) of the next step."""
        computed, used = self.computed.setdefault(name, []), self.used.setdefault(name, [])
        t = len(computed)
        computed.append(value)
        if self.tap.replaces(name):
            history = F.pad(torch.stack(computed, dim=1), (0, 0, 0, self.length - t - 1))  # (B, T, N)
            value = self.turn(self.tap.edit(name, self.turn(history)))[:, t]
        if self.tap.formed and torch.is_grad_enabled() and self.tap.wants(name):
            if t == 0:
                leaf = value.new_zeros(value.shape[0], self.length, value.shape[1]).requires_grad_()
                self.leaves[name], self.parts[name] = leaf, self.turn(leaf).unbind(1)
            value = value + self.parts[name][t]  # adds nothing but a way for the gradient
        used.append(value)
        return value

    def end(self) -> dict[str, Tensor]:
        """Show and return what was used, (B, T, N) by name."""
        whole = {name: self.turn(torch.stack(values, dim=1)) for name, values in self.used.items()}
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(whole[name])
        for name, value in whole.items():
            self.tap.show(name, self.leaves.get(name, value))
        return whole


class Recurrent(nn.Module):
    """Token ids to logits over the next token, one state carried from token to token; or to what another head makes.

    Args:
        config: what it is made of.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        inputs = [config.width] + [config.states] * (config.layers - 1)
        self.layers = nn.ModuleList(Cells(config.cell, size, config.hidden) for size in inputs)
        if config.bidirectional:
            self.back = nn.ModuleList(Cells(config.cell, size, config.hidden) for size in inputs)
        self.head = Head(config) if config.head not in ("causal_lm", "none") else None
        if config.head == "causal_lm":
            self.lm_head = Linear(config.hidden, config.vocab_size, bias=False)
        self.restore()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew: uniform within 1 / sqrt(N), the embedding normal; LSTMs begin by keeping.

        Under a head over texts, vectors of tokens begin with a length of about 1: a few thousand texts train few steps,
        in which the usual rates could not turn vectors as long as those of a language model.
        """
        bound, config = 1 / math.sqrt(self.config.hidden), self.config
        spread = 1 / math.sqrt(config.width)
        if config.head == "causal_lm":
            spread = 0.02 if config.tied else 1.0
        for name, parameter in self.named_parameters():
            if name.startswith("embed"):
                parameter.normal_(0.0, spread, generator=generator)
            elif name.startswith(("lm_head", "head.out")):
                parameter.zero_()
            else:
                parameter.uniform_(-bound, bound, generator=generator)
            if name.endswith("bias_ih") and self.config.cell == "lstm":  # Jozefowicz et al. 2015
                parameter[self.config.hidden : 2 * self.config.hidden] += 1

    def restore(self) -> None:
        """Tie the output matrix, after tensors were assigned in place of the weights."""
        tied = self.config.head == "causal_lm" and self.config.tied
        if tied and isinstance(self.embed_tokens, nn.Embedding):  # a table kept quantised ties itself
            self.lm_head.weight = self.embed_tokens.weight

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        cache: RecurrentState | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B *L"]:
        """Logits of the next token at every position, or what another head makes of the texts.

        Args:
            ids: (B, T) int64. With a cache, only the tokens that it has not taken in yet.
            mask: (B, T) bool, False where a token is padding, which stands behind the texts and changes nothing that is
                told of them.
            cache: from `new_cache`; has taken these in too afterwards. What reads whole texts takes none.
            tap: reads or replaces activations.

        Returns:
            (B, T, V) in the dtype of the weights, or of another head the shape that `config_parts.HEADS` states. What
            stands at padding means nothing.

        Raises:
            InputError: padding before a text, or a part of a text for what reads whole ones.
        """
        x = self.stream(ids, mask=mask, cache=cache, tap=tap)
        if self.config.head not in POOLED:  # such a head drops of what it has pooled
            x = F.dropout(x, self.config.dropout, self.training)
        return self.read_out(x, mask=mask, tap=tap)

    def stream(
        self,
        ids: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        cache: RecurrentState | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B T S"]:
        """The states of the last layer, (B, T, S); `read_out` makes the head's output of them."""
        config = self.config
        if cache is not None and (config.head in POOLED or config.bidirectional):
            what = f"a head for {config.head}" if config.head in POOLED else "a network that reads both ways"
            raise InputError(f"{what} reads a whole text at once; leave the cache out")
        if mask is not None and bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise InputError("padding before a text would enter a recurrent network's state; put it behind")
        return self.resume(0, tap("embed", self.embed_tokens(ids)), mask=mask, cache=cache, tap=tap)

    def resume(
        self,
        layer: int,
        x: Float[Tensor, "B T I"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        cache: RecurrentState | None = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B T S"]:
        """The last layer's states, from what any layer reads: the embedding, or the states of the one before.

        Args:
            layer: the first to compute; `config.layers` computes none.
            x: (B, T, inputs) what it reads.
            mask: as in `forward`.
            cache: from `new_cache`; has taken these tokens in too afterwards.
            tap: reads or replaces activations.
        """
        state = cache if cache is not None else self.new_cache(len(x))
        both = self.config.bidirectional
        turn = backward_order(mask) if both else forward_order
        for i in range(layer, len(self.layers)):
            read, at = F.dropout(x, self.config.dropout, self.training), tap.at(f"layers.{i}")
            x, hidden, cell = self.layers[i](read, state.hidden[i], state.cells[i], at)
            if both:
                back, _, _ = self.back[i](read, state.hidden[i], state.cells[i], at.at("back"), turn)
                x = at("states", torch.cat((x, back), dim=-1))
            else:
                state.hidden[i], state.cells[i] = hidden, cell
        state.length += x.shape[1]
        return x

    def read_out(
        self, x: Float[Tensor, "B T S"], *, mask: Bool[Tensor, "B T"] | None = None, tap: Tap = OFF
    ) -> Float[Tensor, "B *L"]:
        """The last layer's states (B, T, S) as logits (B, T, V), or another head's output."""
        if self.config.head == "causal_lm":
            return tap("logits", self.lm_head(x))
        if self.head is None:
            return x
        return tap("embedding" if self.config.head == "embedding" else "logits", self.head(x, mask, tap.at("head")))

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> RecurrentState:
        """Empty states for `batch` sequences; `capacity` is not needed, as a state does not grow."""
        zeros = next(self.parameters()).new_zeros(batch, self.config.hidden)
        return RecurrentState([zeros] * self.config.layers, [zeros] * self.config.layers)

    @property
    def states(self) -> str:
        """The name of what a layer makes, within it."""
        return "states" if self.config.bidirectional else "hidden"

    def tap_names(self) -> list[str]:
        """Every activation name, in the order of computation."""
        values, both = VALUES[self.config.cell], self.config.bidirectional
        inside = [*values, *(f"back.{name}" for name in values if both), *["states"] * both]
        names = ["embed", *(f"layers.{i}.{name}" for i in range(self.config.layers) for name in inside)]
        if self.head is not None:
            output = "embedding" if self.config.head == "embedding" else "logits"
            return [*names, *(f"head.{name}" for name in self.head.tap_names()), output]
        return [*names, *["logits"] * (self.config.head == "causal_lm")]
