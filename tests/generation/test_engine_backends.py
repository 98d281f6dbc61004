"""The engine on the backend that this machine has, against torch: requests of many kinds at a time."""

import random
from typing import Any

import pytest
import torch

import cutaway
from cutaway.errors import InputError
from cutaway.generation import Engine, Request, generate
from cutaway.generation.select import choose_backend, why_not_native
from cutaway.interp import record_generation
from cutaway.models import ActiveTap, Decoder, DecoderConfig, Model, Recurrent, RecurrentConfig, load_model, save_model
from cutaway.tokenizers import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat and the dog on the log. " * 20], "bpe", 320)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=300, layers=2, width=64, heads=4, kv_heads=2)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return Model(network, tokenizer, "a test")


def several(size: int) -> list[Request]:
    draw = random.Random(0)
    shared = draw.choices(range(size), k=140)
    made = [
        Request(shared + draw.choices(range(size), k=5 * i), {"temperature": 0}, max_new_tokens=12) for i in range(4)
    ]
    made += [
        Request(draw.choices(range(size), k=9 * i + 1), {"temperature": 0.9}, max_new_tokens=20, seed=i)
        for i in range(4)
    ]
    made += [
        Request(shared[:70], {"temperature": 0.9}, max_new_tokens=9, n=3, logprobs=2),
        Request([*shared[:20] * 3], {"temperature": 0}, max_new_tokens=30, speculate="lookup"),
        Request(shared[:40], max_new_tokens=8, beams=3, n=2),
        Request(draw.choices(range(size), k=290), {"temperature": 0}, max_new_tokens=30),  # goes past the context
    ]
    return made


@pytest.mark.parametrize("pages", [None, 17])
def test_native_is_the_same_in_company_bit_for_bit(model: Model, pages: int | None):
    requests = several(model.tokenizer.vocab_size)
    alone = [Engine(model, backend="native").submit(one).results() for one in requests]
    engine = Engine(model, backend="native", pages=pages, keep=8, chunk=50)
    found = 0
    for _ in range(2):  # the second time with prefixes found
        tickets = [engine.submit(one) for one in requests]
        assert [ticket.results() for ticket in tickets] == alone
        found = sum(ticket.cached_tokens for ticket in tickets)
    assert found
    assert engine._lanes[0].pages.used == 0


def test_native_is_torch_token_for_token_in_greedy(model: Model):
    requests = [one for one in several(model.tokenizer.vocab_size) if one.sampling.get("temperature") == 0]
    native_ones = [Engine(model, backend="native").submit(one).result() for one in requests]
    torch_ones = [Engine(model, backend="torch").submit(one).result() for one in requests]
    for ours, theirs in zip(native_ones, torch_ones, strict=True):
        assert ours.ids == theirs.ids
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)


def test_who_records_is_served_natively_and_who_edits_by_torch(model: Model):
    engine = Engine(model, backend="native")
    seen: list[str] = []
    looked = ActiveTap(["layers.0.resid_post"], sink=lambda name, _: seen.append(name))
    edited = ActiveTap(edits={"layers.0.mlp_out": lambda x: 0 * x})
    requests = [Request("the cat", {"temperature": 0}, max_new_tokens=6, tap=tap) for tap in (looked, edited)]
    tickets = [engine.submit(one) for one in [*requests, Request("the cat", {"temperature": 0}, max_new_tokens=6)]]
    found = [ticket.result() for ticket in tickets]
    assert found[0] == found[2]
    assert seen == ["layers.0.resid_post"] * len(found[0].ids)
    assert [lane.backend.name.partition(" ")[0] for lane in engine._lanes] == ["native", "torch"]
    assert found[1] == Engine(model, backend="torch").submit(requests[1]).result()
    assert all(lane.pages.used == 0 for lane in engine._lanes)


def test_an_edit_that_torch_has_no_room_for_is_refused_and_holds_up_nobody(model: Model):
    native = choose_backend(model, "native", cache="int8")
    engine = Engine(model, backend="native", cache="int8", memory=4 * native.page_bytes)
    edited = ActiveTap(edits={"layers.0.mlp_out": lambda x: 0 * x})
    asked = {"sampling": {"temperature": 0}, "max_new_tokens": 150}
    bad, good = engine.submit(Request("the cat", tap=edited, **asked)), engine.submit(Request("the cat", **asked))
    assert len(good.result().ids) == 150
    with pytest.raises(InputError, match="this request may need"):
        bad.result()
    assert engine.idle


def test_a_recording_is_the_same_on_both(model: Model, monkeypatch: pytest.MonkeyPatch):
    names = ["layers.*.resid_post", "layers.1.attn.pattern", "logits"]
    first = record_generation(model, "the cat sat", names, max_new_tokens=5, temperature=0)
    monkeypatch.setenv("CUTAWAY_KERNELS", "torch")
    model.engine = None
    second = record_generation(model, "the cat sat", names, max_new_tokens=5, temperature=0)
    model.engine = None
    assert first.generation.ids == second.generation.ids
    for one, other in zip(first.steps, second.steps, strict=True):
        assert list(one) == list(other)
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-3)


def test_a_model_that_stays_quantised_generates(tokenizer: Tokenizer, model: Model, tmp_path, monkeypatch):
    """Its larger matrices are dequantised by several threads."""
    torch.manual_seed(0)
    wide = Decoder(DecoderConfig(tokenizer.vocab_size, context=64, layers=1, width=1024, heads=8, mlp_width=8192))
    file = save_model(Model(wide, tokenizer), tmp_path / "wide.gguf", "gguf", kind="Q8_0")
    plain, kept = load_model(file), load_model(file, quantised=True)
    monkeypatch.setenv("CUTAWAY_KERNELS", "torch")
    options: dict[str, Any] = {"max_new_tokens": 3, "temperature": 0}
    assert generate(kept, "the cat", **options).ids == generate(plain, "the cat", **options).ids


def test_the_choice_has_its_reason(model: Model, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    chosen = choose_backend(model)
    assert chosen.name.startswith("native")
    assert chosen.reason
    asked = choose_backend(model, "torch")
    assert (asked.name, asked.reason) == ("torch", "it was asked for")
    monkeypatch.setenv("CUTAWAY_KERNELS", "torch")
    assert choose_backend(model).reason == why_not_native(model) == "CUTAWAY_KERNELS asks for torch"
    with pytest.raises(cutaway.errors.ConfigError, match="cannot compute a test: CUTAWAY_KERNELS asks for torch"):
        choose_backend(model, "native")
    monkeypatch.delenv("CUTAWAY_KERNELS")
    recurrent = Model(Recurrent(RecurrentConfig(tokenizer.vocab_size, width=8, hidden=8, layers=1)), tokenizer)
    assert choose_backend(recurrent).name == "torch"
    with pytest.raises(cutaway.errors.ConfigError, match="unknown option of a backend 'thread'; did you mean threads"):
        choose_backend(model, thread=2)
