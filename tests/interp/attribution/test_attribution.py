"""Attribution on every kind of model: completeness, what each method is by definition, batches, grains, bad input."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import cutaway
from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp import inputs_of, record, replace
from cutaway.interp.attribution import (
    Attribution,
    attention_x_gradient,
    gradient_x_input,
    integrated_gradients,
    occlusion,
    shapley,
)
from cutaway.interp.frozen import frozen
from cutaway.interp.inputs import Side
from cutaway.interp.target import target_of
from cutaway.models import Model, Recurrent, Seq2Seq
from tests.interp.every_kind import CHINESE, KINDS, SOURCE, TEXT, given, made

QUICK: dict[Any, dict[str, Any]] = {
    gradient_x_input: {},
    integrated_gradients: {"steps": 4},
    occlusion: {},
    shapley: {"samples": 2, "grain": "word"},
    attention_x_gradient: {"how": "sum"},
}
METHODS: list[Any] = [gradient_x_input, integrated_gradients, occlusion, shapley, attention_x_gradient]


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> Model:
    return made(request.param)


def test_integrated_gradients_add_up(model: Model):
    """The gap is what the receipt says, and steps make it vanish."""
    few, many = (integrated_gradients(model, TEXT, **given(model), steps=steps) for steps in (2, 200))
    for found in (few, many):
        assert found.baseline is not None
        total = sum(score for score in found.scores if score is not None)
        assert found.receipt.gap == pytest.approx(abs(total - (found.value - found.baseline)), abs=1e-9)
    if not getattr(model.config, "experts", 0):  # which token goes to which expert jumps on the way
        assert (many.receipt.gap or 0) < max(1e-6, 0.05 * (few.receipt.gap or 0))
    assert few.signed


def test_the_number_is_the_models_own(model: Model):
    inputs = inputs_of(model, TEXT, **given(model))
    target = target_of(model, inputs, token=1, minus=0)
    with torch.no_grad():
        network: Any = model.network
        output = network(inputs.ids, **({"source": inputs.source} if inputs.source is not None else {}))
        wanted = float(target(output, inputs))
    for method in METHODS[:4]:
        assert method(model, TEXT, **given(model), **QUICK[method], token=1, minus=0).value == pytest.approx(
            wanted, abs=1e-10
        )


def test_gradient_x_input_is_the_gradient_times_the_token_vector(model: Model):
    """Against gradients that autograd takes of the whole network, weights included."""
    inputs = inputs_of(model, TEXT, **given(model))
    target = target_of(model, inputs, token=2)
    recording = record(model, inputs, "*embed", gradients=target)
    assert recording.gradients is not None
    network: Any = model.network
    scale = getattr(model.config, "embed_scale", 1.0)
    vectors = {"embed": network.embed_tokens(inputs.ids) * scale}
    if isinstance(network, Seq2Seq):
        assert inputs.source is not None
        frames = inputs.source.is_floating_point()
        vectors = {
            "encoder.embed": network.encoder.listen(inputs.source)
            if frames
            else network.embed_tokens(inputs.source) * scale,
            **vectors,
        }
    wanted = torch.cat([(recording.gradients[name] * vector)[0].sum(-1) for name, vector in vectors.items()])
    found = gradient_x_input(model, TEXT, **given(model), token=2)
    torch.testing.assert_close(torch.tensor(found.scores, dtype=torch.float64), wanted.detach(), rtol=1e-9, atol=1e-11)
    if isinstance(network, Seq2Seq):
        assert (found.parts.count("source"), found.parts.count("text")) == (
            recording["encoder.embed"].shape[1],
            recording["embed"].shape[1],
        )


def test_occlusion_is_the_difference_of_two_runs(model: Model):
    """Against a run whose embedding is replaced by hand, token by token."""
    found = occlusion(model, TEXT, **given(model), token=1, replace="mean")
    network: Any = model.network
    scale = getattr(model.config, "embed_scale", 1.0)
    inputs = inputs_of(model, TEXT, **given(model))
    target = target_of(model, inputs, token=1)
    mean = network.embed_tokens.weight.detach().mean(0) * scale
    first = found.parts.count("source")

    def number(place: int | None) -> float:
        def edit(x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            if place is not None:
                x[0, place] += mean - network.embed_tokens(inputs.ids[0, place]).detach() * scale
            return x

        run = replace(model, inputs, {"embed": edit})
        return float(target(run.logits.double(), inputs))

    for place in (1, 5, 21):
        wanted = number(None) - number(place)
        assert found.scores[first + place] == pytest.approx(wanted, abs=1e-5)  # recordings give float32 logits


@pytest.mark.parametrize("kind", ["gpt2", "encoder of texts", "t5", "whisper", "gru"])
def test_shapley_values_add_up_and_agree_with_every_coalition(kind: str):
    model = made(kind)
    text, asked = "the cat", {"grain": "word", **given(model, "a mat")}
    if isinstance(model.network, Seq2Seq) and model.mel is not None:
        asked = {**asked, **given(model, "a")}
    exact = shapley(model, text, **asked, samples=None)
    drawn = shapley(model, text, **asked, samples=15, seed=3)
    assert (exact.receipt.gap or 0) < 1e-9
    assert (drawn.receipt.gap or 0) < 1e-9
    assert exact.errors is None
    assert drawn.errors is not None
    assert drawn.receipt.seed == 3
    for wanted, found, error in zip(exact.scores, drawn.scores, drawn.errors, strict=True):
        assert abs((found or 0) - (wanted or 0)) <= 6 * error + 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_a_contrast_is_the_difference_of_two_scores(model: Model, method: Any):
    if method is attention_x_gradient and isinstance(model.network, Recurrent):
        return  # it has none
    both, one, other = (
        method(model, TEXT, **given(model), **QUICK[method], token=token, minus=minus)
        for token, minus in ((1, 0), (1, None), (0, None))
    )
    wanted = [(a or 0) - (b or 0) for a, b in zip(one.scores, other.scores, strict=True)]
    assert both.scores == pytest.approx(wanted, abs=1e-9)


def test_words_and_sentences_are_sums_of_tokens(model: Model):
    text = "the cat sat on the mat. a mat"
    tokens = gradient_x_input(model, text, **given(model))
    for grain, count in (("word", 9), ("sentence", 2)):
        found = gradient_x_input(model, text, **given(model), grain=grain)
        own = [score for score, part in zip(found.scores, found.parts, strict=True) if part == "text"]
        assert len(own) - isinstance(model.network, Seq2Seq) == count  # every target begins with a special token
        assert sum(s or 0 for s in found.scores) == pytest.approx(sum(s or 0 for s in tokens.scores), abs=1e-9)
        for score, places in zip(found.scores, found.places, strict=True):
            assert score == pytest.approx(sum(tokens.scores[place] or 0 for place in places), abs=1e-10)


@pytest.mark.parametrize("method", [gradient_x_input, integrated_gradients, occlusion, shapley, attention_x_gradient])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(model: Model, method: Any, side: Side):
    """A13: a text alone, and in a batch beside a longer one (inseq's issue 110)."""
    if isinstance(model.network, Recurrent) and (side == "left" or method is attention_x_gradient):
        return  # it takes no padding on the left, and has no attention
    read = given(model)
    pairs: dict[str, Any] = {} if not read else {"source": [SOURCE, SOURCE + " and on"]}
    if read and model.mel is not None:
        pairs = {"source": read["source"]}  # sound has no padding
    batch = inputs_of(model, [TEXT, TEXT + " and more"], pairs.get("source"), pad=side)
    assert batch.mask is not None
    options = QUICK[method] | {"token": 1}
    alone, beside = method(model, TEXT, **read, **options), method(model, batch, **options)
    assert beside.tokens == alone.tokens
    assert beside.scores == pytest.approx(alone.scores, abs=1e-9)
    assert beside.value == pytest.approx(alone.value, abs=1e-9)


def test_deleting_many_at_once_is_deleting_one_by_one():
    """Texts of different lengths stand padded in one batch."""
    for kind in KINDS:
        model = made(kind)
        if model.network.__class__ is Seq2Seq and model.mel is not None:
            with pytest.raises(ConfigError, match="frames of sound cannot be deleted"):
                occlusion(model, TEXT, **given(model), replace="delete")
            continue
        for window in (1, 3):
            found = occlusion(model, TEXT, **given(model), token=1, replace="delete", window=window)
            if window > 1:
                continue
            inputs = inputs_of(model, TEXT, **given(model))
            whole = float(target_of(model, inputs, token=1)(_output(model, inputs), inputs))
            first = found.parts.count("source")
            for place in (3, 9):
                left = torch.cat((inputs.ids[:, :place], inputs.ids[:, place + 1 :]), dim=1)
                shorter = inputs_of(model, left, inputs.source)
                wanted = whole - float(target_of(model, shorter, token=1)(_output(model, shorter), shorter))
                assert found.scores[first + place] == pytest.approx(wanted, abs=1e-9), kind


@torch.no_grad()
def _output(model: Model, inputs: Any) -> torch.Tensor:
    network: Any = model.network
    return network(inputs.ids, **({"source": inputs.source} if inputs.source is not None else {}))


def test_a_window_spreads_over_its_members():
    model = made("gpt2")
    found = occlusion(model, "abc", token=1, window=3)
    single = occlusion(model, "abc", token=1, grain="sentence")
    assert found.scores == pytest.approx([single.scores[0]] * 3)


def test_attention_relevance_of_one_layer_is_its_pattern_times_gradient():
    """Chefer et al., written out by hand for the last row of two layers."""
    model = made("gpt2")
    inputs = inputs_of(model, TEXT)
    recording = record(model, inputs, "*.pattern", gradients=target_of(model, inputs, token=1))
    assert recording.gradients is not None
    first, second = (
        (recording[f"layers.{i}.attn.pattern"] * recording.gradients[f"layers.{i}.attn.pattern"])[0]
        .clamp(min=0)
        .mean(0)
        for i in range(2)
    )
    eye = torch.eye(len(first), dtype=first.dtype)
    wanted = ((eye + second) @ (eye + first))[-1]
    found = attention_x_gradient(model, TEXT, token=1)
    assert found.scores == pytest.approx(wanted.tolist(), rel=1e-5)
    signed = attention_x_gradient(model, TEXT, token=1, how="sum")
    assert min(s or 0 for s in signed.scores) < 0


def test_an_edited_run_is_explained_with_its_edits():
    model = made("gpt2")
    silent = replace(model, TEXT, {"layers.0.attn_out": torch.zeros(1), "layers.1.attn_out": torch.zeros(1)})
    found = gradient_x_input(silent, token=1)
    assert max(abs(s or 0) for s in found.scores[:-1]) == 0  # nothing moves from token to token
    assert abs(found.scores[-1] or 0) > 1e-6
    assert found.value == pytest.approx(float(silent.logits[0, -1, 1]), rel=1e-5)
    with pytest.raises(ConfigError, match="cannot be deleted from an edited run"):
        occlusion(silent, replace="delete")


def test_no_token_after_the_asked_position_counts():
    for kind in ("gpt2", "llama", "gemma", "gru"):
        found = integrated_gradients(made(kind), TEXT, position=4, token=1)
        assert all(score == 0 for score in found.scores[5:])
        assert all(score != 0 for score in found.scores[:5])


def test_the_model_is_left_as_it_was():
    model = made("llama")
    model.network.train()
    state = {name: value.clone() for name, value in model.network.state_dict().items()}
    for method in METHODS:
        method(model, "the cat", token=1)
    assert model.network.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.network.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.network.state_dict().items())
    shared = zip(model.network.parameters(), frozen(model).network.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in shared)


