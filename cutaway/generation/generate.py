"""Continue a prompt: prefill, then one token at a time with a cache.

Each prompt is decoded by itself with a generator of its own, so that a request gives the same tokens whatever else is
asked for beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from cutaway.errors import ConfigError
from cutaway.generation.sampling import Sampling, pick
from cutaway.models import Model

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
        prompt: what was given.
        text: the continuation alone, up to a stop string.
        ids: the generated tokens.
        logprobs: of each under the model.
        finish_reason: "length" (max_new_tokens), "stop" (a stop string) or "end" (the model ended the text).
        seed: what was drawn with.
    """

    prompt: str
    text: str
    ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    seed: int


class _StopStrings:
    """Lets text through until one of the stop strings is complete; holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        if any(not stop for stop in stops):
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


@torch.inference_mode()
def stream(
    model: Model,
    prompt: str | Sequence[int],
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop: str | Sequence[str] = (),
    seed: int = 0,
) -> Iterator[Token]:
    """Continue a prompt, token by token; texts never hold half a character.

    When a decoder's context is full, it goes on with the later half of what it has seen.

    Args:
        model: what continues.
        prompt: text or ids; an empty one begins a new text.
        max_new_tokens: how many tokens at the most.
        temperature: 0 for the likeliest token always; see Sampling for this and the next four.
        top_k: see Sampling.
        top_p: see Sampling.
        min_p: see Sampling.
        repetition_penalty: see Sampling.
        stop: end before any of these strings; they may span tokens.
        seed: the same seed and prompt give the same tokens.

    Raises:
        ConfigError: an option out of range.
        NonFinite: the model computed a NaN or an infinity.
    """
    how = Sampling(repetition_penalty, temperature, top_k, top_p, min_p)
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens must be at least 1, but {max_new_tokens} was given")
    stops = _StopStrings([stop] if isinstance(stop, str) else list(stop))
    network, end, device = model.network, model.tokenizer.end_of_text, model.device
    seen = model.tokenizer.encode(prompt) if isinstance(prompt, str) else [int(i) for i in prompt]
    seen = seen or [end if end is not None else 0]
    generator = torch.Generator().manual_seed(seed)
    context = model.config.context if model.config.kind == "decoder" else None  # a recurrent state has no limit
    decoder = model.tokenizer.stream()
    was_training = network.training
    network.eval()
    try:
        new, cache = seen[-context:] if context else seen, network.new_cache(1)
        for number in range(max_new_tokens):
            if context and number and cache.length + 1 > context:  # full: forget the earlier half
                new, cache = seen[-(context // 2 or 1) :], network.new_cache(1)
            ids = torch.tensor([new], device=device)
            logits = network(ids, cache=cache)[0, -1].float().cpu()  # (V,)
            chosen = pick(logits, how, seen, generator)
            logprob = float(logits.log_softmax(-1)[chosen])
            if chosen == end:
                yield Token(chosen, stops.add(decoder.finish()) + stops.rest(), logprob, "end")
                return
            seen.append(chosen)
            new = [chosen]
            text = stops.add(decoder.add(chosen))
            if stops.hit:
                yield Token(chosen, text, logprob, "stop")
                return
            if number == max_new_tokens - 1:
                text += stops.add(decoder.finish()) + stops.rest()
                yield Token(chosen, text, logprob, "length")
                return
            yield Token(chosen, text, logprob)
    finally:
        network.train(was_training)


def generate(
    model: Model, prompt: str, *, on_token: Callable[[Token], None] | None = None, seed: int = 0, **options: Any
) -> Generation:
    """Continue one prompt.

    Args:
        model: what continues.
        prompt: text; an empty one begins a new text.
        on_token: called with each token as it comes.
        seed: the same seed and prompt give the same tokens.
        options: those of `stream`.

    Raises:
        ConfigError: an option out of range.
        NonFinite: the model computed a NaN or an infinity.
    """
    tokens = []
    for token in stream(model, prompt, seed=seed, **options):
        tokens.append(token)
        if on_token is not None:
            on_token(token)
    return Generation(
        prompt=prompt,
        text="".join(token.text for token in tokens),
        ids=[token.id for token in tokens],
        logprobs=[token.logprob for token in tokens],
        finish_reason=tokens[-1].finish_reason or "length",
        seed=seed,
    )


def generate_batch(model: Model, prompts: Sequence[str], *, seed: int = 0, **options: Any) -> list[Generation]:
    """Continue several prompts, the i-th drawn with seed + i; each gives the same tokens as it would alone."""
    return [generate(model, prompt, seed=seed + i, **options) for i, prompt in enumerate(prompts)]
