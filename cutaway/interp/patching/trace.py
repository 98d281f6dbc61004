"""Causal tracing: where a model keeps what it knows of a subject.

Meng et al. 2022 (https://arxiv.org/abs/2202.05262): noise on the subject's embeddings makes the model forget; a single
clean state put back makes it remember, or does not.

Shapes: T tokens, C channels, R layers, N patched runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.inputs import Text, inputs_of
from cutaway.interp.patching.pairs import Pair
from cutaway.interp.patching.patch import Study, patched_with
from cutaway.interp.patching.rerun import Rerun, asked
from cutaway.interp.patching.site import Site
from cutaway.interp.patching.sweep import Sweep, grid, sweep_of
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Edit, record, replace
from cutaway.interp.target import Quantity, target_of
from cutaway.models import Model, Seq2Seq
from cutaway.models.model import Source
from cutaway.progress import OnProgress


@torch.no_grad()
def causal_trace(
    model: Model,
    text: Text,
    *,
    subject: str | tuple[int, int] | Sequence[int] = "",
    what: Literal["", "residual", "attention", "mlps", "hidden"] = "",
    window: int = 1,
    noise: float = 3.0,
    samples: int = 10,
    source: Source | None = None,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "prob",
    seed: int = 0,
    batch: int = 0,
    progress: OnProgress | None = None,
) -> Sweep:
    """Make the model forget a subject with noise, and see which single clean state brings the answer back.

    Args:
        model: what runs.
        text: one text that ends where the answer comes.
        subject: as it stands in the text (of an encoder–decoder in the source), or its first token and the one behind
            its last.
        what: which states are put back: "residual", "attention" or "mlps" (what they write), or of a recurrent model
            "hidden". "": residual, or hidden.
        window: how many layers around each are put back together (for attention and MLPs, Meng et al. take 10).
        noise: how strong, in standard deviations of the embeddings in this text.
        samples: of noise, over which numbers are means.
        source: what an encoder–decoder reads.
        token: whose number is asked about, with minus, position and quantity as in `target_of`; None: the likeliest.
        minus: likewise.
        position: likewise.
        quantity: likewise; here "prob" unless told otherwise. A head without probabilities takes "logit".
        seed: of the noise.
        batch: as in `patch`.
        progress: as in `patch`.

    Returns:
        Layers × positions: the part of the answer's loss that comes back; `corrupt` is the target under noise.

    Raises:
        ConfigError: a model that listens, or a part that the model does not have.
        InputError: a subject that the text does not hold, noise or samples out of range, or noise that changes nothing.
    """
    clock = Clock(
        model, "causal_trace", text, subject=subject, what=what, window=window, noise=noise, samples=samples,
        source=source, token=token, minus=minus, position=position, quantity=quantity, seed=seed,
    )  # fmt: skip
    if samples < 1 or noise <= 0 or window < 1:
        raise InputError(
            f"samples and window must be at least 1 and noise above 0, but {samples}, {window} and {noise} were given"
        )
    if what not in ("", "residual", "attention", "mlps", "hidden"):
        raise ConfigError(unknown("part", str(what), ["residual", "attention", "mlps", "hidden"]))
    if model.mel is not None:
        raise ConfigError("causal tracing puts noise on a subject's tokens, and a model that listens reads none")
    inputs = inputs_of(model, text, source)
    if len(inputs) != 1:
        raise InputError(f"causal tracing reads one text, but {len(inputs)} were given")
    reads = isinstance(model.network, Seq2Seq)
    embed = "encoder.embed" if reads else "embed"
    last = model.network.tap_names()[-1]
    clean = record(model, inputs, list(dict.fromkeys([embed, last])))
    # a head that makes no probabilities has only its own number
    head = getattr(model.config, "head", "causal_lm")
    if quantity == "prob" and head in ("none", "embedding", "replaced_token"):
        quantity = "logit"
    target = target_of(
        model, inputs, token=token, minus=minus, position=position, quantity=quantity, output=clean.logits
    )
    ids = clean.inputs.source if reads else clean.ids
    assert ids is not None
    first, behind = span_of(model, ids[0], subject)
    cells = grid(model, clean, what, stack="encoder" if reads else "decoder")
    patches = [_window(model, site, window) for site in cells.sites]
    generator = torch.Generator().manual_seed(seed)
    strength = noise * float(clean[embed].float().std())
    total = torch.zeros(len(patches), dtype=torch.float64)
    corrupts, study = [], None
    for _ in range(samples):
        shape = (behind - first, clean[embed].shape[-1])
        added = strength * torch.randn(shape, generator=generator, dtype=torch.float64)
        base = replace(model, inputs, {embed: _noisy(first, behind, added)}, [last])
        rerun = Rerun(base, target)
        study = Study(
            [Pair(clean, base)], [rerun], target, torch.tensor([asked(clean, target)], dtype=torch.float64),
            torch.tensor([rerun.plain], dtype=torch.float64),
        )  # fmt: skip
        corrupts.append(rerun.plain)
        total += patched_with(study, patches, "clean", batch=batch, progress=progress)
    assert study is not None
    mean = Study(
        study.pairs, study.reruns, target, study.clean, torch.tensor([sum(corrupts) / samples], dtype=torch.float64)
    )
    patched = total / samples
    return sweep_of(
        mean, cells, mean.change(patched), mean.recovered(patched),
        f"{target.what}: what comes back of it when one state is put back, with noise on tokens {first} … {behind - 1}",
        "recovered", clock, clean=float(mean.clean), seed=seed,
    )  # fmt: skip


def _noisy(first: int, behind: int, added: Tensor) -> Edit:
    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, first:behind] += added.to(x)
        return x

    return edit


def _window(model: Model, site: Site, window: int) -> tuple[Site, ...]:
    """The same position of the layers around."""
    before, number, rest = _split(site.name)
    known = set(model.network.tap_names())
    layers = range(number - (window - 1) // 2, number + window // 2 + 1)
    names = [f"{before}layers.{i}.{rest}" for i in layers]
    return tuple(Site(name, position=site.position) for name in names if name in known)


def _split(name: str) -> tuple[str, int, str]:
    before, _, own = name.rpartition("layers.")
    number, rest = own.split(".", 1)
    return before, int(number), rest


def span_of(model: Model, ids: Tensor, subject: str | tuple[int, int] | Sequence[int]) -> tuple[int, int]:
    """The first token of a subject and the one behind its last.

    Raises:
        InputError: the text does not hold it.
        ConfigError: none was given.
    """
    length = len(ids)
    if not isinstance(subject, str):
        if len(subject) != 2 or not 0 <= subject[0] < subject[1] <= length:
            raise InputError(f"a subject is text, or two numbers of tokens within 0 … {length}, not {subject!r}")
        return int(subject[0]), int(subject[1])
    numbers = ids.tolist()
    if not subject.strip():
        raise ConfigError("no subject was given: name with subject= the words of the text that noise is put on")
    for size in range(1, length + 1):  # the shortest that holds it, and of these the first
        for first in range(length - size + 1):
            if subject.strip() in model.tokenizer.decode(numbers[first : first + size]):
                return first, first + size
    raise InputError(f"the text does not hold {subject!r}; give it as it stands there")
