"""The encoder–decoder: what it is given, what it refuses, what it keeps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from cutaway import load_model, record, replace, save_model
from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.interp import ledger, surprisal
from cutaway.models import DecoderConfig, Model, Seq2Seq, Seq2SeqConfig, build_network
from cutaway.models.seq2seq_layers import relative_buckets
from cutaway.text.audio import MelConfig, log_mel
from cutaway.tokenizers import Tokenizer, train_tokenizer

TEXT = "the cat sat on the mat"
SIZE: dict[str, Any] = {"vocab_size": 300, "context": 40, "layers": 2, "width": 24, "heads": 3}
WHISPER: dict[str, Any] = {
    "source": "audio",
    "mel_bins": 20,
    "source_context": 150,
    "position": "learned",
    "norm": "layernorm",
    "norm_eps": 1e-5,
    "gated": False,
    "activation": "gelu",
    "attention_bias": True,
    "key_bias": False,
    "output_bias": True,
    "mlp_bias": True,
    "attention_scale": 0.0,
    "tied": True,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT * 3], "char", 300)


def config(**fields: Any) -> Seq2SeqConfig:
    return Seq2SeqConfig(**{**SIZE, **fields})


def made(tokenizer: Tokenizer, **fields: Any) -> Model:
    torch.manual_seed(0)
    network = build_network(config(vocab_size=tokenizer.vocab_size, **fields))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(network, tokenizer, "a test")


def listener(tokenizer: Tokenizer) -> Model:
    return made(tokenizer, source="audio", mel_bins=20, source_context=50, position="learned")


def test_the_target_begins_with_the_token_that_all_begin_with(tokenizer: Tokenizer):
    model = made(tokenizer, start_id=7)
    assert model.ids("cat").tolist() == [[7, *tokenizer.encode("cat")]]
    assert model.ids("").tolist() == [[7]]
    assert model.source_ids("cat").tolist() == [tokenizer.encode("cat")]


def test_without_a_source_there_is_no_answer(tokenizer: Tokenizer):
    model = made(tokenizer)
    with pytest.raises(InputError, match="give the source"):
        model.logits(TEXT)
    network = model.network
    assert isinstance(network, Seq2Seq)
    with pytest.raises(InputError, match="give the source"):
        model.logits(TEXT, source=TEXT, cache=network.new_cache(model.source_ids(TEXT)))
    with pytest.raises(InputError, match="the text is empty"):
        model.generate("")
    for analysis in (ledger, surprisal):
        with pytest.raises(ConfigError, match="is an encoder–decoder"):
            analysis(model, TEXT)


def test_a_source_is_for_encoder_decoders(tokenizer: Tokenizer):
    decoder = Model(build_network(DecoderConfig(tokenizer.vocab_size, 16, 1, 16, 1)), tokenizer, "a decoder")
    with pytest.raises(ConfigError, match="a decoder is another network"):
        decoder.logits("cat", source="cat")
    with pytest.raises(ConfigError, match="give this model its text as the prompt"):
        decoder.generate("cat", target="a")


def test_relative_positions_have_no_end_and_others_say_so(tokenizer: Tokenizer):
    long = "the cat " * 20
    assert made(tokenizer).logits(long, source=long).shape[1] == 161
    assert len(made(tokenizer).generate(long, max_new_tokens=60, temperature=0).ids) <= 60
    for position in ("learned", "sinusoidal"):
        model = made(tokenizer, position=position, source_context=90)
        with pytest.raises(InputError, match="a source of 160 tokens was given, but this model takes 90"):
            model.logits("cat", source=long)
        with pytest.raises(InputError, match="a target of 161 tokens was given, but this model takes 40"):
            model.logits(long, source="cat")
        with pytest.raises(InputError, match="the target begins with 40 tokens, but this model writes 40"):
            model.generate("cat", target=[1] * 39)
        written = model.generate("cat", temperature=0, max_new_tokens=100)
        assert len(written.ids) == 39
        assert written.finish_reason == "length"


def test_several_sources_and_streaming(tokenizer: Tokenizer):
    model = made(tokenizer)
    both = model.generate(["the cat", "a mat"], max_new_tokens=8, seed=3)
    assert both[0] == model.generate("the cat", max_new_tokens=8, seed=3)
    assert both[1] == model.generate("a mat", max_new_tokens=8, seed=4)
    assert both[0].ids != both[1].ids


def test_recording_knows_what_was_read(tokenizer: Tokenizer):
    model = made(tokenizer)
    recording = record(model, TEXT, "layers.*.cross_attn.pattern", source="a mat")
    assert recording.source is not None
    assert recording.source.shape == (1, 5)
    assert recording["layers.1.cross_attn.pattern"].shape == (1, 3, 23, 5)
    edited = replace(model, TEXT, {"encoder.embed": lambda x: 0 * x}, source="a mat")
    assert edited.receipt.difference > 1e-3


def test_a_network_may_be_trained(tokenizer: Tokenizer):
    """Every parameter has a gradient, in bfloat16 too."""
    for dtype in (torch.float32, torch.bfloat16):
        network = made(tokenizer, logit_bias=True, attention_bias=True, embed_norm=True).network.to(dtype).train()
        ids = torch.randint(0, 20, (2, 9))
        network(ids, source=ids[:, :7], mask=ids > 2).float().logsumexp(-1).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            if not name.endswith("k_proj.bias"):  # a softmax does not see what all keys share
                assert parameter.grad.abs().max() > 0, name


def test_distances_fall_into_the_published_buckets():
    """32 buckets up to 128, as T5 has them: near distances alone, far ones by their logarithm."""
    distances = torch.tensor([[0, -1, -15, -16, -31, -127, -128, -10_000, 5]])
    assert relative_buckets(distances, 32, 128, both_sides=False).tolist() == [[0, 1, 15, 16, 21, 31, 31, 31, 0]]
    distances = torch.tensor([[0, -7, -8, -16, -32, -64, -128, 1, 8, 127]])
    assert relative_buckets(distances, 32, 128, both_sides=True).tolist() == [[0, 7, 8, 10, 12, 14, 15, 17, 24, 31]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 25}, "not a multiple of heads"),
        ({"encoder_heads": 5}, "must be a multiple of encoder_heads"),
        ({"relative_buckets": 7}, "must be even"),
        ({"relative_distance": 16}, "larger than half"),
        ({"start_id": 300}, "start_id must lie in 0"),
        ({"encoder_layers": -1}, "must not be negative"),
        ({"mel_bins": 0}, "must be at least 1"),
        ({"source_context": 2**40}, "builds networks with up to"),
    ],
)
def test_numbers_that_do_not_fit_are_named(fields: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        config(**fields)


# sound


def test_sound_comes_as_a_file_as_samples_or_as_spectrograms(tokenizer: Tokenizer, tmp_path: Path):
    mel = MelConfig(feature_size=20, chunk_length=1)
    model = listener(tokenizer)
    model.mel = mel
    samples = np.sin(np.arange(16_000) / 20).astype(np.float32) / 2
    soundfile.write(tmp_path / "tone.wav", samples, 16_000, subtype="FLOAT")
    spectrogram = torch.from_numpy(log_mel(samples, mel))[None]
    assert spectrogram.shape == (1, 20, 100)
    expected = model.logits("cat", source=spectrogram)
    for source in (samples, tmp_path / "tone.wav"):
        assert torch.equal(model.logits("cat", source=source), expected)
        assert model.generate(source, temperature=0, max_new_tokens=5).ids
    assert model.generate(samples, max_new_tokens=2).prompt == "sound (16000,)"


def test_what_is_no_sound_is_refused(tokenizer: Tokenizer, tmp_path: Path):
    model = listener(tokenizer)
    for wrong in ("some text", [1, 2, 3]):
        with pytest.raises(InputError, match="this model listens"):
            model.logits("cat", source=wrong)
    with pytest.raises(InputError, match="spectrograms of 20 mel bins and no mask, but 21 bins"):
        model.logits("cat", source=torch.zeros(1, 21, 10))
    with pytest.raises(InputError, match="a source of 51 tokens"):
        model.logits("cat", source=torch.zeros(1, 20, 101))
    with pytest.raises(InputError, match="reads text or token ids"):
        made(tokenizer).logits("cat", source=tmp_path)
    network = model.network
    assert isinstance(network, Seq2Seq)
    with pytest.raises(InputError, match=r"this model reads spectrograms .* but int64 \(1, 4\) was given"):
        network.encode(torch.zeros(1, 4, dtype=torch.int64))


def test_how_it_listens_is_kept(tokenizer: Tokenizer, tmp_path: Path):
    for form in ("cutaway", "huggingface"):  # with Whisper's features, so that a family expresses it
        model = made(tokenizer, **WHISPER)
        model.mel = MelConfig(feature_size=20, chunk_length=3)
        again = load_model(save_model(model, tmp_path / form, form))
        assert again.mel == model.mel
        spectrogram = torch.zeros(1, 20, 30)
        assert torch.equal(again.logits("cat", source=spectrogram), model.logits("cat", source=spectrogram))
    (tmp_path / "cutaway" / "manifest.json").unlink(missing_ok=True)
    (tmp_path / "cutaway" / "preprocessor_config.json").write_text("[]")
    with pytest.raises(DamagedFile, match="must hold a JSON object"):
        load_model(tmp_path / "cutaway")
