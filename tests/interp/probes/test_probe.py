"""Probes against what two Gaussians allow, against scikit-learn, and against their controls."""

import math

import numpy as np
import pytest
import torch

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp import probe, record
from cutaway.interp.probes import control_labels, untrained_copy
from cutaway.interp.probes.fit import best_channels, fit_classes, fit_numbers, interval, split_texts
from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.tokenizers import Tokenizer


def gaussians(delta: float, seed: int, tokenizer: Tokenizer, tokens: int = 4000, width: int = 8) -> Model:
    """A model whose tokens' embeddings are drawn from two Gaussians, even ids from one and odd from the other."""
    network = Decoder(DecoderConfig(tokens, context=4, layers=1, width=width, heads=1))
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(tokens, width, generator=generator)
    points[:, 0] += delta * (torch.arange(tokens) % 2 - 0.5)
    # turned, so that no single channel holds the difference
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    with torch.no_grad():
        network.embed_tokens.weight.copy_(points @ turn)
    return Model(network, tokenizer, "Gaussians")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("delta", "share"), [(1.0, 0.691), (2.0, 0.841), (3.0, 0.933)])
def test_two_gaussians_are_told_apart_as_well_as_can_be(delta: float, share: float, seed: int, tokenizer: Tokenizer):
    model = gaussians(delta, seed, tokenizer)
    texts = [[i] for i in range(4000)]
    found = probe(model, texts, [i % 2 for i in range(4000)], names="embed", untrained=False, seed=seed)
    possible = 0.5 * (1 + math.erf(delta / 2 / math.sqrt(2)))
    assert possible == pytest.approx(share, abs=5e-4)
    deviation = math.sqrt(possible * (1 - possible) / 1200)
    assert found.figures["best"] == pytest.approx(possible, abs=3 * deviation)
    (row,) = found["numbers"].rows
    assert row[3] - row[2] == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    # every token is a type of its own, so the held-out labels of the control cannot be known
    assert row[5] == pytest.approx(0.5, abs=3 * math.sqrt(0.25 / 1200))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shuffled_labels_are_chance(seed: int, tokenizer: Tokenizer):
    model = gaussians(3.0, seed, tokenizer)
    labels = (torch.randperm(4000, generator=torch.Generator().manual_seed(seed)) % 2).tolist()
    found = probe(model, [[i] for i in range(4000)], labels, names="embed", untrained=False, seed=seed)
    assert found.figures["best"] == pytest.approx(0.5, abs=2 * math.sqrt(0.25 / 1200))


def test_logistic_regression_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 6)) * [1, 5, 0.1, 1, 1, 3]
    for classes, strength in ((2, 2.0), (4, 1.0)):
        y = (x[:, 0] + draw.normal(size=200) > 0).astype(int) + (classes == 4) * 2 * (x[:, 1] > 0)
        ours = fit_classes(torch.tensor(x), torch.tensor(y), classes, penalty=0.5)
        scaled = StandardScaler().fit(x)
        peer = LogisticRegression(C=strength / 0.5, tol=1e-10, max_iter=10_000).fit(scaled.transform(x), y)
        logits = peer.predict_log_proba(scaled.transform(x))
        assert np.abs(ours(torch.tensor(x)).log_softmax(-1).numpy() - logits).max() < 1e-4
    number = x @ draw.normal(size=(6, 2)) + 3
    for rows in (200, 4):  # more rows than channels, and fewer
        ours = fit_numbers(torch.tensor(x[:rows]), torch.tensor(number[:rows]), penalty=0.5)
        scaled = StandardScaler().fit(x[:rows])
        peer = Ridge(alpha=0.5).fit(scaled.transform(x[:rows]), number[:rows])
        assert np.abs(ours(torch.tensor(x)).numpy() - peer.predict(scaled.transform(x))).max() < 1e-9


def test_the_interval_is_wilsons():
    # Newcombe 1998, table I: 81 of 263, and 0 of 20
    assert interval(81 / 263, 263) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert interval(0.0, 20) == (0.0, pytest.approx(0.1611, abs=1e-4))


def test_the_best_channels_are_those_that_differ():
    x = torch.randn(400, 10, generator=torch.Generator().manual_seed(0))
    y = torch.arange(400) % 2
    x[:, 3] += 3.0 * y
    x[:, 7] += 1.0 * y
    x[:, 5] = 4.0
    assert best_channels(x, y, 2).tolist() == [3, 7]
    assert best_channels(x, (x[:, [2]] * 2 + 1).double(), 1).tolist() == [2]
    assert len(best_channels(x, y, 99)) == 10


