"""Every analysis of a text by its name, for those that choose one at run time: the command line, a server, a page."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cutaway.errors import ConfigError, unknown
from cutaway.interp.activations import activation, activations
from cutaway.interp.attention import (
    attention,
    attention_flow,
    attention_overview,
    composition_scores,
    copying_scores,
    head_detectors,
    ov_circuit,
    qk_circuit,
    rollout,
    value_weighted,
)
from cutaway.interp.attribution import (
    agreement,
    attention_x_gradient,
    counterfactual,
    faithfulness,
    gradient_x_input,
    integrated_gradients,
    occlusion,
    shapley,
)
from cutaway.interp.features import attribution_graph
from cutaway.interp.ledger.flow import logit_flow
from cutaway.interp.ledger.numbers import ledger, score_pairs
from cutaway.interp.ledger.training import loss_ledger
from cutaway.interp.lenses import jacobian_lens, logit_lens, tuned_lens
from cutaway.interp.lessons import (
    attention_by_hand,
    block_by_hand,
    embedding_by_hand,
    gates_by_hand,
    gradient_by_hand,
    gradient_by_token,
    loss_by_hand,
    sampling_by_hand,
    step_by_hand,
    tokens_by_hand,
    training_by_hand,
)
from cutaway.interp.look import look
from cutaway.interp.patching import (
    ablate,
    attribution_patching,
    causal_trace,
    circuit,
    pairing,
    patch_map,
    patch_site,
    patch_sweep,
    path_patching,
)
from cutaway.interp.record import Recording
from cutaway.interp.results import Result
from cutaway.interp.steering import dose_response, steer
from cutaway.interp.text import calibration, chances, entropy, generation_tree, surprisal, tokens_of
from cutaway.interp.weights import fourier, loss_landscape, neighbours, parameters, spectra
from cutaway.models import Model
from cutaway.progress import OnProgress

# each is called as f(model, text, **options), or as f(model, **options) if it takes no text
ANALYSES: dict[str, Callable[..., Result]] = {
    "look": look,
    "ablate": ablate,
    "activation": activation,
    "activations": activations,
    "agreement": agreement,
    "attention": attention,
    "attention_by_hand": attention_by_hand,
    "attention_flow": attention_flow,
    "attention_overview": attention_overview,
    "attention_x_gradient": attention_x_gradient,
    "attribution_graph": attribution_graph,
    "attribution_patching": attribution_patching,
    "block_by_hand": block_by_hand,
    "calibration": calibration,
    "causal_trace": causal_trace,
    "chances": chances,
    "circuit": circuit,
    "composition_scores": composition_scores,
    "copying_scores": copying_scores,
    "counterfactual": counterfactual,
    "dose_response": dose_response,
    "embedding_by_hand": embedding_by_hand,
    "entropy": entropy,
    "faithfulness": faithfulness,
    "fourier": fourier,
    "gates_by_hand": gates_by_hand,
    "generation_tree": generation_tree,
    "gradient_by_hand": gradient_by_hand,
    "gradient_by_token": gradient_by_token,
    "gradient_x_input": gradient_x_input,
    "head_detectors": head_detectors,
    "integrated_gradients": integrated_gradients,
    "jacobian_lens": jacobian_lens,
    "ledger": ledger,
    "logit_flow": logit_flow,
    "logit_lens": logit_lens,
    "loss_by_hand": loss_by_hand,
    "loss_landscape": loss_landscape,
    "loss_ledger": loss_ledger,
    "neighbours": neighbours,
    "occlusion": occlusion,
    "ov_circuit": ov_circuit,
    "pairing": pairing,
    "parameters": parameters,
    "patch_map": patch_map,
    "patch_site": patch_site,
    "patch_sweep": patch_sweep,
    "path_patching": path_patching,
    "qk_circuit": qk_circuit,
    "rollout": rollout,
    "sampling_by_hand": sampling_by_hand,
    "score_pairs": score_pairs,
    "shapley": shapley,
    "spectra": spectra,
    "steer": steer,
    "step_by_hand": step_by_hand,
    "surprisal": surprisal,
    "tokens_of": tokens_of,
    "tokens_by_hand": tokens_by_hand,
    "training_by_hand": training_by_hand,
    "tuned_lens": tuned_lens,
    "value_weighted": value_weighted,
}

VAST = 2**53  # whole numbers from here on are not exact in JSON, nor in what analyses compute with
LESSONS = {name for name in ANALYSES if name.endswith("_by_hand")}  # whose numbers are changed by sliders
OF_OUTPUT = {"calibration", "chances", "entropy", "surprisal", "tokens_of"}  # read of a run nothing but its output
TEXTS = {"text", "clean"}  # what the argument with the text is called; "clean" where there is a corrupt one beside it


def analyse(
    name: str,
    model: Model | Recording,
    text: Any,
    options: Mapping[str, Any] | None = None,
    *,
    progress: OnProgress | None = None,
) -> Result:
    """Run an analysis by its name.

    Args:
        name: of ANALYSES.
        model: what is looked into; or a recording of it, which only some take (`takes_recording`), without a text.
        text: what it reads; not given to an analysis of weights alone.
        options: keyword arguments of the analysis.
        progress: told how far it is, if it is one that takes long.

    Raises:
        ConfigError: an unknown analysis or option, or an option of a kind that it cannot be; near matches are named.
    """
    if name not in ANALYSES:
        raise ConfigError(unknown("analysis", name, ANALYSES))
    known = options_of(name)
    for option, value in (options or {}).items():
        if option not in known:
            raise ConfigError(unknown(f"option of {name}", option, known))
        if _vast(value):
            raise ConfigError(f"{option} of {name} has a number that is too large; give one below 2^53")
        if not _fits(value, known[option]):
            raise ConfigError(f"{option} of {name} must be {_said(known[option])}, but {_short(value)} was given")
    given = (model, text) if takes_text(name) else (model,)
    told = {"progress": progress} if "progress" in inspect.signature(ANALYSES[name]).parameters else {}
    return ANALYSES[name](*given, **(options or {}), **told)


def takes_text(name: str) -> bool:
    """Whether an analysis reads a text, or looks at weights alone."""
    return name in ANALYSES and not TEXTS.isdisjoint(inspect.signature(ANALYSES[name]).parameters)


def takes_recording(name: str) -> bool:
    """Whether an analysis also takes a recording, in place of a model and a text."""
    if name not in ANALYSES:
        return False
    first = next(iter(get_type_hints(ANALYSES[name]).values()))
    return Recording in get_args(first)


def options_of(name: str) -> dict[str, Any]:
    """The options of an analysis that can be given as plain data, each with its type."""
    function = ANALYSES[name]
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    options = {p.name: hints[p.name] for p in parameters if p.name not in {*TEXTS, "progress"}}
    return {name: hint for name, hint in options.items() if "Callable" not in str(hint)}


def parsed(name: str, option: str, text: str) -> Any:
    """What a text given for an option means: JSON where the option can be that, else the text itself.

    >>> parsed("logit_lens", "top", "3"), parsed("ledger", "token", " the")
    (3, ' the')
    """
    try:
        value = json.loads(text)
    except ValueError:
        return text
    known = options_of(name) if name in ANALYSES else {}
    return value if option not in known or _fits(value, known[option]) else text


def _fits(value: Any, hint: Any) -> bool:
    """Whether plain data is of a type; what is not plain is left to the analysis."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if isinstance(origin, type):
        fixed = origin is tuple and Ellipsis not in parts
        kinds = parts if fixed else parts[:1] * len(value) if isinstance(value, list | tuple) else ()
        return isinstance(value, list | tuple) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    return hint is Any or (isinstance(hint, type) and isinstance(value, hint))


def _vast(value: Any) -> bool:
    """Whether there is a number in it that no analysis can count with."""
    if isinstance(value, list | tuple):
        return any(map(_vast, value))
    if isinstance(value, int):
        return abs(value) >= VAST
    return isinstance(value, float) and not math.isfinite(value)


def _short(value: Any) -> str:
    """A value as an error repeats it."""
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:60]}…"


def _said(hint: Any) -> str:
    """A type in words."""
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "nothing"}
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_said(part) for part in parts if part is not type(None)))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if origin is tuple and Ellipsis not in parts:
        return f"a list of {len(parts)}"
    within = "".join({names[part] for part in parts if part in names})
    return names.get(hint, f"a list, each {within}" if within and isinstance(origin, type) else "a list")
