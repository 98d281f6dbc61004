"""How each kind of network is laid out as chains of steps: one function per kind, which mirrors its `forward`.

Shapes: T tokens, C channels, V outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cutaway.interp.ledger.chain import Chain
from cutaway.interp.ledger.ledger import Ledger
from cutaway.interp.ledger.pairs import Compared, PoolApart
from cutaway.interp.ledger.parts import Attention, Mixture, Neurons, Part, at
from cutaway.interp.ledger.reading import Held, Run, Sum
from cutaway.interp.ledger.steps import Activation, ChosenEdit, Edit, Given, Length, Matrix, Norm, Pool, Read, Step, cap
from cutaway.models import Decoder, Encoder, Seq2Seq
from cutaway.models.config_parts import POOLED
from cutaway.models.experts import Experts
from cutaway.models.heads import Head
from cutaway.models.seq2seq_layers import AFTER, Stack, relative_buckets
from cutaway.models.sight import Sight

Transformer = Decoder | Encoder | Seq2Seq


@dataclass(frozen=True)
class Layout:
    """A network as chains.

    Attributes:
        main: of its own tokens; of an encoder–decoder the decoder's.
        source: the encoder's, of an encoder–decoder.
        output: the last step of all, of some of the outputs; None where the last place is the output.
        cap: of the output.
    """

    main: Chain
    source: Chain | None = None
    output: Matrix | None = None
    cap: float = 0.0

    @property
    def chains(self) -> list[Chain]:
        """All of them."""
        return [self.main] if self.source is None else [self.source, self.main]

    @property
    def parts(self) -> dict[str, Part]:
        """Every attention and MLP, by what the names of its activations begin with."""
        return {step.name: step for chain in self.chains for step in chain.steps if isinstance(step, Part)}

    def outputs(self, which: Tensor) -> Chain:
        """From the main chain to some of the outputs."""
        last = self.output
        assert last is not None
        chosen = Matrix(last.matrix, last.name, which, last.scale)
        capped = cap(self.cap) if self.cap else None
        return Chain((self.main, self.main.last)).then(chosen, capped, ChosenEdit("logits", which))


@dataclass(frozen=True)
class Embedding(Step):
    """What stands at the beginning: the vectors of a token, its position, its type.

    Attributes:
        parts: run and position -> names, labels and vectors (P, C).
    """

    parts: Callable[[Run, int], list[tuple[str, str, Tensor]]]

    sums = True

    def forward(self, run: Run, position: int | None, x: Tensor) -> Tensor:
        assert position is not None
        return torch.stack([vector.double() for _, _, vector in self.parts(run, position)]).sum(0)

    def back(self, run: Run, position: int | None, given: Given, reader: Tensor, held: Held, parts: Sum) -> Read | None:
        assert position is not None
        names, labels, vectors = zip(*self.parts(run, position), strict=True)
        parts.add(list(names), torch.stack([vector.double() for vector in vectors]), reader, held, labels)
        return None


def layout(network: Transformer) -> Layout:
    """The chains of a network."""
    if isinstance(network, Decoder):
        return _decoder(network)
    return _encoder(network) if isinstance(network, Encoder) else _seq2seq(network)


def place_of(run: Run, position: int, source: bool) -> int:
    """Which position a token takes, where padding takes none."""
    mask, ids = run.mask(source), run.ids(source)
    places = None if mask is None else Sight(0, ids.shape[-1], ids.device, mask).positions
    return position if places is None else int(places[run.row, position])


def _decoder(network: Decoder) -> Layout:
    config, main = network.config, Chain()

    def embedding(run: Run, t: int) -> list[tuple[str, str, Tensor]]:
        token = network.embed_tokens(run.ids(False)[t : t + 1])[0].double() * config.embed_scale
        parts = [("embed", run.token(t), token)]
        place = place_of(run, t, False)
        if config.position == "learned":
            parts.append(("position", str(place), network.embed_positions.weight[place]))
        elif config.position == "sinusoidal":
            parts.append(("position", str(place), network.positions(run.inputs.ids.shape[1])[place]))
        return parts

    main.then(Embedding(embedding), Edit("embed"))
    for i, block in enumerate(network.blocks):
        layer = f"layers.{i}"
        local = network.rotary_local is not None and config.window(i)
        rotary = network.rotary_local if local else network.rotary
        reads, writes, mlp_reads, mlp_writes = (None if isinstance(norm, nn.Identity) else norm for norm in block.norms)
        pre, mid = f"{layer}.resid_pre", f"{layer}.resid_mid"
        main.then(
            Edit(pre), Attention(main, layer, "attn", block.self_attn, pre, reads, writes, None, rotary), Edit(mid)
        )
        if config.mlp:
            kind = Mixture if isinstance(block.mlp, Experts) else Neurons
            seen = pre if config.parallel else mid
            main.then(kind(main, layer, "mlp", block.mlp, seen, mlp_reads, mlp_writes))  # pyright: ignore[reportArgumentType]
        main.then(Edit(f"{layer}.resid_post"))
    main.then(None if isinstance(network.norm, nn.Identity) else Norm(network.norm, "final_norm"), Edit("final_norm"))
    if config.head == "causal_lm":
        return Layout(main, output=Matrix(network.lm_head, "logits"), cap=config.logit_cap)
    return Layout(main, output=_head(main, network.head))


def _encoder(network: Encoder) -> Layout:
    config, main = network.config, Chain()

    def embedding(run: Run, t: int) -> list[tuple[str, str, Tensor]]:
        parts = [("embed", run.token(t), network.embed_tokens.weight[run.ids(False)[t]])]
        types = run.inputs.token_types
        if config.token_types:
            kind = 0 if types is None or config.apart else int(types[run.row, t])
            parts.append(("type", str(kind), network.embed_types.weight[kind]))
        if config.position == "learned":
            places = network._positions(run.inputs.ids, run.mask(False), types)
            place = int(places[run.row, t]) if isinstance(places, Tensor) else t
            parts.append(("position", str(place), network.embed_positions.weight[place]))
        return parts

    main.then(Embedding(embedding), Edit("embed"))
    if config.embed_norm:
        main.then(Norm(network.embed_norm, "embed_norm"))
    if config.embed_width != config.width:
        main.then(Matrix(network.embed_proj, "embed_proj"))
    for i, block in enumerate(network.blocks):
        layer = f"layers.{i}"
        local = network.rotary_local is not None and config.window(i)
        rotary = network.rotary_local if local else network.rotary
        pre, mid = f"{layer}.resid_pre", f"{layer}.resid_mid"
        summed = config.norm_place == "sum"
        mlp_reads = None if summed else block.post_attention_layernorm
        main.then(
            Edit(pre), Attention(main, layer, "attn", block.self_attn, pre, block.input_layernorm, None, None, rotary)
        )
        main.then(*_summed(layer, "attn", block.post_attention_layernorm if summed else None), Edit(mid))
        main.then(Neurons(main, layer, "mlp", block.mlp, mid, mlp_reads, None))
        main.then(*_summed(layer, "mlp", block.post_feedforward_layernorm if summed else None))
        main.then(Edit(f"{layer}.resid_post"))
    if config.norm_place == "before":
        main.then(Norm(network.norm, "final_norm"), Edit("final_norm"))
    output = _head(main, network.head)
    return Layout(main, output=Matrix(network.lm_head, "logits") if config.head == "masked_lm" else output)


def _summed(layer: str, kind: str, norm: nn.Module | None) -> list[Step]:
    """A norm on the stream after an addition."""
    return [] if norm is None else [Edit(f"{layer}.{kind}_sum"), Norm(norm, f"{layer}.{kind}_norm")]


def _seq2seq(network: Seq2Seq) -> Layout:
    config = network.config
    source = _stack(network, network.encoder, None)
    main = _stack(network, network.decoder, source)
    return Layout(main, source, Matrix(network.lm_head, "logits", scale=config.output_scale))


def _stack(network: Seq2Seq, stack: Stack, source: Chain | None) -> Chain:
    """One half of an encoder–decoder; the decoder's has a source."""
    config, reads_source = network.config, source is None
    prefix, chain = "encoder." if reads_source else "", Chain(source=reads_source)
    sound = reads_source and config.source == "audio"

    def embedding(run: Run, t: int) -> list[tuple[str, str, Tensor]]:
        place = t if sound else place_of(run, t, reads_source)
        parts = []
        if config.position == "learned":
            parts.append(("position", str(place), stack.embed_positions.weight[config.position_offset + place]))
        elif config.position == "sinusoidal":
            parts.append(("position", str(place), stack.positions(place + 1)[place]))
        if sound:
            heard = stack.listen(run.ids(True)[None].to(network.embed_tokens.weight.dtype))[0, t]
            return [("sound", run.token(t, True), heard), *parts]
        token = network.embed_tokens.weight[run.ids(reads_source)[t]].double() * config.embed_scale
        return [("embed", run.token(t, reads_source), token), *parts]

    def relative(head: int, query: int, key: int) -> float:
        buckets, most = config.relative_buckets, config.relative_distance
        bucket = relative_buckets(torch.tensor([[key - query]]), buckets, most, both_sides=reads_source)
        return float(stack.relative_bias.weight[int(bucket), head])

    chain.then(Embedding(embedding), Edit(f"{prefix}embed"))
    if config.embed_norm:
        chain.then(Norm(stack.embed_norm, f"{prefix}embed_norm"))
    for i, block in enumerate(stack.blocks):
        layer = f"{prefix}layers.{i}"
        place = f"{layer}.resid_pre"
        chain.then(Edit(place))
        for kind, norm in block.norms.items():
            before = config.norm_place == "before"
            reads = norm if before else None
            if kind == "mlp":
                chain.then(Neurons(chain, layer, kind, block.mlp, place, reads, None))
            else:
                module = block.self_attn if kind == "attn" else block.cross_attn
                other = source if kind == "cross_attn" else None
                distance = relative if config.position == "relative" and kind == "attn" else None
                chain.then(Attention(chain, layer, kind, module, place, reads, None, other, None, distance))
            place = f"{layer}.{AFTER[kind]}"
            chain.then(*_summed(layer, kind, None if before else norm), Edit(place))
    if config.norm_place == "before":
        chain.then(Norm(stack.norm, f"{prefix}final_norm"), Edit(f"{prefix}final_norm"))
    return chain


def _head(main: Chain, head: Head | None) -> Matrix | None:
    """Put a head's steps behind the chain, all but the last matrix, which is returned where there is one."""
    if head is None:
        return None
    config, before = head.config, main.last
    if config.head in POOLED:

        def opened(run: Run, position: int, reader: Tensor, total: float) -> Ledger:
            what = f"{at(run, before, position, False)}, by what had been written"
            return main.read(run, position, reader, place=before).ledger(run, what, total)

        apart = getattr(config, "apart", False)
        pool = (PoolApart if apart else Pool)(config.pooling, opened, lambda run: run.heads(before).double())
        main.then(pool, Edit("head.pooled"), *([Compared(), Edit("head.compared")] if apart else []))
    if config.head_activation != "none":
        main.then(Matrix(head.dense, "head.dense"), Edit("head.pre"), Activation(head.activation))
        main.then(Norm(head.norm, "head.norm") if config.head_norm else None, Edit("head.post"))
    if config.head == "embedding":
        main.then(Length() if config.normalize else None, Edit("embedding"))
        return None
    return Matrix(head.out, "logits") if hasattr(head, "out") else None
