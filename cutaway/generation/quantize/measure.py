"""How much a quantised network differs from the one that it was made of, on held-out texts.

Shapes: T tokens, K positions that count, V vocabulary, C channels.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cutaway.errors import NonFinite
from cutaway.generation.quantize.texts import Text
from cutaway.models import Decoder, Network, Recurrent
from cutaway.models.assemble import assemble
from cutaway.models.formats.ggml import Blocks
from cutaway.models.quantised import QuantisedLinear, blocks_in, fill, floats_in

WORST = 8  # tokens that are named
BEFORE = 12  # tokens shown before each of them
PROMPT, FREE = 16, 64  # tokens that free running begins with, and goes on for
PROMPTS = 8
GROUP = 32  # numbers of an activation that share a scale


@dataclass(frozen=True)
class Worst:
    """A place where the two networks differ most.

    Attributes:
        kl: of the prediction, in nats.
        before: ids of the tokens before it.
        float_says: the id that the float network finds likeliest.
        quantised_says: and the quantised one.
    """

    kl: float
    before: tuple[int, ...]
    float_says: int
    quantised_says: int


@dataclass(frozen=True)
class Quality:
    """What quantising has changed.

    Attributes:
        tokens: predictions that were compared.
        perplexity: of the float network, where the texts say which token is right.
        perplexity_quantised: of the quantised one.
        agreement: share of the predictions whose likeliest token is the same.
        kl_mean: Kullback–Leibler divergence of the predictions from the float network's, in nats per token.
        kl_median: the same.
        kl_max: the same.
        worst: where it is largest.
        distance: relative distance ‖q - f‖ / ‖f‖ of the outputs, for networks whose outputs are no logits.
        free: of some prompts, how many greedy tokens are the same before the first that is not.
        free_length: how many there could be.
    """

    tokens: int
    perplexity: float | None
    perplexity_quantised: float | None
    agreement: float | None
    kl_mean: float | None
    kl_median: float | None
    kl_max: float | None
    worst: tuple[Worst, ...]
    distance: float
    free: tuple[int, ...]
    free_length: int

    @property
    def growth(self) -> float | None:
        """By how many percent the perplexity has grown."""
        if self.perplexity is None or self.perplexity_quantised is None:
            return None
        return 100 * (self.perplexity_quantised / self.perplexity - 1)


@torch.no_grad()
def compare(
    plain: Network,
    quantised: Network,
    texts: Sequence[Text],
    *,
    free: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Quality:
    """Compare two networks on the same texts.

    Args:
        plain: the float one.
        quantised: the other.
        texts: as `rows_of` makes them.
        free: whether to let language models run freely, too.
        progress: told of texts done, and of all.

    Raises:
        NonFinite: one of them computes a NaN or an infinity.
    """
    losses, losses_q, kls, same, worst = 0.0, 0.0, [], 0, []
    known = off = size = 0.0
    speaks = getattr(plain.config, "head", "causal_lm") not in ("none", "embedding", "span_extraction")
    for number, text in enumerate(texts):
        a, b = text.output(plain), text.output(quantised)
        for name, made in (("float", a), ("quantised", b)):
            if not bool(made.isfinite().all()):
                raise NonFinite(f"the {name} network computes NaN or infinity on text {number}")
        off, size = off + float((b - a).square().sum()), size + float(a.square().sum())
        progress(number + 1, len(texts))
        if not speaks:
            kls += [0.0] * len(a)
            continue
        p, q = a.double().log_softmax(-1), b.double().log_softmax(-1)
        if text.targets is not None:
            losses -= float(p.gather(1, text.targets[:, None]).sum())
            losses_q -= float(q.gather(1, text.targets[:, None]).sum())
            known += len(text.targets)
        kl = (p.exp() * (p - q)).sum(dim=-1).clamp(min=0)
        first, second = a.argmax(-1), b.argmax(-1)
        same += int((first == second).sum())
        for i in kl.topk(min(WORST, len(kl))).indices.tolist():
            place = i if text.places is None else int(text.places[i])
            before = tuple(text.ids[0, max(0, place + 1 - BEFORE) : place + 1].tolist())
            worst.append(Worst(float(kl[i]), before, int(first[i]), int(second[i])))
        kls += kl.tolist()
    ran: tuple[int, ...] = ()
    if free and isinstance(plain, Decoder | Recurrent) and getattr(plain.config, "head", "causal_lm") == "causal_lm":
        prompts = [text.ids[0, :PROMPT].tolist() for text in texts[:PROMPTS]]
        ran = tuple(_same_run(plain, quantised, prompt) for prompt in prompts)
    count = len(kls)
    return Quality(
        tokens=count,
        perplexity=math.exp(losses / known) if known else None,
        perplexity_quantised=math.exp(losses_q / known) if known else None,
        agreement=same / count if speaks else None,
        kl_mean=statistics.fmean(kls) if speaks else None,
        kl_median=statistics.median(kls) if speaks else None,
        kl_max=max(kls) if speaks else None,
        worst=tuple(sorted(worst, key=lambda one: -one.kl)[:WORST]),
        distance=math.sqrt(off / size) if size else 0.0,
        free=ran,
        free_length=min(FREE, _room(plain)) if ran else 0,
    )


def _room(network: Network) -> int:
    """Tokens that fit behind a prompt."""
    return network.config.context - PROMPT if isinstance(network, Decoder) else FREE


def _same_run(plain: Network, quantised: Network, prompt: list[int]) -> int:
    """Greedy tokens of both until the first that differs. The second is only asked while it has said the same."""
    length = max(0, min(FREE, _room(plain)))
    caches = [network.new_cache() for network in (plain, quantised)]  # pyright: ignore  # of speakers
    new = prompt
    for count in range(length):
        ids = torch.tensor([new])
        first, second = (
            int(network(ids, cache=cache)[0, -1].argmax())
            for network, cache in zip((plain, quantised), caches, strict=True)
        )
        if first != second:
            return count
        new = [first]
    return length


@torch.no_grad()
def matrix_costs(
    plain: Network,
    quantised: Network,
    texts: Sequence[Text],
    *,
    most: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, float], dict[str, float]]:
    """What each matrix has lost: its relative error, and the mean divergence where it alone is quantised.

    Args:
        plain: the float network.
        quantised: made of it. Where channels were scaled, errors are of the scaled matrices, and nothing is left out.
        texts: few and short ones, as the network reads them once for each matrix.
        most: how many matrices, those of the largest errors first; 0: none.
        progress: told of matrices done, and of all.

    Returns:
        name -> ‖W - Q‖ / ‖W‖, and name -> nats per token.
    """
    blocks = blocks_in(quantised)
    weights = {**floats_in(plain), **{n: b.numbers() for n, b in blocks_in(plain).items()}}
    errors = {
        name: float((kept.numbers() - weights[name]).norm() / weights[name].norm().clamp(min=1e-30))
        for name, kept in blocks.items()
        if not (name == "lm_head.weight" and getattr(plain.config, "tied", False))
    }
    worst = sorted(errors, key=lambda name: -errors[name])[:most]
    costs: dict[str, float] = {}
    for number, name in enumerate(worst):
        alone = with_blocks(plain, {name: blocks[name]})
        costs[name] = compare(plain, alone, texts, free=False).kl_mean or 0.0
        progress(number + 1, len(worst))
    return errors, costs


def with_blocks(network: Network, blocks: Mapping[str, Blocks]) -> Network:
    """The same network, sharing its weights, with these matrices of blocks; a tied one under both its names."""
    made, own = assemble(network.config, None), {**blocks_in(network), **blocks}
    if (
        getattr(network.config, "tied", False)
        and "embed_tokens.weight" in own
        and "lm_head.weight" in made.state_dict()
    ):
        own["lm_head.weight"] = own["embed_tokens.weight"]
    return fill(made, {name: tensor for name, tensor in floats_in(network).items() if name not in own}, own)


def eight_bits(x: Float[Tensor, "*S C"]) -> Float[Tensor, "*S C"]:
    """Numbers rounded to 8 bits, 32 neighbours with a scale of their own, as the native kernels round what they read.

    What is left over behind the last whole group stays as it is.
    """
    whole = x.shape[-1] // GROUP * GROUP
    groups = x[..., :whole].unflatten(-1, (-1, GROUP))
    scale = groups.abs().amax(dim=-1, keepdim=True) / 127
    rounded = torch.where(scale == 0, 0.0, groups / scale).round() * scale
    return torch.cat((rounded.flatten(-2), x[..., whole:]), dim=-1)


class _Rounded(nn.Module):
    """A module whose input, or output, is rounded to 8 bits."""

    def __init__(self, inner: nn.Module, *, before: bool) -> None:
        super().__init__()
        self.inner, self.before = inner, before

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(eight_bits(x)) if self.before else eight_bits(self.inner(x))


def with_rounded_activations(network: Decoder) -> Decoder:
    """A decoder whose quantised matrices read numbers of 8 bits, as in the native kernels. Norms must stand before.

    It shares everything with the one given, and is for measuring: its weights have other names.
    """
    made = with_blocks(network, {})
    assert isinstance(made, Decoder)
    assert network.config.norm_place != "after"
    for block in made.blocks:
        into_attention, _, into_mlp, _ = block.norms
        for name, module in list(block.named_children()):
            if module is into_attention or module is into_mlp:
                setattr(block, name, _Rounded(module, before=False))
        for parent, name in ((block.self_attn, "o_proj"), (getattr(block, "mlp", None), "down_proj")):
            if parent is not None and isinstance(inner := getattr(parent, name, None), QuantisedLinear):
                setattr(parent, name, _Rounded(inner, before=True))
    if isinstance(getattr(made, "lm_head", None), QuantisedLinear):
        made.lm_head = _Rounded(made.lm_head, before=True)  # pyright: ignore[reportAttributeAccessIssue]
    return made
