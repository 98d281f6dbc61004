"""Sound: features against transformers and against what theory says of a tone; files against soundfile and soxr."""

import contextlib
import io
import itertools
import os
import random
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from cutaway.errors import ConfigError, DamagedFile, InputError, MissingExtra, NonFinite
from cutaway.files import read_json
from cutaway.text import audio
from cutaway.text.audio import MelConfig, cut_at_pauses, log_mel, mel_config, mel_filters, published, read_audio

RATE = 16_000
TIME = np.arange(12 * RATE) / RATE
RANDOM = np.random.default_rng(0)
SOUNDS = {
    "noise": RANDOM.standard_normal(5 * RATE) * 0.1,
    "thirty seconds": RANDOM.uniform(-1, 1, 30 * RATE),
    "longer": RANDOM.standard_normal(40 * RATE) * 0.1,
    "quiet": RANDOM.standard_normal(50_000) * 1e-4,
    "short": RANDOM.standard_normal(37) * 0.2,
    "one sample": np.array([0.5]),
    "silence": np.zeros(RATE),
    "click": np.eye(1, RATE, 8000)[0],
    "constant": np.full(30 * RATE, 0.3),
    "voice": sum(0.3 / k * np.sin(2 * np.pi * 120 * k * TIME) for k in range(1, 30)) * (np.sin(20 * TIME) > 0),
    "tone": 0.5 * np.sin(2 * np.pi * 1234 * TIME),
    "chirp": 0.3 * np.sin(2 * np.pi * (100 * TIME + 300 * TIME**2)),
}
FORMATS = {
    "pcm.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "wide.wav": ("WAVEX", "PCM_24"),
    "lossless.flac": ("FLAC", "PCM_16"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "opus.ogg": ("OGG", "OPUS"),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III"),
}
WHISPER_TINY = {
    "chunk_length": 30,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 80,
    "hop_length": 160,
    "mel_filters": [[0.0, 0.02486259490251541], [0.0, 0.001990821911022067]],  # the first numbers
    "n_fft": 400,
    "n_samples": 480_000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "WhisperProcessor",
    "return_attention_mask": False,
    "sampling_rate": 16_000,
}


def theirs(config: MelConfig) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(**published(config))


def by_numpy(sound: np.ndarray, config: MelConfig) -> np.ndarray:
    """What transformers computes where torch is not installed."""
    chunk = np.full(config.samples, config.padding_value, np.float32)
    chunk[: len(sound)] = sound[: len(chunk)]
    return theirs(config)._np_extract_fbank_features(chunk[None], "cpu")[0]


def by_torch(sound: np.ndarray, config: MelConfig) -> np.ndarray:
    """What transformers computes where torch is installed."""
    return np.asarray(theirs(config)(sound, sampling_rate=config.sampling_rate)["input_features"][0])


class TestFeatures:
    @pytest.mark.parametrize("bins", [80, 128])
    @pytest.mark.parametrize("name", SOUNDS)
    def test_equal_transformers(self, name: str, bins: int):
        sound, config = SOUNDS[name].astype(np.float32), MelConfig(feature_size=bins)
        ours = log_mel(sound, config)
        assert ours.shape == (bins, 3000)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, by_numpy(sound, config), rtol=0, atol=3e-7)
        # Its torch path computes in float32, which is off by up to 6e-5 where a band is 1e-8 as strong as the strongest
        difference = np.abs(ours - by_torch(sound, config))
        assert difference.max() <= 1e-4
        assert (difference <= 1e-5).mean() >= (0.98 if name in ("tone", "chirp") else 0.9999)

    @pytest.mark.parametrize("name", SOUNDS)
    def test_equal_the_same_steps_in_torch_in_float64(self, name: str):
        sound = torch.from_numpy(SOUNDS[name].astype(np.float32)).double()[: 30 * RATE]
        window = torch.hann_window(400, dtype=torch.float64)
        chunk = torch.nn.functional.pad(sound, (0, 30 * RATE - len(sound)))
        power = torch.stft(chunk, 400, 160, window=window, return_complex=True)[:, :-1].abs() ** 2
        bank = mel_filter_bank(201, 80, 0.0, 8000.0, RATE, "slaney", "slaney")
        level = (torch.from_numpy(bank).T @ power).clamp(min=1e-10).log10()
        expected = (level.clamp(min=level.max().item() - 8) + 4) / 4
        np.testing.assert_allclose(log_mel(SOUNDS[name]), expected.numpy(), rtol=0, atol=3e-7)

    @pytest.mark.parametrize(
        "config",
        [
            MelConfig(chunk_length=8),
            MelConfig(feature_size=40, n_fft=512, hop_length=200, chunk_length=3),
            MelConfig(hop_length=161, chunk_length=2, padding_value=0.25),  # the hop does not divide the chunk
            MelConfig(sampling_rate=22_050, n_fft=1024, hop_length=256, chunk_length=5),
        ],
    )
    def test_every_key_means_what_it_means_there(self, config: MelConfig):
        sound = SOUNDS["noise"].astype(np.float32)[: 3 * RATE]
        ours = log_mel(sound, config)
        assert ours.shape == (config.feature_size, config.frames)
        np.testing.assert_allclose(ours, by_numpy(sound, config), rtol=0, atol=3e-7)
        np.testing.assert_allclose(ours, by_torch(sound, config), rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        "config",
        [
            MelConfig(),
            MelConfig(feature_size=128),
            MelConfig(feature_size=23),
            MelConfig(sampling_rate=22_050, n_fft=1024),
            MelConfig(sampling_rate=48_000, n_fft=2048, hop_length=480),
        ],
    )
    def test_filters_equal_transformers(self, config: MelConfig):
        bank = mel_filter_bank(
            config.n_fft // 2 + 1, config.feature_size, 0.0, 8000.0, config.sampling_rate, "slaney", "slaney"
        )
        np.testing.assert_allclose(mel_filters(config).T, bank, rtol=0, atol=1e-14)

    def test_each_filter_has_area_one(self):
        filters = mel_filters(MelConfig(n_fft=RATE, hop_length=RATE))  # its frequencies are 1 Hz apart
        np.testing.assert_allclose(filters.sum(axis=1), 1, atol=2e-3)
        assert MelConfig().frames == 3000

    @pytest.mark.parametrize("amplitude", [1.0, 0.01])
    @pytest.mark.parametrize("frequency", [120, 440, 1000, 2520, 4000, 7480])
    def test_a_tone_lies_in_the_band_that_holds_its_frequency(self, frequency: int, amplitude: float):
        """A tone of amplitude A on a frequency of the transform: A N / 4 there, half of that on either side."""
        config = MelConfig()
        features = log_mel((amplitude * np.sin(2 * np.pi * frequency * TIME)).astype(np.float32), config)[:, 100:1000]
        mel = np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), config.feature_size + 2)
        place = frequency * 3 / 200 if frequency < 1000 else 15 + 27 * np.log(frequency / 1000) / np.log(6.4)
        loudest = features.argmax(axis=0)
        assert (mel[loudest] < place).all()
        assert (place < mel[loudest + 2]).all()

        power, line = np.zeros(config.n_fft // 2 + 1), frequency * config.n_fft // RATE
        power[line - 1 : line + 2] = (amplitude * config.n_fft / np.array([8, 4, 8])) ** 2
        level = np.log10(np.maximum(mel_filters(config) @ power, 1e-10))
        expected = (np.maximum(level, level.max() - 8) + 4) / 4
        # float32 samples round at 1e-8 of the tone, the floor is at 1e-4 of it
        np.testing.assert_allclose(features, np.repeat(expected[:, None], 900, axis=1), atol=2e-3)
        np.testing.assert_allclose(features.max(axis=0), expected.max(), atol=1e-6)

    def test_silence_is_at_the_floor(self):
        assert (log_mel(np.zeros(100, np.float32)) == -1.5).all()
        assert (log_mel(np.zeros(0, np.float32)) == -1.5).all()

    def test_what_comes_after_the_chunk_is_cut(self):
        sound = SOUNDS["longer"]
        assert np.array_equal(log_mel(sound), log_mel(sound[: 30 * RATE]))

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            (np.zeros((100, 2), np.float32), "average the channels"),
            (np.zeros(100, np.int16), "divide 16-bit integers by 32768"),
        ],
    )
    def test_wrong_samples_are_named(self, samples: np.ndarray, message: str):
        with pytest.raises(InputError, match=message):
            log_mel(samples)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
    def test_what_is_not_finite_is_refused(self, value: float):
        with pytest.raises(NonFinite, match="sample 7 "):
            log_mel(np.eye(1, 20, 7)[0] * value if np.isfinite(value) else np.where(np.arange(20) == 7, value, 0))


