"""Published encoder–decoders compute what they compute in transformers, from the same files, and go back unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import Float64, masks, token_ids, write_checkpoint
from safetensors.torch import load_file, save_file

from cutaway.errors import ConfigError, DamagedFile
from cutaway.models import ActiveTap, Model, Seq2Seq, Seq2SeqConfig
from cutaway.models.families import FAMILIES
from cutaway.models.formats.huggingface import expressible, open_huggingface, write_huggingface
from cutaway.tokenizers import train_tokenizer

transformers = pytest.importorskip("transformers")

SOURCE, TARGET, BATCH = 21, 13, 3
EAGER: dict[str, Any] = {"attn_implementation": "eager"}
IDS: dict[str, Any] = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
T5: dict[str, Any] = {
    "vocab_size": 47,
    "d_model": 24,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 3,
    "decoder_start_token_id": 0,
}
BART: dict[str, Any] = IDS | {
    "vocab_size": 47,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 32,
}
UNEVEN = {"encoder_layers": 1, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 4}
WIDE = {"encoder_ffn_dim": 17, "decoder_ffn_dim": 61, "d_model": 20, "vocab_size": 53}
WHISPER = {key: value for key, value in BART.items() if key != "max_position_embeddings"} | {
    "num_mel_bins": 10,
    "max_source_positions": SOURCE,
    "max_target_positions": 16,
}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}

# family -> config class, how its architectures are called, what all shapes have, and what each has besides
SHAPES: dict[str, tuple[str, str, dict[str, Any], list[dict[str, Any]]]] = {
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        T5,
        [
            {},
            GATED | {"num_decoder_layers": 1, "num_heads": 2, "d_kv": 5, "layer_norm_epsilon": 1e-3},
            {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 9, "d_model": 15, "d_ff": 7},
            {"feed_forward_proj": "gated-silu", "num_decoder_layers": 3, "vocab_size": 53},
        ],
    ),
    "bart": (
        "BartConfig",
        "BartForConditionalGeneration",
        BART,
        [{}, UNEVEN | {"scale_embedding": True}, WIDE | UNEVEN | {"activation_function": "relu"}],
    ),
    "marian": (
        "MarianConfig",
        "MarianMTModel",
        BART,
        [
            {"scale_embedding": True},
            UNEVEN | {"activation_function": "swish"},
            WIDE | UNEVEN | {"decoder_start_token_id": 1, "activation_function": "gelu_new"},
        ],
    ),
    "whisper": (
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        WHISPER,
        [{}, UNEVEN | {"num_mel_bins": 7}, WIDE | UNEVEN | {"activation_function": "relu", "max_target_positions": 40}],
    ),
}
CASES = [(family, shape) for family, (*_, shapes) in SHAPES.items() for shape in range(len(shapes))]


def peer_config(family: str, number: int) -> Any:
    config_class, _, base, shapes = SHAPES[family]
    config = getattr(transformers, config_class)(**{**base, **shapes[number]})
    config._attn_implementation = "eager"
    return config


def make_peer(family: str, number: int) -> Any:
    peer = getattr(transformers, SHAPES[family][1])(peer_config(family, number))
    if hasattr(peer, "final_logits_bias"):
        peer.final_logits_bias += torch.linspace(-1, 1, peer.final_logits_bias.numel())
    if family == "t5" and number == 1:  # an output matrix of its own, as published checkpoints of version 1.1 have
        peer.lm_head.weight = torch.nn.Parameter(torch.randn_like(peer.lm_head.weight))
        peer._tied_weights_keys = {k: v for k, v in peer._tied_weights_keys.items() if "lm_head" not in k}
    return peer


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("peer")
    return write_checkpoint(lambda: make_peer(*request.param), folder), folder


def opened(folder: Path, dtype: torch.dtype | None = None) -> tuple[Seq2Seq, Any]:
    network, origin = open_huggingface(folder, dtype)
    assert isinstance(network, Seq2Seq)
    return network, origin


def in_float64(peer: Any) -> Any:
    """The same model in float64, tables and all."""
    for module in peer.modules():
        if hasattr(module, "create_weight"):  # Marian's sinusoids, which are made in float32
            length, width = module.weight.shape
            rates = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            angles = torch.outer(torch.arange(length, dtype=torch.float64), rates)
            module.weight = torch.nn.Parameter(torch.cat((angles.sin(), angles.cos()), dim=1), requires_grad=False)
    return peer


def a_source(config: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    if config.model_type == "whisper":
        return torch.randn(BATCH, config.num_mel_bins, 2 * SOURCE, generator=torch.Generator().manual_seed(3)).to(dtype)
    return token_ids(config.vocab_size - 3, BATCH, SOURCE) + 3


def a_target(config: Any) -> torch.Tensor:
    return torch.randint(3, config.vocab_size, (BATCH, TARGET), generator=torch.Generator().manual_seed(5))


def theirs(peer: Any, source: torch.Tensor, ids: torch.Tensor, real: Any = None, target_real: Any = None) -> Any:
    given: dict[str, Any] = {"decoder_input_ids": ids, "output_hidden_states": True, "use_cache": False}
    if source.is_floating_point():
        given["input_features"] = source
    else:
        given |= {"input_ids": source, "attention_mask": None if real is None else real.long()}
    if target_real is not None:
        given["decoder_attention_mask"] = target_real.long()
    return peer(**given)


def states(recorded: dict[str, torch.Tensor], network: Seq2Seq) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of encoder and decoder: what each layer reads, and what is read of the last."""
    found = []
    for prefix, stack in (("encoder.", network.encoder), ("", network.decoder)):
        count = len(stack.layers)
        last = "final_norm" if network.config.norm_place == "before" else f"layers.{count - 1}.resid_post"
        found.append([recorded[f"{prefix}layers.{i}.resid_pre"] for i in range(count)] + [recorded[prefix + last]])
    return found[0], found[1]


