"""Patching against one replaced run after another, on every kind of network, and what must hold of it exactly."""

from functools import partial
from typing import Any

import pytest
import torch
from kinds import SHAPES, TEXT, given, letters, made
from torch import Tensor

from cutaway import record
from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp import Site, ablate, patch, patch_sweep, replace, target_of
from cutaway.interp.inputs import forward, inputs_of
from cutaway.interp.patching.patch import Values
from cutaway.interp.patching.rerun import Put, Rerun
from cutaway.models import ActiveTap, Decoder, Encoder, Model, RotaryScaling, Seq2Seq

OTHER = TEXT.replace("on the m", "on the c")  # another token at 19 of 22
SHAPES_HERE = {
    **{name: (name, {}) for name in SHAPES},
    "attention only": ("llama", {"mlp": False, "norm": "none"}),
    "experts": ("qwen3", {"experts": 3, "experts_used": 2}),
    "classes": ("gpt2", {"head": "sequence_classification", "labels": ("a", "b")}),
    "tags": ("llama", {"head": "token_classification", "labels": ("a", "b")}),
}


def model_of(shape: str, *, double: bool = True) -> Model:
    name, fields = SHAPES_HERE[shape]
    model = made(name, letters(), **fields)
    if double:
        model.network.double()
    return model


def token_of(model: Model) -> int:
    return 1 if getattr(model.config, "labels", ()) else 3


def sites_of_every_kind(model: Model, full: Any) -> list[Site]:
    """All of each activation, and some heads, positions and neurons of it."""
    sites = []
    for name in model.network.tap_names():
        shape = full[name].shape[1:]
        sites.append(Site(name))
        if len(shape) == 3:
            sites += [Site(name, head=shape[0] - 1, position=[3, -2]), Site(name, position=-1, neuron=[0, 3])]
        if len(shape) == 2 and shape[0] > 5:
            sites.append(Site(name, position=[5, -1], neuron=[0, shape[1] - 1]))
    return sites


def put(x: Tensor, site: Site, value: Tensor) -> Tensor:
    x = x.clone()
    index = site.index(x.shape[1:])
    x[0][index] = value[0][index]
    return x


@pytest.mark.parametrize("shape", SHAPES_HERE)
@pytest.mark.parametrize("position", [-1, 20])
def test_a_patch_is_one_replaced_run(shape: str, position: int):
    model = model_of(shape)
    reads, token = given(model), token_of(model)
    clean = record(model, TEXT, **reads)
    base = inputs_of(model, OTHER, **reads)
    target = target_of(model, clean.inputs, token=token, position=position, output=clean.logits)
    step = (2 if position == -1 else 5) * (1 + isinstance(model.network, Seq2Seq))  # a different share of them all
    sites = sites_of_every_kind(model, clean)[::step]
    found = patch(model, TEXT, OTHER, sites, token=token, position=position, normalise=False, **reads)
    with torch.no_grad():
        plain = float(target(forward(model, base), base)[0])
        for i, site in enumerate(sites):
            edit = partial(put, site=site, value=clean[site.name])
            patched = float(target(forward(model, base, ActiveTap(edits={site.name: edit})), base)[0])
            assert float(found.change[i]) == pytest.approx(patched - plain, abs=1e-9), site.label
    assert found.rows[0][0] == sites[0].label
    assert found.clean == pytest.approx(float(target(clean.logits, clean.inputs)[0]), abs=1e-5)


def test_several_sites_are_patched_together_and_in_any_number_of_batches():
    model = model_of("llama")
    together = (Site("layers.0.mlp_out", position=20), Site("layers.1.attn.z", head=2), Site("final_norm", position=-1))
    clean = record(model, TEXT)
    edits = {site.name: partial(put, site=site, value=clean[site.name]) for site in together}
    expected = replace(model, OTHER, edits).logits[0, -1, 3] - record(model, OTHER, "logits").logits[0, -1, 3]
    patches = [together, *([(Site("layers.0.attn.z", position=p),) for p in range(22)])]
    whole = patch(model, TEXT, OTHER, patches, token=3)
    assert float(whole.change[0]) == pytest.approx(float(expected), abs=1e-6)
    for batch in (1, 5):
        again = patch(model, TEXT, OTHER, patches, token=3, batch=batch)
        torch.testing.assert_close(again.change, whole.change, atol=1e-12, rtol=0)
    assert patch(model, TEXT, OTHER, "layers.*.attn.z", token=3).rows[1][0] == "layers.1.attn.z"


@pytest.mark.parametrize("shape", SHAPES_HERE)
def test_a2_a_patch_of_what_is_there_changes_nothing(shape: str):
    model = model_of(shape, double=False)
    found = patch(model, TEXT, TEXT, "*", token=token_of(model), normalise=False, **given(model))
    assert torch.equal(found.change, torch.zeros_like(found.change))


