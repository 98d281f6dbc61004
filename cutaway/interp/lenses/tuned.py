"""The tuned lens: an affine map for each layer, trained to say what the last layer says.

Shapes: N positions, L places of the stream, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.interp.frozen import frozen
from cutaway.interp.inputs import Text
from cutaway.interp.lenses.stream import fingerprint, places, reader, streams
from cutaway.interp.lenses.translators import Translators, kl_bits, read_lens
from cutaway.interp.record import LIMIT, Recording
from cutaway.interp.results import Lens
from cutaway.models import Model
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

VALIDATED = 0.1  # the share of positions on which the best of each layer is chosen
LOOKS = 10  # how often that is done


def train_tuned_lens(
    model: Model,
    texts: Sequence[Text],
    *,
    sources: Sequence[Source] | None = None,
    steps: int = 300,
    batch: int = 256,
    lr: float = 3e-3,
    seed: int = 0,
    limit: int = LIMIT // 4,
    progress: OnProgress | None = None,
) -> Translators:
    """Train a tuned lens (Belrose et al. 2023): KL(output ‖ lens) is made small, the model stays as it is.

    Each layer's map begins as the identity, so that the lens begins as the logit lens. Of each layer the map is kept
    that does best on a tenth of the positions, which it is not trained on.

    Args:
        model: what is read.
        texts: some thousand tokens or more; keep others to try the lens on (`lens_distance`).
        sources: what an encoder–decoder reads for each text.
        steps: of Adam; 0 gives the logit lens.
        batch: positions in a step.
        lr: of Adam at the first step, falling to 0 in a line.
        seed: of which positions are kept, validated and drawn.
        limit: bytes that the streams may take; of more positions some are drawn.
        progress: told after each step.

    Raises:
        ConfigError: as in `logit_lens`, or a number that cannot be.
        InputError: no texts, too few tokens, or a limit that holds none.
        NonFinite: the training diverges, or the model computes a NaN.
    """
    if steps < 0 or batch < 1 or not lr > 0:
        raise ConfigError(f"steps must be 0 or more, batch and lr above 0, but {steps}, {batch} and {lr} were given")
    reader(model, "a tuned lens")
    generator = torch.Generator().manual_seed(seed)
    held = _held(model, texts, sources, limit, generator)  # (L, N, C)
    count, total, C = held.shape
    order = torch.randperm(total, generator=generator)
    tried, trained = order.split([max(1, int(VALIDATED * total)), total - max(1, int(VALIDATED * total))])
    if not len(trained):
        raise InputError("one token is too few to train a lens on; give more texts")
    read_out = frozen(model).network.read_out  # pyright: ignore[reportAttributeAccessIssue]  # recurrent ones were refused

    def distance(changes: Tensor, biases: Tensor, place: int, chosen: Tensor) -> Tensor:
        stream = held[place, chosen]
        moved = stream + stream @ changes[place].T + biases[place]
        final = read_out(held[-1, chosen][None]).detach().float().log_softmax(-1)
        return kl_bits(final, read_out(moved[None]).float().log_softmax(-1)).mean()

    like = held.new_zeros(1)
    changes = like.new_zeros(count - 1, C, C).requires_grad_()
    biases = like.new_zeros(count - 1, C).requires_grad_()
    best, kept = torch.full((count - 1,), float("inf")), [like.new_zeros(count - 1, C, C), like.new_zeros(count - 1, C)]

    @torch.no_grad()
    def look() -> None:
        for place in range(count - 1):
            found = sum(float(distance(changes, biases, place, c)) * len(c) for c in tried.split(batch)) / len(tried)
            if found < best[place]:
                best[place] = found
                kept[0][place], kept[1][place] = changes[place], biases[place]

    look()
    optimizer = torch.optim.Adam([changes, biases], lr=lr)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        chosen = trained[torch.randint(len(trained), (batch,), generator=generator)]
        optimizer.zero_grad()
        losses = []
        for place in range(count - 1):  # one after the other: all their logits at once may not fit
            loss = distance(changes, biases, place, chosen)
            loss.backward()
            losses.append(float(loss.detach()))
        optimizer.step()
        mean = sum(losses) / len(losses)
        if not mean < float("inf"):
            raise NonFinite(f"the tuned lens diverges at step {step}; give a smaller lr than {lr}")
        if (step + 1) % max(1, steps // LOOKS) == 0 or step + 1 == steps:
            look()
        if progress is not None:
            progress(Progress("training the lens", step + 1, steps, "steps", {"bits": mean}))
    about = {"steps": steps, "batch": batch, "lr": lr, "seed": seed, "positions": len(trained)}
    eye = torch.eye(C)
    matrices = torch.cat((kept[0].float().cpu() + eye, eye[None]))
    offsets = torch.cat((kept[1].float().cpu(), torch.zeros(1, C)))
    return Translators("tuned", matrices, offsets, fingerprint(model), about)


def _held(
    model: Model, texts: Sequence[Text], sources: Sequence[Source] | None, limit: int, generator: torch.Generator
) -> Float[Tensor, "L N C"]:
    """The stream at every real position, or at as many drawn ones as the limit allows."""
    kept: list[Tensor] = []
    held, room = 0, 0
    for _, found, real in streams(model, texts, sources):
        rows = found.transpose(1, 2)[real]  # (N, L, C)
        room = limit // (rows[0].numel() * rows.element_size())
        if room < 2:
            raise InputError(f"a limit of {limit:,} bytes holds no two positions of {len(places(model))} streams")
        kept.append(rows)
        held += len(rows)
        if held > 2 * room:
            kept = [_drawn(torch.cat(kept), room, generator)]
            held = room
    return _drawn(torch.cat(kept), room, generator).transpose(0, 1).contiguous()


def _drawn(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    return rows if len(rows) <= most else rows[torch.randperm(len(rows), generator=generator)[:most]]


def tuned_lens(
    model: Recording | Model,
    text: Text = "",
    lens: Translators | str | Path | None = None,
    *,
    source: Source | None = None,
    top: int = 5,
    token: str | int | None = None,
    progress: OnProgress | None = None,
) -> Lens:
    """What each layer would say, through a tuned lens (Belrose et al. 2023).

    Args:
        model: what the lens was trained for, with a text, or a recording of one.
        text: of several texts the first.
        lens: from `train_tuned_lens`, or the file in which it was saved.
        source: what an encoder–decoder reads; the text is its target.
        top: how many tokens of each cell to name.
        token: whose rank and probability each cell tells, as text or id; None: the one that came next.
        progress: told after each row.

    Raises:
        ConfigError: no lens, one of another model, or as in `logit_lens`.
        InputError, DamagedFile: as in `read_lens`.
    """
    if lens is None:
        raise ConfigError("a tuned lens must be trained first: give lens=, from train_tuned_lens or its file")
    return read_lens(model, text, lens, source=source, top=top, token=token, function="tuned_lens", progress=progress)
