"""Known answers on models trained here: steering between two styles (B12), an edited fact; three seeds."""

import string

import pytest
import torch
from trained_small import KEYS, VALUES, WORDS, facts, recall_model, two_style_model

from cutaway import generate
from cutaway.interp import dose_response, rome, steering_vector
from cutaway.models import Model, build_network

pytestmark = pytest.mark.slow
SHOUTED = ["7421 A CAT", "0386 TO THE", "5912 RIVER"]
CAPITALS = [letter for letter in string.ascii_uppercase if letter in "".join(WORDS).upper()]


@pytest.mark.parametrize("seed", range(3))
def test_b12_a_dose_has_its_response_and_a_placebo_none(seed: int):
    model = two_style_model(seed)
    spoken = [text.lower() for text in SHOUTED]
    vector = steering_vector(model, SHOUTED, spoken)
    options = {"tokens": CAPITALS, "strengths": (-2, -1, -0.5, 0, 0.5, 1, 2), "placebos": 5}
    found = dose_response(model, ["3141 ", "9265 ", "5897 "], vector=vector, **options)
    assert found.monotone
    assert float(found.steered[-1] - found.steered[0]) > 1.5  # nats
    assert found.placebo_share < 0.2
    for strength, alike in ((2, str.upper), (-2, str.lower)):
        text = generate(model, "3141 ", max_new_tokens=12, temperature=0, tap=vector.tap(strength)).text
        assert text == alike(text)
    torch.manual_seed(7)  # an untrained copy has no styles to be steered between
    fresh = Model(build_network(model.config).eval(), model.tokenizer, "untrained")
    control = dose_response(fresh, ["3141 "], positive=SHOUTED, negative=spoken, **options)
    assert float((control.steered - control.untouched).abs().max()) < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_an_edited_fact_is_said_and_the_others_stay(seed: int):
    model = recall_model(seed)
    ids, _ = facts(300, torch.Generator().manual_seed(3))
    prompts = [row[:-1].tolist() for row in ids]
    place = next(i for i, token in enumerate(prompts[0]) if token < len(KEYS))
    key = prompts[0][place]
    new = VALUES.start + (key + 5) % len(KEYS)
    # no beginnings of other texts: they hold other keys, and a text of two is none that the model has seen
    edited = rome(
        model, prompts[0], subject=(place, place + 1), target=new, texts=[row.tolist() for row in ids], layer=0,
        steps=120, contexts=0, paraphrases=[p for p in prompts[1:] if key in p][:5],
        neighbours=[p for p in prompts if key not in p][:40],
    )  # fmt: skip
    rows = {kind: [row for row in edited.rows if row[0] == kind] for kind in ("prompt", "paraphrase", "neighbour")}
    assert rows["prompt"][0][2] < 0.01 < 0.5 < rows["prompt"][0][3]  # pyright: ignore[reportOperatorIssue]
    assert sum(row[3] for row in rows["paraphrase"]) / 5 > 0.4  # pyright: ignore[reportArgumentType, reportCallIssue, reportOperatorIssue]
    kept = [row[4] == row[5] for row in rows["neighbour"]]
    assert sum(kept) / len(kept) > 0.95
