"""What lenses are asked beyond their table: ranks, two runs that part, small fits."""

import math
from typing import Any

import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.interp import Result, fit_lens, lens_difference, lens_ranks, logit_lens, read_lens, record, replace
from cutaway.interp.lenses import train_tuned_lens
from cutaway.interp.lenses.said import largest
from cutaway.interp.lenses.stream import places
from cutaway.models import Model
from cutaway.progress import Progress
from tests.interp.every_kind import SOURCE, TEXT, given, made

OTHER = TEXT.replace("cat", "mat")


@pytest.fixture(params=["llama", "gemma", "bert", "t5"])
def model(request: pytest.FixtureRequest) -> Model:
    return made(request.param, dtype=torch.float32)


@pytest.mark.parametrize("width", [3, 300, 256 * 20, 256 * 20 + 77])
def test_the_largest_are_those_of_topk(width: int):
    numbers = torch.randn(5, width, generator=torch.Generator().manual_seed(width))
    values, places_ = largest(numbers, 3)
    assert torch.equal(values, numbers.topk(3).values)
    assert torch.equal(numbers.gather(1, places_), values)


def logits_at(model: Model, place: int) -> torch.Tensor:
    recording = record(model, TEXT, places(model), **given(model))
    network: Any = model.network
    return network.read_out(recording[places(model)[place]])[0].float()


@torch.no_grad()
def test_every_cell_tells_the_rank_of_a_token(model: Model):
    reports: list[Progress] = []
    lens = logit_lens(model, TEXT, **given(model), token=5, progress=reports.append)
    logits = logits_at(model, 1)
    assert lens.chosen.tolist() == [5] * len(lens.tokens)
    assert lens.ranks[1].tolist() == (1 + (logits > logits[:, 5:6]).sum(-1)).tolist()
    assert lens.chances[1].tolist() == pytest.approx(logits.softmax(-1)[:, 5].tolist(), rel=1e-5)
    assert torch.equal(lens.logits[1], logits.topk(5).values)
    assert [report.done for report in reports] == list(range(1, len(lens.layers) + 1))
    with pytest.raises(InputError, match="must lie in"):
        logit_lens(model, TEXT, **given(model), token=10**6)


def test_the_token_that_came_next_is_asked_about():
    model = made("llama", dtype=torch.float32)
    lens = logit_lens(model, TEXT)
    ids = model.ids(TEXT)[0]
    assert lens.chosen[:-1].tolist() == ids[1:].tolist()
    assert int(lens.chosen[-1]) == int(model.logits(TEXT)[0, -1].argmax())
    assert int(lens.ranks[-1, -1]) == 1
    masked = made("bert", dtype=torch.float32)
    assert masked.tokenizer.mask is not None
    gap = [*masked.ids(TEXT)[0].tolist()]
    gap[3] = masked.tokenizer.mask
    seen = logit_lens(masked, gap)
    assert seen.chosen[:3].tolist() == gap[:3]
    assert int(seen.ranks[-1, 3]) == 1


def test_a_token_is_followed_through_the_layers(model: Model):
    table = logit_lens(model, TEXT, **given(model), token=7)
    found = lens_ranks(model, TEXT, tokens=[7, 9], position=2, **given(model))
    tokenizer = model.tokenizer.target or model.tokenizer
    name = tokenizer.token(7)
    assert found["rank"].lines[name] == table.ranks[:, 2].tolist()
    assert found["probability"].lines[name] == pytest.approx(table.chances[:, 2].tolist(), rel=1e-4)
    assert len(found["rank"].lines) == 2
    likeliest = lens_ranks(model, TEXT, position=2, **given(model))
    assert next(iter(likeliest["rank"].lines.values()))[-1] == 1
    with pytest.raises(InputError, match="outside"):
        lens_ranks(model, TEXT, position=99, **given(model))


def test_a_fitted_lens_is_followed_as_its_table_says():
    model = made("llama", dtype=torch.float32)
    lens = train_tuned_lens(model, [TEXT, SOURCE, OTHER], steps=5, batch=16)
    table = read_lens(model, TEXT, lens, token=7)
    found = lens_ranks(model, TEXT, lens, tokens=[7], position=2)
    assert next(iter(found["rank"].lines.values())) == table.ranks[:, 2].tolist()
    assert table.cells != read_lens(model, TEXT).cells
    assert read_lens(model, TEXT).cells == logit_lens(model, TEXT).cells


