"""Recurrent language models: GRU (Cho et al. 2014) and LSTM (Hochreiter & Schmidhuber 1997), from embedding to logits.

The gates are computed as torch.nn.GRU and torch.nn.LSTM do, whose fused kernels are used unless a tap changes something
inside a cell. What a tap only reads is computed beside the kernel, so the logits stay the kernel's own, bit for bit.

Shapes: B batch, T tokens, C channels of the embedding, N hidden units, V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.models.config import RecurrentConfig
from cutaway.models.tap import OFF, Tap

# in the order of torch's stacked weights; the cell's further values follow
GATES = {"gru": ("reset", "update", "candidate"), "lstm": ("input", "forget", "candidate", "output")}
VALUES = {"gru": (*GATES["gru"], "hidden"), "lstm": (*GATES["lstm"], "cell", "hidden")}


class RecurrentState:
    """What a recurrent model remembers: of each layer the hidden state (B, N), and an LSTM's cell (B, N)."""

    def __init__(self, hidden: list[Tensor], cells: list[Tensor]) -> None:
        self.hidden, self.cells = hidden, cells
        self.length = 0  # tokens taken in so far; there is no limit

    def select(self, rows: Tensor) -> None:
        """Keep or repeat rows of the batch, (B',) int64."""
        self.hidden = [state[rows] for state in self.hidden]
        self.cells = [state[rows] for state in self.cells]