class TestConfig:
    def test_published_files_are_read(self):
        assert mel_config(WHISPER_TINY) == MelConfig()
        large = WHISPER_TINY | {"feature_size": 128, "dither": 0.0, "return_attention_mask": True, "padding_value": 0}
        assert mel_config(large) == MelConfig(feature_size=128)
        newer = {"feature_extractor": large, "processor_class": "WhisperProcessor"}
        assert mel_config(newer, "processor_config.json") == MelConfig(feature_size=128)

    @pytest.mark.parametrize("config", [MelConfig(), MelConfig(128, 22_050, 512, 200, 8, 0.25)])
    def test_what_is_written_is_read_there_and_here(self, config: MelConfig, tmp_path: Path):
        assert mel_config(published(config)) == config
        theirs(config).save_pretrained(tmp_path)
        assert mel_config(read_json(tmp_path / "preprocessor_config.json")) == config
        assert WhisperFeatureExtractor.from_pretrained(tmp_path).to_dict() == theirs(config).to_dict()
        assert published(config).items() >= theirs(config).to_dict().items()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"fmax": 4000}, "unknown MelConfig key in preprocessor_config.json 'fmax'"),
            ({"hop_lenght": 160}, "did you mean hop_length"),
            ({"dither": 0.001}, "dither = 0.001"),
            ({"padding_side": "left"}, "padding_side = 'left'"),
            ({"do_normalize": True}, "do_normalize = True"),
            ({"feature_extractor_type": "ClapFeatureExtractor"}, "ClapFeatureExtractor"),
            ({"chunk_length": 60}, "n_samples = 480000 .* contradicts .* 960000"),
            ({"nb_max_frames": 1500}, "nb_max_frames = 1500"),
            ({"feature_size": "80"}, "feature_size .* must be int"),
            ({"feature_size": True}, "feature_size .* must be int"),
            ({"feature_size": 0}, "feature_size must be at least 1"),
            ({"feature_size": 1 << 20}, "do not make a spectrogram"),
            ({"chunk_length": 10**9, "hop_length": 16 * 10**12}, "do not make a spectrogram"),
            ({"hop_length": -1}, "hop_length must be at least 1"),
            ({"hop_length": 480_001}, "do not make a spectrogram"),
            ({"hop_length": 1}, "do not make a spectrogram"),
            ({"chunk_length": 10**30}, "do not make a spectrogram"),
            ({"n_fft": 401}, "n_fft must be even"),
            ({"n_fft": 480_002}, "at most 480000"),
            ({"sampling_rate": 8000}, "at least 16000"),
            ({"padding_value": float("nan")}, "padding_value .*must be a finite number"),
            ({"padding_value": 1e300}, "padding_value must be"),
        ],
    )
    def test_what_is_not_understood_is_an_error_that_names_it(self, change: dict, message: str):
        with pytest.raises(ConfigError, match=message):
            mel_config(WHISPER_TINY | change)

    def test_unknown_keys_beside_the_features_are_named(self):
        with pytest.raises(ConfigError, match="image_processor"):
            mel_config({"feature_extractor": WHISPER_TINY, "image_processor": {}})

    def test_filters_between_two_frequencies_are_refused(self):
        with pytest.raises(ConfigError, match="so narrow"):
            log_mel(SOUNDS["short"], MelConfig(feature_size=400))


