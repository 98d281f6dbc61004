"""A small Whisper, saved by transformers, so that it says what it hears."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

RATE, SECONDS = 16_000, 2
LANGUAGES, JOBS = ("en", "de", "zh"), ("translate", "transcribe")
SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in LANGUAGES),
    *(f"<|{job}|>" for job in JOBS),
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]


def whisper(folder: Path, *, multilingual: bool = True) -> str:
    """A Whisper of random weights that hears two seconds at once; the folder's path."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["hello there, what is said here"] * 9, trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet)
    )
    tokenizer.add_special_tokens(SPECIAL)
    ids: dict[str, Any] = {name: tokenizer.token_to_id(name) for name in SPECIAL}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        num_mel_bins=20,
        max_source_positions=SECONDS * 50,
        max_target_positions=24,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    network = transformers.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    advice: dict[str, Any] = {"is_multilingual": multilingual, "no_timestamps_token_id": ids["<|notimestamps|>"]}
    advice |= {"lang_to_id": {f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES}} if multilingual else {}
    advice |= {"task_to_id": {job: ids[f"<|{job}|>"] for job in JOBS}} if multilingual else {}
    for name in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
        advice[name] = getattr(config, name)
    forbidden = [ids["<|startofprev|>"], ids["<|nospeech|>"], ids["<|startoftranscript|>"]]
    network.generation_config = transformers.GenerationConfig(
        **advice, suppress_tokens=forbidden, begin_suppress_tokens=[ids["<|endoftext|>"]], max_length=24
    )
    network.save_pretrained(folder)
    listens = {"feature_size": 20, "chunk_length": SECONDS, "feature_extractor_type": "WhisperFeatureExtractor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(listens), "utf-8")
    return str(folder)


def sound(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise that swells and fades, (samples,) float32."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (noise * (0.05 + 0.2 * np.sin(2 * np.pi * (0.7 + seed) * time) ** 2)).astype(np.float32)


def packed(samples: np.ndarray, form: str = "WAV", rate: int = RATE, **options: Any) -> bytes:
    """Samples as the content of a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, **options)
    return file.getvalue()
