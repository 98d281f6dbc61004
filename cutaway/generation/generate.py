"""Continue a prompt: prefill, then one token at a time with a cache.

Each prompt is decoded by itself with a random generator of its own, so that it gives the same tokens, bit for bit,
whatever else is asked for beside it.

Shapes: T tokens of the prompt, V vocabulary.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
import torch

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.generation.advice import Plan, plan, sampling
from cutaway.generation.sampling import pick
from cutaway.models import OFF, Model, Seq2Seq, Tap
from cutaway.models.generation_config import usable
from cutaway.models.model import Source

LENGTH = 100  # tokens that are generated where nobody says how many
FinishReason = Literal["length", "stop", "end"]


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        id: in the vocabulary.
        text: what it adds to the text; "" while a character or a stop string is incomplete.
        logprob: natural log of its probability under the model, before any sampling option.
        finish_reason: None until the last one.
    """

    id: int
    text: str
    logprob: float
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Generation:
    """A continued prompt.

    Attributes:
        prompt: what was given, text or ids.
        text: the continuation alone, up to a stop string.
        ids: the generated tokens.
        logprobs: of each under the model.
        finish_reason: "length" (max_new_tokens), "stop" (a stop string) or "end" (the model ended the text).
        seed: what was drawn with.
    """

    prompt: str | list[int]
    text: str
    ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    seed: int


class _StopStrings:
    """Lets text through until one of the stop strings is complete; holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        for stop in stops:
            if not isinstance(stop, str):
                raise ConfigError(f"stop must be text or several texts, but {stop!r} was given")
        if "" in stops:
            raise ConfigError("a stop string is empty, which would stop at once; leave it out or give some text")
        self.stops, self.held, self.hit = stops, "", False

    def add(self, text: str) -> str:
        """The text that is safe to show now."""
        self.held += text
        places = [self.held.find(stop) for stop in self.stops]
        found = [place for place in places if place >= 0]
        if found:
            shown, self.held, self.hit = self.held[: min(found)], "", True
            return shown
        longest = max(
            (n for stop in self.stops for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0
        )
        shown, self.held = self.held[: len(self.held) - longest], self.held[len(self.held) - longest :]
        return shown

    def rest(self) -> str:
        """What was held back and did not become a stop string."""
        shown, self.held = self.held, ""
        return shown


def stream(
    model: Model,
    prompt: Source,
    *,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    stop: str | Sequence[str] | None = None,
    target: str | Sequence[int] = (),
    seed: int = 0,
    tap: Tap = OFF,
) -> Iterator[Token]:
    """Continue a prompt, token by token; texts never hold half a character.

    When a decoder's context is full, it goes on with the later half of what it has seen. An encoder–decoder writes a
    target to what the prompt says, its source, and ends where its positions end.

    What is left at None is as the checkpoint recommends (`model.generation`), where it does; else max_new_tokens is
    100, temperature 0.8 and the others change nothing. top_k 0, top_p 1 and min_p 0 switch a recommendation off.

    Args:
        model: what continues.
        prompt: text or ids; an empty one begins a new text. Of an encoder–decoder what `Model.source_ids` takes.
        max_new_tokens: how many tokens at the most.
        temperature: 0 for the likeliest token always; see Sampling for this and the next four.
        top_k: see Sampling.
        top_p: see Sampling.
        min_p: see Sampling.
        repetition_penalty: see Sampling.
        stop: end before any of these strings; they may span tokens.
        target: text or ids that an encoder–decoder's target begins with, behind its first token.
        seed: the same seed and prompt give the same tokens.
        tap: reads or replaces activations, of the prompt and then of each new token.

    Raises:
        ConfigError: an option of the wrong type or out of range.
        InputError: the prompt is no text, holds an id outside the vocabulary, or is empty though the model has no token
            that begins a text.
        NonFinite: the model computed a NaN or an infinity (while iterating).
    """
    advised = model.generation
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    how = sampling(model, given | {"repetition_penalty": repetition_penalty})
    if max_new_tokens is not None:
        _check_whole("max_new_tokens", max_new_tokens, 1)
    _check_whole("seed", seed, 0)
    stop = advised.stop_strings if stop is None else stop
    stops = _StopStrings([stop] if isinstance(stop, str) else list(stop))
    generator = torch.Generator().manual_seed(seed)
    source: torch.Tensor | None = None
    if not isinstance(model.network, Seq2Seq):
        if len(target):
            raise ConfigError("target begins what an encoder–decoder writes; give this model its text as the prompt")
        seen = _start(model, prompt)
        longest = min(LENGTH, (advised.max_length or 2**62) - len(seen))
    else:
        source, config = model.source_ids(prompt), model.network.config
        seen = model.ids(target if isinstance(target, str) else [config.start_id, *target])[0].tolist()
        seen[0] = next(iter(usable([advised.decoder_start_token_id], config.vocab_size)), seen[0])
        if config.ends and len(seen) >= config.context:
            raise InputError(
                f"the target begins with {len(seen)} tokens, but this model writes {config.context} in all"
            )
        longest = advised.max_length - len(seen) if advised.max_length else LENGTH
    count = max_new_tokens or advised.max_new_tokens or max(1, longest)
    if isinstance(model.network, Seq2Seq) and model.network.config.ends:
        count = min(count, model.network.config.context - len(seen))
    made = plan(model, how, count, begins=source is not None and len(seen) == 1)
    return _tokens(model, seen, count, made, stops, generator, source, tap)


def _check_whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise ConfigError(f"{name} must be at least {least} and a whole number below 2^63, but {value!r} was given")


def _start(model: Model, prompt: Source) -> list[int]:
    """The ids to continue; for an empty prompt the token that begins a text, or ends the one before."""
    if prompt is None or isinstance(prompt, int | float | Path | np.ndarray):
        raise InputError(f"a prompt must be text or token ids, but {prompt!r} was given")
    if len(prompt):
        return model.ids(prompt)[0].tolist()
    tokenizer = model.tokenizer
    begin = tokenizer.end_of_text if tokenizer.begin_of_text is None else tokenizer.begin_of_text
    begin = model.generation.bos_token_id if begin is None else begin
    if begin is None:
        raise InputError(
            "the prompt is empty, and this model's tokenizer has no token that begins a text; give a prompt"
        )
    return [begin]


def _remember(network: Any, source: torch.Tensor | None, capacity: int, tap: Tap) -> Any:
    """An empty cache; an encoder–decoder's reads the source."""
    return network.new_cache(1) if source is None else network.new_cache(source, capacity=capacity, tap=tap)