def write(path: Path, sound: np.ndarray, rate: int = RATE, kind: tuple[str, str] = ("WAV", "FLOAT")) -> Path:
    soundfile.write(path, sound, rate, format=kind[0], subtype=kind[1])
    return path


def steady(sound: np.ndarray) -> np.ndarray:
    """Without the edges, where a resampling filter sees the silence outside."""
    return sound[800:-800]


class TestReading:
    @pytest.mark.parametrize("name", FORMATS)
    def test_every_format_equals_soundfile(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        sound = SOUNDS["voice"][: 3 * RATE] * 0.3
        path = write(tmp_path / name, sound, kind=FORMATS[name])
        samples = read_audio(path)
        assert samples.dtype == np.float32
        np.testing.assert_allclose(samples, soundfile.read(path, dtype="float32")[0], rtol=0, atol=1e-7)
        error = {"float.wav": 1e-7, "wide.wav": 2e-7, "pcm.wav": 4e-5, "lossless.flac": 4e-5}
        assert name not in error or np.abs(samples - sound).max() <= error[name]
        assert np.corrcoef(samples, sound)[0, 1] > 0.99
        monkeypatch.setattr(audio, "_BLOCK", 1000)  # what is read does not depend on the blocks it is read in
        assert np.array_equal(samples, read_audio(path))

    def test_the_name_does_not_matter(self, tmp_path: Path):
        path = write(tmp_path / "a.wav", SOUNDS["short"])
        assert len(read_audio(path.rename(tmp_path / "recording.mp3"))) == 37
        with pytest.raises(InputError, match=r"such as \.wav"):
            read_audio((tmp_path / "recording.mp3").rename(tmp_path / "a.raw"))

    def test_channels_are_averaged(self, tmp_path: Path):
        left, right = SOUNDS["noise"], SOUNDS["tone"][: 5 * RATE]
        samples = read_audio(write(tmp_path / "a.wav", np.stack([left, right], axis=1)))
        np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-7)
        assert not read_audio(write(tmp_path / "b.wav", np.stack([left, -left], axis=1))).any()
        loud = np.full((100, 2), 3e38)  # their sum is more than float32 holds
        np.testing.assert_allclose(read_audio(write(tmp_path / "c.wav", loud)), 3e38, rtol=1e-6)

    @pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000])
    def test_other_rates_are_resampled(self, rate: int, tmp_path: Path):
        time = np.arange(5 * rate) / rate
        sound = 0.5 * np.sin(2 * np.pi * 1000 * time)
        path = write(tmp_path / "a.wav", sound, rate)
        samples = read_audio(path)
        assert len(samples) == 5 * RATE
        np.testing.assert_allclose(samples, soxr.resample(sound.astype(np.float32), rate, RATE), atol=1e-6)
        np.testing.assert_allclose(
            steady(samples), steady(0.5 * np.sin(2 * np.pi * 1000 * TIME[: 5 * RATE])), atol=1e-6
        )
        assert len(read_audio(path, 24_000)) == 5 * 24_000

    def test_what_the_new_rate_cannot_hold_is_filtered_out(self, tmp_path: Path):
        high = 0.5 * np.sin(2 * np.pi * 10_000 * np.arange(44_100) / 44_100)  # it would come back as 6 kHz
        assert np.abs(steady(read_audio(write(tmp_path / "a.wav", high, 44_100)))).max() < 1e-6

    def test_a_stereo_file_at_44_khz_has_the_features_of_its_tone(self, tmp_path: Path):
        time = np.arange(3 * 44_100) / 44_100
        tone = 0.5 * np.sin(2 * np.pi * 440 * time)
        path = write(tmp_path / "a.flac", np.stack([tone, tone], axis=1), 44_100, ("FLAC", "PCM_24"))
        direct = log_mel((0.5 * np.sin(2 * np.pi * 440 * TIME[: 3 * RATE])).astype(np.float32))
        loud = direct[:, 20:280] > direct.max() - 1.25  # within five powers of ten
        assert loud.any(axis=0).all()
        np.testing.assert_allclose(log_mel(read_audio(path))[:, 20:280][loud], direct[:, 20:280][loud], atol=1e-3)

    def test_streams_of_unknown_length_are_read(self, tmp_path: Path):
        sound = SOUNDS["noise"]
        flac = write(tmp_path / "a.flac", sound, kind=("FLAC", "PCM_16"))
        expected = read_audio(flac)
        flac.write_bytes(flac_of_length(flac.read_bytes(), 0))
        assert np.array_equal(read_audio(flac), expected)
        data = bytearray(write(tmp_path / "a.wav", sound, kind=("WAV", "PCM_16")).read_bytes())
        data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
        (tmp_path / "a.wav").write_bytes(data)
        assert len(read_audio(tmp_path / "a.wav")) == len(sound)


