"""From a decoder's config and weights to the list of operations that the native runner computes for each step.

A plan follows `models.decoder` place by place, with the same names. Matrices are used where they lie (float ones) or
packed (quantised ones); norms, biases and tables of positions are few numbers and are copied as float32.

Shapes: C channels, H query heads, K key/value heads, D head dim, M channels inside the MLP, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.generation.native import library
from cutaway.generation.native.interface import Buffer, Kind, Operation
from cutaway.models.config import DecoderConfig
from cutaway.models.decoder import Attention, Block, Decoder
from cutaway.models.experts import Experts
from cutaway.models.formats.ggml import KINDS, Blocks
from cutaway.models.layers import MLP, RMSNorm
from cutaway.models.low_rank import LowRankEmbedding, LowRankLinear
from cutaway.models.products import Linear
from cutaway.models.quantised import QuantisedEmbedding, QuantisedExperts, QuantisedLinear

NUMBER = {kind.name: number for number, kind in KINDS.items()}
FLOATS = {torch.float32: NUMBER["F32"], torch.float16: NUMBER["F16"], torch.bfloat16: NUMBER["BF16"]}
ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "relu2": 4}
GLOBAL, LOCAL, ADDED = 0, 1, 2  # tables: angles of layers without and with a window, and what is added to embeddings


@dataclass(frozen=True)
class Place:
    """Something that can be shown of a step.

    Attributes:
        number: of the tap; -1: the logits, which are there anyway.
        width: numbers of a row.
        heads: into which they part; 0: they do not; scores and patterns: H.
        scores: whether it has a number for each token that is attended to.
    """

    number: int
    width: int
    heads: int = 0
    scores: bool = False


@dataclass
class Plan:
    """What a runner is made of.

    Attributes:
        operations: in the order of computation.
        buffers: their widths, and whether all threads write to them together.
        matrices: each with its kind's number in GGUF, its bytes or numbers, (N, …), and C; those of one operation stand
            beside each other.
        places: by the names of `Decoder.tap_names`.
        kept: tensors that operations point to.
        linears: name of a layer that may have low-rank parts -> its matrix.
    """

    operations: list[Operation] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    matrices: list[tuple[int, Tensor, int]] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)
    linears: dict[str, int] = field(default_factory=dict)


def supported(network: nn.Module) -> str | None:
    """Why the native runner cannot compute a network; None: it can."""
    there, reason = library.available()
    if not there:
        return reason
    if not isinstance(network, Decoder):
        return "the native kernels compute decoders alone"
    config = network.config
    if config.head != "causal_lm":
        return f"a head for {config.head} is computed by torch"
    scaling = config.rotary_scaling if config.position == "rotary" else None
    original = (scaling.original_context if scaling is not None else 0) or config.context
    if scaling is not None and scaling.kind in ("dynamic", "longrope") and config.context > original:
        return f"{scaling.kind} positions turn all tokens anew when a text grows beyond {original}"
    if network.training and config.dropout:
        return "the network is training, with dropout"
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and type(module) not in (nn.Linear, Linear, QuantisedLinear, LowRankLinear):
            return f"{name} is a {type(module).__name__}"
        if isinstance(module, LowRankEmbedding) or (isinstance(module, LowRankLinear) and name.endswith(".router")):
            return f"{name} has low-rank parts"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name or 'the network'} has a hook"
    for name, parameter in network.named_parameters():
        if parameter.device.type != "cpu":
            return f"{name} lies on {parameter.device}"
        if parameter.dtype not in FLOATS:
            return f"{name} is {str(parameter.dtype).removeprefix('torch.')}"
    return None


def quantised(network: nn.Module) -> bool:
    """Whether any matrix is kept as blocks."""
    return any(isinstance(getattr(module, "blocks", None), Blocks) for module in network.modules())


def make_plan(network: Decoder) -> Plan:
    """The plan of a network for which `supported` gives no reason against it."""
    return _Maker(network).plan


class _Maker:
    def __init__(self, network: Decoder) -> None:
        self.network, self.config, self.plan = network, network.config, Plan()
        config = self.config
        C, D = config.width, config.head_dim
        joined, inner = (config.heads + 2 * config.kv_heads) * D, config.heads * D
        hidden = config.mlp_width * (2 if config.gated else 1)
        # rowwise buffers: the stream, what a norm gives, another norm's, and so on; product buffers likewise
        self.x, self.read, self.read_mlp, self.written = (self._buffer(C) for _ in range(4))
        self.heads, self.inside, self.post = (self._buffer(n) for n in (joined, hidden, config.mlp_width))
        self.joined, self.mixed, self.out = (self._buffer(n, True) for n in (joined, inner, C))
        self.pre, self.router = self._buffer(hidden, True), self._buffer(max(config.experts, 1), True)
        self._names = {id(module): name for name, module in network.named_modules()}
        self._embed()
        for i, block in enumerate(network.blocks):
            self._layer(i, block)
        self._op(Kind.WANTED, self.x, self.written, width=C)
        final = self._norm(network.norm, self.written, self.read)
        self._tap("final_norm", final, C)
        self.plan.places["logits"] = Place(-1, config.vocab_size)
        self._op(Kind.LOGITS, final, cap=config.logit_cap, first_matrix=self._linear(network.lm_head), matrices=1)

    def _buffer(self, width: int, product: bool = False) -> int:
        self.plan.buffers.append(Buffer(max(width, 1), int(product)))
        return len(self.plan.buffers) - 1

    def _op(self, kind: Kind, input: int = -1, out: int = -1, second: int = -1, **fields: Any) -> None:
        for name in ("weight", "bias"):
            if fields.get(name) is not None:
                fields[name] = self._keep(fields[name])
        made = Operation(
            kind=kind, input=input, out=out, second=second, **{"tap": -1, "table": -1, "scale": 1.0} | fields
        )
        self.plan.operations.append(made)

    def _keep(self, numbers: Tensor) -> int:
        self.plan.kept.append(numbers.detach().float().clone(memory_format=torch.contiguous_format))
        return self.plan.kept[-1].data_ptr()

    def _tap(self, name: str, buffer: int, width: int, at: int = 0, heads: int = 0) -> None:
        number = len(self.plan.places)
        self.plan.places[name] = Place(number, width, heads)
        self._op(Kind.TAP, buffer, width=width, input_at=at, tap=number)

    def _matrix(self, held: Blocks | Tensor) -> int:
        if isinstance(held, Blocks):
            kind, numbers, width = NUMBER[held.kind], held.data.contiguous(), held.shape[-1]
        else:
            numbers = held.detach().contiguous()
            kind, width = FLOATS[numbers.dtype], numbers.shape[-1]
        self.plan.matrices.append((kind, numbers, width))
        return len(self.plan.matrices) - 1

    def _linear(self, linear: nn.Module) -> int:
        number = self.plan.linears[self._names[id(linear)]] = self._matrix(_held(linear))
        return number

    def _product(self, input: int, out: int, *linears: nn.Module) -> Tensor | None:
        """Returns the bias that is still to be added."""
        first = min([self._linear(linear) for linear in linears])
        self._op(Kind.PRODUCT, input, out, first_matrix=first, matrices=len(linears))
        biases = [linear.bias for linear in linears if isinstance(linear, nn.Linear) and linear.bias is not None]
        return torch.cat(tuple(biases)) if biases else None

    def _norm(self, norm: nn.Module | None, input: int, out: int) -> int:
        """Returns the buffer that holds what the norm gives."""
        if norm is None or isinstance(norm, nn.Identity):
            return input
        if isinstance(norm, RMSNorm):
            self._op(Kind.NORM, input, out, width=self.config.width, choice=0, weight=norm.scale, eps=norm.eps)
        else:
            assert isinstance(norm, nn.LayerNorm)
            self._op(
                Kind.NORM,
                input,
                out,
                width=self.config.width,
                choice=1,
                weight=norm.weight,
                bias=norm.bias,
                eps=norm.eps,
            )
        return out

    def _embed(self) -> None:
        config = self.config
        table = ADDED if config.position in ("learned", "sinusoidal") else -1
        first = self._matrix(_held(self.network.embed_tokens))
        self._op(
            Kind.EMBED,
            out=self.x,
            width=config.width,
            scale=config.embed_scale,
            table=table,
            first_matrix=first,
            matrices=1,
        )
        self._tap("embed", self.x, config.width)

    def _layer(self, i: int, block: Block) -> None:
        config, C = self.config, self.config.width
        into_attention, out_of_attention, into_mlp, out_of_mlp = block.norms
        self._tap(f"layers.{i}.resid_pre", self.x, C)
        read = self._norm(into_attention, self.x, self.read)
        read_mlp = self.x
        if config.mlp and config.parallel:  # what the attention reads is gone when the MLP comes
            read_mlp = self._norm(into_mlp, self.x, self.read_mlp)
            if read_mlp == self.x:
                self._op(Kind.ADD, self.x, self.read_mlp, width=C)
                read_mlp = self.read_mlp
        bias = self._attention(i, block.self_attn, read)
        self._write(f"layers.{i}.attn_out", self.out, bias, out_of_attention)
        self._tap(f"layers.{i}.resid_mid", self.x, C)
        if config.mlp:
            if not config.parallel:
                read_mlp = self._norm(into_mlp, self.x, self.read_mlp)
            bias = self._mlp(i, block.mlp, read_mlp)
            self._write(f"layers.{i}.mlp_out", self.out, bias, out_of_mlp)
        self._tap(f"layers.{i}.resid_post", self.x, C)

    def _write(self, name: str, made: int, bias: Tensor | None, norm: nn.Module | None) -> None:
        """Adds to the stream what was made, with its bias and through its norm."""
        if bias is not None:
            self._op(Kind.ADD, made, self.written, width=self.config.width, bias=bias)
            made = self.written
        made = self._norm(norm, made, self.written)
        self._tap(name, made, self.config.width)
        self._op(Kind.ADD, self.x, self.x, made, width=self.config.width)

    def _attention(self, i: int, attention: Attention, read: int) -> Tensor | None:
        config = self.config
        H, K, D = config.heads, config.kv_heads, config.head_dim
        bias = self._product(read, self.joined, attention.q_proj, attention.k_proj, attention.v_proj)
        scales, norm = None, 0
        if config.qk_norm:
            q, k = attention.q_norm.scale, attention.k_norm.scale
            norm = 2 if config.qk_norm_joint else 1
            scales = torch.cat((q, k) if config.qk_norm_joint else (q.repeat(H), k.repeat(K)))
        local = self.network.rotary_local is not None and config.window(i)
        table = -1 if config.position != "rotary" else LOCAL if local else GLOBAL
        self._op(
            Kind.HEADS, self.joined, self.heads, choice=norm, weight=scales, bias=bias, table=table, eps=config.norm_eps
        )
        for name, at, count in (("q", 0, H), ("k", H * D, K), ("v", (H + K) * D, K)):
            self._tap(f"layers.{i}.attn.{name}", self.heads, count * D, at, count)
        self._op(Kind.STORE, self.heads, layer=i)
        number = len(self.plan.places)
        self.plan.places[f"layers.{i}.attn.scores"] = Place(number, 0, H, True)
        self.plan.places[f"layers.{i}.attn.pattern"] = Place(number, 0, H, True)
        self._op(
            Kind.ATTEND,
            self.heads,
            self.mixed,
            layer=i,
            tap=number,
            window=attention.window,
            scale=attention.scale,
            cap=config.score_cap,
        )
        self._tap(f"layers.{i}.attn.z", self.mixed, H * D, 0, H)
        return self._product(self.mixed, self.out, attention.o_proj)

    def _mlp(self, i: int, mlp: nn.Module, read: int) -> Tensor | None:
        config = self.config
        if isinstance(mlp, Experts):
            self._experts(i, mlp, read)
            return None
        assert isinstance(mlp, MLP)
        M, both = config.mlp_width, [mlp.gate_proj, mlp.up_proj] if config.gated else [mlp.up_proj]
        bias = self._product(read, self.pre, *both)
        pre = self.pre
        if bias is not None:
            pre = self.inside
            self._op(Kind.ADD, self.pre, pre, width=M * len(both), bias=bias)
        self._tap(f"layers.{i}.mlp.pre", pre, M)
        self._op(
            Kind.ACTIVATE,
            pre,
            self.post,
            pre if config.gated else -1,
            second_at=M,
            width=M,
            choice=ACTIVATIONS[config.activation],
        )
        self._tap(f"layers.{i}.mlp.post", self.post, M)
        return self._product(self.post, self.out, mlp.down_proj)

    def _experts(self, i: int, experts: Experts, read: int) -> None:
        config = self.config
        parts = [part for part in (experts.gate_proj, experts.up_proj, experts.down_proj) if part is not None]
        first = self._matrix(_held(experts.router))
        for expert in range(config.experts):
            for part in parts:
                self._matrix(_one(part, expert))
        self._op(
            Kind.EXPERTS,
            read,
            self.out,
            self.router,
            width=config.width,
            choice=ACTIVATIONS[config.activation],
            used=experts.used,
            sum_to_one=float(experts.sum_to_one),
            first_matrix=first,
            matrices=1 + config.experts * len(parts),
        )
        self._tap(f"layers.{i}.mlp.router", self.router, config.experts)


def _held(module: nn.Module | Blocks | Tensor) -> Blocks | Tensor:
    """What a matrix is kept as."""
    if isinstance(module, (Blocks, Tensor)):
        return module
    if isinstance(module, LowRankLinear):
        return _held(module.base)  # the parts are an adapter's
    if isinstance(module, (QuantisedLinear, QuantisedEmbedding)):
        return module.blocks
    assert isinstance(module, (nn.Linear, nn.Embedding))
    return module.weight


def _one(part: Tensor | QuantisedExperts, expert: int) -> Blocks | Tensor:
    if isinstance(part, QuantisedExperts):
        return Blocks(part.blocks.kind, part.blocks.data[expert], part.blocks.dtype)
    return part[expert]


def angles(network: Decoder, length: int) -> dict[int, Tensor]:
    """The tables of positions before `length`: cosines and signed sines (2, L, D), or what is added (L, C), float32."""
    made: dict[int, Tensor] = {}
    for table, rotary in ((GLOBAL, network.rotary), (LOCAL, network.rotary_local)):
        if rotary is not None:
            made[table] = rotary.angles(length).squeeze(2).float().contiguous()
    config: DecoderConfig = network.config
    if config.position == "learned":
        made[ADDED] = network.embed_positions.weight.detach()[:length].float().clone()
    elif config.position == "sinusoidal":
        made[ADDED] = network.positions(length)[:length].float().clone()
    return made
