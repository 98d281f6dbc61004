"""One run of a decoder with transcoders in the place of its MLPs, and what each active part of it adds to each other.

Of an MLP without a transcoder neurons can stand in the place of features: each held to the line from zero to what it
gave, so that what it reads and what it gives are proportional, as a feature's are.

Shapes: T tokens, C channels, L layers, F active features or neurons, M neurons of an MLP, N nodes, R logits that are
followed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.interp.features.dictionary import Features
from cutaway.interp.features.frozen import Frozen
from cutaway.interp.features.units import Neurons
from cutaway.interp.record import Recording
from cutaway.models import Decoder

Read: TypeAlias = Callable[[list[Tensor], Tensor], Tensor]  # of what MLPs read and the final norm, one sum


@dataclass(frozen=True)
class Traced:
    """One run with transcoders in it, and everything that enters its residual stream."""

    network: Decoder
    frozen: Frozen
    transcoders: dict[int, Features]  # of other layers the features are neurons
    features: Tensor  # (F, 3) layer, position, number; by layer
    active: Tensor  # (F,)
    pre: Tensor  # (F,) what they read
    encoders: Tensor  # (F, C)
    biases: Tensor  # (F,) what they read of no stream
    writes: Tensor  # (F, C) decoder direction times activation
    errors: Tensor  # (L, T, C)
    embed: Tensor  # (1, T, C)
    final: Tensor  # (1, T, C), the final norm
    rest_reads: Tensor  # (L, T, C) what MLPs would read of biases alone
    rest_final: Tensor  # (T, C)

    @staticmethod
    @torch.no_grad()
    def of(network: Decoder, recording: Recording, transcoders: dict[int, Features], neurons: int = 0) -> Traced:
        """Trace a run; of MLPs without a transcoder so many neurons in all, those that write most, are features too."""
        transcoders = {i: copy.deepcopy(one).to(recording["embed"]) for i, one in transcoders.items()}
        frozen, embed = Frozen(network, recording), recording["embed"]
        L, (_, _T, C) = network.config.layers, embed.shape
        nothing = torch.zeros_like(embed)  # of a layer without an MLP
        written = [recording[f"layers.{i}.mlp_out"] if network.config.mlp else nothing for i in range(L)]
        reads, final = frozen(embed, written)
        names = ("features", "active", "pre", "encoders", "biases", "writes")
        rows: dict[str, list[Tensor]] = {name: [] for name in names}
        errors, biases = [], []
        units = Neurons.strongest(network, reads, [i for i in range(L) if i not in transcoders], neurons)
        for i in range(L):
            transcoder = transcoders.get(i)
            if transcoder is None:
                found = units.get(i)
                errors.append(written[i][0] if found is None else written[i][0] - found.sum_into(nothing[0]))
                biases.append(nothing)
                for name in names if found is not None else ():
                    rows[name].append(getattr(found, name))
                continue
            pre = transcoder.pre(reads[i][0])
            active = transcoder.activate(pre)  # (T, W)
            position, number = active.nonzero().unbind(1)
            values = active[position, number]
            rows["features"].append(torch.stack((torch.full_like(position, i), position, number), dim=1))
            rows["active"].append(values)
            rows["pre"].append(pre[position, number])
            rows["encoders"].append(transcoder.encoder[number])
            rows["biases"].append(transcoder.encoder_bias[number])
            rows["writes"].append(transcoder.decoder[number] * values[:, None])
            errors.append(written[i][0] - transcoder.decode(active))
            biases.append(transcoder.bias.expand_as(embed))
        rest_reads, rest_final = frozen(nothing, biases)
        empty = {
            "features": torch.zeros(0, 3, dtype=torch.int64),
            "active": embed.new_zeros(0),
            "pre": embed.new_zeros(0),
            "encoders": embed.new_zeros(0, C),
            "biases": embed.new_zeros(0),
            "writes": embed.new_zeros(0, C),
        }
        joined = {name: torch.cat([empty[name], *parts]) for name, parts in rows.items()}
        # there may be no layers, and of nothing no stack can be made
        missed = torch.stack([*errors, nothing[0]])[:L]
        rest = torch.stack([*rest_reads, nothing])[:L, 0]
        rests = {"rest_reads": rest, "rest_final": rest_final[0]}
        return Traced(network, frozen, transcoders, **joined, errors=missed, embed=embed, final=final, **rests)

    def nodes(self, logits: int) -> int:
        """How many nodes there are: features, errors, embeddings, one for all biases, logits."""
        L, T = self.errors.shape[:2]
        return len(self.features) + L * T + T + 1 + logits

    def kinds(self, logits: int) -> list[str]:
        """What each node is."""
        L, T = self.errors.shape[:2]
        return ["feature"] * len(self.features) + ["error"] * (L * T) + ["embed"] * T + ["bias"] + ["logit"] * logits

    @property
    def sources(self) -> int:
        """How many nodes add to others: all but logits, which stand last."""
        return self.nodes(0)

    def follow_features(self, chosen: Int[Tensor, " R"]) -> tuple[Float[Tensor, "R N"], float]:
        """What every node adds to some features' pre-activations; and by how much the worst sum misses its own."""
        layers, positions, _ = self.features[chosen].unbind(1)
        where = list(enumerate(zip(layers.tolist(), positions.tolist(), strict=True)))
        encoders = self.encoders[chosen]

        def read(reads: list[Tensor], final: Tensor) -> Tensor:
            return (torch.stack([reads[layer][b, place] for b, (layer, place) in where]) * encoders).sum()

        rest = (self.rest_reads[layers, positions] * encoders).sum(1) + self.biases[chosen]
        return self._follow(read, rest, self.pre[chosen])

    def follow_logits(self, readers: Float[Tensor, "R C"]) -> tuple[Float[Tensor, "R N"], float]:
        """The same of logits, given what reads the final norm."""

        def read(reads: list[Tensor], final: Tensor) -> Tensor:
            return (final[:, -1] * readers).sum()

        return self._follow(read, readers @ self.rest_final[-1], readers @ self.final[0, -1])

    def _follow(self, read: Read, rest: Float[Tensor, " R"], wanted: Float[Tensor, " R"]) -> tuple[Tensor, float]:
        """What every node but logits adds to some numbers, each read from a copy of its own."""
        L, T, C = self.errors.shape
        with torch.enable_grad():
            embed = self.embed.expand(len(rest), T, C).clone().requires_grad_()
            writes = [torch.zeros_like(embed).requires_grad_() for _ in range(L)]
            value = read(*self.frozen(embed, writes))
            slopes = torch.autograd.grad(value, [embed, *writes], allow_unused=True)
        filled = [torch.zeros_like(embed) if slope is None else slope for slope in slopes]
        into = torch.stack(filled, dim=1)[:, 1:]  # (copies, L, T, C), what each written number adds
        layer, position, _ = self.features.unbind(1)
        # a copy at a time: the slopes at all features together would be large
        features = torch.stack([(one[layer, position] * self.writes).sum(1) for one in into])
        errors = (into * self.errors).sum(-1).flatten(1)
        embeds = (filled[0] * self.embed).sum(-1)
        rows = torch.cat((features, errors, embeds, rest[:, None]), dim=1)
        return rows.cpu(), float(((rows.sum(1) - wanted).abs() / wanted.abs().clamp_min(1)).max())

    def total_effects(
        self, logits: Float[Tensor, "G N"], weights: Float[Tensor, "R N"], rows: Int[Tensor, " R"]
    ) -> Float[Tensor, "G N"]:
        """What each node adds to logits along all paths, if every active feature answers in proportion.

        A feature's activation is its pre-activation, so one that reads less writes less: the effect e of all nodes
        solves e = w + Mᵀe, where w is what they add to a logit and M[t, s] what s adds to t, per activation of t.

        Args:
            logits: what every node adds to each.
            weights: what every node adds to the features that were followed.
            rows: which features these are.
        """
        answers = weights / self.active.cpu()[rows][:, None]
        eye = torch.eye(len(rows), dtype=weights.dtype)
        followed = torch.linalg.solve(eye - answers[:, rows].T, logits[:, rows].T)  # (R, G)
        return logits + (answers.T @ followed).T

    def names(self, tokens: list[str], logits: list[str]) -> tuple[list[str], list[str], list[float]]:
        """Of every node its name, what is shown, and its depth."""
        L, T = self.errors.shape[:2]
        names, labels, depths = [], [], []
        for layer, position, number in self.features.tolist():
            kind = "feature" if layer in self.transcoders else "neuron"
            names.append(f"layers.{layer}.{kind}.{number}@{position}")
            labels.append(f"layer {layer} {kind} {number} at “{tokens[position]}” ({position})")
            depths.append(layer + 1.0)
        for layer in range(L):
            for position in range(T):
                names.append(f"layers.{layer}.error@{position}")
                labels.append(f"layer {layer} error at “{tokens[position]}” ({position})")
                depths.append(layer + 1.0)
        names += [f"embed@{position}" for position in range(T)]
        labels += [f"“{token}” ({position})" for position, token in enumerate(tokens)]
        depths += [0.0] * T
        names += ["biases", *(f"logit.{i}" for i in range(len(logits)))]
        labels += ["biases", *logits]
        depths += [0.0] + [L + 1.0] * len(logits)
        return names, labels, depths