def test_threads_do_not_meet():
    model = made("llama")
    model.network.train()
    texts = [TEXT[:length] for length in range(4, 12)]
    alone = [integrated_gradients(model, text, token=1, steps=4).scores for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: integrated_gradients(model, text, token=1, steps=4).scores, texts))
    assert together == alone


def test_special_tokens_stay_and_other_baselines_exist():
    model = made("bert", dtype=torch.float64)
    mask = model.tokenizer.mask
    assert mask is not None
    ids = [*model.tokenizer.encode("the c"), mask, *model.tokenizer.encode("t sat")]
    for baseline in ("mean", "zero", "pad", "mask"):
        found = integrated_gradients(model, ids, token="a", baseline=baseline, steps=200)
        assert found.scores[5] == 0
        assert "at “<|mask|>” (position 5)" in found.target
    other = [*model.tokenizer.encode("a mat"), mask, *model.tokenizer.encode(" that")]
    from_other = integrated_gradients(model, ids, token="a", reference=other, steps=200)
    assert from_other.baseline == pytest.approx(gradient_x_input(model, other, token="a").value, abs=1e-9)
    assert (from_other.receipt.gap or 0) < 1e-6


def test_fewer_steps_where_the_gap_allows_it():
    model = made("gpt2")
    found = integrated_gradients(model, TEXT, token=1, steps=500, tolerance=1e-3)
    assert found.baseline is not None
    assert (found.receipt.gap or 0) <= 1e-3 * abs(found.value - found.baseline)
    assert int(found.what.split()[2]) < 500
    strict = integrated_gradients(model, TEXT, token=1, steps=12, tolerance=1e-15)
    assert "12 steps" in strict.what


