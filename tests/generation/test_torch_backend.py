"""The torch backend: pages are only another place for the same numbers."""

import random
from typing import Any

import pytest
import torch

from cutaway.errors import ConfigError
from cutaway.generation import Engine, Request
from cutaway.generation.backend import Rows
from cutaway.generation.torch_backend import CHUNK, PAGE, TorchBackend
from cutaway.models import Decoder, DecoderConfig, Model, Recurrent, RecurrentConfig
from cutaway.tokenizers import train_tokenizer

GEMMA = {"windows": (50, 0), "score_cap": 5.0, "rotary_base_local": 100.0, "norm_place": "both"}
GPT2 = {"norm": "layernorm", "position": "learned", "activation": "gelu", "gated": False, "qk_norm": False}
KINDS: dict[str, dict[str, Any]] = {"qwen3": {}, "gemma": GEMMA, "gpt2": GPT2, "grouped": {"heads": 4, "kv_heads": 2}}


def network(kind: str) -> Decoder:
    torch.manual_seed(0)
    fields: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2} | KINDS[kind]
    made = Decoder(DecoderConfig(50, context=900, **fields)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


def ids(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(50), k=length)


def steps(backend: TorchBackend, pages: list[int], tokens: list[int], cuts: list[int]) -> torch.Tensor:
    """Logits of every token, computed in pieces."""
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        found.append(backend.step([Rows(0, tokens[start:end], start, pages, end - start)]).values)
    return torch.cat(found)


@pytest.mark.parametrize("kind", KINDS)
def test_paged_is_contiguous(kind: str):
    made, tokens, cuts = network(kind), ids(300), [1, 2, 70, 130, 131, 299]
    backend = TorchBackend(made)
    backend.reserve(9)
    backend.open(0)
    scattered = steps(backend, [7, 2, 3, 8, 0], tokens, cuts)
    in_a_row = steps(backend, [4, 5, 6, 7, 8], tokens, cuts)
    assert torch.equal(scattered, in_a_row)
    with torch.inference_mode():
        cache = made.new_cache(1, 300)
        pieces = [
            made(torch.tensor([tokens[a:b]]), cache=cache)[0] for a, b in zip([0, *cuts], [*cuts, 300], strict=True)
        ]
        whole = made(torch.tensor([tokens]))[0]
    torch.testing.assert_close(scattered, torch.cat(pieces), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scattered, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_together_is_one_after_the_other(kind: str):
    made, lengths = network(kind), [1, 64, 65, 130, 7]
    backend, together = TorchBackend(made), TorchBackend(made, together=True)
    results = []
    for one in (backend, together):
        one.reserve(20)
        for keys in (one.store.keys, one.store.values):  # pyright: ignore[reportOptionalMemberAccess]
            for held in keys:
                with torch.inference_mode():
                    held.fill_(float("nan"))  # what was never written must never be read
        tables = [[i, i + 6, i + 12] for i in range(len(lengths))]
        for i, length in enumerate(lengths):
            one.step([Rows(i, ids(length, i), 0, tables[i], 1)])
        batch = [Rows(i, [i], length, tables[i], 1) for i, length in enumerate(lengths)]
        results.append(one.step([*batch, Rows(9, ids(5), 0, [19], 2)]))
    assert results[0].values.shape == (7, 50)
    torch.testing.assert_close(results[1].values, results[0].values, rtol=1e-4, atol=1e-4)
    assert torch.equal(results[1].best, results[0].best)


def test_a_step_may_go_back():
    for made in (network("qwen3"), Recurrent(RecurrentConfig(50, width=8, hidden=12, layers=2)).eval()):
        backend = TorchBackend(made)
        backend.reserve(3)
        backend.open(0)
        pages = [0, 1, 2]
        backend.step([Rows(0, ids(40), 0, pages, 1)])
        tried = backend.step([Rows(0, [5, 6, 7, 8], 40, pages, 4, guesses=3)])
        right = backend.step([Rows(0, [9, 1], 42, pages, 1)])  # 7 and 8 were wrong
        with torch.inference_mode():
            whole = made(torch.tensor([[*ids(40), 5, 6, 7, 8]]))[0, 40:]
            other = made(torch.tensor([[*ids(40), 5, 6, 9, 1]]))[0, -1:]
        torch.testing.assert_close(tried.values, whole, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(right.values, other, rtol=1e-4, atol=1e-4)


def test_what_is_told_of_the_logits():
    made = network("qwen3")
    backend = TorchBackend(made)
    backend.reserve(2)
    found = backend.step([Rows(0, ids(6), 0, [0], 3), Rows(1, ids(4), 0, [1], 0)])
    assert torch.equal(found.best, found.values.argmax(-1))
    torch.testing.assert_close(found.log_sum, found.values.logsumexp(-1))
    with torch.no_grad():
        made.lm_head.weight[7] = torch.inf
    found = backend.step([Rows(0, ids(6), 0, [0], 3)])
    assert not torch.isfinite(found.log_sum).any()
    assert backend.step([Rows(1, ids(4), 0, [1], 0)]).values.numel() == 0


@pytest.mark.parametrize("cache", ["float16", "bfloat16"])
def test_keys_and_values_may_be_kept_smaller(cache: str):
    made = network("grouped")
    whole, small = TorchBackend(made), TorchBackend(made, cache=cache)
    assert small.page_bytes * 2 == whole.page_bytes == 2 * 2 * PAGE * 2 * 8 * 4
    results = []
    for backend in (whole, small):
        backend.reserve(3)
        results.append(steps(backend, [0, 1, 2], ids(150), [100]))
    error = (results[0] - results[1]).abs().max() / results[0].abs().max()
    assert 0 < error < {"float16": 2e-3, "bfloat16": 2e-2}[cache]
    with pytest.raises(ConfigError, match="not as 'int8'"):
        TorchBackend(made, cache="int8")


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = train_tokenizer(["the cat sat on the mat. " * 20], "char", 300)
    torch.manual_seed(0)
    made = Decoder(DecoderConfig(tokenizer.vocab_size, context=900, layers=2, width=32, heads=2))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(made, tokenizer)


def test_in_company_after_hits_and_in_turns_it_is_the_same_bit_for_bit(model: Model):
    shared = ids(2 * CHUNK + 30)
    several = [
        Request(shared[: CHUNK + 9] + ids(40 * i, i), {"temperature": 0.8}, max_new_tokens=20, seed=i) for i in range(5)
    ]
    several += [Request(shared, {"temperature": 0.8}, max_new_tokens=20), Request(ids(9), max_new_tokens=30)]
    alone = [Engine(model, backend="torch").submit(one).result() for one in several]
    engine = Engine(model, backend="torch")
    tickets = [engine.submit(one) for one in several]
    assert [ticket.result() for ticket in tickets] == alone
    again = [engine.submit(one).result() for one in several]
    assert again == alone
    assert [one.cached_tokens for one in again] == [CHUNK] * 5 + [2 * CHUNK, 0]
    few = Engine(model, backend="torch", pages=14)
    tickets = [few.submit(one) for one in several]
    found = [ticket.result() for ticket in tickets]
    assert [one.ids for one in found] == [one.ids for one in alone]


def test_a_training_network_is_set_back(model: Model):
    model.network.train()
    backend = TorchBackend(model.network)
    backend.reserve(1)
    backend.step([Rows(0, [1, 2], 0, [0], 1)])
    assert model.network.training
    model.network.eval()
