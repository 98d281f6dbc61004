"""Edit one fact in a model's weights: ROME, a rank-one change of one MLP's last matrix.

Meng et al. 2022 (https://arxiv.org/abs/2202.05262): the matrix is taken for a memory of keys and values. The key is
what it reads at the subject's last token, the value what it should write there so that the model says the new thing;
other keys keep their values as well as one rank allows.

Shapes: T tokens, M channels inside the MLP (the key), C channels of the stream (the value), V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError
from cutaway.interp.inputs import Inputs, forward
from cutaway.interp.patching.trace import span_of
from cutaway.interp.receipt import Clock
from cutaway.interp.record import record
from cutaway.interp.results import Cell, Table
from cutaway.interp.steering.vector import reading
from cutaway.interp.target import Target, at_position, target_of
from cutaway.models import ActiveTap, Model, Recurrent, Seq2Seq
from cutaway.models.experts import Experts
from cutaway.models.quantised import QuantisedLinear
from cutaway.progress import OnProgress, Progress
from cutaway.tokenizers.frame import beginning

Prompt: TypeAlias = str | Sequence[int]  # text or ids
FARTHEST = 4.0  # times the stream's length that a value may move, the factor of the paper's code
PREFIX = 8  # tokens of another text that may stand before the prompt


@dataclass(frozen=True)
class Edited(Table):
    """An edited model, and what it says now: rows of prompt, paraphrases and neighbours, before and after.

    Attributes:
        model: the edited one.
        name: of the matrix that was changed.
        key: (M,) what it answers to.
        value: (C,) what it answers.
        size: of the change, of the size of the matrix (Frobenius norms).
    """

    model: Model = field(kw_only=True, repr=False, compare=False)
    name: str = field(kw_only=True)
    key: Float[Tensor, " M"] = field(kw_only=True, repr=False, compare=False)
    value: Float[Tensor, " C"] = field(kw_only=True, repr=False, compare=False)
    size: float = field(kw_only=True)


def rank_one_edit(
    weight: Float[Tensor, "C M"],
    key: Float[Tensor, " M"],
    value: Float[Tensor, " C"],
    moment: Float[Tensor, "M M"],
) -> Float[Tensor, "C M"]:
    """The matrix that answers a key with a value and changes least what it answers to keys of a second moment.

    It is weight + (value - weight · key)(moment⁻¹ key)ᵀ / (keyᵀ moment⁻¹ key): keys orthogonal to moment⁻¹ key keep
    their values exactly.

    Raises:
        InputError: a moment that has no inverse: there were fewer keys than they have numbers.
    """
    factor, info = torch.linalg.cholesky_ex(moment.double())
    pivots = factor.diagonal().square()
    if int(info) or float(pivots.min()) <= 1e-12 * float(pivots.max()):
        raise InputError("the second moment of the keys has no inverse; give more texts, or a ridge above 0")
    solved = torch.cholesky_solve(key.double()[:, None], factor)[:, 0]
    reach = key.double() @ solved
    change = torch.outer(value.double() - weight.double() @ key.double(), solved) / reach
    return (weight.double() + change).to(weight.dtype)


def rome(
    model: Model,
    prompt: Prompt,
    *,
    subject: str | tuple[int, int] = "",
    target: str | int | None = None,
    texts: Sequence[Prompt] = (),
    layer: int | None = None,
    paraphrases: Sequence[Prompt] = (),
    neighbours: Sequence[Prompt] = (),
    contexts: int = 4,
    steps: int = 40,
    rate: float = 0.1,
    decay: float = 0.05,
    keep: float = 0.0625,
    ridge: float = 0.01,
    in_place: bool = False,
    shared: bool = False,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Edited:
    """Make a model answer a prompt with another token, by a rank-one change of one matrix.

    Args:
        model: a decoder, an encoder that fills gaps (the prompt has one), or an encoder–decoder (the prompt is its
            source, and its encoder is edited).
        prompt: ends where the answer comes, and holds the subject.
        subject: as it stands in the prompt, or its first token and the one behind its last.
        target: the new answer: a token, as text or id.
        texts: ordinary texts, whose keys are to keep their values; the more tokens the better.
        layer: whose MLP; None: the middle one. `causal_trace` shows where the subject is looked up.
        paraphrases: other prompts that should get the new answer.
        neighbours: prompts about other subjects, which should not.
        contexts: of a decoder, how many beginnings of texts are put before the prompt, so that the key does not depend
            on what comes before it.
        steps: of the search for the value, with Adam.
        rate: its learning rate, in parts of the stream's root mean square at the subject.
        decay: how much it costs to add a vector as long as the stream; none is longer than four times that.
        keep: how much it costs to change what a decoder expects right behind the subject alone.
        ridge: added to the second moment's diagonal, in parts of its mean; where texts hold fewer tokens than the MLP
            has channels it has no inverse without.
        in_place: change the model itself. Else it is copied, and stays as it is.
        shared: let the copy have one matrix of its own, the edited one, and all others in common with the model: some
            MB where a copy takes as much as the model. Train neither of them then: it would change both.
        seed: of the beginnings drawn.
        progress: told how many steps are done.

    Returns:
        The edited model, and the new answer's probability before and after on every prompt. `receipt.bytes` is what
        the edited model takes beside the model.

    Raises:
        ConfigError: a network without such a matrix, one that is kept quantised, or no subject, target or texts.
        InputError: the prompt does not hold the subject, or a layer that is not there.
    """
    clock = Clock(
        model, "rome", prompt, subject=subject, target=target, texts=list(texts), layer=layer,
        paraphrases=list(paraphrases), neighbours=list(neighbours), contexts=contexts, steps=steps, rate=rate,
        decay=decay, keep=keep, ridge=ridge, in_place=in_place or None, shared=shared or None, seed=seed,
    )  # fmt: skip
    name, _ = matrix_of(model, layer)
    if target is None or not texts:
        raise ConfigError("rome needs target=, the new answer, and texts=, whose keys keep their values")
    edited = model if in_place else _copied(model, layer, shared=shared)
    name, matrix = matrix_of(edited, layer)
    inputs = reading(edited, prompt)
    asked = target_of(edited, inputs, token=target, quantity="logprob")
    ids = inputs.source if isinstance(edited.network, Seq2Seq) else inputs.ids
    assert ids is not None
    last = span_of(edited, ids[0], subject)[1] - 1
    rows = [("prompt", prompt), *(("paraphrase", p) for p in paraphrases), *(("neighbour", n) for n in neighbours)]
    before = [_says(edited, text, target) for _, text in rows]

    runs = [(inputs, last), *_behind_others(edited, inputs, last, texts, contexts, seed)]
    post, out = (f"{name.removesuffix('.down_proj')}.post", f"{name.removesuffix('.mlp.down_proj')}.mlp_out")
    key = torch.stack([record(edited, run, post)[post][0, at].double() for run, at in runs]).mean(0)
    alone = _alone(edited, ids[0], subject) if keep else None
    value = _value(edited, runs, out, asked, alone, steps, rate, decay, keep, progress)
    moment = _moment(edited, texts, post)
    moment += ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64, device=moment.device)
    bias = 0.0 if matrix.bias is None else matrix.bias.detach().double()
    with torch.no_grad():
        changed = rank_one_edit(matrix.weight, key, value - bias, moment)
        size = float((changed - matrix.weight).double().norm() / matrix.weight.double().norm())
        matrix.weight.copy_(changed)
    after = [_says(edited, text, target) for _, text in rows]
    cells: list[list[Cell]] = [
        [kind, _shown(edited, text), b[0], a[0], b[1], a[1]]
        for (kind, text), b, a in zip(rows, before, after, strict=True)
    ]
    columns = ["kind", "prompt", "before", "after", "said before", "says after"]
    return Edited(
        f"probability of {asked.what.partition(' of ')[2]} as the answer, before and after a rank-one edit of {name}",
        columns,
        cells,
        model=edited,
        name=name,
        key=key,
        value=value,
        size=size,
        receipt=clock.receipt(seed=seed, bytes=_own(model, edited)),
    )


def matrix_of(model: Model, layer: int | None) -> tuple[str, nn.Linear]:
    """The last matrix of a layer's MLP, and its name as activations are named.

    Raises:
        ConfigError: the network has none, it is kept quantised, or a norm stands behind it.
        InputError: a layer that is not there.
    """
    network: Any = model.network
    if isinstance(network, Recurrent):
        raise ConfigError("a recurrent model has no MLP whose last matrix could be edited; rome needs a Transformer")
    if model.mel is not None:
        raise ConfigError("a model that listens reads no prompt with a subject in it; rome needs one that reads text")
    reads = isinstance(network, Seq2Seq)
    blocks = network.encoder.blocks if reads else network.blocks
    layer = (len(blocks) - 1) // 2 if layer is None else layer
    if not 0 <= layer < len(blocks):
        raise InputError(f"there are {len(blocks)} layers (0 … {len(blocks) - 1}), but layer {layer} was given")
    if not getattr(model.config, "mlp", True) or isinstance(blocks[layer].mlp, Experts):
        raise ConfigError(f"layer {layer} has no MLP of its own, so there is no matrix to edit; rome needs one")
    if getattr(model.config, "norm_place", "before") in ("after", "both"):
        raise ConfigError(
            "in this model a norm stands behind each MLP, so what its last matrix writes is not what counts"
        )
    matrix = blocks[layer].mlp.down_proj
    if isinstance(matrix, QuantisedLinear):
        raise ConfigError("this model's matrices are kept quantised and cannot be edited; load it with quantised=False")
    return f"{'encoder.' * reads}layers.{layer}.mlp.down_proj", matrix


def _own(model: Model, edited: Model) -> int:
    """Bytes that the edited model takes beside the model."""
    known = {parameter.data_ptr() for parameter in model.network.parameters()}
    own = {p.data_ptr(): p for p in edited.network.parameters() if p.data_ptr() not in known}
    return sum(p.numel() * p.element_size() for p in own.values())


def _shown(model: Model, prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else model.tokenizer.decode(list(prompt))


def _copied(model: Model, layer: int | None, *, shared: bool) -> Model:
    """A model beside the model; `shared`: which has the matrix that is edited for itself, and all else in common."""
    common: dict[int, Any] = {}
    if shared:
        own = matrix_of(model, layer)[1].weight
        tensors = (*model.network.parameters(), *model.network.buffers())
        common = {id(tensor): tensor for tensor in tensors if tensor is not own}
    network = copy.deepcopy(model.network, common)
    return Model(network, model.tokenizer, model.source, model.origin, model.mel, model.generation)


@torch.no_grad()
def _says(model: Model, prompt: Prompt, token: str | int) -> tuple[float, str]:
    """The probability of the new answer, and the likeliest one."""
    inputs = reading(model, prompt)
    output = forward(model, inputs)
    asked = target_of(model, inputs, token=token, quantity="prob", output=output)
    row = output[0] if asked.position is None else at_position(output, inputs, asked.position)[0]
    best = int(row.argmax())
    labels = getattr(model.config, "labels", ())
    said = labels[best] if best < len(labels) else (model.tokenizer.target or model.tokenizer).token(best)
    return float(asked(output, inputs)[0]), said


def _behind_others(
    model: Model, inputs: Inputs, last: int, texts: Sequence[Prompt], count: int, seed: int
) -> list[tuple[Inputs, int]]:
    """The prompt behind beginnings of other texts, and where the subject's last token then stands."""
    if getattr(model.config, "head", "causal_lm") != "causal_lm" or isinstance(model.network, Seq2Seq):
        return []  # texts with special tokens around them are not put behind each other
    generator = torch.Generator().manual_seed(seed)
    room = model.config.context - inputs.ids.shape[1]
    found = []
    begin = beginning(model.tokenizer)  # stands once, before both
    begins = len(begin) if inputs.ids[0, : len(begin)].tolist() == begin else 0
    order: list[int] = torch.randperm(len(texts), generator=generator)[:count].tolist()
    for i in order:
        prefix = model.ids(texts[i])[:, : min(PREFIX, room)]
        behind = inputs.ids[:, begins:]
        found.append((Inputs(torch.cat((prefix, behind), dim=1)), last + prefix.shape[1] - begins))
    return found


