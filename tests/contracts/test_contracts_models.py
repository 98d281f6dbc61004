"""What holds for every network, whatever its features: add a shape here and it is held to all of it."""

from typing import Any

import pytest
import torch

from cutaway import load_model, record, replace, save_model
from cutaway.errors import ConfigError, DamagedFile
from cutaway.interp import ledger, logit_lens, predicted_bytes
from cutaway.models import (
    ActiveTap,
    DecoderConfig,
    EncoderConfig,
    Model,
    NetworkConfig,
    RecurrentConfig,
    Seq2Seq,
    Seq2SeqConfig,
    build_network,
)
from cutaway.tokenizers import Tokenizer, train_tokenizer

GPT2 = {"norm": "layernorm", "position": "learned", "activation": "gelu_tanh", "gated": False, "qk_norm": False}
BIASES = {"attention_bias": True, "output_bias": True, "mlp_bias": True}
GEMMA = {
    "norm_plus_one": True,
    "norm_place": "both",
    "score_cap": 3.0,
    "logit_cap": 5.0,
    "embed_scale": 5.0,
    "attention_scale": 0.2,
    "windows": (4, 0, 7),
    "rotary_base_local": 100.0,
    "activation": "gelu_tanh",
}
NEOX = {"norm": "layernorm", "gated": False, "qk_norm": False, "tied": False}
SPARSE = {"expert_width": 20, "expert_layers": (0, 2), "windows": (0, 0, 5)}
BERT = {"norm_place": "sum", "position": "learned", "gated": False, **BIASES}
BART = {
    "norm": "layernorm",
    "norm_place": "sum",
    "embed_norm": True,
    "position": "learned",
    "position_offset": 2,
    "gated": False,
    "logit_bias": True,
    "tied": True,
    **BIASES,
}
WHISPER = {"norm": "layernorm", "position": "sinusoidal", "gated": False, "key_bias": False, **BIASES}
LABELS = {"head": "sequence_classification", "labels": ("a", "b", "c")}
TOKENS = {"head": "token_classification"}
BOTH = {"bidirectional": True, "pooling": "mean"}
MEAN = {"pooling": "mean", "normalize": True}
SHAPES: dict[str, tuple[type, dict]] = {
    "qwen3": (DecoderConfig, {"layers": 2, "width": 32, "heads": 4}),
    "llama": (DecoderConfig, {"layers": 3, "width": 32, "heads": 4, "kv_heads": 2, "qk_norm": False, "tied": False}),
    "gpt2": (DecoderConfig, {"layers": 2, "width": 24, "heads": 3, **GPT2, **BIASES}),
    "sinusoidal": (DecoderConfig, {"layers": 1, "width": 16, "heads": 1, "position": "sinusoidal", "head_dim": 24}),
    "squared relu": (DecoderConfig, {"layers": 2, "width": 32, "heads": 2, "activation": "relu2", "gated": False}),
    "gemma": (DecoderConfig, {"layers": 3, "width": 24, "heads": 4, "kv_heads": 2, "head_dim": 10, **GEMMA}),
    "olmo": (DecoderConfig, {"layers": 2, "width": 32, "heads": 4, "norm_place": "after", "qk_norm_joint": True}),
    "neox": (
        DecoderConfig,
        {"layers": 2, "width": 32, "heads": 4, "parallel": True, "rotary_dim": 2, **NEOX, **BIASES},
    ),
    "layernorm after": (
        DecoderConfig,
        {"layers": 2, "width": 32, "heads": 2, "norm": "layernorm", "norm_place": "both", **BIASES},
    ),
    "attention only": (DecoderConfig, {"layers": 2, "width": 32, "heads": 4, "mlp": False, "norm": "none"}),
    "attention after": (DecoderConfig, {"layers": 2, "width": 32, "heads": 2, "mlp": False, "norm_place": "both"}),
    "experts": (DecoderConfig, {"layers": 3, "width": 32, "heads": 4, "experts": 4, "experts_used": 2, **SPARSE}),
    "decoder of texts": (DecoderConfig, {"layers": 2, "width": 24, "heads": 2, **LABELS}),
    "decoder of tokens": (DecoderConfig, {"layers": 2, "width": 24, "heads": 2, **LABELS, **GPT2, **TOKENS}),
    "decoder of spans": (DecoderConfig, {"layers": 1, "width": 24, "heads": 2, "head": "span_extraction"}),
    "decoder of vectors": (DecoderConfig, {"layers": 2, "width": 24, "heads": 2, "head": "embedding", **MEAN}),
    "decoder of states": (DecoderConfig, {"layers": 2, "width": 24, "heads": 2, "head": "none", "tied": False}),
    "modernbert": (EncoderConfig, {"layers": 3, "width": 24, "heads": 2, "windows": (0, 3, 5)}),
    "bert": (EncoderConfig, {"layers": 2, "width": 24, "heads": 3, "embed_width": 16, "token_types": 2, **BERT}),
    "t5": (Seq2SeqConfig, {"layers": 2, "encoder_layers": 3, "width": 24, "heads": 3, "relative_buckets": 8}),
    "bart": (Seq2SeqConfig, {"layers": 2, "width": 24, "heads": 4, "encoder_heads": 2, **BART}),
    "whisper": (Seq2SeqConfig, {"layers": 2, "width": 24, "heads": 3, "source": "audio", "mel_bins": 5, **WHISPER}),
    "gru": (RecurrentConfig, {"layers": 2, "width": 12, "hidden": 20}),
    "lstm": (RecurrentConfig, {"layers": 2, "width": 16, "hidden": 16, "cell": "lstm", "tied": True}),
    "gru of texts": (RecurrentConfig, {"layers": 2, "width": 12, "hidden": 20, "pooling": "max", **LABELS}),
    "gru both ways": (RecurrentConfig, {"layers": 2, "width": 12, "hidden": 10, **BOTH, **LABELS}),
    "lstm of tokens": (
        RecurrentConfig,
        {"layers": 1, "width": 12, "hidden": 10, "cell": "lstm", **BOTH, **LABELS, **TOKENS},
    ),
    "gru of vectors": (RecurrentConfig, {"layers": 1, "width": 12, "hidden": 10, "head": "embedding", **BOTH, **MEAN}),
}
TEXT, SOURCE = "the cat sat on the mat", "a mat that the cat sat on"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([(TEXT + SOURCE) * 3], "char", 300)


