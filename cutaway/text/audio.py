"""Sound: a file -> samples -> the log-mel spectrogram that Whisper listens to.

`read_audio` decodes a file, block by block and within limits; `log_mel` computes the features of Radford et al. 2022
(arXiv:2212.04356, section 2.2), as the checkpoints' `preprocessor_config.json` asks for them (`MelConfig`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from cutaway.errors import ConfigError, DamagedFile, InputError, NonFinite, need
from cutaway.settings import build, to_dict
from cutaway.text.readers.streams import os_errors

LONGEST = 3600.0  # seconds; at 16 kHz an hour is 230 MB

# What a file may unfold to (CVE-2026-54233: 25 MB of Opus became 15 GB), with `longest`, which bounds what is returned.
_CHANNELS = 16
_RATES = (1_000, 384_000)  # Hz
_NUMBERS = 1 << 31  # decoded numbers, of all channels together
_BLOCK = 1 << 16  # frames that are decoded at a time
_UNKNOWN = (1 << 63) - 1  # libsndfile's number of frames where the header does not say

_HIGHEST = 8_000.0  # Hz, where the highest mel filter ends, whatever the sampling rate
_FLOOR = 1e-10  # the power of what is taken for silence
_RANGE = 8.0  # what lies more than this many powers of ten below the loudest is raised to there
_LARGEST = 1 << 26  # numbers in what a config asks for: half a gigabyte


# reading


def read_audio(
    source: str | Path | bytes, rate: int = 16_000, *, longest: float = LONGEST
) -> Float32[np.ndarray, " samples"]:
    """The sound of a WAV, FLAC, Ogg (Vorbis or Opus) or MP3 file: mono, at the rate asked for.

    Channels are averaged. A WAV file that is shorter than its header says, and a FLAC file that breaks off, are
    damaged; Ogg and MP3 files do not say reliably how long they are, and are read as far as they go.

    Args:
        source: the path of the file, or its content; what it is shows in its first bytes, not in its name.
        rate: samples per second of the result.
        longest: seconds. The limits hold while decoding, so a small file cannot fill the memory.

    Returns:
        Samples, mostly within -1 ... 1.

    Raises:
        InputError: there is no such file, it holds no sound, or it is longer, wider or faster than the limits.
        DamagedFile: it is no sound file of these formats, or a damaged one.
        ConfigError: a rate or length that is none.
        MissingExtra: soundfile or soxr is not installed.
    """
    low, high = _RATES
    if not low <= rate <= high:
        raise ConfigError(f"rate must be from {low} to {high} Hz, but {rate!r} was given")
    if not longest > 0:
        raise ConfigError(f"longest must be a number of seconds above 0, but {longest!r} was given")
    soundfile = need("soundfile", "audio", "reading sound")
    if isinstance(source, bytes):
        name, file = "the recording", BytesIO(source)
        _check_start(name, source[:12], len(source))
    else:
        path = Path(source)
        name = file = str(path)
        with os_errors(name):
            _check_file(path)
    try:
        with soundfile.SoundFile(file) as sound:
            blocks = [*_resampled(_mono(sound, name, longest), sound.samplerate, rate)]
    except soundfile.SoundFileError as error:
        reason = getattr(error, "error_string", str(error)).removeprefix("Error : ")
        raise DamagedFile(f"{name} is not a sound file that can be read ({reason.rstrip('.')})") from error
    samples = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
    if not samples.size:
        raise InputError(f"{name} holds no sound: it has a header and no samples")
    if not np.isfinite(samples).all():
        raise DamagedFile(f"{name} holds samples that are no finite numbers; export it again, as 16-bit PCM")
    return samples


def _check_file(path: Path) -> None:
    """As `_check_start`, of a file."""
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; a sound file was expected")
    with path.open("rb") as file:
        _check_start(str(path), file.read(12), path.stat().st_size)
    if path.suffix.lower() == ".raw":  # soundfile believes the name, and asks for what a header would say
        raise InputError(f"{path} is named as sound without a header; give it the name of what it is, such as .wav")


def _check_start(name: str, start: bytes, size: int) -> None:
    """Refuse what is none of the four formats before a decoder sees it, and WAV files that are cut short."""
    layer3 = len(start) > 1 and start[0] == 0xFF and start[1] & 0xE6 == 0xE2  # an MP3 frame; others begin with a tag
    if not layer3 and not start.startswith((b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3")):
        raise DamagedFile(f"{name} is not a sound file: its first bytes are not those of WAV, FLAC, Ogg or MP3")
    claimed = int.from_bytes(start[4:8], "little")  # some count the 8 bytes before, too
    streamed = 0x7FFF0000  # who writes into a pipe does not know the size, and writes about 2 or 4 GB
    if start[:4] == b"RIFF" and size < claimed < streamed:
        raise DamagedFile(f"{name} is cut short: it holds {size:,} of {claimed + 8:,} bytes; fetch it again")


def _mono(sound: Any, name: str, longest: float) -> Iterator[Float32[np.ndarray, " block"]]:
    """The average of the channels, block by block, until a limit is reached."""
    low, high = _RATES
    if sound.channels > _CHANNELS or not low <= sound.samplerate <= high:
        raise InputError(
            f"{name} has {sound.channels} channels at {sound.samplerate} Hz; at most {_CHANNELS} channels at {low} to "
            f"{high} Hz are read"
        )
    # soundfile seeks after every block of a seekable file: MP3 then loses what the frames before would have added,
    # and a FLAC stream of unknown length cannot seek at all
    sound.seekable = lambda: False
    frames = 0
    while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
        frames += len(block)
        if frames > longest * sound.samplerate or frames * sound.channels > _NUMBERS:
            raise InputError(
                f"{name} is longer than the {longest:g} seconds, or the {_NUMBERS:,} numbers of all channels, that are "
                "read; divide it, or give a larger longest="
            )
        with np.errstate(invalid="ignore"):  # what is not finite is told of at the end
            yield block.mean(axis=1, dtype=np.float64).astype(np.float32)
    if sound.format == "FLAC" and frames < sound.frames < _UNKNOWN:
        raise DamagedFile(f"{name} is cut short: it holds {frames:,} of {sound.frames:,} samples; fetch it again")


def _resampled(
    blocks: Iterator[Float32[np.ndarray, " block"]], before: int, after: int
) -> Iterator[Float32[np.ndarray, " block"]]:
    """The same sound at another rate, by soxr's high-quality filter."""
    if before == after:
        yield from blocks
        return
    stream = need("soxr", "audio", "resampling sound").ResampleStream(before, after, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def cut_at_pauses(samples: Float32[np.ndarray, " samples"], most: int, rate: int) -> list[tuple[int, int]]:
    """Where a recording is cut in parts that a model hears at once: each in the quietest place of its last sixth.

    So fewer words are cut in two than at fixed times. What is short enough is one part.

    Args:
        samples: the recording.
        most: samples of a part.
        rate: samples per second.

    Returns:
        (first sample, the one behind the last) of each part, in order.
    """
    parts, begin, window = [], 0, max(1, rate // 10)  # a tenth of a second is about the shortest pause
    while len(samples) - begin > most:
        first = begin + most - most // 6
        tail = np.abs(samples[first : begin + most]).astype(np.float64)
        sums = np.cumsum(np.concatenate(([0.0], tail)))
        loud = sums[window:] - sums[:-window] if len(tail) >= window else sums[-1:]
        end = first + int(loud.argmin()) + min(window, len(tail)) // 2
        parts.append((begin, max(end, begin + 1)))
        begin = parts[-1][1]
    return [*parts, (begin, len(samples))]


# features

_IGNORED = {
    "mel_filters": "a table of what mel_filters computes",
    "return_attention_mask": "Whisper listens to the padding too",
    "processor_class": "which class of transformers puts features and tokenizer together",
    "auto_map": "names code in the checkpoint's own files, which Cutaway never runs",
}
_ONLY = {
    "feature_extractor_type": ("WhisperFeatureExtractor",),
    "padding_side": ("right",),
    "dither": (0.0,),  # it would add noise, so that no two runs agree
    "do_normalize": (False,),
}


@dataclass(frozen=True)
class MelConfig:
    """How samples become features; names and defaults are those of a Whisper checkpoint's preprocessor_config.json.

    Raises:
        ConfigError: numbers that do not fit each other.
    """

    feature_size: int = 80  # mel bins; large-v3 and later: 128
    sampling_rate: int = 16_000  # Hz
    n_fft: int = 400  # samples in a window
    hop_length: int = 160  # samples from one window to the next
    chunk_length: int = 30  # seconds; sound is padded or cut to this
    padding_value: float = 0.0  # the sample that is padded with

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "padding_value" and getattr(self, field.name) < 1:
                raise ConfigError(f"{field.name} must be at least 1, but {getattr(self, field.name)} was given")
        if self.n_fft % 2 or self.n_fft > self.samples:
            raise ConfigError(f"n_fft must be even and at most {self.samples} (the chunk), but {self.n_fft} was given")
        if self.sampling_rate < 2 * _HIGHEST:
            raise ConfigError(
                f"sampling_rate must be at least {2 * _HIGHEST:.0f}, as the mel filters reach up to {_HIGHEST:.0f} Hz, "
                f"but {self.sampling_rate} was given"
            )
        sizes = self.samples, self.frames * self.n_fft, self.feature_size * self.n_fft
        if not self.frames or max(sizes) > _LARGEST:
            raise ConfigError(
                f"feature_size = {self.feature_size}, n_fft = {self.n_fft}, hop_length = {self.hop_length} and "
                f"chunk_length = {self.chunk_length} do not make a spectrogram: it must have a frame, and the chunk, "
                f"its windows and the mel filters at most {_LARGEST:,} numbers each"
            )
        if not abs(self.padding_value) <= 1:
            raise ConfigError(f"padding_value must be a sample, within -1 ... 1, but {self.padding_value} was given")

    @property
    def samples(self) -> int:
        """Of one chunk."""
        return self.chunk_length * self.sampling_rate

    @property
    def frames(self) -> int:
        """Of one chunk's spectrogram."""
        return self.samples // self.hop_length


def mel_config(values: Mapping[str, Any], where: str = "preprocessor_config.json") -> MelConfig:
    """The config that a Whisper checkpoint publishes; every key of it is read, ignored for a reason, or an error.

    Args:
        values: the content of preprocessor_config.json; or of processor_config.json, which newer checkpoints have
            in its place, and which holds the same under "feature_extractor".
        where: what to call it in messages.

    Raises:
        ConfigError: a key or value that is not supported, named.
    """
    if isinstance(values.get("feature_extractor"), Mapping):
        beside = values.keys() - _IGNORED.keys() - {"feature_extractor"}
        if beside:
            raise ConfigError(f"{where} holds keys that Cutaway does not know: {', '.join(sorted(beside))}")
        values = values["feature_extractor"]
    for key, allowed in _ONLY.items():
        if values.get(key) is not None and values[key] not in allowed:
            raise ConfigError(f"{key} = {values[key]!r} in {where} is not supported; {key} can be {allowed[0]!r}")
    derived = {"n_samples": "samples", "nb_max_frames": "frames"}
    rest = values.keys() - _ONLY.keys() - _IGNORED.keys() - derived.keys()
    config = build(MelConfig, {key: values[key] for key in sorted(rest) if values[key] is not None}, where=where)
    for key, name in derived.items():
        if values.get(key) not in (None, getattr(config, name)):
            raise ConfigError(
                f"{key} = {values[key]!r} in {where} contradicts its other keys, which make it "
                f"{getattr(config, name)}; correct one of them"
            )
    return config


def published(config: MelConfig) -> dict[str, Any]:
    """The content of a preprocessor_config.json; `mel_config(published(config)) == config`."""
    return to_dict(config) | {
        "n_samples": config.samples,
        "nb_max_frames": config.frames,
        "padding_side": "right",
        "dither": 0.0,
        "return_attention_mask": False,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
    }


def mel_filters(config: MelConfig) -> Float64[np.ndarray, "mel_bins frequencies"]:
    """Triangles that overlap by half, evenly spaced on Slaney's mel scale, each with area 1 (in Hz).

    The scale is linear up to 1 kHz (15 mel) and logarithmic above, 27 mel for a factor of 6.4 (M. Slaney, Auditory
    Toolbox, Interval Research technical report 1998-010).

    Raises:
        ConfigError: so many filters that some lie between two of the transform's frequencies.
    """
    top = 15 + 27 * np.log(_HIGHEST / 1000) / np.log(6.4)
    mel = np.linspace(0, top, config.feature_size + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.arange(config.n_fft // 2 + 1) * (config.sampling_rate / config.n_fft)
    rise, fall = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    filters = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
    if not filters.any(axis=1).all():
        raise ConfigError(
            f"feature_size = {config.feature_size} makes mel filters so narrow that n_fft = {config.n_fft} has no "
            "frequency in some of them; fewer bins or a longer window are needed"
        )
    return filters


def log_mel(samples: np.ndarray, config: MelConfig = MelConfig()) -> Float32[np.ndarray, "mel_bins frames"]:
    """Whisper's features: how loud each band is at each time, on a logarithmic scale, about -1 ... 1.

    The sound is padded or cut to one chunk; the loudest point of the chunk sets the floor of all others, so features of
    one chunk cannot be joined from those of shorter pieces. Computed in float64.

    Args:
        samples: (samples,), floats within about -1 ... 1 at `config.sampling_rate`, as `read_audio` gives them.
        config: the checkpoint's.

    Returns:
        (config.feature_size, config.frames).

    Raises:
        InputError: not one dimension, or not floats.
        NonFinite: a sample is not a finite number.
    """
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"samples must be floats of shape (samples,), but {samples.dtype} of shape {samples.shape} was given; "
            "average the channels, and divide 16-bit integers by 32768"
        )
    chunk = np.full(config.samples, config.padding_value, np.float32)
    heard = samples[: config.samples]
    with np.errstate(over="ignore"):
        chunk[: len(heard)] = heard
    if not (finite := np.isfinite(chunk)).all():
        raise NonFinite(f"sample {int(finite.argmin())} of the sound is not a finite number")
    mirrored = np.pad(chunk.astype(np.float64), config.n_fft // 2, mode="reflect")  # a window's centre is its time
    frames = np.lib.stride_tricks.sliding_window_view(mirrored, config.n_fft)[:: config.hop_length][: config.frames]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)  # periodic
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    levels = np.log10(np.maximum(_FLOOR, mel_filters(config) @ power.T))
    return ((np.maximum(levels, levels.max() - _RANGE) + 4) / 4).astype(np.float32)
