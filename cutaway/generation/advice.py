"""What a checkpoint's makers recommend (generation_config.json), made into how each new token is chosen."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cutaway.errors import ConfigError
from cutaway.generation.options import Sampling
from cutaway.generation.request import Request
from cutaway.models import Model, Seq2Seq
from cutaway.models.generation_config import usable
from cutaway.settings import build

MOST_BEAMS = 256


@dataclass(frozen=True)
class Plan:
    """How each new token is chosen; they are counted from 0.

    Attributes:
        how: all but one.
        first: the first one that is not forced.
        free: its number.
        forced: number -> the token that it is.
    """

    how: Sampling
    first: Sampling
    free: int
    forced: Mapping[int, int]

    def sampling(self, number: int) -> Sampling:
        """How the new token of this number is chosen, unless it is forced."""
        return self.first if number == self.free else self.how

    @property
    def penalises(self) -> bool:
        """Whether it matters which tokens were seen."""
        return self.how.penalises

    def greedy(self, number: int) -> bool:
        """Whether a new token is the likeliest of all."""
        how = self.sampling(number)
        return how.temperature == 0 and not how.edits and number not in self.forced


def plan(model: Model, how: Sampling, count: int, *, begins: bool) -> Plan:
    """What the recommendations force and suppress.

    Args:
        model: whose.
        how: a token is chosen.
        count: how many there will be at the most.
        begins: whether the first of them is the second token of a target.
    """
    advised, size = model.generation, model.config.vocab_size
    first = replace(how, suppress=usable((*how.suppress, *advised.begin_suppress_tokens), size))
    bos = usable([advised.forced_bos_token_id], size) if begins else ()
    forced = {0: bos[0]} if bos else {}
    if eos := usable(advised.forced_eos_token_id[:1], size):
        forced[count - 1] = eos[0]
    return Plan(how, first, int(0 in forced), forced)


def sampling(model: Model, given: Mapping[str, Any]) -> Sampling:
    """The options of sampling: those given, then those recommended, then Cutaway's own.

    Args:
        model: whose recommendations.
        given: option -> value, None where the caller says nothing; top_k 0 is none.

    Raises:
        ConfigError: an option of the wrong type or out of range.
    """
    options = _recommended(model) | {name: value for name, value in given.items() if value is not None}
    if options.get("top_k") == 0 and isinstance(options["top_k"], int):
        del options["top_k"]
    return build(Sampling, options | {"suppress": usable(model.generation.suppressed, model.config.vocab_size)})


def beam_search(model: Model, request: Request, how: Sampling) -> dict[str, Any]:
    """What `Prepared` says of a beam search: what is asked for, then what is recommended, then Cutaway's own.

    Raises:
        ConfigError: beams and a temperature are asked for.
    """
    advised = model.generation
    beams = request.beams
    if beams is None:
        beams = advised.num_beams or 1 if how.temperature == 0 and request.speculate is None else 1
    if beams > MOST_BEAMS:
        raise ConfigError(f"there may be at most {MOST_BEAMS} beams, but {beams} were given")
    if (request.beams or 1) > 1 and request.sampling.get("temperature"):
        raise ConfigError("a beam search draws nothing; leave the temperature out, or the beams")
    penalty = advised.length_penalty if request.length_penalty is None else request.length_penalty
    early = advised.early_stopping if request.early_stopping is None else request.early_stopping
    return {
        "beams": beams,
        "length_penalty": 1.0 if penalty is None else penalty,
        "early_stopping": False if early is None else early,
        "renormalise": bool(advised.renormalize_logits),
    }


def _recommended(model: Model) -> dict[str, Any]:
    advised, names = model.generation, ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
    options = {name: value for name in names if (value := getattr(advised, name)) is not None}
    # a translation is not drawn, unless its makers say so; nor what they would search for with beams
    sample = False if isinstance(model.network, Seq2Seq) and advised.raw else None
    sample = False if (advised.num_beams or 1) > 1 else sample
    sample = sample if advised.do_sample is None else advised.do_sample
    if sample is not None:
        options["temperature"] = options.get("temperature", 1.0) if sample else 0.0
    if options.get("top_p") == 0:
        del options["top_p"]  # the likeliest token alone; a temperature of 0 says that
        options["temperature"] = 0.0
    return options