def test_every_encoder_decoder_is_here():
    assert {name for name, family in FAMILIES.items() if family.config is Seq2SeqConfig} == set(SHAPES)
    assert all(len(shapes) >= 3 for *_, shapes in SHAPES.values())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-5), (torch.float64, 1e-9)], ids=["float32", "float64"])
@torch.no_grad()
def test_logits_and_hidden_states(case: tuple[Any, Path], dtype: torch.dtype, bound: float, record_property: Any):
    peer, folder = case
    network, _ = opened(folder, dtype)
    peer = type(peer).from_pretrained(folder, dtype=dtype, **EAGER).eval()
    exact = Float64(whole=False) if dtype == torch.float64 else torch.no_grad()
    if dtype == torch.float64:
        peer = in_float64(peer)
    source, ids = a_source(peer.config, dtype), a_target(peer.config)
    audio = source.is_floating_point()
    largest = 0.0
    for real in [None] if audio else masks(BATCH, SOURCE).values():
        for target_real in masks(BATCH, TARGET).values():
            seen: dict[str, torch.Tensor] = {}
            tap = ActiveTap(network.tap_names(), sink=seen.__setitem__)
            logits = network(ids, source=source, mask=target_real, source_mask=real, tap=tap)
            ours = states(seen, network)
            for row in range(BATCH):  # each text alone, without its padding
                here = slice(None) if real is None else real[row]
                there = slice(None) if target_real is None else target_real[row]
                alone = source[row][None] if audio else source[row, here][None]
                with exact:
                    expected = theirs(peer, alone, ids[row, there][None])
                largest = max(largest, float((logits[row, there] - expected.logits[0]).abs().max()))
                for mine, peers, places in (
                    (ours[0], expected.encoder_hidden_states, here),
                    (ours[1], expected.decoder_hidden_states, there),
                ):
                    assert len(mine) == len(peers)
                    for a, b in zip(mine, peers, strict=True):
                        largest = max(largest, float((a[row, places] - b[0]).abs().max()))
    record_property(f"{peer.config.model_type} {dtype}", largest)
    assert largest <= bound
    if not audio:  # and once as transformers itself takes a batch
        real, target_real = masks(BATCH, SOURCE)["right"], masks(BATCH, TARGET)["right"]
        with exact:
            expected = theirs(peer, source, ids, real, target_real).logits
        logits = network(ids, source=source, mask=target_real, source_mask=real)
        assert (logits - expected)[target_real].abs().max() <= bound


@torch.no_grad()
def test_with_a_cache_it_is_the_same(case: tuple[Any, Path]):
    _, folder = case
    network, _ = opened(folder)
    audio = network.config.source == "audio"
    source, ids = a_source(case[0].config), a_target(case[0].config)
    for real in [None] if audio else masks(BATCH, SOURCE).values():
        for target_real in masks(BATCH, TARGET).values():
            whole = network(ids, source=source, mask=target_real, source_mask=real)
            cache = network.new_cache(source, mask=real)
            counted = torch.ones_like(ids, dtype=torch.bool) if target_real is None else target_real
            for start, end in ((0, 4), (4, 5), (5, TARGET)):
                part = None if target_real is None else target_real[:, start:end]
                step = network(ids[:, start:end], mask=part, cache=cache)
                difference = (step - whole[:, start:end])[counted[:, start:end]].abs().max()
                assert difference <= 1e-5 * max(1.0, float(whole.abs().max()))


