"""Dictionaries of features: sparse autoencoders and transcoders.

Shapes: N rows, C channels read, O channels written, W features, k of them active.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cutaway.errors import ConfigError, DamagedFile, unknown
from cutaway.files import atomic_folder, inside, read_json, verify, write_json
from cutaway.models.assemble import read_tensors, write_tensors
from cutaway.settings import build, to_dict

KINDS = ("topk", "jumprelu", "l1")
FEATURES_JSON, WEIGHTS = "features.json", "features.safetensors"


@dataclass(frozen=True)
class FeaturesConfig:
    """What a dictionary is made of.

    Attributes:
        reads: channels read, C.
        writes: channels written, O; of a sparse autoencoder as many.
        width: features, W.
        kind: which features are active: "topk", the k of the largest pre-activations (Gao et al. 2024, "Scaling and
            evaluating sparse autoencoders"); "jumprelu", those above a threshold of their own (Rajamanoharan et al.
            2024, "Jumping Ahead"); or "l1", those above zero, whose sum was a cost in training (Bricken et al. 2023,
            "Towards Monosemanticity").
        k: active features of a "topk" dictionary.
        transcoder: whether it writes what another part computes of what it reads, and not what it reads.
        name: the activation that it was trained on, or of a transcoder the MLP, such as "layers.3.mlp".
    """

    reads: int
    writes: int
    width: int
    kind: str = "topk"
    k: int = 0
    transcoder: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(unknown("kind of features", self.kind, KINDS))
        if min(self.reads, self.writes, self.width) < 1:
            raise ConfigError("channels and features are counted from 1 on")
        if self.kind == "topk" and not 1 <= self.k <= self.width:
            raise ConfigError(f"k must be 1 … {self.width}, the features there are, but {self.k} was given")
        if not self.transcoder and self.reads != self.writes:
            raise ConfigError("a sparse autoencoder writes as many channels as it reads")


@dataclass(frozen=True)
class FeaturesRun:
    """How a training went.

    Attributes:
        steps: how many there were.
        samples: rows that were seen, some several times.
        unexplained: the share of variance that was not written, at the end.
        active: features active per row, at the end.
        resampled: features that never fired and were begun anew, in all.
        seconds: of the steps.
    """

    steps: int
    samples: int
    unexplained: float
    active: float
    resampled: int
    seconds: float


class Features(nn.Module):
    """A dictionary: features read an activation, few of them are active, and their directions sum to what is written.

    pre = (x - bias) @ encoderᵀ + encoder_bias (a transcoder takes no bias off), active = kind(pre), and what is written
    is active @ decoder + bias. Every row of the decoder has length 1, so that an activation is the length of what its
    feature writes.

    Attributes:
        config: what it is made of.
        encoder: (W, C), what each feature reads with.
        encoder_bias: (W,).
        decoder: (W, O), the direction that each feature writes.
        bias: (O,), what is written when no feature is active.
        threshold: (W,), of "jumprelu", which pre-activations must exceed.
        run: how it was learned; None if that is not known.
        place: the folder that it was saved to or opened from; "": none.
    """

    def __init__(self, config: FeaturesConfig) -> None:
        super().__init__()
        self.config = config
        self.run: FeaturesRun | None = None
        self.place = ""
        self.encoder = nn.Parameter(torch.zeros(config.width, config.reads))
        self.encoder_bias = nn.Parameter(torch.zeros(config.width))
        self.decoder = nn.Parameter(torch.zeros(config.width, config.writes))
        self.bias = nn.Parameter(torch.zeros(config.writes))
        if config.kind == "jumprelu":
            self.threshold = nn.Parameter(torch.zeros(config.width))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw directions anew, of length 1; a sparse autoencoder begins by reading with what it writes (tied)."""
        self.decoder.normal_(generator=generator)
        self.decoder /= self.decoder.norm(dim=1, keepdim=True)
        if self.config.transcoder:
            self.encoder.normal_(0.0, 1 / math.sqrt(self.config.reads), generator=generator)
        else:
            self.encoder.copy_(self.decoder)
        self.encoder_bias.zero_()
        self.bias.zero_()
        if self.config.kind == "jumprelu":
            self.threshold.fill_(0.001)

    def pre(self, x: Float[Tensor, "... C"]) -> Float[Tensor, "... W"]:
        """(…, C) -> (…, W) what the features read, before it is decided which are active."""
        if not self.config.transcoder:
            x = x - self.bias
        return x @ self.encoder.T + self.encoder_bias

    def activate(self, pre: Float[Tensor, "... W"]) -> Float[Tensor, "... W"]:
        """(…, W) -> (…, W) activations, which are 0 where a feature is not active."""
        if self.config.kind == "l1":
            return pre.relu()
        if self.config.kind == "jumprelu":
            return torch.where(pre > self.threshold, pre, 0)
        values, chosen = pre.topk(self.config.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, chosen, values.relu())

    def encode(self, x: Float[Tensor, "... C"]) -> Float[Tensor, "... W"]:
        """(…, C) -> (…, W) activations of the features."""
        return self.activate(self.pre(x))

    def decode(self, active: Float[Tensor, "... W"]) -> Float[Tensor, "... O"]:
        """(…, W) -> (…, O) what they write."""
        return active @ self.decoder + self.bias

    def forward(self, x: Float[Tensor, "... C"]) -> Float[Tensor, "... O"]:
        """(…, C) -> (…, O) what is written for what is read."""
        return self.decode(self.encode(x))

    def top(self, x: Float[Tensor, "N C"], count: int = 10) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
        """The strongest features of each row: their activations and which they are."""
        values, chosen = self.encode(x).topk(min(count, self.config.width), dim=-1)
        return values, chosen

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""
        return self.decoder.dtype

    def save(self, folder: str | Path) -> Path:
        """Write a folder of features.json and features.safetensors, whole or not at all."""
        folder = Path(folder)
        with atomic_folder(folder) as room:
            write_json(room / FEATURES_JSON, to_dict(self.config))
            state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
            write_tensors(state, room / WEIGHTS)
        self.place = str(folder)
        return folder


