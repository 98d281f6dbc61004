"""What stands on top, as configs spell it: by the name of the architecture, with the labels beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from cutaway.errors import ConfigError, unknown
from cutaway.models.config_parts import LABELLED

if TYPE_CHECKING:
    from cutaway.models.families._family import Keys

MOST_LABELS = 2**20
PROBLEMS = {"one": "single_label_classification", "several": "multi_label_classification", "number": "regression"}


def with_head(*heads: str) -> Callable[[Any], bool]:
    """The condition of a rule that some heads have."""
    return lambda config: config.head in heads


def other_heads(name: str, without: Collection[str] = ()) -> dict[str, str]:
    """The classes of a decoder's architecture that predict no tokens -> what stands on top.

    Args:
        name: with which their names begin.
        without: heads that the architecture has no class for.
    """
    heads = {
        "Model": "none",
        "ForSequenceClassification": "sequence_classification",
        "ForTokenClassification": "token_classification",
        "ForQuestionAnswering": "span_extraction",
    }
    return {name + end: head for end, head in heads.items() if head not in without}


def read_head(keys: Keys, heads: Mapping[str, str]) -> dict[str, Any]:
    """The fields `head`, `labels` and `labelling`.

    Args:
        keys: the config.
        heads: name of a class of architecture -> head; the first is meant where a config names none.

    Raises:
        ConfigError: an architecture that is not supported, or labels without an order.
    """
    named = keys.take("architectures") or [next(iter(heads))]
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str) or named[0] not in heads:
        raise ConfigError(unknown(f"architecture in {keys.where}", str(named), heads))
    head = heads[named[0]]
    names, count, problem = keys.take("id2label"), keys.take("num_labels"), keys.take("problem_type")
    if head in LABELLED:
        found = {"head": head, "labels": tuple(_labels(keys, names, count))}
        return found if head == "token_classification" else found | {"labelling": _labelling(keys, problem)}
    if head == "span_extraction" and len(_labels(keys, names, count)) != 2:
        raise keys.refuse("id2label", names, "an answer has two ends")
    return {"head": head}


def _labelling(keys: Keys, problem: Any) -> str:
    """What the labels are, by what the network was trained for; one of them holds where nothing is said."""
    named = {theirs: ours for ours, theirs in PROBLEMS.items()}
    if problem is None:
        return "one"
    if not isinstance(problem, str) or problem not in named:
        raise keys.refuse("problem_type", problem, f"it can be {', '.join(named)}")
    return named[problem]


def _labels(keys: Keys, names: Any, count: Any) -> list[str]:
    """The labels in order; without names there are two of them, or as many as are counted."""
    if names is None:
        count = 2 if count is None else count
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_LABELS:
            raise keys.refuse("num_labels", count, f"it is a whole number from 1 to {MOST_LABELS:,}")
        return [f"LABEL_{i}" for i in range(count)]
    numbered = {str(number): name for number, name in names.items()} if isinstance(names, Mapping) else {}
    ordered = [numbered.get(str(i)) for i in range(len(numbered))]
    if not numbered or not all(isinstance(name, str) for name in ordered):
        raise keys.refuse("id2label", names, "it maps 0, 1, 2 … to names")
    return [str(name) for name in ordered]


def write_head(config: Any, heads: Mapping[str, str]) -> dict[str, Any]:
    """The reverse of `read_head`.

    Raises:
        ConfigError: the family has no such head.
    """
    named = [architecture for architecture, head in heads.items() if head == config.head]
    if not named:
        raise ConfigError(f"head is {config.head!r}, there it is one of {', '.join(sorted(set(heads.values())))}")
    written: dict[str, Any] = {"architectures": [named[0]]}
    if config.head in LABELLED:
        written["id2label"] = {str(i): name for i, name in enumerate(config.labels)}
        written["label2id"] = {name: i for i, name in enumerate(config.labels)}
        if config.labelling != "one":
            written["problem_type"] = PROBLEMS[config.labelling]
    return written
