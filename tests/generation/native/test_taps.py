"""What is recorded of native steps against what the network shows of the same tokens."""

import pytest
import torch
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.generation.backend import Rows
from cutaway.generation.native.backend import NativeBackend
from cutaway.models import ActiveTap, Decoder, DecoderConfig

FIELDS = {
    "biased and normed after": {
        "norm": "layernorm",
        "norm_place": "both",
        "attention_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "score_cap": 3.0,
        "logit_cap": 5.0,
    },
    "windowed": {"windows": (20, 0), "kv_heads": 2, "tied": False},
    "experts": {"experts": 4, "experts_used": 2, "gated": False, "kv_heads": 1},
    "parallel": {"parallel": True, "qk_norm_joint": True, "position": "learned", "kv_heads": 4},
}
V = 50


def made(fields: dict) -> Decoder:
    torch.manual_seed(2)
    network = Decoder(DecoderConfig(V, 300, layers=2, width=48, heads=4, head_dim=10, **fields)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network


def recording(names: list[str]) -> tuple[ActiveTap, dict[str, Tensor]]:
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        assert name not in found
        found[name] = value.clone()

    return ActiveTap(names, sink=keep), found


@pytest.mark.parametrize("shape", FIELDS)
@torch.no_grad()
def test_every_name_shows_what_the_network_shows(shape: str) -> None:
    network = made(FIELDS[shape])
    names = network.tap_names()
    ids = torch.randint(V, (1, 150), generator=torch.Generator().manual_seed(0))
    backend = NativeBackend(network, threads=2)
    backend.reserve(9)
    cache, start = network.new_cache(), 0
    for size in (140, 1, 9):
        new = ids[:, start : start + size]
        theirs, wanted = recording(names)
        logits = network(new, cache=cache, tap=theirs)[0]
        ours, found = recording(names)
        beside = Rows(1, [3] * 5, 0, [6], wanted=2)  # another sequence, of which nothing is recorded
        rows = Rows(0, new[0].tolist(), start, [2, 0, 1], wanted=1, tap=ours)
        result = backend.step([beside, rows, Rows(2, [4], 0, [7])])
        assert list(found) == list(wanted)
        for name in names:
            assert found[name].shape == wanted[name].shape, name
            assert found[name].dtype == torch.float32
            hidden = torch.isneginf(wanted[name])
            assert torch.equal(hidden, torch.isneginf(found[name])), name
            difference = (found[name] - wanted[name]).masked_fill(hidden, 0).abs().max()
            assert difference < 2e-5 * wanted[name].masked_fill(hidden, 0).abs().max().clamp(min=1), name
        assert result.values.shape == (4, V)  # the wanted ones alone, though all were shown
        assert torch.allclose(result.values[2], logits[-1], atol=1e-4)
        assert torch.equal(result.best, result.values.argmax(-1))
        start += size


def test_recording_changes_no_bit() -> None:
    network = made(FIELDS["windowed"])
    backend = NativeBackend(network, threads=2)
    backend.reserve(9)
    ids = list(range(40))
    plain = backend.step([Rows(0, ids, 0, [0], wanted=40)]).values.clone()
    tap, found = recording(["layers.1.attn.pattern", "layers.0.mlp.post"])
    assert torch.equal(backend.step([Rows(0, ids, 0, [0], wanted=40, tap=tap)]).values, plain)
    assert torch.allclose(found["layers.1.attn.pattern"].sum(-1), torch.ones(1, 4, 40), atol=1e-5)


def test_two_sequences_record_names_of_their_own() -> None:
    network = made(FIELDS["windowed"])
    backend = NativeBackend(network, threads=2)
    backend.reserve(9)
    one, first = recording(["embed", "layers.0.attn.z"])
    other, second = recording(["layers.0.attn.z", "logits"])
    batch = [Rows(0, [1, 2, 3], 0, [0], tap=one), Rows(1, [4, 5], 0, [1], wanted=0, tap=other)]
    result = backend.step(batch)
    assert list(first) == ["embed", "layers.0.attn.z"]
    assert list(second) == ["layers.0.attn.z", "logits"]
    assert first["layers.0.attn.z"].shape == (1, 4, 3, 10)
    assert second["logits"].shape == (1, 2, V)
    assert torch.equal(first["embed"][0], network.embed_tokens.weight[[1, 2, 3]])
    assert result.values.shape == (1, V)


def test_edits_are_refused() -> None:
    backend = NativeBackend(made(FIELDS["windowed"]), threads=1)
    backend.reserve(1)
    with pytest.raises(ConfigError, match="not edited"):
        backend.step([Rows(0, [1], 0, [0], tap=ActiveTap(edits={"embed": lambda x: x * 2}))])


def test_all_that_the_network_names_is_known() -> None:
    for fields in FIELDS.values():
        network = made(fields)
        assert NativeBackend(network, threads=1).tap_names() == network.tap_names()