class SparseAutoencoder(Features):
    """Features that an activation is made of: what is written is what was read.

    Args:
        reads: channels, C.
        width: features, W.
        kind: "topk", "jumprelu" or "l1".
        k: active features, of "topk".
        name: of the activation.
    """

    def __init__(self, reads: int, width: int, kind: str = "topk", k: int = 0, name: str = "") -> None:
        super().__init__(FeaturesConfig(reads, reads, width, kind, k, name=name))


class Transcoder(Features):
    """Features that stand for an MLP: they read what it reads and write what it writes (Dunefsky et al. 2024).

    Args:
        reads: channels read, C.
        writes: channels written, O.
        width: features, W.
        kind: "topk", "jumprelu" or "l1".
        k: active features, of "topk".
        name: of the MLP, "layers.{i}.mlp".
    """

    def __init__(self, reads: int, writes: int, width: int, kind: str = "topk", k: int = 0, name: str = "") -> None:
        super().__init__(FeaturesConfig(reads, writes, width, kind, k, transcoder=True, name=name))


def features_of(config: FeaturesConfig) -> SparseAutoencoder | Transcoder:
    """The dictionary that a config describes, of zeros."""
    if config.transcoder:
        return Transcoder(config.reads, config.writes, config.width, config.kind, config.k, config.name)
    return SparseAutoencoder(config.reads, config.width, config.kind, config.k, config.name)


def load_features(folder: str | Path) -> SparseAutoencoder | Transcoder:
    """Open what `Features.save` wrote.

    Raises:
        InputError: no such folder.
        DamagedFile: a file that does not match its checksum, or tensors that do not fit the config.
        ConfigError: a config with a key or value that is not known.
    """
    folder = Path(folder)
    verify(folder)
    values: Any = read_json(inside(folder, FEATURES_JSON))
    features = features_of(build(FeaturesConfig, values, where=str(folder / FEATURES_JSON)))
    tensors = read_tensors(inside(folder, WEIGHTS))
    wanted = {name: value.shape for name, value in features.state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    if wanted != found:
        raise DamagedFile(f"{folder / WEIGHTS} holds {found}, but its config asks for {wanted}")
    features.load_state_dict(tensors)
    features.place = str(folder)
    return features.to(tensors["decoder"].dtype)
