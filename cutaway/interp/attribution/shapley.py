"""Shapley values of any game, and of the words of a text.

Shapes: B coalitions, P players, R permutations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cutaway.errors import InputError, NonFinite
from cutaway.interp.attribution.occlusion import Replacement, removal
from cutaway.interp.attribution.question import Attribution, question_of
from cutaway.interp.attribution.spans import Grain
from cutaway.interp.inputs import Text
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.target import Quantity
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

EXACT_PLAYERS = 20  # a million coalitions


@dataclass(frozen=True)
class Shares:
    """What each player adds to a game.

    Attributes:
        values: (P,) float64; they sum to what all players make together less what nobody makes.
        errors: (P,) float64 standard errors; zero where every coalition was asked.
        everybody, nobody: what these coalitions make.
        asked: how many coalitions were asked.
    """

    values: Float[Tensor, " P"]
    errors: Float[Tensor, " P"]
    everybody: float
    nobody: float
    asked: int

    @property
    def gap(self) -> float:
        """How far the values are from adding up (efficiency): rounding only."""
        return abs(float(self.values.sum()) - (self.everybody - self.nobody))


def shapley_values(
    value: Callable[[Tensor], Tensor],
    players: int,
    *,
    samples: int | None = None,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Shares:
    """Each player's mean contribution to those who came before, over all orders of coming (Shapley 1953).

    With `samples` some orders are drawn instead (Castro et al. 2009), each together with its reverse: what comes early
    in the one comes late in the other, so that errors cancel (antithetic sampling, Mitchell et al. 2022).

    Args:
        value: from coalitions (B, P) bool to what each makes, (B,).
        players: P.
        samples: pairs of orders, 2 or more; None: every coalition is asked, 2 to the power of P.
        seed: of the orders.
        progress: told after each pair of orders.

    Raises:
        InputError: no players, too many for every coalition, fewer than 2 pairs, or a value of the wrong shape.
        NonFinite: what a coalition makes is not finite.
    """
    if players < 1:
        raise InputError(f"a game needs at least one player, but {players} was given")
    if samples is None:
        if players > EXACT_PLAYERS:
            raise InputError(
                f"{players} players form too many coalitions to ask every one (at most {EXACT_PLAYERS} players); "
                "draw orders with samples=, or take a coarser grain"
            )
        return _exact(value, players)
    if samples < 2:
        raise InputError(f"samples must be at least 2 for a standard error, but {samples} was given")
    generator = torch.Generator().manual_seed(seed)
    ends = _asked(value, torch.stack((torch.zeros(players), torch.ones(players))).bool())
    each = torch.zeros(samples, players, dtype=torch.float64)
    for pair in range(samples):
        order = torch.randperm(players, generator=generator)
        for one in (order, order.flip(0)):
            coalitions = torch.zeros(players + 1, players, dtype=torch.bool)
            coalitions[:, one] = torch.arange(players) < torch.arange(players + 1)[:, None]
            made = torch.cat((ends[:1], _asked(value, coalitions[1:-1]), ends[1:]))
            each[pair, one] += (made[1:] - made[:-1]) / 2
        if progress is not None:
            progress(Progress("asking coalitions", pair + 1, samples, "orders"))
    errors = each.std(dim=0) / samples**0.5
    return Shares(each.mean(dim=0), errors, float(ends[1]), float(ends[0]), 2 * samples * (players - 1) + 2)


def _exact(value: Callable[[Tensor], Tensor], players: int) -> Shares:
    count = 2**players
    numbers = torch.arange(count)
    members = (numbers[:, None] >> torch.arange(players)) & 1  # (2^P, P)
    made = torch.cat([_asked(value, some.bool()) for some in members.split(4096)])
    size = members.sum(dim=1)
    # of the orders in which a player comes right after a coalition of this size
    shares = torch.tensor([factorial(s) * factorial(players - s - 1) / factorial(players) for s in range(players)])
    shares = torch.cat((shares.double(), torch.zeros(1, dtype=torch.float64)))
    values = torch.zeros(players, dtype=torch.float64)
    for player in range(players):
        without = numbers[members[:, player] == 0]
        values[player] = (shares[size[without]] * (made[without + 2**player] - made[without])).sum()
    return Shares(values, torch.zeros_like(values), float(made[-1]), float(made[0]), count)


def _asked(value: Callable[[Tensor], Tensor], coalitions: Bool[Tensor, "B P"]) -> Float[Tensor, " B"]:
    if not len(coalitions):
        return torch.zeros(0, dtype=torch.float64)
    made = value(coalitions)
    if made.shape != (len(coalitions),):
        raise InputError(
            f"the game gave shape {tuple(made.shape)} for {len(coalitions)} coalitions; it must give a number for each"
        )
    if not made.isfinite().all():
        raise NonFinite("what a coalition makes is a NaN or an infinity")
    return made.detach().double().cpu()


def shapley(
    model: Recording | Model,
    text: Text = "",
    *,
    source: Source | Sequence[str] | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    grain: Grain = "token",
    replace: Replacement = "mean",
    samples: int | None = 16,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Attribution:
    """Shapley values of the tokens, words or sentences of a text, as players who make a number together.

    The scores add up to the number less what it is with all of them taken away. `errors` are standard errors.

    Args:
        model: any model with a text, or a recording, whose run (with its edits) is explained.
        text: of several texts the first.
        source: what an encoder–decoder reads; its tokens (or frames) play too.
        token: which output is explained, as in `target_of`; None takes the likeliest.
        minus: another output, which is subtracted: why the one rather than the other.
        position: after or at which token.
        quantity: "logit", "logprob" or "prob".
        grain: who plays: each "token", "word" or "sentence". Special tokens stay, and score 0.
        replace: what stands in place of who is not there, as in `occlusion`.
        samples: pairs of orders to draw; None asks every coalition, which few players allow.
        seed: of the orders.
        progress: told after each pair of orders.

    Raises:
        ConfigError, InputError, NonFinite: as in `occlusion` and `shapley_values`.
    """
    given = {"source": source, "token": token, "minus": minus, "position": position, "quantity": quantity}
    options = {"grain": grain, "replace": replace, "samples": samples, "seed": seed}
    run = model.model if isinstance(model, Recording) else model
    clock = Clock(run, "shapley", model if isinstance(model, Recording) else text, **given, **options)
    question = question_of(model, text, **given)
    remove = removal(question, replace, grain)
    found = shapley_values(remove, len(remove.players), samples=samples, seed=seed, progress=progress)
    return question.result(
        "Shapley value",
        remove.scores(found.values.tolist(), grain),
        grain,
        clock.receipt(gap=found.gap, seed=seed if samples is not None else None),
        value=found.everybody,
        baseline=found.nobody,
        errors=None if samples is None else remove.scores(found.errors.tolist(), grain),
    )