@pytest.mark.parametrize("shape", SHAPES_HERE)
def test_a3_everything_recovers_all(shape: str):
    model = model_of(shape)
    reads = given(model)
    start = next(n for n in model.network.tap_names() if n in ("embed", "layers.0.resid_pre"))
    found = patch(model, TEXT, OTHER, [Site(start), Site(start, position=0)], token=token_of(model), **reads)
    assert float(found.recovered[0]) == pytest.approx(1, abs=1e-9)
    if not isinstance(model.network, Encoder):
        assert float(found.recovered[1]) == 0  # A4: before the first token that differs


@pytest.mark.parametrize("shape", [name for name in SHAPES_HERE if name not in ("bert", "modernbert", "classes")])
def test_a4_nothing_before_the_difference_and_nothing_after_the_answer_counts(shape: str):
    model = model_of(shape, double=False)
    swept = patch_sweep(model, TEXT, OTHER, token=token_of(model), position=20, **given(model))
    count = len(swept.columns)
    first, answered = count - 3, 20
    for column in range(count):
        if column < first or column > answered:
            assert torch.equal(swept.change[:, column], torch.zeros(len(swept.rows), dtype=torch.float64)), column
    assert bool((swept.change[:, first] != 0).any())


def test_a5_the_last_stream_at_the_last_position_is_everything():
    for shape in ("llama", "gpt2", "t5", "bert"):
        model = model_of(shape)
        last = f"layers.{model.config.layers - 1}.resid_post"
        found = patch(model, TEXT, OTHER, Site(last, position=-1), token=3, **given(model))
        assert float(found.recovered[0]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", ["dynamic", "linear"])
def test_stretched_positions_stay_what_they_are(kind: str):
    scaling = RotaryScaling(kind, 2.0, original_context=16)  # pyright: ignore[reportArgumentType]
    model = made("llama", letters(), rotary_scaling=scaling)
    model.network.double()
    clean = record(model, TEXT, "layers.0.attn.z")["layers.0.attn.z"]
    site = Site("layers.0.attn.z", head=1)
    found = patch(model, TEXT, OTHER, site, token=3, position=19)
    base = inputs_of(model, OTHER)
    with torch.no_grad():
        edit = partial(put, site=site, value=clean)
        patched = forward(model, base, ActiveTap(edits={site.name: edit}))[0, 19, 3] - forward(model, base)[0, 19, 3]
    assert float(found.change[0]) == pytest.approx(float(patched), abs=1e-9)


def test_fewer_tokens_and_layers_are_computed_than_a_run_has(monkeypatch: pytest.MonkeyPatch):
    model = model_of("gpt2")
    base = record(model, OTHER, "*")
    rerun = Rerun(base, target_of(model, base.inputs, token=3))
    seen = []
    resume = Decoder.resume

    def watched(self: Decoder, layer: int, x: Tensor, **given: Any) -> Tensor:
        seen.append((layer, x.shape[1], given["wanted"], given["z"] is not None))
        return resume(self, layer, x, **given)

    monkeypatch.setattr(Decoder, "resume", watched)
    monkeypatch.setattr(Decoder, "forward", lambda *_, **__: pytest.fail("a whole run"))
    clean = record_values(model)
    rerun([[Put(Site("layers.1.attn.z", head=0), clean, 19)], [Put(Site("layers.1.attn.z", head=1), clean, 19)]])
    assert seen == [(1, 3, 2, True)]


def record_values(model: Model) -> Tensor:
    return torch.randn(1, 3, 22, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_unequal_lengths_are_refused_aligned_or_padded():
    model = model_of("llama")
    clean, corrupt = "the cat sat", "the mat is sat"
    with pytest.raises(InputError, match="11 tokens and the corrupt one 14"):
        patch_sweep(model, clean, corrupt, token=3)
    swept = patch_sweep(model, clean, corrupt, token=3, align="token")
    absent = swept.values.isnan()
    assert absent[:, 4:10].all()
    assert not absent[:, :4].any()
    assert not absent[:, 10:].any()
    last = f"layers.{model.config.layers - 1}.resid_post"
    for align in ("token", "pad"):
        found = patch(model, clean, corrupt, Site(last, position=-1), token=3, align=align)
        assert float(found.recovered[0]) == pytest.approx(1, abs=1e-9)
    padded = patch_sweep(model, clean, corrupt, token=3, align="pad")
    assert padded.values[:, :3].isnan().all()
    assert not padded.values[:, 3:].isnan().any()
    with pytest.raises(InputError, match="neither a common beginning nor a common end"):
        patch_sweep(model, "the", "cats", token=3, align="token")
    with pytest.raises(ConfigError, match="unknown alignment 'tokens'; did you mean token"):
        patch_sweep(model, clean, corrupt, token=3, align="tokens")  # pyright: ignore[reportArgumentType]


def test_several_pairs_give_the_mean():
    model = model_of("llama")
    pairs = [(TEXT, OTHER), (TEXT.replace("sat", "cat"), OTHER.replace("sat", "cat"))]
    alone = [patch_sweep(model, a, b, what="heads", token=3, normalise=False).change for a, b in pairs]
    both = patch_sweep(model, [a for a, _ in pairs], [b for _, b in pairs], what="heads", token=3, normalise=False)
    torch.testing.assert_close(both.change, (alone[0] + alone[1]) / 2, atol=1e-12, rtol=0)
    with pytest.raises(InputError, match="2 clean texts with 1 corrupt"):
        patch_sweep(model, [TEXT, TEXT], OTHER, token=3)


@pytest.mark.parametrize("shape", ["llama", "modernbert", "t5", "gru"])
def test_ablation_is_a_replaced_run(shape: str):
    model = model_of(shape)
    reads = given(model)
    base, full = inputs_of(model, TEXT, **reads), record(model, TEXT, **reads)
    name = "layers.1.hidden" if shape == "gru" else "layers.1.attn.z"
    plain = full[model.network.tap_names()[-1]][0, -1, 3]
    other = "a mat sat on the mat ats"
    texts = [TEXT, other]
    others = record(model, other, **reads)
    axis = 2 if full[name].ndim == 4 else 1
    mean = torch.cat((full[name], others[name]), dim=axis).mean(axis, keepdim=True)
    cut = record(model, model.ids(other)[:, : full.ids.shape[1]], name, **reads)[name]
    index = 1
    kinds: list[tuple[Values, Tensor]] = [("zero", torch.zeros(())), ("mean", mean), ("resample", cut)]
    for values, stands in kinds:
        swept = ablate(model, TEXT, token=3, values=values, texts=[other] if values == "resample" else texts, **reads)

        def edit(x: Tensor, stands: Tensor = stands) -> Tensor:
            x, value = x.clone(), stands.to(x).expand_as(x)
            if x.ndim == 4:
                x[:, index] = value[:, index]
            else:
                x[..., index] = value[..., index]
            return x

        with torch.no_grad():
            expected = forward(model, base, ActiveTap(edits={name: edit}))[0, -1, 3] - plain
        assert float(swept.change[1, index]) == pytest.approx(float(expected), abs=1e-9), values
    with pytest.raises(ConfigError, match="give texts="):
        ablate(model, TEXT, values="mean", **reads)


def test_what_is_wrong_is_said():
    model = model_of("gpt2", double=False)
    for site, message in (
        (Site("layers.0.attn.z", head=7), r"has 3 heads \(0 … 2\), but head 7"),
        (Site("layers.0.mlp_out", position=22), r"22 positions \(-22 … 21\), but position 22"),
        (Site("layers.0.mlp.post", neuron=-1), r"96 neurons \(0 … 95\), but neuron -1"),
        (Site("layers.0.mlp_out", head=0), "has no heads to choose from"),
    ):
        with pytest.raises(InputError, match=message):
            patch(model, TEXT, OTHER, site, token=3)
    with pytest.raises(ConfigError, match=r"unknown activation 'layers\.0\.attn\.y'; did you mean"):
        patch(model, TEXT, OTHER, Site("layers.0.attn.y"))
    with pytest.raises(ConfigError, match="no sites were given"):
        patch(model, TEXT, OTHER, [])
    with pytest.raises(ConfigError, match="unknown kind of values 'mode'"):
        patch(model, TEXT, OTHER, values="mode")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="give corrupt="):
        patch(model, TEXT)
    with pytest.raises(InputError, match="nothing to recover"):
        patch(model, TEXT, TEXT)
    with pytest.raises(ConfigError, match="has no cross_attn_out to patch; it has residual"):
        patch_sweep(model, TEXT, OTHER, what="cross attention")
    with pytest.raises(ConfigError, match="unknown part 'head'; did you mean heads"):
        patch_sweep(model, TEXT, OTHER, what="head")
    with pytest.raises(InputError, match=r"3 layers \(0 … 2\), but layer 3"):
        patch_sweep(model, TEXT, OTHER, layers=[3])
    broken = Rerun(record(model, OTHER, "*"), target_of(model, inputs_of(model, OTHER), token=3))
    with pytest.raises(NonFinite, match=r"layers\.0\.mlp_out position 21 patched"):
        broken([[Put(Site("layers.0.mlp_out", position=21), torch.full((), torch.nan))]])


def test_a_run_with_edits_elsewhere_is_not_patched():
    model = model_of("llama")
    edited = replace(model, OTHER, {"layers.0.mlp_out": lambda x: 2 * x})
    with pytest.raises(ConfigError, match=r"has edits of layers\.0\.mlp_out"):
        patch(model, TEXT, edited, token=3)