@torch.no_grad()
def test_it_writes_what_transformers_writes(case: tuple[Any, Path]):
    """The likeliest token, one after the other, for each source alone."""
    peer, folder = case
    peer = type(peer).from_pretrained(folder, **EAGER).eval()
    network, _ = opened(folder)
    model = Model(network, train_tokenizer(["abc"], "char", 300))
    for source in a_source(peer.config):
        ids = torch.tensor([[network.config.start_id]])
        for _ in range(10):
            likeliest = theirs(peer, source[None], ids).logits[:, -1:].argmax(-1)
            ids = torch.cat((ids, likeliest), dim=1)
        prompt = source[None] if source.is_floating_point() else source.tolist()
        written = model.generate(prompt, temperature=0, max_new_tokens=10)
        assert written.ids == ids[0, 1:].tolist()
        begun = model.generate(prompt, temperature=0, max_new_tokens=6, target=ids[0, 1:5].tolist())
        assert begun.ids == written.ids[4:]


def test_there_and_back_is_the_identity(case: tuple[Any, Path], tmp_path: Path):
    _, folder = case
    network, origin = opened(folder)
    write_huggingface(network, tmp_path, origin=origin, extra={})
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert torch.equal(tensor, after[name])
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((folder / "config.json").read_text())


@torch.no_grad()
def test_written_anew_it_opens_there(case: tuple[Any, Path], tmp_path: Path):
    peer, folder = case
    network, _ = opened(folder)
    family, _ = expressible(network.config)
    assert family.model_type == peer.config.model_type
    write_huggingface(network, tmp_path, extra={"pad_token_id": 1, "eos_token_id": 2})
    again = type(peer).from_pretrained(tmp_path, **EAGER).eval()
    source, ids = a_source(peer.config), a_target(peer.config)
    expected = theirs(again, source, ids).logits
    assert (network(ids, source=source) - expected).abs().max() <= 5e-5


def test_the_defaults_are_t5():
    family, values = expressible(Seq2SeqConfig(vocab_size=50))
    assert family.model_type == "t5"
    assert values["feed_forward_proj"] == "gated-gelu"
    assert values["scale_decoder_outputs"] is False


def test_a_feature_that_no_family_has_is_named():
    with pytest.raises(ConfigError, match="position is 'none'"):
        expressible(Seq2SeqConfig(vocab_size=50, position="none"))


def altered(tmp_path: Path, family: str, **keys: Any) -> Path:
    write_checkpoint(lambda: make_peer(family, 0), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | keys))
    return tmp_path


@pytest.mark.parametrize(
    ("family", "keys", "words"),
    [
        ("t5", {"feed_forward_proj": "gated-swirl", "dense_act_fn": "swirl"}, "feed_forward_proj = 'gated-swirl'"),
        ("t5", {"sparse_step": 2}, "sparse_step = 2"),
        ("bart", {"normalize_before": True}, "normalize_before = True"),
        ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings = False"),
        ("marian", {"decoder_vocab_size": 11}, "decoder_vocab_size = 11"),
        ("whisper", {"scale_embedding": True}, "scale_embedding = True"),
        ("whisper", {"architectures": ["WhisperForAudioClassification"]}, "WhisperForAudioClassification"),
        ("bart", {"d_model": 25}, "not a multiple of heads"),
        ("bart", {"decoder_layers": 3}, "missing: model.decoder.layers.2"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, family: str, keys: dict[str, Any], words: str):
    with pytest.raises((ConfigError, DamagedFile), match=words):
        open_huggingface(altered(tmp_path, family, **keys))


def test_the_embedding_may_be_there_more_than_once_but_not_differently(tmp_path: Path):
    write_checkpoint(lambda: make_peer("bart", 0), tmp_path)
    expected = opened(tmp_path)[0].state_dict()
    tensors = load_file(tmp_path / "model.safetensors")
    again = {
        f"model.{stack}.embed_tokens.weight": tensors["model.shared.weight"].clone() for stack in ("encoder", "decoder")
    }
    again["lm_head.weight"] = tensors["model.shared.weight"].clone()
    save_file(tensors | again, tmp_path / "model.safetensors")
    found = opened(tmp_path)[0].state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    again["model.encoder.embed_tokens.weight"][0, 0] += 1
    save_file(tensors | again, tmp_path / "model.safetensors")
    with pytest.raises(DamagedFile, match=r"model\.encoder\.embed_tokens\.weight is the embedding once more"):
        opened(tmp_path)