def test_chinese_words():
    found = occlusion(made("gpt2"), CHINESE, grain="word", token=1)
    assert found.tokens == ["你好", "吗", "。", "我", "很", "好", "。"]
    assert occlusion(made("gpt2"), CHINESE, grain="sentence", token=1).tokens == ["你好吗。", "我很好。"]


def test_results_are_plain_data_with_code_that_makes_them(tmp_path, monkeypatch):
    model = made("gpt2", dtype=torch.float32)
    cutaway.save_model(model, tmp_path / "m")
    loaded = cutaway.load_model(tmp_path / "m")
    for method in METHODS:
        found = method(loaded, TEXT, token="a", minus="t", grain="word")
        assert found.to_json()["scores"] == found.scores
        names: dict[str, Any] = {}
        monkeypatch.setattr("cutaway.interp." + method.__name__, method, raising=False)
        exec(found.receipt.code, names)  # noqa: S102 (our own)
        again: Attribution = names["result"]
        assert again.scores == pytest.approx(found.scores, abs=1e-6)


def test_bad_input_is_named():
    model, recurrent = made("gpt2"), made("gru")
    for method in METHODS:
        with pytest.raises(ConfigError, match="did you mean word"):
            method(model, TEXT, grain="words")
        with pytest.raises(InputError, match="the text is empty"):
            method(model, "")
        with pytest.raises(InputError, match="position 99 is outside"):
            method(model, TEXT, position=99)
        with pytest.raises(ConfigError, match="is an encoder–decoder: give source="):
            method(made("t5"), TEXT)
    with pytest.raises(ConfigError, match="a recurrent model has no attention"):
        attention_x_gradient(recurrent, TEXT)
    with pytest.raises(ConfigError, match="unknown baseline 'none'"):
        integrated_gradients(model, TEXT, baseline="none")
    with pytest.raises(InputError, match="the reference for the text has 3 tokens"):
        integrated_gradients(model, TEXT, reference="the")
    with pytest.raises(ConfigError, match="this model reads no source"):
        integrated_gradients(model, TEXT, reference_source="the")
    with pytest.raises(InputError, match="tolerance must lie in"):
        integrated_gradients(model, TEXT, tolerance=2)
    with pytest.raises(InputError, match=r"window must lie in 1 … 22"):
        occlusion(model, TEXT, window=23)
    with pytest.raises(ConfigError, match="did you mean delete"):
        occlusion(model, TEXT, replace="deleted")
    with pytest.raises(InputError, match="nothing would be left"):
        occlusion(model, "a", replace="delete")
    with pytest.raises(InputError, match="nothing but special tokens"):
        occlusion(model, [next(iter(model.tokenizer.special.values()))] * 2)
    with pytest.raises(ConfigError, match="the baseline pad is a token, but this model listens"):
        integrated_gradients(made("whisper"), TEXT, **given(made("whisper")), baseline="pad")
    with torch.no_grad():
        model.network.layers[1].mlp.down_proj.weight[0, 0] = torch.nan  # pyright: ignore
    for method in METHODS:
        with pytest.raises(NonFinite):
            method(model, TEXT, token=1)