def flac_of_length(data: bytes, frames: int) -> bytes:
    """The file with another number of samples in its header: the last 36 bits of bytes 18 to 25 (RFC 9639, 8.2)."""
    kept = int.from_bytes(data[18:26], "big") >> 36 << 36
    return data[:18] + (kept | frames).to_bytes(8, "big") + data[26:]


class TestDamage:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "its first bytes are not those"),
            (b"This is text, not sound.", "its first bytes are not those"),
            ("Text in UTF-16".encode("utf-16"), "its first bytes are not those"),
            (b"\x89PNG\r\n\x1a\n" + bytes(100), "its first bytes are not those"),
            (b"RIFF\x10\0\0\0AVI LIST" + bytes(100), "is not a sound file that can be read"),
            (b"OggS" + bytes(1000), "is not a sound file that can be read"),
            (b"fLaC" + bytes(1000), "is not a sound file that can be read"),
            (b"ID3" + bytes(1000), "is not a sound file that can be read"),
            (b"MATLAB 5.0 MAT-file" + bytes(200), "its first bytes are not those"),  # libsndfile would try these, too
        ],
    )
    def test_what_is_no_sound_is_refused(self, content: bytes, message: str, tmp_path: Path):
        (tmp_path / "a.wav").write_bytes(content)
        with pytest.raises(DamagedFile, match=message):
            read_audio(tmp_path / "a.wav")

    def test_what_is_no_file_is_refused(self, tmp_path: Path):
        with pytest.raises(InputError, match="does not exist"):
            read_audio(tmp_path / "a.wav")
        with pytest.raises(InputError, match="is a folder"):
            read_audio(tmp_path)

    @pytest.mark.parametrize("kind", ["pcm.wav", "float.wav", "lossless.flac"])
    def test_a_file_that_is_cut_short_is_damaged(self, kind: str, tmp_path: Path):
        path = write(tmp_path / kind, SOUNDS["noise"], kind=FORMATS[kind])
        data = path.read_bytes()
        for length in (len(data) - 20, len(data) // 2, len(data) // 10, 100, 50):
            path.write_bytes(data[:length])
            with pytest.raises(DamagedFile, match=r"cut short|flac decoder|unknown format"):
                read_audio(path)

    def test_a_header_that_promises_more_is_damaged(self, tmp_path: Path):
        path = write(tmp_path / "a.flac", SOUNDS["noise"], kind=("FLAC", "PCM_16"))
        path.write_bytes(flac_of_length(path.read_bytes(), (1 << 36) - 1))
        with pytest.raises(DamagedFile, match="cut short: it holds 80,000 of 68,719,476,735"):
            read_audio(path)

    def test_a_file_without_samples_is_refused(self, tmp_path: Path):
        with pytest.raises(InputError, match="holds no sound"):
            read_audio(write(tmp_path / "a.wav", np.zeros(0)))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("rate", [RATE, 44_100])
    def test_samples_that_are_not_finite_are_refused(self, value: float, rate: int, tmp_path: Path):
        sound = np.zeros((rate, 2))
        sound[1000] = value, -value
        with pytest.raises(DamagedFile, match="no finite numbers"):
            read_audio(write(tmp_path / "a.wav", sound, rate))

    @pytest.mark.parametrize("name", FORMATS)
    def test_t5_mutated_sounds_are_read_or_refused(self, name: str, tmp_path: Path):
        """CUTAWAY_FUZZ says how many; make fuzz runs the full number."""
        memory = io.BytesIO()
        soundfile.write(memory, SOUNDS["noise"][:RATE], RATE, format=FORMATS[name][0], subtype=FORMATS[name][1])
        original, path, seed = memory.getvalue(), tmp_path / "mutated", random.Random(0)
        for _ in range(int(os.environ.get("CUTAWAY_FUZZ", "700")) // len(FORMATS)):
            data = bytearray(original)
            for _ in range(seed.randint(1, 6)):
                place = seed.randrange(min(len(data), 100) if seed.random() < 0.7 else len(data))
                change = seed.randrange(4)
                if change == 0:
                    data[place] = seed.randrange(256)
                elif change == 1:
                    data[place : place + 4] = struct.pack("<I", seed.choice([0, 1, 2**16, 2**31, 2**32 - 1]))
                elif change == 2:
                    del data[place : place + seed.randint(1, 40)]
                else:
                    data[place:place] = seed.randbytes(seed.randint(1, 16))
            path.write_bytes(data)
            with contextlib.suppress(InputError, DamagedFile):
                samples = read_audio(path, longest=10)
                assert 0 < len(samples) <= 10 * RATE + 1
                assert np.isfinite(samples).all()


class TestLimits:
    @pytest.mark.parametrize("name", ["lossless.flac", "unknown length.flac", "opus.ogg"])
    def test_t6_a_small_file_cannot_fill_the_memory(self, name: str, tmp_path: Path):
        """CVE-2026-54233: 25 MB of Opus became 15 GB. Silence packs best."""
        path, kind = tmp_path / name, ("OGG", "OPUS") if name == "opus.ogg" else ("FLAC", "PCM_16")
        with soundfile.SoundFile(path, "w", 48_000, 2, kind[1], format=kind[0]) as file:
            for _ in range(120):
                file.write(np.zeros((48_000, 2), np.int16))
        if name == "unknown length.flac":
            path.write_bytes(flac_of_length(path.read_bytes(), 0))
        whole = 120 * 48_000 * 2 * 4
        assert path.stat().st_size < whole / 200
        tracemalloc.start()
        with pytest.raises(InputError, match="longer than the 10 seconds"):
            read_audio(path, longest=10)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * RATE * 4 + 6 * audio._BLOCK * 2 * 4 < whole / 10
        assert len(read_audio(path, longest=120)) == 120 * RATE

    def test_t6_an_hour_is_the_limit_unless_more_is_asked_for(self, tmp_path: Path):
        path = tmp_path / "bomb.flac"
        with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16", format="FLAC") as file:
            for _ in range(3601):
                file.write(np.zeros(8000, np.int16))
        with pytest.raises(InputError, match="longer than the 3600 seconds"):
            read_audio(path, 8000)
        assert len(read_audio(path, 8000, longest=4000)) == 3601 * 8000

    def test_t6_channels_rates_and_numbers_have_limits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        wide = write(tmp_path / "wide.wav", np.zeros((100, 17)))
        with pytest.raises(InputError, match="17 channels"):
            read_audio(wide)
        for rate in (1, 999, 384_001, 2**31 - 1):
            with pytest.raises(InputError, match=f"at {rate} Hz"):
                read_audio(write(tmp_path / "rate.wav", np.zeros(100), rate))
        monkeypatch.setattr(audio, "_NUMBERS", 1000)
        path = write(tmp_path / "a.wav", np.zeros((501, 2)))
        with pytest.raises(InputError, match="1,000 numbers"):
            read_audio(path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rate": 0}, "rate"),
            ({"rate": 10**9}, "rate"),
            ({"longest": 0}, "longest"),
            ({"longest": np.nan}, "longest"),
        ],
    )
    def test_wrong_options_are_named(self, options: dict, message: str, tmp_path: Path):
        with pytest.raises(ConfigError, match=f"{message} must be"):
            read_audio(write(tmp_path / "a.wav", SOUNDS["short"]), **options)


class TestContent:
    """A file's content, where there is no file."""

    @pytest.mark.parametrize(
        ("suffix", "options"), [("wav", {}), ("flac", {}), ("ogg", {"subtype": "OPUS"}), ("mp3", {})]
    )
    def test_is_read_as_the_file(self, suffix: str, options: dict, tmp_path: Path):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, SOUNDS["noise"], 48_000, **options)
        assert np.array_equal(read_audio(path.read_bytes()), read_audio(path))

    def test_damage_and_limits_are_told_without_a_path(self, tmp_path: Path):
        whole = write(tmp_path / "a.wav", SOUNDS["noise"]).read_bytes()
        for content, error, message in (
            (whole[:-100], DamagedFile, "the recording is cut short"),
            (b"", DamagedFile, "the recording is not a sound file"),
            (b"fLaC" + bytes(99), DamagedFile, "the recording is not a sound file"),
        ):
            with pytest.raises(error, match=message):
                read_audio(content)
        with pytest.raises(InputError, match=r"the recording is longer than the 0\.1 seconds"):
            read_audio(whole, longest=0.1)


