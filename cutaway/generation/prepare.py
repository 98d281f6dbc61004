"""From a request to what the engine needs of it: ids, how each token is chosen, where the text ends.

All that can be wrong with a request is found here, before anything is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.generation.advice import MOST_BEAMS, Plan, beam_search, plan, sampling
from cutaway.generation.constrain import Form, form
from cutaway.generation.phrases import Phrase, beams_for, phrases_of
from cutaway.generation.request import EarlyStopping, Request
from cutaway.generation.text import StopStrings
from cutaway.models import Model, Seq2Seq
from cutaway.models.generation_config import usable
from cutaway.models.model import Source

LENGTH = 100  # tokens that are generated where nobody says how many


@dataclass(frozen=True)
class Prepared:
    """What the engine needs of a request.

    Attributes:
        ids: of the prompt, or of an encoder–decoder's target so far.
        source: what an encoder–decoder reads, as its network takes it.
        count: how many tokens to generate at the most.
        plan: how each is chosen.
        stops: strings to end before.
        ends: tokens that end the text.
        beams: hypotheses of a beam search; 1: tokens are drawn.
        length_penalty: of a beam search.
        early_stopping: of a beam search.
        renormalise: in a beam search, whether probabilities sum to 1 again after tokens were suppressed.
        form: what the text must be; None: anything.
        phrases: what it must hold.
        context: tokens that are seen at once; None: any number.
    """

    ids: list[int]
    source: Tensor | None
    count: int
    plan: Plan
    stops: tuple[str, ...]
    ends: frozenset[int]
    context: int | None
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    renormalise: bool = False
    form: Form | None = None
    phrases: tuple[Phrase, ...] = ()


def prepare(model: Model, request: Request) -> Prepared:
    """What the engine needs of a request.

    Raises:
        ConfigError: an option of the wrong type or out of range.
        InputError: the prompt is no text, holds an id outside the vocabulary, is longer than the context, or is empty
            though the model has no token that begins a text.
    """
    how, advised = sampling(model, request.sampling), model.generation
    how.check(model.config.vocab_size)
    held = form(schema=request.schema, regex=request.regex, grammar=request.grammar, choices=request.choices)
    stops = advised.stop_strings if request.stop is None else request.stop
    stops = (stops,) if isinstance(stops, str) else tuple(stops)
    StopStrings(stops)  # for its errors
    source: Tensor | None = None
    context: int | None = None
    if isinstance(model.network, Seq2Seq):
        source, config = _source(model, request.prompt), model.network.config
        target = request.target
        start = next(iter(usable([advised.decoder_start_token_id], config.vocab_size)), config.start_id)
        if isinstance(target, str) or config.source != "audio" or start not in target:
            ids = model.ids(target if isinstance(target, str) else [start, *target])[0].tolist()
            ids[0] = start
        else:
            ids = model.ids(target)[0].tolist()
        if config.ends and len(ids) >= config.context:
            raise InputError(f"the target begins with {len(ids)} tokens, but this model writes {config.context} in all")
        longest = advised.max_length - len(ids) if advised.max_length else LENGTH
    else:
        model.speaker("generating")
        if len(request.target):
            raise ConfigError("target begins what an encoder–decoder writes; give this model its text as the prompt")
        ids = _start(model, request.prompt)
        if model.config.kind == "decoder":
            context = model.config.context
            if len(ids) > context:
                raise InputError(f"the prompt has {len(ids)} tokens, but this model sees {context} at once; shorten it")
        longest = min(LENGTH, (advised.max_length or 2**62) - len(ids))
    count = request.max_new_tokens
    count = advised.max_new_tokens or max(1, longest) if count is None else count
    if isinstance(model.network, Seq2Seq) and model.network.config.ends:
        count = min(count, model.network.config.context - len(ids))
    made = plan(model, how, count, begins=source is not None and len(ids) == 1)
    ends = advised.eos_token_id or (model.tokenizer.end_of_text,)
    ends = frozenset(id for id in ends if id is not None)
    search = beam_search(model, request, how)
    phrases = phrases_of(model, request.phrases)
    if phrases:
        if held is not None or request.speculate is not None or request.sampling.get("temperature"):
            raise ConfigError("phrases are found by a beam search; leave the form, the temperature and guesses out")
        search["beams"] = min(MOST_BEAMS, max(search["beams"], beams_for(phrases)))
    return Prepared(ids, source, count, made, stops, ends, context, **search, form=held, phrases=phrases)


def shown(prompt: Source) -> str | list[int]:
    """A prompt as it is kept with its continuation; of sound only what it is called."""
    if isinstance(prompt, str | Path):
        return str(prompt)
    if isinstance(prompt, np.ndarray) or (isinstance(prompt, Tensor) and prompt.is_floating_point()):
        return f"sound {tuple(prompt.shape)}"
    return [int(id) for id in prompt]


def _source(model: Model, prompt: Source) -> Tensor:
    source = model.source_ids(prompt)
    assert isinstance(model.network, Seq2Seq)
    config = model.network.config
    if config.source == "text" and config.ends and source.shape[1] > config.source_context:
        raise InputError(
            f"the source has {source.shape[1]} tokens, but this model reads {config.source_context}; shorten or split "
            "it"
        )
    return source


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
