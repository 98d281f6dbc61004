"""A network with its tokenizer: what `load_model` returns and every door of the house opens.

A model folder holds `model.json` (the network's config), `model.safetensors`, the tokenizer's files and a manifest of
checksums. A run folder (from training) holds checkpoints that are model folders with the optimiser's state beside them.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, DamagedFile, InputError, unknown
from cutaway.files import MANIFEST, atomic_folder, holds, inside, read_json, verify, write_json
from cutaway.models.assemble import Network
from cutaway.models.config import NetworkConfig, config_from_dict, config_to_dict
from cutaway.models.decoder import Decoder
from cutaway.models.encoder import Encoder
from cutaway.models.formats.gguf import read_gguf
from cutaway.models.formats.gguf_models import open_gguf, open_quantised, write_network
from cutaway.models.generation_config import GenerationConfig, read_generation, write_generation
from cutaway.models.gru import Recurrent
from cutaway.models.quantised import Blocks
from cutaway.models.quantised_file import read_weights, write_weights
from cutaway.models.seq2seq import Seq2Seq
from cutaway.models.tap import OFF, Tap
from cutaway.tokenizers import Tokenizer, load_tokenizer
from cutaway.tokenizers.frame import beginning, frame
from cutaway.tokenizers.from_gguf import tokenizer_from_gguf

if TYPE_CHECKING:
    from cutaway.generation import Generation
    from cutaway.models.adapters import Adapter
    from cutaway.models.formats.huggingface import Origin
    from cutaway.text.audio import MelConfig

NO_RECOMMENDATIONS = GenerationConfig()
MODEL_JSON, WEIGHTS = "model.json", "model.safetensors"
FORMATS = ("cutaway", "huggingface", "gguf")
GGUF_FILE, TOKENIZER = ".gguf", "tokenizer."
Source: TypeAlias = str | Sequence[int] | Tensor | Path | np.ndarray  # what an encoder–decoder is given to read
LISTENING = ("preprocessor_config.json", "processor_config.json")  # the newer name comes second, and holds the same
CHECKPOINTS = "checkpoints"  # inside a run folder: step-00001000, step-00002000 …


class Model:
    """A network and the tokenizer that it speaks through.

    Attributes:
        network: the torch module, `forward(ids, *, cache=None, tap=OFF)`.
        tokenizer: text <-> ids.
        source: where it came from, for messages and receipts.
        origin: the published form that it was read from, if any.
        mel: how a model that listens turns sound into spectrograms; None of others.
        generation: how its makers recommend to generate with it.
        engine: what generates with it, kept by `cutaway.generation` with the fingerprint of the weights that it is of.
        drafter: what guesses with it what another model will write, kept in the same way.
        adapter: what it has beside the weights of another, which it shares (`cutaway.models.adapters`); None: nothing.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        source: str = "",
        origin: Origin | None = None,
        mel: MelConfig | None = None,
        generation: GenerationConfig = NO_RECOMMENDATIONS,
    ) -> None:
        self.network, self.tokenizer, self.source, self.origin = network, tokenizer, source, origin
        self.generation = generation
        self.engine: Any = None
        self.drafter: Any = None
        self.adapter: Adapter | None = None
        if isinstance(network, Seq2Seq) and network.config.source == "audio":
            from cutaway.text.audio import MelConfig

            self.mel = mel or MelConfig(feature_size=network.config.mel_bins)
        else:
            self.mel = None

    @property
    def config(self) -> NetworkConfig:
        """The network's config."""
        return self.network.config

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes an engine of its own."""
        return self.__dict__ | {"engine": None, "drafter": None}

    def fingerprint(self) -> tuple[Any, ...]:
        """What differs after any weight was changed or another took its place; cheap, and of this process alone."""
        held: list[Tensor] = list(self.network.parameters())
        for module in self.network.modules():
            blocks = getattr(module, "blocks", None)
            if isinstance(blocks, Blocks):
                held.append(blocks.data)
        return id(self.network), *((id(t), t.data_ptr(), 0 if t.is_inference() else t._version) for t in held)

    def speaker(self, purpose: str) -> Decoder | Recurrent:
        """The network, as one that predicts the next token.

        Args:
            purpose: what that is needed for, as the beginning of a sentence.

        Raises:
            ConfigError: an encoder, which sees the tokens that it would predict; an encoder–decoder, whose predictions
                depend on a source; or a network with another head.
        """
        if isinstance(self.network, Decoder | Recurrent) and (head := self.network.config.head) != "causal_lm":
            kind = "decoder" if isinstance(self.network, Decoder) else "recurrent network"
            has = "no head" if head == "none" else f"a head for {head}"
            raise ConfigError(
                f"{purpose} needs a model that predicts the next token of a text, but {self.source or 'this'} is a "
                f"{kind} with {has}; record and replace read it"
            )
        if isinstance(self.network, Encoder | Seq2Seq):
            kind = "encoder" if isinstance(self.network, Encoder) else "encoder–decoder"
            raise ConfigError(
                f"{purpose} needs a model that predicts the next token of a text, but {self.source or 'this'} is an "
                f"{kind}; record and replace read it"
            )
        return self.network

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def ids(self, text: str | Sequence[int] | Tensor) -> Int[Tensor, "B T"]:
        """Text, a list of ids or a tensor of them as (B, T) int64 on the model's device.

        Text for an encoder, and for another network that does not predict the next token, gets the special tokens
        around it that its tokenizer's file states ([CLS] … [SEP]); text that a model goes on with gets only those
        before it (Llama 3's <|begin_of_text|>). Of an encoder–decoder this is the target, and its text gets the token
        that every target begins with. Ids are taken as they are.

        Raises:
            InputError: no tokens, or an id outside the vocabulary.
        """
        if isinstance(text, str):
            text = (self.tokenizer.target or self.tokenizer).encode(text)
            if text and not isinstance(self.network, Seq2Seq) and self.network.config.head != "causal_lm":
                text = frame(self.tokenizer, text)[0]
            elif isinstance(self.network, Seq2Seq):
                text = [self.network.config.start_id, *text]
            elif text:
                text = [*beginning(self.tokenizer), *text]
        return self._checked(text)

    def _checked(self, given: Sequence[int] | Tensor) -> Int[Tensor, "B T"]:
        try:
            ids = torch.as_tensor(given, device=self.device)
        except (ValueError, TypeError, RuntimeError, OverflowError):
            raise InputError("one text of token ids is needed here: a list of whole numbers") from None
        if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
            raise InputError(f"token ids must be whole numbers, but {str(ids.dtype).removeprefix('torch.')} was given")
        ids = ids.to(torch.int64)
        ids = ids[None] if ids.ndim == 1 else ids
        if ids.numel() == 0:
            raise InputError("the text is empty: give at least one character")
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise InputError(
                f"token ids must lie in 0 … {self.config.vocab_size - 1}, "
                f"but {int(ids.min())} … {int(ids.max())} was given"
            )
        return ids

    def source_ids(self, source: Source) -> Tensor:
        """What an encoder–decoder reads, on the model's device: (B, S) int64, or (B, M, F) spectrograms of sound.

        Args:
            source: text, which gets the special tokens that its tokenizer's file states, or ids; of sound the path of a
                file, samples, or spectrograms.

        Raises:
            ConfigError: the model reads no source.
            InputError: no tokens, an id outside the vocabulary, or text for a model that listens.
        """
        if not isinstance(self.network, Seq2Seq):
            raise ConfigError(f"a source is for an encoder–decoder, but {self.source or 'this'} is another network")
        if self.mel is not None:
            from cutaway.text.audio import log_mel, read_audio

            if isinstance(source, Path):
                source = read_audio(source, self.mel.sampling_rate)
            if isinstance(source, np.ndarray):
                source = torch.from_numpy(log_mel(source, self.mel))[None]
            if not isinstance(source, Tensor) or not source.is_floating_point():
                raise InputError(
                    "this model listens: give a Path of a sound file, samples as an array, or spectrograms as a "
                    f"tensor, but {type(source).__name__} was given"
                )
            return source.to(self.device)
        if isinstance(source, Path | np.ndarray):
            raise InputError(f"this model reads text or token ids, but {type(source).__name__} was given")
        if isinstance(source, str):
            source = frame(self.tokenizer, self.tokenizer.encode(source))[0]
        return self._checked(source)

    @torch.no_grad()
    def logits(
        self,
        text: str | Sequence[int] | Tensor,
        *,
        source: Source | None = None,
        cache: Any = None,
        tap: Tap = OFF,
    ) -> Float[Tensor, "B T V"]:
        """(B, T) int64 ids (or text) -> (B, T, V) float32 logits of the next token, without dropout.

        With another head it is what that makes, in the shape that `config_parts.HEADS` states. An encoder–decoder needs
        the source too, as `source_ids` takes it, unless a cache holds it.
        """
        given: dict[str, Any] = {} if cache is None else {"cache": cache}
        if source is not None:
            given["source"] = self.source_ids(source)
        training = self.network.training
        self.network.eval()
        try:
            return self.network(self.ids(text), **given, tap=tap).float()
        finally:
            self.network.train(training)

    @overload
    def generate(self, prompt: list[str] | tuple[str, ...], **options: Any) -> list[Generation]: ...
    @overload
    def generate(self, prompt: Source, **options: Any) -> Generation: ...
    def generate(self, prompt: Source | Sequence[str], **options: Any) -> Generation | list[Generation]:
        """Continue a prompt, or several; the options are those of `cutaway.generate`."""
        from cutaway.generation import generate  # the one convenience that reaches down the house

        return generate(self, cast(str, prompt), **options)


def write_model(model: Model, folder: Path) -> None:
    """Write the model's files into an existing folder (a checkpoint adds its own beside them)."""
    write_json(folder / MODEL_JSON, config_to_dict(model.config))
    write_weights(model.network, folder / WEIGHTS)
    model.tokenizer.save(folder)
    write_generation(model.generation, folder)
    write_listening(model, folder)


def write_listening(model: Model, folder: Path) -> None:
    """Write how a model that listens makes its spectrograms; nothing for others."""
    if model.mel is not None:
        from cutaway.text.audio import published

        write_json(folder / LISTENING[0], published(model.mel))


def read_listening(folder: Path) -> MelConfig | None:
    """How a folder's model makes its spectrograms, where a file says it."""
    from cutaway.text.audio import mel_config

    for name in LISTENING:
        if holds(folder, name):
            values = read_json(inside(folder, name))
            if not isinstance(values, dict):
                raise DamagedFile(f"{folder / name} must hold a JSON object")
            return mel_config(values, str(folder / name))
    return None


def save_model(
    model: Model,
    folder: str | Path,
    format: str = "cutaway",
    *,
    family: str | None = None,
    kind: str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write a model folder, whole or not at all.

    Args:
        model: what to write.
        folder: where to; for "gguf" it may be a file, x.gguf.
        format: "cutaway", or for other tools to open "huggingface" or "gguf".
        family: for "huggingface", the model_type to write it as, and for "gguf" the general.architecture; None: as it
            was read, or the first that can.
        kind: for "gguf", how matrices are stored: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q4_K or Q6_K; None: F16, and
            those of a quantised model as they are.
        note: for "gguf", told of every choice that was made, in a sentence each.

    Returns:
        The folder, or the file.

    Raises:
        ConfigError: no published family can express the model; names the features that stand in the way.
        NonFinite: for "gguf", a weight that the kind cannot hold.
        InputError: the disk is full or the place cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(unknown("format", str(format), FORMATS))
    if model.adapter is not None:
        raise ConfigError(
            "this model is an adapter beside another's weights; save the adapter alone (save_adapter), or make one "
            "model of both first (merge_adapter, cutaway convert --adapter)"
        )
    folder = Path(folder)
    if format == "gguf":
        from cutaway.tokenizers.to_gguf import tokenizer_to_gguf

        metadata = {"general.name": folder.stem} | tokenizer_to_gguf(model.tokenizer, model.config.vocab_size, note)

        def write(path: Path) -> None:
            write_network(model.network, path, kind, name=family, metadata=metadata, note=note)

        if folder.suffix == GGUF_FILE:
            write(folder)
        else:
            with atomic_folder(folder) as room:
                write(room / f"{folder.name}-{kind}{GGUF_FILE}")
        return folder
    with atomic_folder(folder) as room:
        if format == "cutaway":
            write_model(model, room)
        else:
            from cutaway.models.formats.huggingface import write_huggingface

            model.tokenizer.save(room)
            write_listening(model, room)
            roles = {"bos_token_id": model.tokenizer.begin_of_text, "eos_token_id": model.tokenizer.end_of_text}
            if isinstance(model.network, Seq2Seq):
                roles["pad_token_id"] = model.tokenizer.pad
            write_huggingface(model.network, room, family=family, origin=model.origin, extra=roles)
            fixed = model.origin is not None or isinstance(model.network, Encoder)
            roles["pad_token_id"] = model.tokenizer.pad
            write_generation(model.generation, room, roles={} if fixed else roles)
    return folder


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run folder, newest first, intact or not."""
    found = (p for p in (run / CHECKPOINTS).glob("step-*") if p.is_dir() and not p.is_symlink())
    return sorted(found, key=lambda p: p.name, reverse=True)


def step_of(checkpoint: Path) -> int | None:
    """The step of a checkpoint, told from its name; None: it is called otherwise."""
    number = checkpoint.name.removeprefix("step-")
    return int(number) if number.isascii() and number.isdigit() else None


def steps_of(run: Path) -> list[int]:
    """The steps of which a run holds a checkpoint, from first to last."""
    return sorted(step for path in checkpoints(run) if (step := step_of(path)) is not None)


def newest_intact(run: Path) -> Path:
    """The newest checkpoint whose every file matches its checksum.

    Raises:
        DamagedFile: there are checkpoints but none is intact; says what is wrong with the newest.
        InputError: there is none.
    """
    reasons = []
    for folder in checkpoints(run):
        try:
            verify(folder)
            return folder
        except DamagedFile as error:
            reasons.append(str(error))
    if reasons:
        raise DamagedFile(f"no intact checkpoint in {run}: {reasons[0]}")
    raise InputError(f"{run} holds no checkpoint yet; train for longer, or give a model folder or another run")


def load_model(source: str | Path, *, dtype: torch.dtype | None = None, quantised: bool | None = None) -> Model:
    """Open a model folder, a run (its newest intact checkpoint), a Hugging Face folder or hub name, or a GGUF file.

    Args:
        source: the folder or the .gguf file; or owner/name, which is fetched from the hub or found in its cache.
        dtype: of the weights; None: as they are stored (float16 and quantised ones become float32).
        quantised: whether matrices that are stored as blocks stay so, and are dequantised whenever they are used:
            memory for time. It computes the same, but cannot be trained. None: those of a GGUF file are dequantised,
            those of a folder that `cutaway quantize` made are kept. What holds no blocks opens as it always does.

    Raises:
        InputError: no such folder, or it holds no model; or its weights do not fit into the memory that is free.
        DamagedFile: a file does not match its checksum, or tensors are missing, left over or misshapen.
        ConfigError: the config holds a key or value that this version does not know.
    """
    path = Path(source)
    if not path.exists():
        from cutaway.models.hub import fetch, is_repository

        if not is_repository(str(source)):
            raise InputError(
                f"{path} does not exist; give a run folder that cutaway train made, a model folder, or a name on the "
                "Hugging Face hub (owner/name)"
            )
        path = fetch(str(source))
    if path.is_file():
        return _load_gguf(path, source, dtype, quantised)
    from cutaway.models.formats.huggingface import CONFIG, open_huggingface  # a GGUF file needs no families of these

    if not any((path / name).exists() for name in (MODEL_JSON, CONFIG, CHECKPOINTS)):
        found = sorted(path.glob(f"*{GGUF_FILE}"))
        if len(found) > 1:
            raise InputError(f"{path} holds {len(found)} GGUF files; give one of them, such as {found[0]}")
        if found:
            return _load_gguf(found[0], source, dtype, quantised)
    folder = path
    if not (path / MODEL_JSON).is_file():
        if (path / CONFIG).is_file() and not (path / CHECKPOINTS).is_dir():
            network, origin = open_huggingface(path, dtype)
            mel = read_listening(path) if getattr(network.config, "source", "") == "audio" else None
            return Model(network, load_tokenizer(path), str(source), origin, mel, read_generation(path))
        if not (path / CHECKPOINTS).is_dir():
            raise InputError(
                f"{path} is neither a model folder (no {MODEL_JSON}), nor a run folder (no {CHECKPOINTS}/), "
                f"nor a Hugging Face folder (no {CONFIG})"
            )
        folder = newest_intact(path)
    elif holds(folder, MANIFEST):
        verify(folder)
    config = config_from_dict(read_json(inside(folder, MODEL_JSON)), where=str(folder / MODEL_JSON))
    network = read_weights(config, inside(folder, WEIGHTS), dtype, keep=quantised is not False)
    mel = read_listening(folder) if getattr(config, "source", "") == "audio" else None
    return Model(network, load_tokenizer(folder), str(source), mel=mel, generation=read_generation(folder))


def _load_gguf(path: Path, source: str | Path, dtype: torch.dtype | None, quantised: bool | None) -> Model:
    if path.suffix != GGUF_FILE:
        raise InputError(f"{path} is a file, but no {GGUF_FILE}; give that, or the folder of a model")
    file = read_gguf(path)
    tokenizer = tokenizer_from_gguf(file.metadata, str(path))
    # its lists of tokens are let go before the weights come
    file = replace(file, metadata={key: v for key, v in file.metadata.items() if not key.startswith(TOKENIZER)})
    return Model((open_quantised if quantised else open_gguf)(file, dtype), tokenizer, str(source))
