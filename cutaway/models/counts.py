"""How large a network is, part by part: parameters, operations, memory. The parts add up to the whole.

Operations are those of matrix products, two per multiply-and-add, as torch's FlopCounterMode counts them: attention as
if every token attended to every other. A training step takes three forward passes' worth (Kaplan et al. 2020).

Shapes: T tokens, C channels, H query heads, K key/value heads, D head dim, M channels inside the MLP, N hidden units of
a recurrent layer, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cutaway.errors import ConfigError, unknown
from cutaway.models.config import DecoderConfig, EncoderConfig, NetworkConfig, RecurrentConfig, Seq2SeqConfig
from cutaway.models.config_parts import POOLED
from cutaway.models.fused import BLOCK
from cutaway.models.gru import GATES
from cutaway.models.seq2seq_layers import SHORT

# numbers that an optimiser keeps per parameter: of hidden matrices, of everything else
OPTIMIZERS = {"sgd": (0, 0), "momentum": (1, 1), "adam": (2, 2), "adamw": (2, 2), "muon": (1, 2)}
HIDDEN_MATRICES = ("attention", "mlp", "experts", "cells")


@dataclass(frozen=True)
class Counts:
    """The size of a network.

    Attributes:
        tokens: T, length of the text that operations and memory are counted for; an encoder–decoder's source and target
            both have it.
        parameters: by part; a tied output matrix counts once.
        forward_flops: by part, per token.
        activations: by part, numbers per token that a forward pass keeps for the gradient; about. torch decides it, and
            for an LSTM it depends on the machine.
        in_bf16: the same of what is kept besides where training multiplies in bfloat16.
        cache: numbers that generation remembers of each sequence of T tokens: keys and values, or a state.
    """

    tokens: int
    parameters: Mapping[str, int]
    forward_flops: Mapping[str, int]
    activations: Mapping[str, int]
    cache: int
    in_bf16: Mapping[str, int] = field(default_factory=dict)

    @property
    def total_parameters(self) -> int:
        """All parts together."""
        return sum(self.parameters.values())

    @property
    def total_forward_flops(self) -> int:
        """Per token."""
        return sum(self.forward_flops.values())

    @property
    def training_flops(self) -> int:
        """Per token: the forward pass, and twice that for the gradients."""
        return 3 * self.total_forward_flops

    def training_memory(self, batch: int, *, optimizer: str = "muon", bf16: bool = True) -> dict[str, int]:
        """Bytes by part while training on B x T tokens at once.

        Args:
            batch: B.
            optimizer: a name of OPTIMIZERS.
            bf16: multiply with a bfloat16 copy of the float32 weights, which then has the gradients and activations.

        Raises:
            ConfigError: an unknown optimiser.
        """
        if optimizer not in OPTIMIZERS:
            raise ConfigError(unknown("optimiser", optimizer, OPTIMIZERS))
        hidden = sum(self.parameters.get(part, 0) for part in HIDDEN_MATRICES)
        of_hidden, of_rest = OPTIMIZERS[optimizer]
        size = 2 if bf16 else 4
        return {
            "weights": 4 * self.total_parameters,
            "bfloat16 copy": size * self.total_parameters if bf16 else 0,
            "gradients": size * self.total_parameters,
            "optimiser": 4 * (of_hidden * hidden + of_rest * (self.total_parameters - hidden)),
            "activations": size * batch * self.tokens * self._kept(bf16),
        }

    def _kept(self, bf16: bool) -> int:
        return sum(self.activations.values()) + bf16 * sum(self.in_bf16.values())

    def generation_memory(self, batch: int = 1, *, itemsize: int = 4) -> dict[str, int]:
        """Bytes by part while generating B sequences of up to T tokens, with numbers of `itemsize` bytes."""
        return {"weights": itemsize * self.total_parameters, "cache": itemsize * batch * self.cache}

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "tokens": self.tokens,
            "parameters": dict(self.parameters),
            "total_parameters": self.total_parameters,
            "forward_flops_per_token": dict(self.forward_flops),
            "training_flops_per_token": self.training_flops,
            "activations_per_token": dict(self.activations),
            "activations_per_token_in_bf16": dict(self.in_bf16),
            "cache_per_sequence": self.cache,
        }


def counts(config: NetworkConfig, tokens: int | None = None) -> Counts:
    """Count a network without building it.

    Args:
        config: what it is made of.
        tokens: length of the text that operations and memory are counted for; the context by default.

    Raises:
        ConfigError: fewer than one token.
    """
    tokens = config.context if tokens is None else tokens
    if tokens < 1:
        raise ConfigError(f"a network is counted for at least 1 token, but {tokens} was given")
    if isinstance(config, DecoderConfig):
        return _decoder(config, tokens)
    if isinstance(config, EncoderConfig):
        return _encoder(config, tokens)
    return _seq2seq(config, tokens) if isinstance(config, Seq2SeqConfig) else _recurrent(config, tokens)


def _decoder(c: DecoderConfig, T: int) -> Counts:
    C, V, L, M, H, K, D = c.width, c.vocab_size, c.layers, c.mlp_width, c.heads, c.kv_heads, c.head_dim
    joined = (H + 2 * K) * D
    matrices = 3 if c.gated else 2
    attention, mlp = C * joined + H * D * C, C * M * matrices
    sparse = sum(map(c.has_experts, range(L)))  # layers with experts
    dense, expert = (L - sparse) * c.mlp, C * c.expert_width * matrices
    norms = (2 if c.norm_place == "both" else 1) * (1 + c.mlp) * L + 1
    normed = (H + K) * D if c.qk_norm_joint else 2 * D
    out, speaks = 2 if c.head == "span_extraction" else len(c.labels), c.head == "causal_lm"
    parameters = {
        "embedding": V * C,
        "positions": c.context * C if c.position == "learned" else 0,
        "attention": L * attention,
        "attention biases": L * (joined * c.attention_bias + C * c.output_bias),
        "query and key norms": L * normed * c.qk_norm,
        "mlp": dense * mlp,
        "experts": sparse * (c.experts * expert + c.experts * C),
        "mlp biases": dense * c.mlp_bias * (M * (2 if c.gated else 1) + C),
        "norms": norms * C * {"layernorm": 2, "rmsnorm": 1, "none": 0}[c.norm],
        "head": C * out + out * c.head_bias,
        "output": speaks * (0 if c.tied else V * C),
    }
    flops = {
        "attention projections": 2 * L * attention,
        "attention scores and mixing": 2 * L * 2 * T * H * D,
        "mlp": 2 * dense * mlp,
        "experts": 2 * sparse * (c.experts_used * expert + c.experts * C),
        "head": 2 * C * out // (T if c.head in POOLED else 1),
        "output": 2 * V * C * speaks,
    }
    keys = sum((min(start + BLOCK, T) - start) * min(start + BLOCK, T) for start in range(0, T, BLOCK)) // T
    # the squared ReLU and the smooth activations keep what went in beside what came out, the plain ReLU does not
    kept = (2 if c.gated else 0) + (1 if c.activation == "relu" else 2)
    activations = {
        # what goes in, what comes out, and the scale; without norms the stream is what is read
        "norms": norms * {"layernorm": 2 * C + 2, "rmsnorm": 2 * C + 1, "none": C}[c.norm],
        "queries, keys and values": L * (((H + K) * (D + 1) if c.qk_norm else joined) + 3 * H * D),
        "attention patterns": L * H * keys,  # each token's keys, on average: half the future is never computed
        "attention outputs": L * H * D,
        "mlp": dense * kept * M,
        "experts": sparse * c.experts_used * (kept * c.expert_width + 2 * C),
        "dropout": (2 * L + 1) * C if c.dropout else 0,
        "logits": 2 * V * speaks,  # and their gradient
    }
    return Counts(T, _present(parameters), _present(flops), _present(activations), 2 * L * K * D * T)


def _encoder(c: EncoderConfig, T: int) -> Counts:
    C, E, V, L, M, inner = c.width, c.embed_width, c.vocab_size, c.layers, c.mlp_width, c.heads * c.head_dim
    matrices, before, fills = 3 if c.gated else 2, c.norm_place == "before", c.head == "masked_lm"
    norms = (2 * L + c.first_norm) * C if before else 2 * L * C
    out = {"span_extraction": 2, "replaced_token": 1}.get(c.head, len(c.labels))
    read = E if fills else C  # by the last matrix, behind the head's dense layer
    dense = 0 if c.head_activation == "none" else C * read
    once = T if c.head in POOLED else 1  # tokens that share what the head computes
    parameters = {
        "embedding": V * E,
        "positions": (c.position_offset + c.context) * E if c.position == "learned" else 0,
        "token types": c.token_types * E,
        "embedding projection": (E + 1) * C if E != C else 0,
        "attention": L * 4 * C * inner,
        "attention biases": L * (3 * inner * c.attention_bias + C * c.output_bias),
        "mlp": L * C * M * matrices,
        "mlp biases": L * c.mlp_bias * (M * (2 if c.gated else 1) + C),
        "norms": (norms + E * c.embed_norm + read * c.head_norm) * (2 if c.norm_bias else 1),
        "head": dense + read * c.head_dense_bias + C * out + out * c.head_bias,
        "pooler": (C + 1) * (C * c.pooler + 2 * c.next_sentence),
        "output": fills * (V * c.head_bias + (0 if c.tied else V * (read if dense else C))),
    }
    flops = {
        "embedding projection": 2 * E * C if E != C else 0,
        "attention projections": 2 * L * 4 * C * inner,
        "attention scores and mixing": 2 * L * 2 * T * inner,
        "mlp": 2 * L * C * M * matrices,
        "head": 2 * (dense + C * out) // once,
        "output": 2 * V * (read if dense else C) * fills,
    }
    kept = (2 if c.gated else 0) + (1 if c.activation == "relu" else 2)
    activations = {
        "embedding": 2 * E * c.embed_norm + C * (E != C),
        "norms": 2 * (norms // C) * (C + 1),
        "queries, keys and values": L * 3 * inner,
        "attention outputs": L * (inner + c.heads),
        "mlp": L * kept * M,
        "dropout": (2 * L + 1) * C if c.dropout else 0,
        "head": (dense > 0) * (2 + 2 * c.head_norm) * read // once,
        "logits": 2 * V * fills,  # and their gradient
    }
    # in bfloat16 no kernel computes the pattern twice to save it: going back takes too long
    in_bf16 = {"attention patterns": L * c.heads * T}
    return Counts(T, _present(parameters), _present(flops), _present(activations), 0, in_bf16)


def _seq2seq(c: Seq2SeqConfig, T: int) -> Counts:
    C, V, audio = c.width, c.vocab_size, c.source == "audio"
    before, norm = c.norm_place == "before", C * (2 if c.norm == "layernorm" else 1)
    # of each stack: layers, channels of all heads together, attentions a layer, channels in the MLP, positions, heads
    encoder = (c.encoder_layers, c.encoder_heads * c.encoder_head_dim, 1, c.encoder_mlp_width, c.source_context)
    decoder = (c.layers, c.heads * c.head_dim, 2, c.mlp_width, c.context)
    stacks = (encoder, decoder)
    matrices, kept = 3 if c.gated else 2, (2 if c.gated else 0) + (1 if c.activation == "relu" else 2)
    attention = sum(L * n * 4 * C * inner for L, inner, n, *_ in stacks)
    mlp = sum(L * C * M * matrices for L, _, _, M, _ in stacks)
    norms = sum(L * (n + 1) + before + c.embed_norm for L, _, n, *_ in stacks)
    biases = (3 if c.key_bias else 2) * c.attention_bias
    convolutions = 3 * C * (c.mel_bins + C) * audio
    biased, short = c.encoder_layers * c.encoder_heads + c.layers * c.heads, T * T <= SHORT
    parameters = {
        "embedding": V * C,
        "convolutions": convolutions + 2 * C * audio,
        "positions": sum(P + c.position_offset for *_, P in stacks) * C if c.position == "learned" else 0,
        "relative positions": c.relative_buckets * (c.encoder_heads + c.heads) if c.position == "relative" else 0,
        "attention": attention,
        "attention biases": sum(L * n * (biases * inner + C * c.output_bias) for L, inner, n, *_ in stacks),
        "mlp": mlp,
        "mlp biases": sum(L * c.mlp_bias * (M * (2 if c.gated else 1) + C) for L, _, _, M, _ in stacks),
        "norms": norms * norm,
        "output": (0 if c.tied else V * C) + V * c.logit_bias,
    }
    flops = {
        "convolutions": 2 * 3 * C * (2 * c.mel_bins + C) * audio,  # the first makes two frames of each state
        "attention projections": 2 * attention,
        "attention scores and mixing": 2 * sum(L * n * 2 * T * inner for L, inner, n, *_ in stacks),
        "mlp": 2 * mlp,
        "output": 2 * V * C,
    }
    activations = {
        "convolutions": (2 * c.mel_bins + 6 * C) * audio,
        "norms": norms * (2 * C + (2 if c.norm == "layernorm" else 1)),
        "queries, keys and values": sum(L * n * 3 * inner for L, inner, n, *_ in stacks),
        # where a bias is learned or texts are short, no kernel computes the pattern twice to save it
        "attention patterns": T * (biased * (c.position == "relative" or short) + c.layers * c.heads * short),
        "attention outputs": sum(L * n * inner for L, inner, n, *_ in stacks) + c.layers * c.heads * (not short),
        "mlp": sum(L * kept * M for L, _, _, M, _ in stacks),
        "dropout": sum(L * (n + 1) + 1 for L, _, n, *_ in stacks) * C if c.dropout else 0,
        "logits": 2 * V,  # and their gradient
    }
    # keys and values of the target so far, and those of the source
    cache = 2 * 2 * c.layers * c.heads * c.head_dim * T
    return Counts(T, _present(parameters), _present(flops), _present(activations), cache)


def _recurrent(c: RecurrentConfig, T: int) -> Counts:
    V, L, N, S, gates = c.vocab_size, c.layers, c.hidden, c.states, len(GATES[c.cell])
    inputs = c.width + (L - 1) * S  # of all layers together
    matrices = gates * S * (inputs + L * N)
    out, speaks = 2 if c.head == "span_extraction" else len(c.labels), c.head == "causal_lm"
    parameters = {
        "embedding": V * c.width,
        "cells": matrices,
        "cell biases": L * 2 * gates * S,
        "head": S * out + out,
        "output": speaks * (0 if c.tied else V * N),
    }
    flops = {
        "cells": 2 * matrices,
        "head": 2 * S * out // (T if c.head in POOLED else 1),
        "output": 2 * V * N * speaks,
    }
    activations = {
        "embedding": c.width,
        "cells": L * S * (8 if c.cell == "gru" else 20),  # an LSTM's kernel keeps 18 in float32, 24 in bfloat16
        "dropout": c.width + 2 * L * S if c.dropout else 0,
        "logits": 2 * V * speaks,  # and their gradient
    }
    states = 2 if c.cell == "lstm" else 1
    return Counts(T, _present(parameters), _present(flops), _present(activations), states * L * N)


def _present(parts: dict[str, int]) -> dict[str, int]:
    return {name: int(size) for name, size in parts.items() if size}
