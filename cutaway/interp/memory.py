"""How much memory a recording takes, from the shapes alone."""

from __future__ import annotations

from collections.abc import Iterable

from cutaway.models import DecoderConfig, EncoderConfig, NetworkConfig, RecurrentConfig, Seq2SeqConfig
from cutaway.models.config_parts import POOLED
from cutaway.models.heads import READ_APART


def predicted_bytes(
    config: NetworkConfig, names: Iterable[str], batch: int, tokens: int, itemsize: int = 4, *, source: int = 0
) -> int:
    """What recording these names will take, from the shapes alone.

    `source` counts the tokens or frames that an encoder–decoder reads.
    """
    total = 0
    for name in names:
        if isinstance(config, Seq2SeqConfig):
            total += _of_seq2seq(config, name, tokens, config.source_length(source))
        else:
            total += _length(config, name, tokens) * _width(config, name, tokens)
    return batch * total * itemsize


def _of_seq2seq(config: Seq2SeqConfig, name: str, tokens: int, source: int) -> int:
    """Numbers of one text at a place of an encoder–decoder."""
    encodes, place = name.startswith("encoder."), name.removeprefix("encoder.")
    place = place.split(".", 2)[-1] if place.startswith("layers.") else place
    queries = source if encodes else tokens
    keys = source if place.startswith("cross_attn.") else queries
    heads = config.encoder_heads if encodes else config.heads
    inner = heads * (config.encoder_head_dim if encodes else config.head_dim)
    part, _, last = place.rpartition(".")
    if part in ("attn", "cross_attn"):
        each = {
            "scores": heads * keys * queries,
            "pattern": heads * keys * queries,
            "k": inner * keys,
            "v": inner * keys,
        }
        return each.get(last, inner * queries)
    if part == "mlp":
        return queries * (config.encoder_mlp_width if encodes else config.mlp_width)
    return queries * (config.vocab_size if place == "logits" else config.width)


def _length(config: NetworkConfig, name: str, tokens: int) -> int:
    """Tokens at a place: all, or one where a head has one vector for a whole text."""
    whole = not isinstance(config, Seq2SeqConfig) and config.head in POOLED
    return 1 if whole and name.startswith(("head.", "logits", "embedding")) else tokens


def _width(config: DecoderConfig | EncoderConfig | RecurrentConfig, name: str, tokens: int) -> int:
    """Numbers per token at a place."""
    place = name.partition(".")[2].partition(".")[2] if name.startswith("layers.") else name
    if place == "logits":
        words = dict.fromkeys(("masked_lm", "causal_lm"), config.vocab_size)
        return ({"span_extraction": 2, "replaced_token": 1} | words).get(config.head, len(config.labels))
    if isinstance(config, RecurrentConfig):
        own = {"embed": config.width, **dict.fromkeys(("states", "head.pooled", "embedding"), config.states)}
        return own.get(place, config.hidden)
    if isinstance(config, EncoderConfig):
        inner = config.embed_width if config.head == "masked_lm" else config.width
        own = {"embed": config.embed_width, "head.pre": inner, "head.post": inner}
        own |= {"head.pooled": config.width * (2 if config.apart else 1), "head.compared": config.width * READ_APART}
        if place in own:
            return own[place]
    kv_heads = config.heads if isinstance(config, EncoderConfig) else config.kv_heads
    return {
        "attn.q": config.heads * config.head_dim,
        "attn.k": kv_heads * config.head_dim,
        "attn.v": kv_heads * config.head_dim,
        "attn.z": config.heads * config.head_dim,
        "attn.scores": config.heads * tokens,
        "attn.pattern": config.heads * tokens,
        "mlp.router": 0 if isinstance(config, EncoderConfig) else config.experts,
        "mlp.pre": config.mlp_width,
        "mlp.post": config.mlp_width,
    }.get(place, config.width)