class Cells(nn.Module):
    """One recurrent layer."""

    def __init__(self, cell: str, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell, self.hidden = cell, hidden
        count = len(GATES[cell])
        self.weight_ih = nn.Parameter(torch.empty(count * hidden, inputs))
        self.weight_hh = nn.Parameter(torch.empty(count * hidden, hidden))
        self.bias_ih = nn.Parameter(torch.empty(count * hidden))
        self.bias_hh = nn.Parameter(torch.empty(count * hidden))

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor, tap: Tap) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, inputs) and the states (B, N) before -> outputs (B, T, N) and the states after."""
        if tap.edits(*VALUES[self.cell]):
            return self._step_by_step(x, hidden, cell, tap)
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        # arguments: has biases, layers, dropout, training, bidirectional, batch first
        options = (True, 1, 0.0, self.training, False, True)
        last = cell
        if self.cell == "gru":
            out, state = torch._VF.gru(x, hidden[None].contiguous(), weights, *options)  # pyright: ignore
        else:
            states = [hidden[None].contiguous(), cell[None].contiguous()]
            out, state, last = torch._VF.lstm(x, states, weights, *options)  # pyright: ignore
            last = last[0]
        if tap.wants(*VALUES[self.cell]):
            before = torch.cat((hidden[:, None], out[:, :-1]), dim=1)  # (B, T, N)
            gates = self._gates(x, before)
            for name, value in zip(GATES[self.cell], gates, strict=True):
                tap(name, value)
            if self.cell == "lstm":
                steps, carried = [], cell
                for t in range(x.shape[1]):
                    carried = gates[1][:, t] * carried + gates[0][:, t] * gates[2][:, t]
                    steps.append(carried)
                tap("cell", torch.stack(steps, dim=1))
            tap("hidden", out)
        return out, state[0], last

    def _gates(self, x: Tensor, before: Tensor) -> list[Tensor]:
        """Every gate from the inputs and the hidden states before, each (…, N)."""
        from_x = F.linear(x, self.weight_ih, self.bias_ih).chunk(len(GATES[self.cell]), dim=-1)
        from_h = F.linear(before, self.weight_hh, self.bias_hh).chunk(len(GATES[self.cell]), dim=-1)
        if self.cell == "gru":
            reset, update = ((a + b).sigmoid() for a, b in zip(from_x[:2], from_h[:2], strict=True))
            return [reset, update, (from_x[2] + reset * from_h[2]).tanh()]
        sums = [a + b for a, b in zip(from_x, from_h, strict=True)]
        return [sums[0].sigmoid(), sums[1].sigmoid(), sums[2].tanh(), sums[3].sigmoid()]

    def _step_by_step(self, x: Tensor, hidden: Tensor, cell: Tensor, tap: Tap) -> tuple[Tensor, Tensor, Tensor]:
        """The same, with a tap that changes values: each step sees the changed states of the steps before.

        An edit is asked at every step, with all steps so far and zeros for those to come; its row of this step counts.
        """
        B, T, _ = x.shape
        so_far = {name: x.new_zeros(B, T, self.hidden) for name in VALUES[self.cell]}

        def at(name: str, value: Tensor, t: int) -> Tensor:
            history = so_far[name].clone()
            history[:, t] = value
            so_far[name] = tap(name, history)
            return so_far[name][:, t]

        for t in range(T):
            values = self._gates(x[:, t], hidden)
            if self.cell == "gru":
                reset = at("reset", values[0], t)
                update = at("update", values[1], t)
                size = self.hidden
                from_x = F.linear(x[:, t], self.weight_ih[2 * size :], self.bias_ih[2 * size :])
                from_h = F.linear(hidden, self.weight_hh[2 * size :], self.bias_hh[2 * size :])
                candidate = at("candidate", (from_x + reset * from_h).tanh(), t)
                hidden = at("hidden", (1 - update) * candidate + update * hidden, t)
            else:
                take, keep, new, show = (at(name, v, t) for name, v in zip(GATES["lstm"], values, strict=True))
                cell = at("cell", keep * cell + take * new, t)
                hidden = at("hidden", show * cell.tanh(), t)
        return so_far["hidden"], hidden, cell


class Recurrent(nn.Module):
    """Token ids to logits over the next token, one state carried from token to token."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        inputs = [config.width] + [config.hidden] * (config.layers - 1)
        self.layers = nn.ModuleList(Cells(config.cell, size, config.hidden) for size in inputs)
        self.lm_head = nn.Linear(config.hidden, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew: uniform within 1 / sqrt(N), the embedding normal; LSTMs begin by keeping."""
        bound = 1 / math.sqrt(self.config.hidden)
        for name, parameter in self.named_parameters():
            if name.startswith("embed"):
                parameter.normal_(0.0, 0.02 if self.config.tied else 1.0, generator=generator)
            elif name.startswith("lm_head"):
                parameter.zero_()
            else:
                parameter.uniform_(-bound, bound, generator=generator)
            if name.endswith("bias_ih") and self.config.cell == "lstm":  # Jozefowicz et al. 2015
                parameter[self.config.hidden : 2 * self.config.hidden] += 1

    def forward(self, ids: Tensor, *, cache: RecurrentState | None = None, tap: Tap = OFF) -> Tensor:
        """Logits of the next token at every position.

        Args:
            ids: (B, T) int64. With a cache, only the tokens that it has not taken in yet.
            cache: from `new_cache`; has taken these in too afterwards.
            tap: reads or replaces activations.

        Returns:
            (B, T, V) in the dtype of the weights.
        """
        x = tap("embed", self.embed_tokens(ids))
        state = cache or self.new_cache(ids.shape[0])
        for i, layer in enumerate(self.layers):
            x = F.dropout(x, self.config.dropout, self.training)
            x, hidden, cell = layer(x, state.hidden[i], state.cells[i], tap.at(f"layers.{i}"))
            state.hidden[i], state.cells[i] = hidden, cell
        state.length += ids.shape[1]
        x = F.dropout(x, self.config.dropout, self.training)
        return tap("logits", self.lm_head(x))

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> RecurrentState:
        """Empty states for `batch` sequences; `capacity` is not needed, as a state does not grow."""
        zeros = self.embed_tokens.weight.new_zeros(batch, self.config.hidden)
        return RecurrentState([zeros] * self.config.layers, [zeros] * self.config.layers)

    def tap_names(self) -> list[str]:
        """Every activation name, in the order of computation."""
        inside = VALUES[self.config.cell]
        return ["embed", *(f"layers.{i}.{name}" for i in range(self.config.layers) for name in inside), "logits"]
