"""Lenses that are fitted: an affine map from each layer's stream to the last one's, which the model then reads.

The logit lens is the map that changes nothing. A tuned lens is trained (`tuned`), a Jacobian lens is an average of
derivatives (`jacobian`); they are used, compared and stored alike.

Shapes: B texts, T tokens, N positions, L places (before the first layer and after each), C channels, V vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cutaway.errors import ConfigError, DamagedFile, NonFinite
from cutaway.files import write_atomic
from cutaway.interp.inputs import Text
from cutaway.interp.lenses.logit import logit_lens
from cutaway.interp.lenses.said import table
from cutaway.interp.lenses.stream import claims_of, fingerprint, layer_names, one_text, places, reader, streams
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording
from cutaway.interp.results import Curve, Lens
from cutaway.models import Encoder, Model
from cutaway.models.assemble import read_tensors
from cutaway.models.model import Source
from cutaway.progress import OnProgress


@dataclass(frozen=True)
class Translators:
    """An affine map for each place of the stream: from h to `matrices` h + `biases`, which stands for the last stream.

    Attributes:
        kind: "logit", "tuned" or "jacobian".
        matrices: (L, C, C) float32.
        biases: (L, C) float32.
        fingerprint: of the model that they belong to.
        about: how they were made: seed, steps, positions …
        spelled: the Python that makes them for `model`, where that is known.
    """

    kind: str
    matrices: Float[Tensor, "L C C"]
    biases: Float[Tensor, "L C"]
    fingerprint: str
    about: Mapping[str, Any] = field(default_factory=dict)
    spelled: str = field(default="", compare=False)

    def __call__(self, stream: Float[Tensor, "*S C"], place: int) -> Float[Tensor, "*S C"]:
        """The stream at a place (0 is before the first layer) as that of the last layer, in its dtype."""
        if place == len(self.matrices) - 1:
            return stream  # it is the last layer's
        return stream @ self.matrices[place].to(stream).T + self.biases[place].to(stream)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file.

        Raises:
            InputError: the disk is full or the place cannot be written.
        """
        path = Path(path)
        head = {"kind": self.kind, "fingerprint": self.fingerprint, "about": json.dumps(dict(self.about))}
        write_atomic(path, save({"matrices": self.matrices.contiguous(), "biases": self.biases.contiguous()}, head))
        return path

    def check(self, model: Model) -> None:
        """Refuse another model than they were made for.

        Raises:
            ConfigError: it is another one.
        """
        if self.fingerprint != fingerprint(model):
            raise ConfigError(
                f"this {self.kind} lens was made for another model than {model.source or 'this one'}; make one for it"
            )


def identity(model: Model) -> Translators:
    """The logit lens as translators: each stream stands for the last as it is."""
    C, count = getattr(reader(model, "a lens").config, "width", 0), len(places(model))
    return Translators("logit", torch.eye(C).repeat(count, 1, 1), torch.zeros(count, C), fingerprint(model))


def load_lens(path: str | Path) -> Translators:
    """A lens from the file that `Translators.save` wrote.

    Raises:
        DamagedFile: it is missing, or not such a file.
    """
    path = Path(path)
    tensors = read_tensors(path)
    try:
        with safe_open(path, "pt") as file:
            head = file.metadata() or {}
        about = json.loads(head.get("about", "{}"))
        matrices, biases = tensors["matrices"], tensors["biases"]
        kind, known = head["kind"], head["fingerprint"]
    except (KeyError, ValueError, SafetensorError) as error:
        raise DamagedFile(f"{path} is not a lens that Cutaway wrote: {error!r}") from error
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or biases.shape != matrices.shape[:2]:
        raise DamagedFile(f"{path} holds a lens of shapes {tuple(matrices.shape)} and {tuple(biases.shape)}")
    if not (matrices.isfinite().all() and biases.isfinite().all()):
        raise NonFinite(f"{path} holds a NaN or an infinity; make the lens again")
    return Translators(kind, matrices, biases, known, about)


