"""generation_config.json: how a checkpoint's makers recommend to generate with it.

It changes no number that a model computes. What Cutaway uses are the fields of `GenerationConfig`; what it does not is
kept, written back, and told in `notes`, a sentence for every key that would have changed the text.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cutaway.errors import ConfigError, DamagedFile
from cutaway.files import holds, inside, read_json, write_json
from cutaway.settings import build

GENERATION_CONFIG = "generation_config.json"
MOST_NOTES = 20

# key -> the values that change nothing; an empty tuple: none does anything to the text
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "_from_model_config": (),
    "transformers_version": (),
    "use_cache": (),  # there always is one
    "cache_implementation": (),
    "return_dict_in_generate": (),
    "output_attentions": (),
    "output_hidden_states": (),
    "output_logits": (),
    "output_scores": (),
    "disable_compile": (),
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "length_penalty": (1.0,),
    "diversity_penalty": (0.0,),
    "early_stopping": (False,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "renormalize_logits": (False,),
    "remove_invalid_values": (False,),
}
REASONS = {
    "no_repeat_ngram_size": "repetition_penalty is what there is against repetition",
    "bad_words_ids": "of these only single tokens are kept from coming",
    "forced_decoder_ids": "give the ids as the beginning of the text",
}


@dataclass(frozen=True)
class GenerationConfig:
    """Recommendations; None or empty where there is none. The keys are those of the file.

    Attributes:
        do_sample: whether to draw the next token; False: the likeliest is taken.
        temperature, top_k, top_p, min_p, typical_p, repetition_penalty: see `cutaway.generation.Sampling`.
        max_new_tokens: how many tokens to add at the most.
        max_length: how many tokens a text has at the most, the prompt among them (of an encoder–decoder: the target).
        bos_token_id: begins a text.
        eos_token_id: end it, any of them.
        pad_token_id: fills up a row.
        decoder_start_token_id: begins a target.
        forced_bos_token_id: the token after that.
        forced_eos_token_id: the last token, where max_length is reached.
        suppress_tokens: never come; begin_suppress_tokens: not first.
        bad_words_ids: sequences that never come; used are those of one token.
        stop_strings: end the text.
        num_beams: hypotheses of a beam search.
        length_penalty, early_stopping: see `cutaway.generation.Request`.
        renormalize_logits: in a beam search, whether probabilities sum to 1 again after tokens were suppressed.
        raw: the file as it stands.
    """

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None
    bos_token_id: int | None = None
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    stop_strings: tuple[str, ...] = ()
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    renormalize_logits: bool | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def notes(self) -> list[str]:
        """A sentence for every key that is not used though it would have changed the text."""
        said = dict(self.raw)
        if all(len(word) == 1 for word in self.bad_words_ids):
            said.pop("bad_words_ids", None)
        found = []
        for key, value in said.items():
            used = key in _FIELDS and key != "bad_words_ids"
            if used or value is None or value in ([], {}) or not _matters(key, value):
                continue
            found.append(
                f"{GENERATION_CONFIG}: {key[:64]} is not used ({REASONS.get(key, 'Cutaway does not know it')})"
            )
        return found[:MOST_NOTES] + [f"… and {len(found) - MOST_NOTES} more"] * (len(found) > MOST_NOTES)

    @property
    def suppressed(self) -> tuple[int, ...]:
        """The tokens that never come."""
        return (*self.suppress_tokens, *(word[0] for word in self.bad_words_ids if len(word) == 1))

    def to_json(self) -> dict[str, Any]:
        """What the file says: as it stood, but for the fields that were changed since."""
        values, was = dict(self.raw), parse_generation(self.raw, GENERATION_CONFIG)
        for name in _FIELDS:
            value = getattr(self, name)
            if value != getattr(was, name):
                values[name] = value[0] if name in _ONE_OR_MORE and len(value) == 1 else value
                if value is None or value == ():
                    values.pop(name)
        return values


_FIELDS = [f.name for f in dataclasses.fields(GenerationConfig) if f.name != "raw"]
_ONE_OR_MORE = ("eos_token_id", "forced_eos_token_id")


def read_generation(folder: Path) -> GenerationConfig:
    """The generation_config.json of a folder, or no recommendations.

    Raises:
        ConfigError: a value of the wrong type or out of range, named.
        DamagedFile: no JSON object.
    """
    if not holds(folder, GENERATION_CONFIG):
        return GenerationConfig()
    file = inside(folder, GENERATION_CONFIG)
    values = read_json(file)
    if not isinstance(values, dict):
        raise DamagedFile(f"{file} must hold a JSON object, but holds {type(values).__name__}")
    return parse_generation(values, str(file))


def parse_generation(values: Mapping[str, Any], where: str) -> GenerationConfig:
    """Recommendations from what a file says.

    Raises:
        ConfigError: a value of the wrong type or out of range, named.
    """
    given = {name: values[name] for name in _FIELDS if values.get(name) is not None}
    for name in _ONE_OR_MORE:
        if name in given and not isinstance(given[name], list | tuple):
            given[name] = [given[name]]
    if isinstance(given.get("stop_strings"), str):
        given["stop_strings"] = [given["stop_strings"]]
    config = build(GenerationConfig, given, where=where)
    ids = [*config.eos_token_id, *config.forced_eos_token_id, *config.begin_suppress_tokens, *config.suppressed]
    single = ("bos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
    ids += [id for id in (getattr(config, name) for name in single) if id is not None]
    if wrong := [id for id in ids if not -1 <= id < 2**31]:  # -1 is how older files say none
        raise ConfigError(f"{where} names the token {wrong[0]}, which is no id")
    least = {"temperature": 0, "top_k": 0, "top_p": 0, "min_p": 0, "max_new_tokens": 1, "max_length": 1}
    for name, bound in (least | {"num_beams": 1, "typical_p": 1e-9, "repetition_penalty": 1e-9}).items():
        value = getattr(config, name)
        if value is not None and not bound <= value < 2**63:
            raise ConfigError(f"{name} in {where} must be at least {bound:g}, but is {value}")
    return dataclasses.replace(config, raw=dict(values))


def write_generation(config: GenerationConfig, folder: Path, *, roles: Mapping[str, int | None] | None = None) -> None:
    """Write generation_config.json.

    Args:
        config: what to write; nothing is written of an empty one without roles.
        folder: where to.
        roles: key -> id of the tokenizer's special tokens, for a file that there was not.
    """
    values = config.to_json()
    if not values and roles:
        values = {key: id for key, id in roles.items() if id is not None}
    if values:
        write_json(folder / GENERATION_CONFIG, values)


def usable(ids: Iterable[int | None], vocab_size: int) -> tuple[int, ...]:
    """The ids that a vocabulary has."""
    return tuple(sorted({id for id in ids if id is not None and 0 <= id < vocab_size}))


def _matters(key: str, value: Any) -> bool:
    """Whether a value of a key that is not used would have changed the text."""
    neutral = NEUTRAL.get(key)
    return neutral is None or (bool(neutral) and value not in neutral)