class TestParts:
    def test_a_recording_is_cut_where_it_is_quiet(self):
        loud = np.random.default_rng(0).normal(size=10 * RATE).astype(np.float32)
        for second in (1.8, 3.6, 5.3):  # pauses of a fifth of a second
            loud[int(second * RATE) : int((second + 0.2) * RATE)] *= 0.01
        parts = cut_at_pauses(loud, 2 * RATE, RATE)
        assert parts[0][0] == 0
        assert parts[-1][1] == len(loud)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
        assert all(2 * RATE * 5 // 6 <= end - begin <= 2 * RATE for begin, end in parts[:-1])
        assert 1.8 * RATE < parts[0][1] < 2.0 * RATE
        assert 3.6 * RATE < parts[1][1] < 3.8 * RATE

    @pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 1000])
    def test_every_sample_is_in_one_part(self, length: int):
        parts = cut_at_pauses(np.zeros(length, np.float32), 100, RATE)
        assert [i for begin, end in parts for i in range(begin, end)] == list(range(length))
        assert all(end - begin <= 100 for begin, end in parts)


class TestExtra:
    @pytest.mark.parametrize("library", ["soundfile", "soxr"])
    def test_a_missing_library_names_its_command(self, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path = write(tmp_path / "a.wav", SOUNDS["noise"], 8000)
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(MissingExtra, match=rf"{library}.*pip install 'cutaway\[audio\]'"):
            read_audio(path)

    def test_neither_torch_nor_a_decoder_is_loaded_before_it_is_needed(self):
        work = "import sys, cutaway.text.audio as audio; audio.log_mel(audio.np.zeros(9)); "
        code = work + "print({'torch', 'soundfile', 'soxr'} & {*sys.modules})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"