def _alone(model: Model, ids: Tensor, subject: str | tuple[int, int]) -> Inputs | None:
    """The subject by itself, of a decoder."""
    if getattr(model.config, "head", "causal_lm") != "causal_lm" or isinstance(model.network, Seq2Seq):
        return None
    first, behind = span_of(model, ids, subject)
    return Inputs(ids[None, first:behind])


def _value(
    model: Model,
    runs: Sequence[tuple[Inputs, int]],
    name: str,
    asked: Target,
    alone: Inputs | None,
    steps: int,
    rate: float,
    decay: float,
    keep: float,
    progress: OnProgress | None,
) -> Tensor:
    """(C,) float64 what the MLP should write at the subject's last token, found by descent from what it writes."""
    stream = f"{name.removesuffix('mlp_out')}resid_post"
    seen = record(model, runs[0][0], [name, stream])
    first, around = (seen[part][0, runs[0][1]] for part in (name, stream))  # (C,) each
    # in the paper's models an MLP writes as much as there is; a small one may write next to nothing, and the stream is
    # what its value has to be seen in
    length = float(around.norm())
    scale = length / math.sqrt(len(around))
    added = torch.zeros_like(first).requires_grad_()
    optimiser = torch.optim.Adam([added], lr=rate * scale)
    expected = None if alone is None else _output(model, alone, name, -1, None)[0, -1].log_softmax(-1)
    for step in range(steps):
        with torch.enable_grad():
            loss = torch.zeros((), dtype=first.dtype, device=first.device)
            for run, at in runs:
                output = _output(model, run, name, at, added)
                loss = loss - replace(asked)(output, run)[0] / len(runs)
            if alone is not None and expected is not None:
                now = _output(model, alone, name, alone.ids.shape[1] - 1, added)[0, -1].log_softmax(-1)
                loss = loss + keep * (expected.exp() * (expected - now)).sum()
            loss = loss + decay * added.square().sum() / length**2
            (slope,) = torch.autograd.grad(loss, added)
        added.grad = slope
        optimiser.step()
        with torch.no_grad():
            added.mul_(min(1.0, FARTHEST * length / max(float(added.norm()), 1e-12)))
        if progress is not None:
            progress(Progress("finding the value", step + 1, steps, "steps", {"loss": float(loss.detach())}))
    return (first + added).detach().double()


def _output(model: Model, inputs: Inputs, name: str, at: int, added: Tensor | None) -> Tensor:
    """The network's output, with something added to what an MLP writes at one token."""
    if added is None:
        with torch.no_grad():
            return forward(model, inputs)

    def edit(x: Tensor) -> Tensor:
        return torch.cat((x[:, :at], x[:, at : at + 1] + added, x[:, at + 1 :]), dim=1)

    return forward(model, inputs, ActiveTap(edits={name: edit}))


@torch.no_grad()
def _moment(model: Model, texts: Sequence[Prompt], post: str) -> Tensor:
    """(M, M) float64 second moment of the keys of all tokens of the texts."""
    total, count = None, 0
    for text in texts:
        keys = record(model, reading(model, text), post)[post][0].double()  # (T, M)
        total = keys.T @ keys if total is None else total + keys.T @ keys
        count += len(keys)
    assert total is not None
    return total / count