def made(shape: str, tokenizer: Tokenizer) -> Model:
    kind, fields = SHAPES[shape]
    config: NetworkConfig = kind(vocab_size=tokenizer.vocab_size, context=32, **fields)
    torch.manual_seed(0)
    network = build_network(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(network, tokenizer, "a test")


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Model:
    return made(request.param, tokenizer)


SPEAKERS = [
    name for name, (kind, fields) in SHAPES.items() if kind in (DecoderConfig, RecurrentConfig) and "head" not in fields
]


@pytest.fixture(params=SPEAKERS)
def speaker(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Model:
    """The networks that predict the next token of a text."""
    return made(request.param, tokenizer)


def attends(model: Model) -> bool:
    return not isinstance(model.config, RecurrentConfig)


def names_tokens(model: Model) -> bool:
    return getattr(model.config, "head", "causal_lm") in ("causal_lm", "masked_lm")


def given(model: Model, text: str = SOURCE) -> dict[str, Any]:
    """What an encoder–decoder reads beside the text, which is its target."""
    if not isinstance(model.config, Seq2SeqConfig):
        return {}
    if model.config.source == "text":
        return {"source": text}
    bins, length = model.config.mel_bins, 2 * len(text) - 1
    frames = torch.randn(1, bins, length, generator=torch.Generator().manual_seed(length))
    return {"source": frames.to(next(model.network.parameters()).dtype)}


def streams(model: Model) -> list[tuple[str, int]]:
    """Every residual stream: what its names begin with, and how many layers it has."""
    config = model.config
    encoder = [("encoder.", config.encoder_layers)] if isinstance(config, Seq2SeqConfig) else []
    return [*encoder, ("", config.layers)]


def layers(model: Model) -> range:
    return range(model.config.layers)


def test_recording_everything_changes_no_bit(model: Model):
    plain = model.logits(TEXT, **given(model))
    recording = record(model, TEXT, **given(model))
    assert list(recording) == model.network.tap_names()
    assert torch.equal(recording.logits, plain)
    assert torch.equal(recording[list(recording)[-1]].float(), plain)
    assert recording.receipt.difference == 0.0
    assert recording.receipt.bytes == sum(v.numel() * 4 for v in recording.values())
    assert torch.equal(model.logits(TEXT, **given(model)), plain)  # nothing is left behind


def test_recording_inside_autograd_changes_no_bit_either(model: Model):
    ids, read = model.ids(TEXT), {name: model.source_ids(source) for name, source in given(model).items()}
    seen: dict = {}
    tapped = model.network(ids, **read, tap=ActiveTap(model.network.tap_names(), sink=seen.__setitem__))
    assert list(seen) == model.network.tap_names()
    assert torch.equal(tapped, model.network(ids, **read))


def test_memory_is_predicted_exactly(model: Model):
    recording = record(model, TEXT, **given(model))
    read = 0 if recording.source is None else recording.source.shape[-1]
    predicted = predicted_bytes(model.config, list(recording), 1, len(recording.tokens), source=read)
    assert predicted == recording.receipt.bytes


def test_own_activations_put_back_change_nothing(model: Model):
    model.network.double()
    recording = record(model, TEXT, **given(model))
    same = replace(model, TEXT, dict(recording), **given(model))
    assert same.receipt.difference < 1e-12


def test_patterns_are_distributions_and_matter(model: Model):
    names = [name for name in model.network.tap_names() if name.endswith("pattern")]
    assert bool(names) == attends(model)
    for name, pattern in record(model, TEXT, names or "embed", **given(model)).items() if names else ():
        torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
        causal = not name.startswith("encoder") and "cross" not in name and not isinstance(model.config, EncoderConfig)
        assert (pattern.triu(1).abs().max() == 0) == causal
    for name in [name for name in names if "layers.0." in name]:
        uniform = replace(model, TEXT, {name: lambda p: (p > 0) / (p > 0).sum(-1, keepdim=True)}, **given(model))
        assert uniform.receipt.difference > 1e-3


def test_the_gates_of_a_recurrent_model_add_up(model: Model):
    if not isinstance(model.config, RecurrentConfig):
        return
    recording = record(model, TEXT)
    for i in layers(model):
        at = f"layers.{i}."
        part = {name.removeprefix(at): value for name, value in recording.items() if name.startswith(at)}
        for way in ("", "back.") if model.config.bidirectional else ("",):
            value = {name.removeprefix(way): x for name, x in part.items() if name.startswith(way)}
            before = _moved(value["hidden"], way)
            if model.config.cell == "gru":
                expected = (1 - value["update"]) * value["candidate"] + value["update"] * before
            else:
                cell = value["forget"] * _moved(value["cell"], way) + value["input"] * value["candidate"]
                torch.testing.assert_close(cell, value["cell"], rtol=1e-5, atol=1e-5)
                expected = value["output"] * value["cell"].tanh()
            torch.testing.assert_close(value["hidden"], expected, rtol=1e-5, atol=1e-5)
        if model.config.bidirectional:
            assert torch.equal(part["states"], torch.cat((part["hidden"], part["back.hidden"]), -1))


def _moved(states: torch.Tensor, way: str) -> torch.Tensor:
    """The state before each step."""
    nothing = torch.zeros_like(states[:, :1])
    return torch.cat((states[:, 1:], nothing) if way else (nothing, states[:, :-1]), dim=1)


def test_the_parts_of_the_residual_stream_add_up(model: Model):
    if not attends(model):
        return
    recording = record(model, TEXT, **given(model))
    for prefix, count in streams(model):
        for i in range(count):
            at = f"{prefix}layers.{i}."
            before = "resid_pre"
            for part, after in (("attn", "resid_mid"), ("cross_attn", "resid_cross"), ("mlp", "resid_post")):
                if f"{at}{part}_out" not in recording:
                    assert part == "cross_attn" or not getattr(model.config, "mlp", True)
                    continue
                summed = after if f"{at}{part}_sum" not in recording else f"{part}_sum"  # else a norm stands between
                torch.testing.assert_close(
                    recording[at + before] + recording[f"{at}{part}_out"], recording[at + summed]
                )
                before = after
            if i:
                assert torch.equal(recording[at + "resid_pre"], recording[f"{prefix}layers.{i - 1}.resid_post"])


def test_a_run_may_resume_before_any_layer(model: Model):
    recording = record(model, TEXT, **given(model))
    network, last = model.network, model.network.tap_names()[-1]
    source = None
    if isinstance(network, Seq2Seq):
        source = network.encode(recording.source)
        for layer in range(network.config.encoder_layers):
            before = recording[f"encoder.layers.{layer}.resid_pre"]
            torch.testing.assert_close(network.encode_on(layer, before), source)
    for layer in layers(model):
        if attends(model):
            before = recording[f"layers.{layer}.resid_pre"]
        else:
            before = recording[f"layers.{layer - 1}.{network.states}" if layer else "embed"]  # pyright: ignore[reportAttributeAccessIssue]
        more = {} if source is None else {"states": source}
        seen: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            tap = ActiveTap(network.tap_names(), sink=seen.__setitem__)
            output = network.read_out(network.resume(layer, before, **more, tap=tap), tap=tap)  # pyright: ignore[reportArgumentType, reportCallIssue]
        torch.testing.assert_close(output, recording[last])
        passed = [
            name for name in network.tap_names() if name.startswith("layers.") and int(name.split(".")[1]) < layer
        ]
        assert not set(passed) & set(seen)


def test_patching_everything_or_nothing_recovers_all_or_nothing(model: Model):
    other, other_source = TEXT.replace("cat", "mat"), SOURCE.replace("cat", "mat cat")
    clean, corrupt = record(model, TEXT, **given(model)), record(model, other, **given(model))
    start = "layers.0.resid_pre" if attends(model) else "embed"
    everything = replace(model, other, {start: clean[start]}, **given(model))
    torch.testing.assert_close(everything.logits, clean.logits, rtol=1e-5, atol=1e-5)
    nothing = replace(model, other, {start: lambda x: x}, **given(model))
    torch.testing.assert_close(nothing.logits, corrupt.logits, rtol=1e-5, atol=1e-5)
    if isinstance(model.config, Seq2SeqConfig):  # all that is read of a source is its keys and values
        read = {name: clean[name] for name in clean if "cross_attn.k" in name or "cross_attn.v" in name}
        moved = replace(model, TEXT, {name: lambda x: 2 * x for name in read}, **given(model))
        assert moved.receipt.difference > 1e-3
        last = f"encoder.layers.{model.config.encoder_layers - 1}.resid_post"
        again = replace(model, TEXT, {last: clean[last]}, **given(model, SOURCE[::-1]))
        torch.testing.assert_close(again.logits, clean.logits, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(record(model, TEXT, "logits", **given(model, other_source)).logits, clean.logits)


def test_patching_before_the_first_difference_does_nothing(speaker: Model):
    model = speaker
    other = TEXT.replace("sat", "set")
    corrupt = record(model, other)
    place = "layers.0.resid_pre" if attends(model) else "layers.0.hidden"
    clean = replace(model, TEXT, {place: lambda x: x})  # on the path that edits take, to compare bit for bit
    cut = TEXT.index("sat") + 1

    def patch(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, :cut] = clean[place][:, :cut]
        return x

    untouched = replace(model, other, {place: lambda x: x})
    assert torch.equal(replace(model, other, {place: patch}).logits, untouched.logits)
    torch.testing.assert_close(untouched.logits, corrupt.logits, rtol=1e-5, atol=1e-5)


def test_patching_the_last_state_at_the_last_position_recovers_its_logits(speaker: Model):
    model = speaker
    clean, other = record(model, TEXT), TEXT.replace("cat", "mat")
    last = layers(model)[-1]
    place = f"layers.{last}.resid_post" if attends(model) else f"layers.{last}.hidden"

    def patch(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, -1] = clean[place][:, -1]
        return x

    patched = replace(model, other, {place: patch}).logits
    torch.testing.assert_close(patched[:, -1], clean.logits[:, -1], rtol=1e-5, atol=1e-5)
    assert (patched[:, -2] - clean.logits[:, -2]).abs().max() > 1e-3


def test_no_gradient_reaches_a_logit_from_a_later_token(speaker: Model):
    model = speaker
    """Exactly none; and some from the token itself, or the test would hold for a constant."""
    ids = model.ids(TEXT)
    t = 9
    embedded = record(model, TEXT, "embed")["embed"].requires_grad_()
    logits = model.network(ids, tap=ActiveTap(edits={"embed": lambda _: embedded}))
    (gradient,) = torch.autograd.grad(logits[0, t].sum(), embedded)
    assert gradient[0, t + 1 :].abs().max() == 0
    assert gradient[0, : t + 1].abs().amin(dim=0).max() > 0


def test_the_lens_ends_with_the_model(model: Model):
    if not attends(model):
        return
    if not names_tokens(model):
        with pytest.raises(ConfigError, match="the logit lens"):
            logit_lens(model, TEXT)
        return
    recording = record(model, TEXT, "layers.*.resid_*", **given(model))
    probabilities = recording.logits[0].softmax(-1).max(-1)
    for t, cell in enumerate(logit_lens(recording).cells[-1]):
        token, p = cell.top[0]
        assert token == model.tokenizer.token(int(probabilities.indices[t]))
        assert p == float(probabilities.values[t])


@torch.no_grad()
def test_with_a_cache_every_activation_is_the_same(speaker: Model):
    model = speaker
    ids = model.ids(TEXT)
    whole = record(model, ids)
    network: Any = model.network
    cache = network.new_cache(1, 32)
    for start, end in ((0, 3), (3, 4), (4, 9), (9, 10)):
        step: dict[str, torch.Tensor] = {}
        network(ids[:, start:end], cache=cache, tap=ActiveTap(whole, sink=step.__setitem__))
        assert step.keys() == set(whole)
        for name, value in step.items():
            over = 2 if name.endswith(("attn.q", "attn.k", "attn.v", "attn.z", "scores", "pattern")) else 1
            expected = whole[name].narrow(over, start, end - start)
            if name.endswith(("scores", "pattern")):
                expected = expected[..., :end]  # the keys so far
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_the_ledger_sums_to_the_logit_at_every_level(speaker: Model, dtype: torch.dtype, bound: float):
    model = speaker
    model.network.to(dtype)
    logits = record(model, TEXT, "logits")["logits"][0].double()
    for position, token, minus in ((-1, None, None), (5, "t", None), (12, "a", "o")):
        opened = ledger(model, TEXT, position=position, token=token, minus=minus)
        wanted = logits[position].max() if token is None else logits[position, model.tokenizer.id(token)]
        wanted = wanted - (logits[position, model.tokenizer.id(minus)] if minus else 0)
        assert opened.total == pytest.approx(float(wanted), abs=1e-12)
        assert opened.error < bound
        for term in opened.terms:
            if term.opens:
                below = opened.expand(term.name)
                assert below.total == pytest.approx(term.value, abs=1e-12)
                assert below.error < bound


def test_names_that_do_not_exist_are_met_with_near_ones(model: Model):
    with pytest.raises(ConfigError, match="did you mean embed"):
        record(model, TEXT, "embedd", **given(model))
    with pytest.raises(ConfigError, match="unknown activation"):
        replace(model, TEXT, {"layers.9.nothing": torch.zeros(1)}, **given(model))


def test_saved_and_loaded_is_the_same(model: Model, tmp_path):
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert again.config == model.config
    assert torch.equal(again.logits(TEXT, **given(model)), model.logits(TEXT, **given(model)))
    weights = tmp_path / "m" / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(bytes(damaged))
    with pytest.raises(DamagedFile, match=r"model\.safetensors is damaged"):
        load_model(tmp_path / "m")


def test_a_batch_gives_what_its_rows_give(model: Model):
    model.network.double()
    ids = torch.stack([model.ids(TEXT)[0], model.ids(TEXT[::-1])[0]])
    sources = [given(model, text) for text in (SOURCE, SOURCE[::-1])]
    read = torch.cat([model.source_ids(row["source"]) for row in sources]) if sources[0] else None
    together = record(model, ids, source=read)
    for row in range(2):
        alone = record(model, ids[row], **sources[row])
        for name, value in alone.items():
            torch.testing.assert_close(together[name][row], value[0], rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_with_a_cache_an_encoder_decoder_computes_the_same(model: Model):
    if not isinstance(model.network, Seq2Seq):
        return
    whole = record(model, TEXT, **given(model))
    ids, source = whole.ids, whole.source
    assert source is not None
    cache = model.network.new_cache(source)
    for start, end in ((0, 3), (3, 4), (4, 9)):
        step: dict[str, torch.Tensor] = {}
        model.network(ids[:, start:end], cache=cache, tap=ActiveTap(whole, sink=step.__setitem__))
        assert step.keys() == {name for name in whole if not name.startswith("encoder.")}
        for name, value in step.items():
            expected = whole[name]
            if not name.endswith(("cross_attn.k", "cross_attn.v")):  # the whole source, at every step
                over = 2 if ".attn." in name or ".cross_attn." in name else 1
                expected = expected.narrow(over, start, end - start)
            if name.endswith((".attn.scores", ".attn.pattern")):
                expected = expected[..., :end]  # the keys so far
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
