"""The decoder by itself: every feature, the cache, the taps inside attention, what it refuses."""

import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.models import OFF, ActiveTap, Decoder, DecoderConfig, decoder_of_size, match_names

VARIANTS = {
    "default": {},
    "grouped": {"kv_heads": 2},
    "one key head": {"kv_heads": 1, "head_dim": 6},
    "layernorm, learned": {"norm": "layernorm", "position": "learned", "qk_norm": False, "gated": False},
    "biases": {"attention_bias": True, "output_bias": True, "mlp_bias": True, "activation": "gelu"},
    "sinusoidal, free output": {"position": "sinusoidal", "tied": False, "activation": "relu2", "gated": False},
    "no positions": {"position": "none", "activation": "relu"},
    "attention only": {"mlp": False, "norm": "none"},
    "attention only, normed": {"mlp": False, "norm_place": "both", "norm": "layernorm", "qk_norm": False},
    "one layer": {"layers": 1, "mlp_width": 20},
}


def build(**features) -> Decoder:
    torch.manual_seed(0)
    network = Decoder(
        DecoderConfig(**{"vocab_size": 23, "context": 24, "layers": 2, "width": 32, "heads": 4, **features})
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network.eval()


def tokens(batch: int = 2, length: int = 17) -> torch.Tensor:
    return torch.randint(0, 23, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_equals_uncached_in_any_pieces(name: str):
    network, ids = build(**VARIANTS[name]), tokens()
    with torch.no_grad():
        whole = network(ids)
        cache = network.new_cache(2)
        pieces = [network(part, cache=cache) for part in ids.split([5, 1, 1, 7, 3], dim=1)]
    assert cache.length == 17
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_later_tokens_never_change_earlier_logits(name: str):
    network, ids = build(**VARIANTS[name]).double(), tokens()
    changed = ids.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 23
    with torch.no_grad():
        before, after = network(ids), network(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before[:, 9:], after[:, 9:])


@pytest.mark.parametrize("name", VARIANTS)
def test_training_and_inference_paths_agree(name: str):
    network, ids = build(**VARIANTS[name]), tokens()
    with torch.no_grad():
        inference = network(ids)
    torch.testing.assert_close(network(ids), inference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_explicit_attention_equals_the_fused_one(name: str):
    network, ids = build(**VARIANTS[name]).double(), tokens()
    same = {place: lambda x: x for place in network.tap_names()}
    with torch.no_grad():
        explicit = network(ids, tap=ActiveTap(edits=same))
        torch.testing.assert_close(explicit, network(ids), rtol=1e-10, atol=1e-12)


def test_parameter_count_does_not_depend_on_the_output_being_tied():
    tied, free = build(tied=True), build(tied=False)
    count = lambda net: sum(p.numel() for p in net.parameters())  # noqa: E731
    assert count(free) - count(tied) == 23 * 32


def test_fresh_blocks_are_the_identity():
    network = Decoder(decoder_of_size(2, 50))
    seen = {}
    network(torch.tensor([[1, 2, 3]]), tap=ActiveTap(["embed", "layers.1.resid_post"], sink=seen.__setitem__))
    assert torch.equal(seen["embed"], seen["layers.1.resid_post"])


def test_the_same_generator_draws_the_same_weights():
    draws = []
    for _ in range(2):
        network = Decoder(decoder_of_size(1, 50))
        network.reset_parameters(torch.Generator().manual_seed(3))
        draws.append(network.layers[0].self_attn.q_proj.weight.clone())  # pyright: ignore
    assert torch.equal(*draws)


def test_dropout_acts_in_training_only():
    network, ids = build(dropout=0.5), tokens()
    assert torch.equal(network(ids), network(ids))
    network.train()
    assert not torch.equal(network(ids), network(ids))


def test_rotary_angles_are_exact_after_a_change_of_dtype():
    network = build().bfloat16().double()
    assert network.rotary is not None
    fresh = build().double()
    assert fresh.rotary is not None
    cos, sin = network.rotary(0, 9)
    assert all(map(torch.equal, (cos, sin), fresh.rotary(0, 9)))
    assert cos[7, 0, 0] == torch.tensor(7.0, dtype=torch.float64).cos()


def test_too_many_tokens_are_refused_with_both_numbers():
    with pytest.raises(InputError, match=r"25 tokens .* sees 24"):
        build()(tokens(1, 25))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 33}, "width .33. is not a multiple of heads .4."),
        ({"kv_heads": 3}, "heads .4. must be a multiple of kv_heads .3."),
        ({"head_dim": 7}, "must be even"),
        ({"layers": -1}, "layers must be at least 0"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"mlp": False, "mlp_width": 8, "parallel": True}, "mlp=False leaves nothing for mlp_width, parallel"),
        ({"norm": "none", "norm_place": "both"}, "norm='none' leaves nothing for norm_place"),
    ],
)
def test_numbers_that_do_not_fit_are_named(fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        build(**fields)


def test_patterns_of_names():
    names = build().tap_names()
    assert match_names("layers.*.attn.pattern", names) == ["layers.0.attn.pattern", "layers.1.attn.pattern"]
    with pytest.raises(ConfigError, match=r"did you mean layers\.0\.attn\.pattern"):
        match_names("layers.0.attn.patern", names)


def test_off_changes_nothing():
    x = torch.ones(2)
    assert OFF("anything", x) is x
    assert OFF.at("layers.0") is OFF
    assert not OFF.wants("pattern")
    assert not OFF.edits("pattern")


def test_an_edit_of_another_shape_is_refused():
    with pytest.raises(ConfigError, match=r"edit of layers\.1\.resid_mid gave shape"):
        build()(tokens(), tap=ActiveTap(edits={"layers.1.resid_mid": lambda x: x[..., :-1]}))