@torch.no_grad()
def test_two_runs_part_where_they_differ(model: Model):
    same = lens_difference(model, TEXT, **given(model))
    assert float(same.values.abs().max()) <= 1e-6
    assert same.parted == 0
    found = lens_difference(model, TEXT, other_text=OTHER, **given(model))
    one, two = logits_at(model, 1), record(model, OTHER, places(model), **given(model))[places(model)[1]]
    network: Any = model.network
    p, q = one.double().softmax(-1), network.read_out(two)[0].double().softmax(-1)
    middle = (p + q) / 2
    kl = [(x * (x / middle).log2()).sum(-1) for x in (p, q)]
    torch.testing.assert_close(found.values[1].double(), sum(kl) / 2, atol=1e-5, rtol=1e-4)  # pyright: ignore[reportArgumentType]
    assert torch.equal(found.first[1].long(), p.argmax(-1))
    assert torch.equal(found.second[1].long(), q.argmax(-1))
    differ = (found.first != found.second).double().mean()
    assert found.parted == pytest.approx(float(differ))
    assert isinstance(found, Result)
    assert "<main" in found.to_html()


def test_texts_of_unequal_length_are_compared_where_they_agree():
    model = made("llama", dtype=torch.float32)
    found = lens_difference(model, "the cat sat", other_text="the big cat sat")
    first, second = model.ids("the cat sat")[0].tolist(), model.ids("the big cat sat")[0].tolist()
    assert found.pairs
    assert all(first[a] == second[b] for a, b in found.pairs)
    assert len(found.columns) == len(found.pairs) == found.values.shape[1]
    beginning = [j for j, (a, b) in enumerate(found.pairs) if a == b]
    assert float(found.values[:, beginning].max()) <= 1e-6  # a decoder sees nothing of what follows


def test_what_cannot_be_compared_is_refused():
    model = made("llama", dtype=torch.float32)
    deeper = made("gpt2", dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"3 layers and a test 2, .* compare models of one depth"):
        lens_difference(model, TEXT, deeper)
    lens = train_tuned_lens(model, [TEXT, SOURCE], steps=1)
    with pytest.raises(ConfigError, match="made for another model"):
        lens_difference(deeper, TEXT, lens=lens)
    with pytest.raises(InputError, match="neither a common beginning nor a common end"):
        lens_difference(model, "cat", other_text="mouse on a log")


def test_an_edited_run_is_compared_with_a_plain_one():
    model = made("llama", dtype=torch.float32)
    plain = record(model, TEXT, "*")
    edited = replace(model, TEXT, {"layers.1.resid_post": lambda x: x * 0.5 + 1.0}, "*")
    found = lens_difference(plain, other=edited)
    assert float(found.values[:2].max()) <= 1e-6  # before the edit
    assert float(found.values[2:].max()) > 1e-4


@pytest.mark.parametrize("kind", ["tuned", "jacobian"])
def test_a_small_lens_is_fitted_and_tried_on_what_it_has_not_seen(kind: Any):
    model = made("llama", dtype=torch.float32)
    texts = [TEXT, SOURCE, OTHER, SOURCE[::-1], TEXT[::-1]]
    reports: list[Progress] = []
    found = fit_lens(model, texts, kind, steps=30, batch=32, progress=reports.append)
    assert reports
    assert found.kind == kind == found.lens.kind
    assert found.positions == len(model.ids(texts[-1])[0])
    assert set(found.lines) == {"logit", kind}
    assert math.isfinite(sum(value or 0 for value in found.lines[kind]))
    if kind == "tuned":
        assert sum(v or 0 for v in found.lines["tuned"]) < sum(v or 0 for v in found.lines["logit"])
    assert "lens" not in found.to_json()
    again = read_lens(model, TEXT, found.lens)
    assert again.cells[-1] == logit_lens(model, TEXT).cells[-1]


def test_one_text_is_too_few_to_fit_on():
    model = made("llama", dtype=torch.float32)
    with pytest.raises(InputError, match="two texts or more"):
        fit_lens(model, [TEXT])
    with pytest.raises(ConfigError, match="unknown kind of lens"):
        fit_lens(model, [TEXT, SOURCE], "tunde")  # pyright: ignore[reportArgumentType]
