"""Attribution graphs: which features led to which, and to the next token (Ameisen et al. 2025, "Circuit Tracing").

Transcoders stand in the place of MLPs, and what they miss is a node of its own; attention patterns and norms are held
at what they were in this run. Between what is active, everything is then linear, and an edge is an exact amount.

Shapes: T tokens, C channels, F active features, N nodes, R of them that are followed back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.features.dictionary import Features, load_features
from cutaway.interp.features.frozen import names_of
from cutaway.interp.features.mlp import decoder_of, mlp_layer
from cutaway.interp.features.prune import influence, pruned
from cutaway.interp.features.trace import Traced
from cutaway.interp.inputs import Text, forward, inputs_of
from cutaway.interp.receipt import Clock, Receipt
from cutaway.interp.record import Recording, record
from cutaway.interp.results import Cell, Edge, Graph, Node, Panel, Table
from cutaway.interp.target import choice_of
from cutaway.models import ActiveTap, Model
from cutaway.progress import OnProgress, Progress

LOGITS, SHARE = 10, 0.95  # so many next tokens are nodes, or as many as have this probability together


@dataclass(frozen=True)
class AttributionGraph(Panel):
    """What `attribution_graph` found. Nodes are numbered: features, errors, embeddings, biases, logits.

    Attributes:
        weights: (R, N) what every node adds to each of those that were followed: to a feature's pre-activation, to a
            logit less the mean of all.
        rows: (R,) the nodes that were followed: logits first.
        values: (N,) activations of features, logits less their mean; 1 of the others.
        features: (F, 3) layer, position and number of each active feature.
        names: of every node.
        shown: which nodes the pruned graph shows.
        run: between what the edges are.
        recording: of the plain run, up to the token that is asked about.
        readers: (G, C) what reads each of the logits that were followed, of what the final norm makes.
        answers: what these say.
        ids: the next tokens whose logits they are.
        tokens: of the text up to there, to be read.
    """

    weights: Float[Tensor, "R N"] = field(kw_only=True, repr=False, compare=False)
    rows: Int[Tensor, " R"] = field(kw_only=True, repr=False, compare=False)
    values: Float[Tensor, " N"] = field(kw_only=True, repr=False, compare=False)
    features: Int[Tensor, "F 3"] = field(kw_only=True, repr=False, compare=False)
    names: list[str] = field(kw_only=True, repr=False)
    shown: list[int] = field(kw_only=True, repr=False)
    run: Traced = field(kw_only=True, repr=False, compare=False)
    recording: Recording = field(kw_only=True, repr=False, compare=False)
    readers: Float[Tensor, "G C"] = field(kw_only=True, repr=False, compare=False)
    answers: list[str] = field(kw_only=True)
    ids: list[int] = field(kw_only=True)
    tokens: list[str] = field(kw_only=True)

    def effects(self) -> Float[Tensor, "G N"]:
        """What every node adds to each logit along all paths, if every active feature answers in proportion."""
        count = len(self.readers)
        return self.run.total_effects(self.weights[:count], self.weights[count:], self.rows[count:])


@torch.no_grad()
def attribution_graph(
    model: Model,
    text: Text,
    transcoders: Sequence[Features | str | Path] = (),
    *,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    neurons: int = 0,
    most: int = 2000,
    keep_nodes: float = 0.8,
    keep_edges: float = 0.98,
    tested: int = 10,
    batch: int = 64,
    progress: OnProgress | None = None,
) -> AttributionGraph:
    """Which features led to the next token, and through which others.

    Args:
        model: a decoder that predicts the next token.
        text: of several texts the first.
        transcoders: of its MLPs, or the folders that they were saved to; `config.name` says of which MLP each is. One
            without a transcoder stays as it was, as an error node, but for `neurons`.
        token: the next token whose logit (less the mean of all logits, or less that of `minus`) is followed back; None
            follows the likeliest ones, up to 10 or 95 % of the probability.
        minus: another token, which is subtracted.
        position: after which token.
        neurons: of MLPs without a transcoder so many neurons in all are nodes, those that write most at any token; what
            is left of such an MLP is its error node. A neuron's activation, and of a gated MLP its gate, is held to be
            proportional to what it reads.
        most: active features that are followed further back, those of the largest influence first.
        keep_nodes: the pruned graph keeps nodes until they have this share of all influence.
        keep_edges: and then edges, likewise.
        tested: how many of the most influential features are taken out of the plain model, to compare what happens
            with what the graph predicts.
        batch: nodes that are followed back together.
        progress: told how many are done.

    Returns:
        A panel of the pruned graph, the tested features and the share that is explained; it holds all edges as well.

    Raises:
        ConfigError: the network is no decoder that predicts the next token, or transcoders do not fit it.
        InputError: empty text, a position outside it, or a token that is none.
    """
    if min(neurons, most, tested) < 0:
        raise InputError("neurons, most and tested are counts from 0 up")
    network = decoder_of(model, "an attribution graph")
    model.speaker("an attribution graph")
    by_layer = _by_layer(model, transcoders)
    options = {"token": token, "minus": minus, "position": position, "neurons": neurons or None, "most": most}
    options |= {"keep_nodes": keep_nodes, "keep_edges": keep_edges, "tested": tested}
    folders = [one.place if isinstance(one, Features) else str(one) for one in transcoders]
    named = folders if all(folders) else transcoders[0]  # which has no spelling but its name
    clock = Clock(model, "attribution_graph", text, transcoders=named, **options)
    inputs = inputs_of(model, text).rows(0, 1)
    if inputs.mask is not None:
        inputs = inputs_of(model, inputs.ids[:, inputs.mask[0]])
    place = int(inputs.places(position)[0])
    recording = record(model, inputs.ids[:, : place + 1], names_of(network))
    run = Traced.of(network, recording, by_layer, neurons)
    chosen, readers = _logits(model, recording, token, minus)
    total, used, count = run.nodes(len(chosen)), 0, len(run.features)
    # logits stand last among nodes, and first among the rows of those that are followed
    rows = torch.arange(run.sources, total)
    weights = torch.zeros(len(chosen) + min(most, count), total, dtype=run.embed.dtype)
    chances = recording.logits[0, -1].double().softmax(-1)[chosen].cpu()
    importance = torch.cat((torch.zeros(run.sources, dtype=torch.float64), chances / chances.sum()))
    filled = len(chosen)
    weights[:filled, : run.sources], gap = run.follow_logits(readers)
    waiting = torch.ones(count, dtype=torch.bool)
    while waiting.any() and used < most:
        reach = influence(weights[:filled], rows, importance)[:count].masked_fill(~waiting, 0)
        values, next_ones = reach.topk(min(batch, int(waiting.sum()), most - used))
        next_ones = next_ones[values > 0]
        if not len(next_ones):
            break  # the others lead nowhere
        stop = filled + len(next_ones)
        weights[filled:stop, : run.sources], miss = run.follow_features(next_ones)
        gap, filled, rows = max(gap, miss), stop, torch.cat((rows, next_ones))
        waiting[next_ones] = False
        used += len(next_ones)
        if progress is not None:
            progress(Progress("following", used, min(most, count), "features"))
    weights = weights[:filled]
    values = torch.ones(total, dtype=weights.dtype)
    values[:count] = run.active
    values[run.sources :] = readers @ run.final[0, -1]
    what = _what(model, token, minus, chosen)
    names, labels, depths = run.names(recording.tokens, what)
    kinds = ["feature"] * count + ["error"] * run.errors[..., 0].numel() + ["embed"] * run.embed.shape[1]
    kinds += ["bias"] + ["logit"] * len(chosen)
    kept, edges = pruned(weights, rows, importance, kinds, keep_nodes, keep_edges)
    nodes = sorted((Node(names[i], labels[i], float(values[i]), depths[i]) for i in kept), key=lambda node: node.depth)
    row_of = {node: row for row, node in enumerate(rows.tolist())}
    lines = [Edge(names[s], names[t], float(weights[row_of[t], s])) for t, s in edges]
    receipt = clock.receipt(gap=gap, bytes=recording.receipt.bytes)
    after = f"after “{recording.tokens[-1]}” (position {place})"
    graph = Graph(f"What led to {what[0]} {after}", "activation or logit", nodes, lines, receipt=receipt)
    reach = influence(weights, rows, importance)
    effects = run.total_effects(weights[:1], weights[len(chosen) :], rows[len(chosen) :])[0]  # (N,)
    strongest = reach[:count].topk(min(tested, count)).indices
    table, agreement = _tested(model, recording, run, readers[0], strongest, effects, labels, receipt)
    figures = {
        "active features": float(count),
        "followed": float(used),
        "through features": _through(reach, kinds),
        "correlation": agreement,
    }
    notes = [
        "An edge is exact for this run with attention patterns and norms held; what transcoders miss of an MLP is an "
        "error node, and stands for whatever it does.",
        "Where other features become active or attention moves, the model departs from the graph: the tested features "
        "show by how much.",
    ]
    if used < count:
        notes.append(f"{count - used} of {count} active features were not followed further back.")
    if network.config.logit_cap:
        notes.append("Logits are those before the soft cap.")
    return AttributionGraph(
        graph.what, {"graph": graph, "tested": table}, notes, figures,
        weights=weights, rows=rows, values=values, features=run.features, names=names, shown=kept, run=run,
        recording=recording, readers=readers, answers=what, ids=chosen.tolist(), tokens=list(recording.tokens),
        receipt=receipt,
    )  # fmt: skip


def _by_layer(model: Model, transcoders: Sequence[Features | str | Path]) -> dict[int, Features]:
    found: dict[int, Features] = {}
    width = model.config.width
    for given in transcoders:
        transcoder = given if isinstance(given, Features) else load_features(given)
        config = transcoder.config
        if not config.transcoder:
            raise ConfigError(
                f"{config.name or 'one of them'} is a sparse autoencoder; the graph is made of transcoders"
            )
        layer = mlp_layer(model, config.name)
        if (config.reads, config.writes) != (width, width):
            raise ConfigError(
                f"the transcoder of {config.name} reads {config.reads} and writes {config.writes} channels, but the "
                f"stream has {width}"
            )
        if layer in found:
            raise ConfigError(f"two transcoders of {config.name} were given")
        found[layer] = transcoder
    return found


def _logits(
    model: Model, recording: Recording, token: str | int | None, minus: str | int | None
) -> tuple[Int[Tensor, " R"], Float[Tensor, "R C"]]:
    """Which next tokens are followed, and what reads their logits, less the mean or the other one."""
    table = model.network.lm_head.weight.detach()  # pyright: ignore[reportAttributeAccessIssue]
    if token is None and minus is not None:
        raise ConfigError("minus needs a token from which it is subtracted")
    if token is None:
        chances, order = recording.logits[0, -1].softmax(-1).sort(descending=True)
        enough = int((chances.cumsum(0) < SHARE).sum()) + 1
        chosen = order[: min(enough, LOGITS)]
    else:
        chosen = torch.tensor([choice_of(model, token, "causal_lm")[0]])
    other = table.mean(0) if minus is None else table[choice_of(model, minus, "causal_lm")[0]]
    return chosen, table[chosen] - other


def _what(model: Model, token: str | int | None, minus: str | int | None, chosen: Tensor) -> list[str]:
    names = [f"“{model.tokenizer.token(i)}”" for i in chosen.tolist()]
    if minus is not None:
        names = [f"{name} rather than {choice_of(model, minus, 'causal_lm')[1]}" for name in names]
    return names


def _through(reach: Tensor, kinds: list[str]) -> float:
    """The share of what reaches logits from embeddings and errors that comes from embeddings: the graph's faithfulness.

    (The replacement score of Ameisen et al. 2025.)
    """
    of_kind = {kind: float(reach[[i for i, k in enumerate(kinds) if k == kind]].sum()) for kind in ("embed", "error")}
    return of_kind["embed"] / max(sum(of_kind.values()), 1e-30)


@torch.no_grad()
def _tested(
    model: Model,
    recording: Recording,
    run: Traced,
    reader: Tensor,
    chosen: Tensor,
    effects: Tensor,
    labels: list[str],
    receipt: Receipt,
) -> tuple[Table, float]:
    """Features taken out of the plain model one at a time: predicted and actual change of the first logit."""
    rows: list[list[Cell]] = []
    for i in chosen.tolist():
        layer, position, _ = run.features[i].tolist()
        part = run.writes[i]

        def without(x: Tensor, position: int = position, part: Tensor = part) -> Tensor:
            x = x.clone()
            x[0, position] -= part
            return x

        seen: dict[str, Tensor] = {}
        edits = {f"layers.{layer}.mlp_out": without}
        forward(model, recording.inputs, ActiveTap(["final_norm"], edits, seen.__setitem__))
        change = float((seen["final_norm"] - recording["final_norm"])[0, -1] @ reader)
        rows.append([labels[i], float(run.active[i]), -float(effects[i]), change])
    heads = ["taken out", "activation", "predicted", "actual"]
    table = Table("Change of the logit when a feature is taken out of the model", heads, rows, receipt=receipt)
    if len(rows) < 3:
        return table, float("nan")
    pairs = torch.tensor([[row[2], row[3]] for row in rows], dtype=torch.float64)
    return table, float(torch.corrcoef(pairs.T)[0, 1])