def test_control_labels_go_by_type():
    types = torch.tensor([5, 5, 9, 9, 9, 2])
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    drawn = control_labels(labels, types, torch.Generator().manual_seed(0))
    for kind in types.unique():
        assert len(drawn[types == kind].unique()) == 1
    several = [control_labels(labels, types, torch.Generator().manual_seed(s)).tolist() for s in range(20)]
    assert len(set(map(tuple, several))) > 4


def test_texts_are_whole_on_one_side():
    texts = torch.arange(10).repeat_interleave(7)
    out = split_texts(texts, 0.3, torch.Generator().manual_seed(0))
    assert out.view(10, 7).float().mean(1).unique().tolist() == [0.0, 1.0]
    assert int(out.sum()) == 21


def test_the_token_itself_is_read_at_every_layer(model: Model):
    texts = ["the cat sat", "tea at the cat", "a cat", "this he eats", "sat the cat at"] * 2
    labels = [[token in "aeiou" for token in text] for text in texts]
    found = probe(model, texts, labels, names=["embed", "layers.*.resid_post"], sparse=[1, 4], seed=1)
    assert found.figures["best"] == 1.0
    assert found["numbers"].column("activation") == ["embed", *(f"layers.{i}.resid_post" for i in range(3))]
    read = found.fits["embed"](record(model, "the", "embed")["embed"][0]).argmax(-1)
    assert [found.classes[i] for i in read] == [False, False, True]
    assert len(found.channels["embed", 4]) == 4
    again = probe(model, texts, labels, names=["embed", "layers.*.resid_post"], sparse=[1, 4], seed=1)
    assert again["numbers"].rows == found["numbers"].rows


def test_numbers_are_predicted(model: Model):
    texts = ["cat" * n + " sat" for n in range(1, 9)] * 3
    table = record(model, texts[0], "embed")["embed"][0, :, 0]
    assert table.shape == (7,)
    labels = [[float(record(model, text, "embed")["embed"][0, i, 0]) for i in range(len(text))] for text in texts[:8]]
    found = probe(model, texts[:8], labels, names="embed", penalty=1e-6, untrained=False)
    assert found.figures["best"] == pytest.approx(1.0, abs=1e-6)
    assert found.classes == []
    low, high = found["numbers"].rows[0][2:4]
    assert low <= 1.0 + 1e-9
    assert high == pytest.approx(1.0, abs=1e-6)


def test_an_untrained_copy_writes_something_and_repeats(model: Model):
    first, second = untrained_copy(model, seed=3), untrained_copy(model, seed=3)
    assert torch.equal(first.logits("the cat"), second.logits("the cat"))
    assert not torch.equal(first.logits("the cat"), untrained_copy(model, seed=4).logits("the cat"))
    assert record(first, "the cat", "layers.0.mlp_out")["layers.0.mlp_out"].abs().max() > 0.01


def test_what_a_probe_refuses(model: Model):
    texts = ["the cat", "a cat"]
    with pytest.raises(InputError, match="as many labels, but 2 and 1 came"):
        probe(model, texts, [1])
    with pytest.raises(InputError, match="all labels are 1: there is nothing to tell apart"):
        probe(model, texts, [1, 1])
    with pytest.raises(InputError, match=r"text 1 \('a cat' …\) has 5 tokens, but 1 labels came"):
        probe(model, texts, [[0, 1, 0, 1, 0, 1, 0], [1]])
    with pytest.raises(InputError, match="at least two"):
        probe(model, ["the cat"], [1])
    with pytest.raises(InputError, match="must be finite"):
        probe(model, texts, [1.0, float("nan")])
    with pytest.raises(InputError, match="position 5 is outside a text of 5 tokens"):
        probe(model, texts, [0, 1], position=5)
    with pytest.raises(ConfigError, match=r"did you mean layers\.0\.mlp_out"):
        probe(model, texts, [0, 1], names="layers.0.mlp_outs")
    with pytest.raises(ConfigError, match="a number for each pair of tokens"):
        probe(model, texts, [0, 1], names="layers.0.attn.pattern")
    with torch.no_grad():
        model.network.layers[1].mlp.up_proj.weight[0, 0] = float("nan")  # pyright: ignore
    with pytest.raises(NonFinite, match=r"layers\.1\.mlp\.post"):
        probe(model, texts, [0, 1])