@torch.no_grad()
def read_lens(
    model: Recording | Model,
    text: Text = "",
    lens: Translators | str | Path | None = None,
    *,
    source: Source | None = None,
    top: int = 5,
    token: str | int | None = None,
    function: str = "read_lens",
    progress: OnProgress | None = None,
) -> Lens:
    """What each layer would say, through a lens. The last row is the model's own output, bit for bit.

    Args:
        model: what the lens was made for, with a text, or a recording of one.
        text: of several texts the first.
        lens: a lens or its file; None: the logit lens.
        source: what an encoder–decoder reads; the text is its target.
        top: how many tokens of each cell to name.
        token: whose rank and probability each cell tells, as text or id; None: the one that came next.
        function: what the receipt's code calls.
        progress: told after each row.

    Raises:
        ConfigError: as in `logit_lens`, or the lens is of another model.
        InputError: as in `logit_lens`.
        DamagedFile: the file is not a lens.
    """
    if lens is None:
        return logit_lens(model, text, source=source, top=top, token=token, progress=progress)
    run = model.model if isinstance(model, Recording) else model
    network = reader(run, "a lens")
    shown = model if isinstance(model, Recording) else text
    named = str(lens) if isinstance(lens, str | Path) else lens
    clock = Clock(run, function, shown, lens=named, source=source, top=top, token=token)
    if not isinstance(lens, Translators):
        lens = load_lens(lens)
    lens.check(run)
    used = lens
    recording = one_text(model, text, source, top, "a lens")
    names = places(run)

    def said(place: int, at: slice) -> Tensor:
        if place == len(names) - 1:
            return recording.logits[0, at]
        return network.read_out(used(recording[names[place]][:1, at], place))[0]

    found = table(recording, said, len(names), top, token, progress)
    receipt = clock.receipt(difference=recording.receipt.difference, bytes=recording.receipt.bytes)
    claims = None if recording.edits else claims_of(recording, lambda i, x: network.read_out(used(x, i)))
    return Lens(recording.tokens, layer_names(run), **found, receipt=receipt, claims=claims)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class LensDistance(Curve):
    """How far from the model's own output each layer's prediction is, through one lens or several.

    Attributes:
        lines: lens -> the mean over positions of KL(output ‖ lens) at each place, in bits.
        agreement: lens -> the share of positions where both say the same token.
        loss: lens -> bits of the token that really came next; empty for an encoder, which sees it.
        positions: over how many positions the means are.
    """

    agreement: dict[str, list[float]] = field(default_factory=dict)
    loss: dict[str, list[float]] = field(default_factory=dict)
    positions: int = 0


@torch.no_grad()
def lens_distance(
    model: Model,
    texts: Sequence[Text],
    lens: Translators | str | Path | Mapping[str, Translators] | None = None,
    *,
    sources: Sequence[Source] | None = None,
) -> LensDistance:
    """Compare lenses on texts that they were not made with; the logit lens is always among them.

    Args:
        model: what is read.
        texts: not those that the lens was trained or fitted on.
        lens: a lens, its file, or several by name; None: the logit lens alone.
        sources: what an encoder–decoder reads for each text.

    Raises:
        ConfigError, InputError, DamagedFile: as in `read_lens`.
    """
    network = reader(model, "a lens")
    clock = Clock(model, "lens_distance", list(texts), lens=lens, sources=sources)
    if not isinstance(lens, Mapping):
        lens = load_lens(lens) if isinstance(lens, str | Path) else lens
        lens = {} if lens is None else {lens.kind: lens}
    lenses = {"logit": identity(model), **lens}
    for one in lenses.values():
        one.check(model)
    count = len(places(model))
    sums = {name: torch.zeros(count, 3, dtype=torch.float64) for name in lenses}  # KL, agreement, loss
    positions = following = 0
    for inputs, found, real in streams(model, texts, sources):
        final = network.read_out(found[:, -1]).float().log_softmax(-1)  # (B, T, V)
        after = real.clone()
        after[:, -1] = False
        after[:, :-1] &= real[:, 1:]
        positions, following = positions + int(real.sum()), following + int(after.sum())
        truth = inputs.ids.roll(-1, 1)[..., None]
        for name, one in lenses.items():
            for place in range(count):
                said = network.read_out(one(found[:, place], place)).float().log_softmax(-1)
                sums[name][place, 0] += kl_bits(final, said)[real].double().sum()
                sums[name][place, 1] += (final.argmax(-1) == said.argmax(-1))[real].sum()
                sums[name][place, 2] -= said.gather(-1, truth)[..., 0][after].double().sum() / math.log(2)
    tokens = not isinstance(network, Encoder) and following > 0
    return LensDistance(
        "How far each layer's prediction is from the output",
        "place (0: the embedding)",
        "KL divergence in bits",
        [float(place) for place in range(count)],
        {name: (total[:, 0] / positions).tolist() for name, total in sums.items()},
        agreement={name: (total[:, 1] / positions).tolist() for name, total in sums.items()},
        loss={name: (total[:, 2] / following).tolist() for name, total in sums.items()} if tokens else {},
        positions=positions,
        receipt=clock.receipt(),
    )


def kl_bits(wanted: Float[Tensor, "*S V"], said: Float[Tensor, "*S V"]) -> Float[Tensor, "*S"]:
    """KL(wanted ‖ said) of log-probabilities, in bits."""
    return (wanted.exp() * (wanted - said)).sum(-1) / math.log(2)
