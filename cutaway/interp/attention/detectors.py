"""What heads do, by the shape of their patterns and by what is lost without them.

Shapes: B texts, T queries, S keys, L layers, H heads, D head dim, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError, unknown
from cutaway.interp.attention.parts import Heads, heads_of
from cutaway.interp.attention.repeats import exam_of_repeats
from cutaway.interp.inputs import Inputs, Text, evaluating, forward, inputs_of
from cutaway.interp.receipt import Clock, Receipt
from cutaway.interp.record import recording_of
from cutaway.interp.results import Matrix, Panel, Result, Table
from cutaway.interp.text.exam import Exam, exam_of, real_tokens
from cutaway.models import ActiveTap, Decoder, Encoder, Model, Seq2Seq
from cutaway.models.model import Source
from cutaway.progress import OnProgress, Progress

LOGITS = 2**24  # numbers of one batch's output, at the most
ABLATIONS = ("mean", "zero")


def places_of(queries: Int[Tensor, "B T"], keys: Int[Tensor, "B S"], part: str) -> dict[str, Bool[Tensor, "B T S"]]:
    """For each kind of head, which keys it looks at from each query; a query without such keys does not count.

    previous, next: the token beside. first, last: of the text. itself: the query. duplicate: the same token elsewhere.
    induction: the token after the same token elsewhere (the prefix matching of Olsson et al. 2022). Between target and
    source also same place; what is there called induction copies: it looks at the source's token after the one just
    written.

    Args:
        queries: tokens that look.
        keys: tokens looked at; the same tokens but for "cross".
        part: "decoder", whose tokens see only what is before them; "encoder" or "cross".
    """
    T, S = queries.shape[1], keys.shape[1]
    rows, columns = torch.arange(T, device=queries.device)[:, None], torch.arange(S, device=queries.device)
    same = queries[:, :, None] == keys[:, None, :]  # (B, T, S)
    after = torch.cat((torch.zeros_like(same[..., :1]), same[..., :-1]), dim=-1)  # the key behind it is the same
    every = torch.ones_like(same)
    if part == "cross":
        places = {"same place": columns == rows, "first": columns == 0, "last": columns == S - 1}
        return {name: every & place for name, place in places.items()} | {"duplicate": same, "induction": after}
    elsewhere = columns < rows if part == "decoder" else columns != rows
    # where the token itself stands behind another like it, that is no reason to look at it
    after_first = rows > 0  # the first token of a decoder has nothing else to look at
    places = {"previous": columns == rows - 1, "first": (columns == 0) & after_first}
    places["itself"] = (columns == rows) & (after_first if part == "decoder" else True)
    if part == "encoder":
        places |= {"next": columns == rows + 1, "last": (columns == S - 1) & (rows < T - 1)}
    found = {name: every & place for name, place in places.items()}
    if part == "encoder":  # the token after oneself is after the same token, but not elsewhere
        after = after & (columns != rows + 1)
    return found | {"duplicate": same & elsewhere, "induction": after & elsewhere}


def head_scores(
    patterns: Sequence[Float[Tensor, "B H T S"]],
    queries: Int[Tensor, "B T"],
    keys: Int[Tensor, "B S"] | None = None,
    *,
    part: str = "decoder",
    counted: Bool[Tensor, "B T"] | None = None,
) -> dict[str, Float[Tensor, "L H"]]:
    """How much each head looks where a kind of head would look, 0 … 1; NaN where no query has such a key.

    Args:
        patterns: of each layer.
        queries: the tokens that look.
        keys: the tokens looked at, where they are others.
        part: as in `places_of`.
        counted: which queries count; None: all.
    """
    scores = {}
    for name, place in places_of(queries, queries if keys is None else keys, part).items():
        rows = place.any(-1) if counted is None else place.any(-1) & counted  # (B, T)
        shares = [(p.float() * place[:, None]).sum(-1) for p in patterns]  # each (B, H, T)
        scores[name] = torch.stack([share.transpose(1, 2)[rows].mean(0) for share in shares])  # (L, H)
    return scores


def head_detectors(
    model: Model,
    text: Text = "",
    *,
    source: Source | None = None,
    part: str | None = None,
    causal: bool = True,
    ablation: str = "mean",
    rows: int = 8,
    length: int | None = None,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Panel:
    """Which heads look at the previous token, at the first, at duplicates, and behind them (induction).

    By shape: the share of each head's pattern that lies where such a head looks. By effect: how many bits the tokens
    that a repetition tells become more surprising without the head.

    Args:
        model: a model with attention.
        text: what it reads; "" takes random tokens that come twice, at random distances (see `repeated_tokens`).
        source: what an encoder–decoder reads.
        part: "decoder", "encoder" or "cross", as in `attention`.
        causal: whether to measure the effect too, which takes a forward pass for each head and row.
        ablation: what a head writes when it is taken out: "mean", what it writes on average over all rows and tokens
            here, or "zero".
        rows: how many rows of random tokens.
        length: tokens of each; None: 48, or the context where that is shorter.
        seed: of the random tokens, and of which become gaps for a model that fills them.
        progress: told after each layer.

    Returns:
        A panel: a matrix (L, H) for each score, another of the effect, and a table of the best heads with what uniform
        attention would score. Its figures are the bits of tokens that the repetition tells, and of new ones.

    Raises:
        ConfigError: a model without attention or that part, or an unknown ablation.
        InputError: rows that do not fit the context; no text for an encoder–decoder, to which random ones say nothing.
    """
    if ablation not in ABLATIONS:
        raise ConfigError(unknown("ablation", str(ablation), ABLATIONS))
    heads = heads_of(model, part)
    options = {"source": source, "part": part, "causal": causal, "ablation": ablation, "rows": rows, "length": length}
    clock = Clock(model, "head_detectors", text, **options, seed=seed)
    drawn = isinstance(text, str) and not text
    if drawn and isinstance(model.network, Seq2Seq):
        raise InputError("random tokens say nothing to an encoder–decoder: give a text and its source")
    said = causal and _names_tokens(model)
    notes = []
    if drawn:
        told, new = exam_of_repeats(model, rows=rows, length=length, seed=seed)
        read = Inputs(_whole(model, told))
    else:
        read = inputs_of(model, text, source)
        told, new = _exam_of_text(model, read, seed)
    recording = recording_of(model, read, [heads.name("*", "pattern")])
    layers = range(heads.shape[0])
    patterns = [recording[heads.name(i, "pattern")] for i in layers]
    looked = read.source if heads.part == "cross" or (heads.name(0, "q").startswith("encoder.")) else read.ids
    queries = looked if heads.part == "encoder" else read.ids
    if looked is None or looked.ndim != 2:
        raise ConfigError("a model that listens has no tokens in its source to compare; look at its decoder")
    assert queries is not None
    real = read.source_mask if queries is read.source else read.mask
    keys = looked if heads.part == "cross" else None
    scores = head_scores(patterns, queries, keys, part=heads.part, counted=real)
    uniform = head_scores([uniform_pattern(p) for p in patterns[:1]], queries, keys, part=heads.part, counted=real)
    figures: dict[str, float] = {}
    effects = None
    if said:
        figures["bits of repeated tokens"] = _mean(told.losses(model), told.asked) / math.log(2)
        if new is not None:
            figures["bits of new tokens"] = _mean(new.losses(model), new.asked) / math.log(2)
        effects = head_effects(model, heads, told, ablation=ablation, progress=progress)
        if bool((seen := ~scores["induction"].flatten().isnan()).all()) and int(seen.sum()) > 2:
            both = torch.stack((scores["induction"].flatten().double().cpu(), effects.flatten()))
            figures["correlation of induction and effect"] = float(torch.corrcoef(both)[0, 1])  # of no variation: none
    elif causal:
        notes.append("no effect is measured: this model names no tokens, or has no token for a gap")
    if missing := [name for name, score in scores.items() if score.isnan().all()]:
        notes.append(f"the text has no place at which these could be seen: {', '.join(missing)}")
    notes.append(
        "A pattern's shape says where a head looks, not that it matters; the effect says that something is lost "
        "without it, not what it does. Another head may stand in for it."
    )
    receipt = clock.receipt(bytes=recording.receipt.bytes, seed=seed)
    return Panel(
        f"what the heads of the {heads.part} do",
        _parts(heads, scores, uniform, effects, receipt),
        notes,
        figures,
        receipt=receipt,
    )


def head_effects(
    model: Model, heads: Heads, exam: Exam, *, ablation: str = "mean", progress: OnProgress | None = None
) -> Float[Tensor, "L H"]:
    """How many bits what is asked becomes more surprising without each head, (L, H) float64 on the CPU.

    The texts are read once; a run without heads begins at their layer. All heads of a layer are taken out in one batch,
    each in a copy of the texts.

    Args:
        model: what is asked.
        heads: which are taken out.
        exam: what is asked.
        ablation: "mean" or "zero", as in `head_detectors`.
        progress: told after each layer.
    """
    L, H = heads.shape[:2]
    names = [heads.name(layer, "z") for layer in range(L)]
    kept: dict[str, Tensor] = {}
    streams = [f"layers.{layer}.resid_pre" for layer in range(L) if isinstance(model.network, Decoder)]
    with torch.no_grad():
        forward(model, exam.inputs, ActiveTap([*names, *streams], sink=kept.__setitem__))
    plain = float(exam.losses(model)[exam.asked].double().mean())
    numbers = int(exam.asked.sum()) if streams else exam.asked.numel()
    together = max(1, min(H, LOGITS // (numbers * model.config.vocab_size)))
    effects = torch.zeros(L, H, dtype=torch.float64)
    for layer, name in enumerate(names):
        usual = _usual(kept[name], exam.inputs, name) if ablation == "mean" else torch.zeros_like(kept[name][0, :, 0])
        for chosen in torch.arange(H).split(together):
            z = kept[name].repeat_interleave(len(chosen), dim=0)
            for copy, head in enumerate(chosen.tolist()):
                z[copy :: len(chosen), head] = usual[head]
            nats = _nats(model, exam, layer, name, z, kept.get(f"layers.{layer}.resid_pre"))
            effects[layer, chosen] = (nats - plain).cpu() / math.log(2)
        if progress is not None:
            progress(Progress("heads", layer + 1, L, "layers"))
    return effects


@torch.no_grad()
def _nats(
    model: Model, exam: Exam, layer: int, name: str, z: Float[Tensor, "N H T D"], stream: Tensor | None
) -> Float[Tensor, " copies"]:
    """The mean loss with these z in a layer, of each copy; the copies of a text stand behind each other."""
    copies = len(z) // len(exam.targets)
    wider = [x.repeat_interleave(copies, 0) for x in (exam.targets, exam.asked)]
    if stream is None:
        losses = Exam(exam.inputs.repeat(copies), *wider).losses(model, ActiveTap(edits={name: lambda _: z}))
        return torch.stack([losses[copy::copies][exam.asked].double().mean() for copy in range(copies)])
    targets, asked = wider
    mask = exam.inputs.repeat(copies).mask
    with evaluating(model):
        network = model.network
        assert isinstance(network, Decoder)
        after = network.resume(layer, stream.repeat_interleave(copies, 0), mask=mask, z=z)
        logits = network.read_out(after[asked][None])[0]  # of what is asked alone
    nats = torch.nn.functional.cross_entropy(logits.double(), targets[asked], reduction="none")
    copy = torch.arange(len(z), device=z.device).remainder(copies)[:, None].expand_as(asked)[asked]
    return torch.zeros(copies, device=z.device).double().scatter_add(0, copy, nats) / exam.asked.sum()


def _usual(z: Float[Tensor, "B H T D"], inputs: Inputs, name: str) -> Float[Tensor, "H D"]:
    """What heads fetch on average over all texts and tokens."""
    z = z.transpose(1, 2)  # (B, T, H, D)
    mask = inputs.source_mask if name.startswith("encoder.") else inputs.mask
    return z.flatten(0, 1).mean(0) if mask is None else z[mask].mean(0)


def _names_tokens(model: Model) -> bool:
    if isinstance(model.network, Seq2Seq):
        return True
    head = getattr(model.config, "head", "causal_lm")
    return head == "causal_lm" or (head == "masked_lm" and model.tokenizer.mask is not None)


def _whole(model: Model, exam: Exam) -> Tensor:
    """The texts of an exam without its gaps."""
    return exam.targets if isinstance(model.network, Encoder) else exam.inputs.ids


def _exam_of_text(model: Model, inputs: Inputs, seed: int) -> tuple[Exam, Exam | None]:
    """To name the tokens of a text that an earlier place tells: the same two tokens stood there; where none, all."""
    ids = inputs.ids
    usable = real_tokens(inputs)
    same = (ids[:, :, None] == ids[:, None, :]).tril(-1)  # (B, T, T)
    pairs = same[:, 1:, 1:] & same[:, :-1, :-1]
    told = torch.cat((torch.zeros_like(usable[:, :1]), pairs.any(-1)), dim=1) & usable
    if not told.any():
        return exam_of(model, inputs, usable, seed), None
    new = usable & ~told
    return exam_of(model, inputs, told, seed), exam_of(model, inputs, new, seed) if new.any() else None


def uniform_pattern(pattern: Float[Tensor, "B H T S"]) -> Float[Tensor, "B 1 T S"]:
    """The same weight on everything that the pattern may see."""
    seen = (pattern > 0).any(1, keepdim=True).float()
    return seen / seen.sum(-1, keepdim=True)


def _mean(losses: Tensor, asked: Tensor) -> float:
    return float(losses[asked].double().mean())


def _parts(
    heads: Heads,
    scores: Mapping[str, Tensor],
    uniform: Mapping[str, Tensor],
    effects: Tensor | None,
    receipt: Receipt,
) -> dict[str, Result]:
    L, H = heads.shape[:2]
    rows, columns = [f"layer {i}" for i in range(L)], [f"head {i}" for i in range(H)]

    def matrix(what: str, unit: str, values: Tensor, signed: bool) -> Matrix:
        return Matrix(what, unit, rows, columns, values.cpu(), "layer", "head", signed=signed, receipt=receipt)

    parts: dict[str, Result] = {}
    best: list[list[str | int | float | bool | None]] = []

    def name_best(kind: str, made: Matrix, uniform: float | None) -> None:
        for row, column, value in made.top(3):  # a head without a score is not among the best
            i, j = rows.index(row), columns.index(column)
            effect = None if effects is None else float(effects[i, j])
            best.append([kind, f"{i}.{j}", None if uniform is None else value, uniform, effect])

    for name, score in scores.items():
        made = parts[name] = matrix(f"{name}: share of the pattern", "share", score, False)
        name_best(name, made, float(uniform[name].flatten()[0]))
    if effects is not None:
        what = "bits more of surprise at repeated tokens without the head"
        made = parts["effect"] = matrix(what, "bits", effects, True)
        name_best("effect", made, None)
    heads_of_table = ["kind", "layer.head", "score", "uniform attention", "effect in bits"]
    return {"best heads": Table("the three heads of each kind", heads_of_table, best, receipt=receipt), **parts}
