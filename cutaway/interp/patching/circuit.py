"""Circuits found by themselves: which edges between parts carry what is different about a text.

Edge attribution patching (Syed et al. 2023, https://arxiv.org/abs/2310.10348), with integrated gradients on request
(Hanna et al. 2024, https://arxiv.org/abs/2403.17806): an edge from what one part writes to what another reads counts
(clean - corrupt) · gradient, where the difference is the writer's and the gradient that of the reader's input. How much
the edges that are kept explain is then measured, not guessed: every other edge is patched.

Shapes: T tokens, C channels, H query heads, K key/value heads, D head dim, U writers, V readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.interp.inputs import Text, evaluating
from cutaway.interp.patching.pairs import Align, Pair
from cutaway.interp.patching.patch import Study, study
from cutaway.interp.receipt import Clock
from cutaway.interp.record import Recording, record, recording_of, replace
from cutaway.interp.results import Edge, Graph, Node
from cutaway.interp.target import Quantity
from cutaway.models import ActiveTap, Decoder, Encoder, Model
from cutaway.models.decoder import Block
from cutaway.models.encoder import Block as EncoderBlock
from cutaway.progress import OnProgress, Progress

QKV = ("q", "k", "v")


@dataclass(frozen=True)
class CircuitEdge(Edge):
    """An edge into a head says what it feeds there.

    Attributes:
        reads: "q", "k" or "v" of a head; "" of other readers. Where heads share keys and values, the edge stands at the
            first of them.
    """

    reads: str = ""


@dataclass(frozen=True)
class Circuit(Graph):
    """The edges that count most, on paths from the embedding to the logits.

    Attributes:
        faithfulness: the part of the answer that is left when every other edge carries the corrupt run's values.
        clean: the target in the clean run.
        corrupt: in the corrupt run.
        left: in the clean run with every other edge patched.
        scores: of all edges there are, largest first by absolute value.
    """

    faithfulness: float = field(kw_only=True)
    clean: float = field(kw_only=True)
    corrupt: float = field(kw_only=True)
    left: float = field(kw_only=True)
    scores: list[CircuitEdge] = field(kw_only=True, repr=False, compare=False)


@dataclass(frozen=True)
class Reader:
    """A part's input.

    Attributes:
        node: whose.
        layer: which; as many as there are: the logits'.
        reads: "q", "k", "v", "" of an MLP or the logits.
        index: of the query head, or the key/value head.
    """

    node: str
    layer: int
    reads: str = ""
    index: int = 0


def circuit(
    model: Model,
    text: Text,
    corrupt: Text | None = None,
    *,
    edges: int = 20,
    threshold: float = 0.0,
    steps: int = 0,
    token: str | int | None = None,
    minus: str | int | None = None,
    position: int = -1,
    quantity: Quantity = "logit",
    align: Align = "refuse",
    progress: OnProgress | None = None,
) -> Circuit:
    """Find the circuit of an answer by edge attribution patching, and measure what it explains.

    Args:
        model: a decoder or an encoder in which norms stand before what they are for, so that writes add up.
        text: the clean one, as in `patch`; of several texts scores are means.
        corrupt: as in `patch`.
        edges: how many are kept, those of the largest scores; of them, those on no path to the logits are dropped.
        threshold: edges of smaller scores are left out too.
        steps: of integrated gradients between the corrupt and the clean embedding; 0: one gradient, at the corrupt run.
        token: whose number is asked about, with minus, position and quantity as in `target_of`.
        minus: likewise.
        position: likewise.
        quantity: likewise.
        align: "refuse": circuits compare position by position, so texts must be equally long.
        progress: told how many steps are done.

    Raises:
        ConfigError: a network whose parts do not write into one stream that adds up.
        InputError: fewer than one edge, or as in `patch`.
    """
    clock = Clock(
        model, "circuit", text, corrupt=corrupt, edges=edges, threshold=threshold, steps=steps, token=token,
        minus=minus, position=position, quantity=quantity,
    )  # fmt: skip
    network = model.network
    if not isinstance(network, Decoder | Encoder) or network.config.norm_place != "before":
        raise ConfigError(
            "circuits are found where every part adds to one stream that the others read: in a decoder or an encoder "
            "with norms before its parts, and this is another network"
        )
    if edges < 1 or steps < 0 or align != "refuse":
        raise InputError(f"edges must be at least 1, steps 0 or more and align 'refuse', not {edges}, {steps}, {align}")
    made = study(model, text, corrupt, token=token, minus=minus, position=position, quantity=quantity, align=align)
    parts = Parts(model)
    scores = torch.zeros(len(parts.writers), len(parts.readers), dtype=torch.float64)
    for pair in made.pairs:
        scores += _scores(parts, pair, made, steps, progress)
    scores /= len(made.pairs)
    everything = [
        (float(scores[u, v]), parts.writers[u], parts.readers[v])
        for v in range(len(parts.readers))
        for u in range(len(parts.writers))
        if parts.feeds(parts.writers[u], parts.readers[v])
    ]
    everything.sort(key=lambda edge: -abs(edge[0]))
    kept = _connected([edge for edge in everything[:edges] if abs(edge[0]) >= threshold])
    lefts = [left_of(parts, pair, made, [(writer, reader) for _, writer, reader in kept]) for pair in made.pairs]
    left = torch.tensor([sum(lefts) / len(lefts)], dtype=torch.float64)
    names = [name for name in parts.nodes if any(name in (writer, reader.node) for _, writer, reader in kept)]
    strength = {name: sum(abs(w) for w, writer, reader in kept if name in (writer, reader.node)) for name in names}
    return Circuit(
        f"{made.target.what}: {len(kept)} of {len(everything)} edges keep {float(made.recovered(left)):.0%} of it",
        made.target.quantity,
        [Node(name, parts.said(name), strength[name], parts.depth(name)) for name in names],
        [CircuitEdge(writer, reader.node, weight, reader.reads) for weight, writer, reader in kept],
        faithfulness=float(made.recovered(left)),
        clean=float(made.clean.mean()),
        corrupt=float(made.corrupt.mean()),
        left=float(left),
        scores=[CircuitEdge(writer, reader.node, weight, reader.reads) for weight, writer, reader in everything],
        receipt=clock.receipt(difference=made.difference),
    )


class Parts:
    """What writes into the stream of a model, and what reads it.

    Attributes:
        writers: names of nodes: "embed", "layers.0.head.1", "layers.0.mlp" …
        readers: of queries, keys and values, MLPs and logits.
        nodes: writers and "logits".
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        config: Any = model.config
        self.count, self.heads = config.layers, config.heads
        self.shared = self.heads // getattr(config, "kv_heads", self.heads)  # query heads of one key head
        self.parallel, self.mlp = getattr(config, "parallel", False), getattr(config, "mlp", True)
        self.writers, self.readers = ["embed"], []
        for i in range(self.count):
            for reads in QKV:
                step = 1 if reads == "q" else self.shared
                self.readers += [
                    Reader(f"layers.{i}.head.{h}", i, reads, h // step) for h in range(0, self.heads, step)
                ]
            self.writers += [f"layers.{i}.head.{h}" for h in range(self.heads)]
            if self.mlp:
                self.readers.append(Reader(f"layers.{i}.mlp", i))
                self.writers.append(f"layers.{i}.mlp")
        self.readers.append(Reader("logits", self.count))
        self.nodes = [*self.writers, "logits"]

    def depth(self, node: str) -> float:
        """How far behind the embedding: layers count two, their heads standing before their MLP."""
        if node == "embed":
            return 0.0
        if node == "logits":
            return 2.0 * self.count + 1
        return 2.0 * int(node.split(".")[1]) + (2 if node.endswith("mlp") else 1)

    def said(self, node: str) -> str:
        """To be read."""
        if not node.startswith("layers."):
            return {"embed": "embedding"}.get(node, node)
        _, layer, part, *head = node.split(".")
        return f"layer {layer} {' '.join([part, *head])}"

    def feeds(self, writer: str, reader: Reader) -> bool:
        """Whether a part writes before another reads."""
        if writer == "embed" or reader.node == "logits":
            return True
        layer = int(writer.split(".")[1])
        within = layer == reader.layer and not reader.reads and ".head." in writer and not self.parallel
        return layer < reader.layer or within

    def written(self, recording: Recording, layer: int) -> dict[str, Tensor]:
        """What each part of a layer writes, (T, C), but for biases, which are the same in every run."""
        z = recording[f"layers.{layer}.attn.z"][0]  # (H, T, D)
        by_head = torch.einsum("htd,chd->htc", z, self._output(layer))
        found = {f"layers.{layer}.head.{h}": by_head[h] for h in range(self.heads)}
        if self.mlp:
            found[f"layers.{layer}.mlp"] = recording[f"layers.{layer}.mlp_out"][0]
        return found

    def _output(self, layer: int) -> Tensor:
        """The output matrix by head, (C, H, D)."""
        block = self.model.network.blocks[layer]  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
        assert isinstance(block, Block | EncoderBlock)
        return block.self_attn.o_proj.weight.unflatten(1, (self.heads, -1))

    def names(self) -> list[str]:
        """What has to be recorded for what parts write."""
        return ["layers.*.attn.z", *["layers.*.mlp_out"] * self.mlp, "layers.*.resid_*"]

    def layer(self, layer: int, x: Tensor, keep: Sequence[str], edits: dict[str, Any]) -> dict[str, Tensor]:
        """Activations of one layer for streams (B, T, C), by name within the layer."""
        kept: dict[str, Tensor] = {}
        before = f"layers.{layer}."
        tap = ActiveTap(
            [before + name for name in keep], {before + name: edit for name, edit in edits.items()}, kept.__setitem__
        )
        network: Any = self.model.network
        with evaluating(self.model):
            network.resume(layer, x, stop=layer + 1, tap=tap)
        return {name.removeprefix(before): value for name, value in kept.items()}


@torch.no_grad()
def _scores(parts: Parts, pair: Pair, made: Study, steps: int, progress: OnProgress | None) -> Tensor:
    """(U, V) float64 of every edge from writer to reader."""
    names = parts.names()
    clean, corrupt = recording_of(pair.clean, "", names), recording_of(pair.corrupt, "", names)
    rows = [clean["layers.0.resid_pre"][0] - corrupt["layers.0.resid_pre"][0]]
    for i in range(parts.count):
        mine, theirs = parts.written(clean, i), parts.written(corrupt, i)
        rows += [mine[name] - theirs[name] for name in mine]
    differences = torch.stack(rows).double().flatten(1)  # (U, T · C)
    total = torch.zeros(len(parts.writers), len(parts.readers), dtype=torch.float64)
    shares = [(k + 0.5) / steps for k in range(steps)] or [0.0]  # midpoints
    for done, share in enumerate(shares):
        slopes = _slopes(parts, pair, made, share).double().flatten(1)  # (V, T · C)
        total += (differences @ slopes.T).cpu() / len(shares)
        if progress is not None:
            progress(Progress("scoring edges", done + 1, len(shares), "steps"))
    return total


def _slopes(parts: Parts, pair: Pair, made: Study, share: float) -> Tensor:
    """(V, T, C) the target's gradient with respect to what each reader reads, so far from corrupt to clean."""
    names = ["layers.*.resid_*", *(f"layers.*.attn.{part}" for part in QKV), *["layers.*.mlp_out"] * parts.mlp]
    if share:
        embeds = [recording_of(run, "", ["embed"])["embed"] for run in (pair.corrupt, pair.clean)]
        mixed = embeds[0] + share * (embeds[1] - embeds[0])
        run = replace(parts.model, pair.corrupt.inputs, {"embed": mixed}, names, gradients=made.target)
    else:
        run = record(parts.model, pair.corrupt.inputs, names, gradients=made.target)
    assert run.gradients is not None
    rows: list[Tensor] = []
    with torch.enable_grad():
        for i in range(parts.count):
            before = f"layers.{i}."
            readers = [reader for reader in parts.readers if reader.layer == i and reader.reads]
            x = run[before + "resid_pre"].repeat(len(readers), 1, 1).requires_grad_()
            seen = parts.layer(i, x, [f"attn.{part}" for part in QKV], {})
            asked = []
            for part in QKV:
                slope = torch.zeros_like(seen[f"attn.{part}"])
                for row, reader in enumerate(readers):
                    if reader.reads == part:
                        slope[row, reader.index] = run.gradients[f"{before}attn.{part}"][0, reader.index]
                asked.append(slope)
            outputs = [seen[f"attn.{part}"] for part in QKV]
            rows += list(torch.autograd.grad(outputs, x, asked)[0])
            if parts.mlp:
                rows.append(_into_mlp(parts, run, i)[0])
    last = f"layers.{parts.count - 1}.resid_post"
    return torch.stack([*rows, run.gradients[last][0]])


def _into_mlp(parts: Parts, run: Recording, layer: int) -> Tensor:
    """(1, T, C) the target's gradient with respect to what an MLP reads of the stream."""
    assert run.gradients is not None
    before = f"layers.{layer}."
    x = run[before + ("resid_pre" if parts.parallel else "resid_mid")].clone().requires_grad_()
    edits = {} if parts.parallel else {"resid_mid": lambda _: x}
    seen = parts.layer(layer, x, ["mlp_out"], edits)
    return torch.autograd.grad(seen["mlp_out"], x, run.gradients[before + "mlp_out"])[0]


def _connected(edges: list[tuple[float, str, Reader]]) -> list[tuple[float, str, Reader]]:
    """The edges on some path from the embedding to the logits."""
    while True:
        fed = {"embed"} | {reader.node for _, _, reader in edges}
        used = {"logits"} | {writer for _, writer, _ in edges}
        kept = [edge for edge in edges if edge[1] in fed and edge[2].node in used]
        if len(kept) == len(edges):
            return kept
        edges = kept


@torch.no_grad()
def left_of(parts: Parts, pair: Pair, made: Study, edges: Sequence[tuple[str, Reader]]) -> float:
    """The target in the clean run, with every edge but these carrying what the corrupt run writes.

    Args:
        parts: of the model.
        pair: the two runs.
        made: for the target.
        edges: (writer, reader) that carry what is now written.
    """
    corrupt = recording_of(pair.corrupt, "", parts.names())
    embeds = [recording_of(run, "", ["layers.0.resid_pre"])["layers.0.resid_pre"] for run in (pair.clean, corrupt)]
    moved = {"embed": embeds[0] - embeds[1]}  # writer -> what it writes now, less what it wrote, (1, T, C)

    def read(reader: Reader, stream: Tensor) -> Tensor:
        """(1, T, C) what a reader reads."""
        return stream + sum((moved[w] for w, r in edges if r == reader and w in moved), torch.zeros_like(stream))

    for i in range(parts.count):
        before, heads = f"layers.{i}.", [reader for reader in parts.readers if reader.layer == i and reader.reads]
        stream = corrupt[before + "resid_pre"]
        seen = parts.layer(i, torch.cat([read(r, stream) for r in heads]), [f"attn.{part}" for part in QKV], {})
        own = {
            part: torch.stack([seen[f"attn.{part}"][row, r.index] for row, r in enumerate(heads) if r.reads == part])[
                None
            ]
            for part in QKV
        }
        edits = {f"attn.{part}": partial(_constant, value) for part, value in own.items()}
        z = parts.layer(i, stream, ["attn.z"], edits)["attn.z"]
        change = torch.einsum("htd,chd->htc", (z - corrupt[before + "attn.z"])[0], parts._output(i))
        moved |= {f"{before}head.{h}": change[h][None] for h in range(parts.heads)}
        if parts.mlp:
            stream = corrupt[before + ("resid_pre" if parts.parallel else "resid_mid")]
            x = read(Reader(f"{before}mlp", i), stream)
            edits = {} if parts.parallel else {"resid_mid": partial(_constant, x)}
            moved[f"{before}mlp"] = parts.layer(i, x, ["mlp_out"], edits)["mlp_out"] - corrupt[before + "mlp_out"]
    stream = corrupt[f"layers.{parts.count - 1}.resid_post"]
    network: Any = parts.model.network
    with evaluating(parts.model):
        output = network.read_out(read(Reader("logits", parts.count), stream))
    return float(made.target(output, pair.corrupt.inputs)[0])


def _constant(value: Tensor, x: Tensor) -> Tensor:
    return value.to(x).expand_as(x)
