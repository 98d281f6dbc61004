"""What a model writes at each strength; edits on a copy that shares all but one matrix."""

from typing import Any

import pytest
import torch

from cutaway import generate
from cutaway.errors import ConfigError, InputError
from cutaway.interp import rome, steer, steered_texts, steering_vector
from cutaway.interp.steering import dose_response
from cutaway.interp.steering.rome import matrix_of
from cutaway.progress import Progress
from tests.interp.every_kind import SOURCE, TEXT, made

KINDS: dict[str, Any] = {"positive": ["the cat", "a cat"], "negative": ["the mat", "a log"]}


@pytest.mark.parametrize("kind", ["llama", "gemma", "gru", "t5"])
def test_each_strength_writes_what_generate_writes(kind: str):
    model = made(kind, dtype=torch.float32)
    vector = steering_vector(model, KINDS["positive"], KINDS["negative"])
    strengths = [-3.0, 0.0, 3.0]
    written = steered_texts(model, TEXT[:8], vector, strengths, max_new_tokens=5)
    alone = [generate(model, TEXT[:8], max_new_tokens=5, temperature=0, tap=vector.tap(s)).text for s in strengths]
    assert written == alone
    assert written[1] == generate(model, TEXT[:8], max_new_tokens=5, temperature=0).text


def test_steering_is_its_curve_and_its_texts():
    model = made("llama", dtype=torch.float32)
    reports: list[Progress] = []
    strengths = [-2.0, 0.0, 2.0]
    found = steer(
        model, TEXT[:8], **KINDS, layer=1, strengths=strengths, token=5, minus=9, quantity="logit", max_new_tokens=4,
        progress=reports.append,
    )  # fmt: skip
    vector = steering_vector(model, KINDS["positive"], KINDS["negative"], layer=1)
    dose = dose_response(
        model, TEXT[:8], vector=vector, strengths=strengths, token=5, minus=9, placebos=2, quantity="logit"
    )
    assert torch.equal(found["dose"].steered, dose.steered)
    assert torch.equal(found["dose"].placebos, dose.placebos)
    assert found["texts"].column("steered") == steered_texts(model, TEXT[:8], vector, strengths, max_new_tokens=4)
    assert found["texts"].column("placebo") == steered_texts(
        model, TEXT[:8], vector.placebo(0), strengths, max_new_tokens=4
    )
    assert found.size == pytest.approx(float(vector.vector.norm()))
    assert found.layer == 1
    assert {report.stage for report in reports} == {"steering", "writing"}


def test_steering_without_two_kinds_or_room_is_refused():
    model = made("llama", dtype=torch.float32)
    with pytest.raises(ConfigError, match="nothing to steer with"):
        steer(model, TEXT)
    vector = steering_vector(model, KINDS["positive"], KINDS["negative"])
    full = [3] * model.config.context
    with pytest.raises(InputError, match="no room behind it"):
        steered_texts(model, full, vector)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", ["llama", "gemma", "t5"])
def test_an_edit_with_shared_matrices_is_that_of_a_copy(kind: str):
    model = made("gpt2" if kind == "gemma" else kind, dtype=torch.float32)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    options: dict[str, Any] = {"subject": "cat", "target": 5, "texts": [TEXT, SOURCE], "steps": 4, "layer": 1}
    shared, whole = (rome(model, "the cat sat", **options, shared=one) for one in (True, False))
    after = model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    own = matrix_of(shared.model, 1)[1].weight
    assert torch.equal(own, matrix_of(whole.model, 1)[1].weight)
    assert shared.rows == whole.rows
    assert shared.receipt.bytes == own.numel() * own.element_size()
    assert whole.receipt.bytes > shared.receipt.bytes
    assert not torch.equal(own, matrix_of(model, 1)[1].weight)
    common = {p.data_ptr() for p in model.network.parameters()} & {
        p.data_ptr() for p in shared.model.network.parameters()
    }
    assert len(common) == len({p.data_ptr() for p in model.network.parameters()}) - 1
