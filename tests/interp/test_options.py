"""Options of analyses that come as plain data: what cannot be is refused with one sentence, and never a traceback."""

from __future__ import annotations

from typing import Any

import pytest
from kinds import TEXT, letters, made

from cutaway.errors import CutawayError
from cutaway.interp.analyses import ANALYSES, analyse, options_of
from cutaway.interp.study import Study

# each of which came out as a traceback once
FOUND: list[tuple[str, str, Any]] = [
    ("ablate", "layers", []),
    ("ablate", "layers", ["a"]),
    ("ablate", "layers", [[0, 1]]),
    ("ablate", "layers", [True]),
    ("ablate", "batch", -1),
    ("agreement", "methods", [[0, 1]]),
    ("agreement", "steps", 10**6),
    ("agreement", "samples", 10**30),
    ("attention_by_hand", "sharpness", 10**30),
    ("attribution_graph", "neurons", -1),
    ("attribution_graph", "most", -1),
    ("attribution_graph", "tested", -1),
    ("attribution_graph", "keep_nodes", 10**30),
    ("patch_map", "corrupt", [10**30]),
    ("patch_map", "corrupt", [[None, "x"]]),
    ("calibration", "bins", 10**6),
    ("counterfactual", "changes", [0]),
    ("counterfactual", "source_changes", [0.5]),
    ("fourier", "tokens", ["a"]),
    ("fourier", "tokens", [True]),
    ("integrated_gradients", "reference", ["a"]),
    ("integrated_gradients", "steps", 10**6),
    ("loss_by_hand", "raised", float("inf")),
    ("loss_landscape", "seed", 10**30),
    ("spectra", "names", [0]),
    ("spectra", "names", [[0, 1]]),
    ("step_by_hand", "betas", [0.9]),
    ("ledger", "what", None),
]


@pytest.mark.parametrize(("name", "option", "value"), FOUND)
def test_what_an_option_cannot_be_is_refused_in_one_sentence(name: str, option: str, value: Any) -> None:
    with pytest.raises(CutawayError) as error:
        Study(made("qwen3", letters()), TEXT).analyse(name, {option: value})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_lists_are_checked_to_their_elements() -> None:
    with pytest.raises(CutawayError, match="layers of ablate must be a list, each a whole number, but"):
        analyse("ablate", made("qwen3", letters()), TEXT, {"layers": ["a"]})
    with pytest.raises(CutawayError, match="betas of step_by_hand must be a list of 2"):
        analyse("step_by_hand", made("qwen3", letters()), TEXT, {"betas": [0.9, 0.9, 0.9]})


def test_no_option_takes_a_number_that_nothing_counts_with() -> None:
    model = made("gru", letters())
    for name in ANALYSES:
        for option in options_of(name):
            with pytest.raises(CutawayError, match="too large"):
                analyse(name, model, TEXT, {option: [0, 2**53]})


@pytest.mark.parametrize(
    "name", ["occlusion", "integrated_gradients", "faithfulness", "agreement", "composition_scores", "rollout"]
)
def test_what_takes_long_can_be_ended_on_the_way(name: str) -> None:
    """A page that leaves ends its analysis at the next report of progress: else all others wait for it."""
    told: list[Any] = []

    def leave(report: Any) -> None:
        told.append(report)
        if len(told) == 2:
            raise KeyboardInterrupt

    options = {"occlusion": {"replace": "delete"}, "integrated_gradients": {"tolerance": 1e-9}}.get(name, {})
    with pytest.raises(KeyboardInterrupt):
        Study(made("qwen3", letters(), layers=3), TEXT * 2).analyse(name, options, progress=leave)
    assert all(0 <= one.done <= one.total for one in told)
