"""Record and replace while a model generates, or while it is trained.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cutaway.errors import InputError
from cutaway.generation import Generation, generate
from cutaway.interp.memory import predicted_bytes
from cutaway.interp.receipt import Clock, Receipt
from cutaway.interp.record import LIMIT, Edit, edits_of
from cutaway.models import OFF, ActiveTap, Model, Tap, match_names
from cutaway.models.model import Source
from cutaway.training.loop import Taps


@dataclass(frozen=True)
class GenerationRecording:
    """What was computed at each step of a generation.

    Attributes:
        generation: what was written.
        steps: of each step the activations by name: of the first all tokens of the prompt, (1, T, …), and of each later
            one the token written before it, (1, 1, …); attention has a column for every token so far.
        source: of an encoder–decoder what its encoder computed, once.
        receipt: what it can be checked by.
    """

    generation: Generation
    steps: list[dict[str, Tensor]]
    source: dict[str, Tensor]
    receipt: Receipt

    def over_steps(self, name: str) -> list[Tensor]:
        """One activation at every step.

        Raises:
            KeyError: it was not recorded.
        """
        return [step[name] for step in self.steps]


def record_generation(
    model: Model,
    prompt: Source,
    names: str | Iterable[str] = "*",
    *,
    edits: Mapping[str, Edit | Tensor] | None = None,
    limit: int = LIMIT,
    max_new_tokens: int = 20,
    **options: Any,
) -> GenerationRecording:
    """Continue a prompt, and keep what is computed on the way, step by step with the cache.

    Args:
        model: what continues.
        prompt: as `cutaway.generate` takes it.
        names: activation names or patterns.
        edits: as `replace` takes them; each is applied at every step.
        limit: most bytes of the recording.
        max_new_tokens: how many tokens at the most.
        options: those of `cutaway.generate`.

    Raises:
        ConfigError: a name that selects nothing, or an option that is wrong.
        InputError: a recording above the limit; says what to shrink.
    """
    clock = Clock(model, "record_generation", prompt, names=names, max_new_tokens=max_new_tokens, **options)
    chosen = match_names(names, model.network.tap_names())
    item = next(model.network.parameters()).element_size()
    length = len(prompt) if isinstance(prompt, Sequence | Tensor) else 0
    tokens = max_new_tokens + (len(model.tokenizer.encode(prompt)) if isinstance(prompt, str) else length)
    predicted = predicted_bytes(model.config, chosen, 1, tokens, item, source=tokens)
    if predicted > limit:
        raise InputError(
            f"recording {len(chosen)} activations of up to {tokens} tokens takes {predicted / 2**20:,.0f} MB, above "
            f"the limit of {limit / 2**20:,.0f} MB; generate fewer tokens, name fewer activations, or raise the limit"
        )
    steps: list[dict[str, Tensor]] = []
    source: dict[str, Tensor] = {}
    first = next((name for name in model.network.tap_names() if not name.startswith("encoder.")), "")

    def keep(name: str, value: Tensor) -> None:
        if name.startswith("encoder.") or (".cross_attn." in name and name.endswith((".k", ".v"))):
            source[name] = value
            return
        if name == first:  # every step begins with the embedding
            steps.append({})
        if name in wanted:
            steps[-1][name] = value

    wanted = set(chosen)
    tap = ActiveTap({*chosen, first}, edits_of(model, edits or {}), keep)
    made = generate(model, prompt, max_new_tokens=max_new_tokens, tap=tap, **options)
    assert isinstance(made, Generation)
    source = {name: value for name, value in source.items() if name in wanted}
    size = sum(v.numel() * v.element_size() for step in [*steps, source] for v in step.values())
    return GenerationRecording(made, steps, source, clock.receipt(bytes=size, seed=made.seed))


def training_tap(
    names: str | Iterable[str],
    on_step: Callable[[int, dict[str, Tensor]], None],
    *,
    every: int = 1,
    edits: Mapping[str, Edit] | None = None,
) -> Taps:
    """What `cutaway.train(config, taps=…)` takes, to look into a run while it trains.

    Args:
        names: activation names or patterns.
        on_step: called after the forward pass of a step, with its number from 0 and the activations, detached; several
            times where a batch is taken in pieces.
        every: how many steps lie between two looks.
        edits: as `replace` takes them; used at every step, and gradients pass through them.
    """

    def tap(step: int, network: nn.Module) -> Tap:
        known: list[str] = network.tap_names()  # pyright: ignore[reportCallIssue, reportAssignmentType]
        wanted = match_names(names, known) if step % every == 0 else []
        used = {name: edit for pattern, edit in (edits or {}).items() for name in match_names(pattern, known)}
        seen: dict[str, Tensor] = {}

        def keep(name: str, value: Tensor) -> None:
            seen[name] = value.detach()
            if name == wanted[-1]:
                on_step(step, dict(seen))

        return ActiveTap(wanted, used, keep) if wanted or used else OFF

    return tap