@torch.inference_mode()
def _tokens(
    model: Model,
    seen: list[int],
    max_new_tokens: int,
    how: Plan,
    stops: _StopStrings,
    generator: torch.Generator,
    source: torch.Tensor | None = None,
    tap: Tap = OFF,
) -> Iterator[Token]:
    network = model.network if source is not None else model.speaker("generating")
    device = model.device
    ends = model.generation.eos_token_id or (model.tokenizer.end_of_text,)
    context = model.config.context if model.config.kind == "decoder" else None  # a recurrent state has no limit
    decoder = model.tokenizer.stream()
    was_training = network.training
    network.eval()
    try:
        new = seen[-context:] if context else seen
        cache = _remember(network, source, len(seen) + max_new_tokens, tap)
        for left in reversed(range(max_new_tokens)):
            if context and cache.length + len(new) > context:  # full: forget the earlier half
                new, cache = seen[-(context // 2 or 1) :], _remember(network, None, context, tap)
            ids = torch.tensor([new], device=device)  # (1, T), later (1, 1)
            logits = network(ids, cache=cache, tap=tap)[0, -1].float().cpu()  # (V,)
            number = max_new_tokens - 1 - left
            chosen = how.forced.get(number)
            if chosen is None:
                chosen = pick(logits, how.sampling(number), seen, generator)
            logprob = float(logits[chosen] - logits.logsumexp(-1))
            if chosen in ends:
                yield Token(chosen, stops.add(decoder.finish()) + stops.rest(), logprob, "end")
                return
            seen.append(chosen)
            new = [chosen]
            text = stops.add(decoder.add(chosen))
            if not stops.hit and not left:
                text += stops.add(decoder.finish())
                text += stops.rest()
            reason = "stop" if stops.hit else None if left else "length"
            yield Token(chosen, text, logprob, reason)
            if reason:
                return
    finally:
        network.train(was_training)


@overload
def generate(
    model: Model,
    prompt: Source,
    *,
    on_token: Callable[[Token], None] | None = None,
    seed: int = 0,
    **options: Any,
) -> Generation: ...
@overload
def generate(
    model: Model,
    prompt: list[str] | tuple[str, ...],
    *,
    on_token: Callable[[Token], None] | None = None,
    seed: int = 0,
    **options: Any,
) -> list[Generation]: ...
def generate(
    model: Model,
    prompt: Source | Sequence[str],
    *,
    on_token: Callable[[Token], None] | None = None,
    seed: int = 0,
    **options: Any,
) -> Generation | list[Generation]:
    """Continue one prompt, or several: each of several gives the same tokens as it would alone.

    Args:
        model: what continues.
        prompt: text or ids, an empty one begins a new text; or a list of texts.
        on_token: called with each token as it comes.
        seed: the same seed and prompt give the same tokens; of several prompts, the i-th is drawn with seed + i.
        options: max_new_tokens, temperature and the others of `stream`.

    Raises:
        ConfigError: an option of the wrong type or out of range.
        InputError: the prompt is no text, or holds an id outside the vocabulary.
        NonFinite: the model computed a NaN or an infinity.
    """
    known = inspect.signature(stream).parameters.keys() - {"model", "prompt", "seed"}
    for name in options.keys() - known:
        raise ConfigError(unknown("option", name, sorted(known | {"seed", "on_token"})))
    if isinstance(prompt, list | tuple) and prompt and isinstance(prompt[0], str):
        texts = cast(Sequence[str], prompt)
        return [_one(model, text, on_token, seed + i, options) for i, text in enumerate(texts)]
    return _one(model, prompt, on_token, seed, options)  # pyright: ignore[reportArgumentType]  # not of texts


def _one(
    model: Model,
    prompt: Source,
    on_token: Callable[[Token], None] | None,
    seed: int,
    options: dict[str, Any],
) -> Generation:
    tokens = []
    for token in stream(model, prompt, seed=seed, **options):
        tokens.append(token)
        if on_token is not None:
            on_token(token)
    return Generation(
        prompt=_shown(prompt),
        text="".join(token.text for token in tokens),
        ids=[token.id for token in tokens],
        logprobs=[token.logprob for token in tokens],
        finish_reason=tokens[-1].finish_reason or "length",
        seed=seed,
    )


def _shown(prompt: Source) -> str | list[int]:
    """A prompt as it is kept with its continuation; of sound only what it is called."""
    if isinstance(prompt, str | Path):
        return str(prompt)
    if isinstance(prompt, np.ndarray) or (isinstance(prompt, torch.Tensor) and prompt.is_floating_point()):
        return f"sound {tuple(prompt.shape)}"
    return [int(id) for id in prompt]
