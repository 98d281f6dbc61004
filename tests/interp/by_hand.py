"""Networks whose weights are written down, so that what they compute is known."""

import string

import torch
from torch import Tensor

from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.tokenizers import Tokenizer, train_tokenizer

ALPHABET = string.ascii_letters  # 52 tokens beside the special ones
CERTAIN = 1000.0  # a score that leaves nothing to other keys


def alphabet() -> Tokenizer:
    return train_tokenizer([ALPHABET * 3], "char", 300)


def attention_only(tokenizer: Tokenizer, layers: int, width: int, **fields: object) -> Model:
    """A decoder of float64 without MLPs and norms."""
    config = DecoderConfig(
        tokenizer.vocab_size,
        layers=layers,
        width=width,
        mlp=False,
        norm="none",
        qk_norm=False,
        tied=False,
        **{"position": "none", **fields},  # pyright: ignore[reportArgumentType]
    )
    return Model(Decoder(config).double().eval(), tokenizer, "by hand")


def induction(beta: float, *, context: int = 48) -> Model:
    """Two layers of one head: the first puts the previous token beside each, the second looks for its own token there.

    The stream has a slot for tokens, one for previous tokens, one for what is said and one for positions.
    """
    tokenizer = alphabet()
    V, D = tokenizer.vocab_size, max(tokenizer.vocab_size, context)
    token, before, said, place = (slice(i * V, (i + 1) * V) for i in range(4))
    place = slice(3 * V, 3 * V + context)
    model = attention_only(
        tokenizer,
        2,
        3 * V + context,
        heads=1,
        head_dim=D,
        position="learned",
        context=context,
        attention_scale=1.0,
    )
    network = model.network
    assert isinstance(network, Decoder)
    first, second = (block.self_attn for block in network.blocks)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.embed_tokens.weight[:, token] = torch.eye(V).double()
        network.embed_positions.weight[:, place] = torch.eye(context).double()
        first.q_proj.weight[:context, place] = CERTAIN * torch.eye(context).double()
        first.k_proj.weight[:context, place] = torch.eye(context).double().roll(1, 0).tril()  # place s says s + 1
        first.v_proj.weight[:V, token] = torch.eye(V).double()
        first.o_proj.weight[before, :V] = torch.eye(V).double()
        second.q_proj.weight[:V, token] = beta * torch.eye(V).double()
        second.k_proj.weight[:V, before] = torch.eye(V).double()
        second.v_proj.weight[:V, token] = torch.eye(V).double()
        second.o_proj.weight[said, :V] = torch.eye(V).double()
        network.lm_head.weight[:, said] = CERTAIN * torch.eye(V).double()
    return model


def repeat(tokenizer: Tokenizer, *, begin: bool, prefix: int, size: int, seed: int) -> Tensor:
    """(1, T): a token that begins the text, some others, and a stretch of distinct tokens twice."""
    draw = torch.Generator().manual_seed(seed)
    known = torch.tensor([tokenizer.id(c) for c in ALPHABET])[torch.randperm(len(ALPHABET), generator=draw)]
    start = [torch.tensor([tokenizer.end_of_text])] if begin else []
    return torch.cat((*start, known[: prefix + size], known[prefix : prefix + size]))[None]
