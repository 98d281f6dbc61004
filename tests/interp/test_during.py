"""Looking in while a model generates, and while it is trained."""

import random
from pathlib import Path

import pytest
import torch

import cutaway
from cutaway.errors import ConfigError, InputError
from cutaway.interp import record, record_generation, training_tap
from cutaway.models import Model, Recurrent
from cutaway.training import TrainConfig, train

PROMPT = "the cat"
BY_HEAD = ("attn.q", "attn.k", "attn.v", "attn.z", "scores", "pattern")


@pytest.fixture(params=["decoder", "recurrent"])
def either(request: pytest.FixtureRequest, model: Model, recurrent: Model) -> Model:
    return model if request.param == "decoder" else recurrent


def test_each_step_is_what_a_whole_run_computes(either: Model):
    found = record_generation(either, PROMPT, max_new_tokens=6, temperature=0)
    plain = cutaway.generate(either, PROMPT, max_new_tokens=6, temperature=0)
    assert found.generation.ids == plain.ids
    assert len(found.steps) == len(plain.ids)
    whole = record(either, [*either.ids(PROMPT)[0].tolist(), *plain.ids[:-1]])
    start = 0
    for step in found.steps:
        assert list(step) == list(whole)
        new = step["embed"].shape[1]
        for name, value in step.items():
            over = 2 if name.endswith(BY_HEAD) else 1
            expected = whole[name].narrow(over, start, new)
            if name.endswith(("scores", "pattern")):
                expected = expected[..., : start + new]
            # native kernels and torch add in another order, which shows in proportion to the largest numbers
            largest = max(1.0, float(expected[expected.isfinite()].abs().max()))
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5 * largest)
        start += new
    assert found.over_steps("logits")[1].shape[1] == 1


def test_an_edit_acts_at_every_step(model: Model):
    chosen = model.tokenizer.id("t")

    def only(logits: torch.Tensor) -> torch.Tensor:
        changed = torch.full_like(logits, -1e4)
        changed[..., chosen] = 0
        return changed

    found = record_generation(model, PROMPT, "logits", edits={"logits": only}, max_new_tokens=5, temperature=0)
    assert found.generation.ids == [chosen] * 5
    assert all(set(step) == {"logits"} for step in found.steps)


def test_what_is_too_large_or_unknown_is_refused(model: Model):
    with pytest.raises(InputError, match="generate fewer tokens"):
        record_generation(model, PROMPT, limit=1000)
    with pytest.raises(ConfigError, match="unknown activation"):
        record_generation(model, PROMPT, "nothing")
    with pytest.raises(ConfigError, match="unknown option 'heat'"):
        record_generation(model, PROMPT, heat=1)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    texts = tmp_path / "texts"
    texts.mkdir()
    draw = random.Random(0)
    words = ["".join(draw.choices("aeinrst", k=draw.randint(2, 7))) for _ in range(300)]
    (texts / "a.txt").write_text("\n\n".join(" ".join(draw.choices(words, k=60)) + "." for _ in range(60)))
    cutaway.prepare([texts], tmp_path / "corpus", vocab_size=300)
    return tmp_path / "corpus"


def test_a_run_is_the_same_with_somebody_looking(corpus: Path, tmp_path: Path):
    def config(out: str) -> TrainConfig:
        return TrainConfig(
            data=str(corpus), out=str(tmp_path / out), steps=4, size=1, context=16, batch=4, dtype="fp32"
        )

    seen: list[tuple[int, dict]] = []
    plain = train(config("plain"))
    looked = train(config("looked"), taps=training_tap("layers.*.resid_post", lambda *s: seen.append(s), every=2))
    assert [step for step, _ in seen] == [0, 2]
    assert all(value.shape[:2] == (4, 16) and not value.requires_grad for _, step in seen for value in step.values())
    for one, other in zip(plain.model.network.parameters(), looked.model.network.parameters(), strict=True):
        assert torch.equal(one, other)

    zeros = train(config("edited"), taps=training_tap([], print, edits={"layers.0.mlp_out": lambda x: 0 * x}))
    weight = "layers.0.mlp.down_proj.weight"
    assert zeros.model.network.state_dict()[weight].abs().max() == 0  # no gradient ever reached it
    assert looked.model.network.state_dict()[weight].abs().max() > 0
    assert not isinstance(zeros.model.network, Recurrent)
