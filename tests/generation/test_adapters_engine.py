"""Requests with adapters: beside each other in one engine, each as if it were alone."""

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.generation import Engine, Request
from cutaway.generation.backend import Rows
from cutaway.generation.native.backend import NativeBackend
from cutaway.generation.quantize import quantize
from cutaway.generation.torch_backend import TorchBackend
from cutaway.models import ActiveTap, DecoderConfig, Model, Seq2SeqConfig, build_network
from cutaway.models.adapters import AdapterConfig, add_adapter, merge_adapter
from cutaway.models.low_rank import parts_of
from cutaway.tokenizers import train_tokenizer

TOKENIZER = train_tokenizer(["the cat sat on the mat, and the dog did not"] * 3, "bpe", 300)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
KINDS: dict[str, AdapterConfig] = {
    "lora": AdapterConfig(r=3, lora_alpha=20, target_modules=ATTENTION),
    "rslora": AdapterConfig(r=5, lora_alpha=9, target_modules="all-linear", use_rslora=True),
    "dora": AdapterConfig(r=2, lora_alpha=9, target_modules=(*ATTENTION, "down_proj", "lm_head"), use_dora=True),
    "layers": AdapterConfig(r=4, lora_alpha=30, target_modules=("up_proj",), layers_to_transform=(1,)),
}
WHOLE = AdapterConfig(r=4, lora_alpha=9, target_modules=ATTENTION, modules_to_save=("norm", "lm_head"))
EMBEDDING = AdapterConfig(r=4, lora_alpha=9, target_modules=("embed_tokens", "v_proj"))


def decoder(quantised: bool = False, **keys: Any) -> Model:
    torch.manual_seed(0)
    config = DecoderConfig(TOKENIZER.vocab_size, 512, 3, 32, 4, kv_heads=2, mlp_width=96, tied=True, qk_norm=False)
    network = build_network(replace(config, **keys))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.add_(torch.randn(parameter.shape) * (0.3 if "norm" in name else 0.15))
    model = Model(network.eval(), TOKENIZER, "base")
    return quantize(model, "int8").model if quantised else model


def learned(model: Model, config: AdapterConfig, seed: int = 1) -> Model:
    """An adapter that changes much."""
    made = add_adapter(model, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made


def ask(adapter: str | None, number: int = 0, **options: Any) -> Request:
    prompt = "the cat sat on the mat, and " * (1 + 5 * (number % 3)) + "dog"[: number % 4]
    options = {"max_new_tokens": 12, "logprobs": 3, "seed": number} | options
    return Request(prompt, {"temperature": 0.9}, adapter=adapter, **options)


def logits(backend: Any, ids: list[int], adapter: int = 0) -> torch.Tensor:
    """(T, V) of a text as a backend computes it, in one step."""
    backend.reserve(8)
    backend.open(0)
    made = backend.step([Rows(0, ids, 0, list(range(8)), len(ids), adapter=adapter)]).values.clone()
    backend.close(0)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantised", [False, True])
def test_native_numbers_are_those_of_torch(kind: str, quantised: bool) -> None:
    base = decoder(quantised)
    model = learned(base, KINDS[kind])
    ids = torch.randint(0, TOKENIZER.vocab_size, (70,)).tolist()
    backend = NativeBackend(base.network, cache="float32", rounding="sixteen")
    assert backend.adapt(3, model.network)
    found, expected = logits(backend, ids, 3), model.logits(ids)[0]
    assert (found - expected).abs().max() < 5e-4 * expected.abs().max()
    assert (logits(backend, ids) - expected).abs().max() > 0.05 * expected.abs().max()
    alone = NativeBackend(model.network, cache="float32", rounding="sixteen", share=backend)
    assert torch.equal(logits(alone, ids), found)
    whole = TorchBackend(base.network)
    whole.adapt(3, model.network)
    assert (logits(whole, ids, 3) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_rows_of_several_adapters_are_each_as_alone_bit_for_bit(threads: int, quantised: bool) -> None:
    base = decoder(quantised)
    adapters = {name: learned(base, config, seed) for seed, (name, config) in enumerate(KINDS.items())}
    asked = [ask(name, number) for number, name in enumerate([*KINDS, None, *reversed(KINDS), None, "dora", "dora"])]

    def engine() -> Engine:
        made = Engine(base, backend="native", threads=threads, chunk=48)
        for name, model in adapters.items():
            made.add_adapter(name, model)
        return made

    together = engine()
    tickets = [together.submit(request) for request in asked]
    found = [ticket.result() for ticket in tickets]
    assert len(together._lanes) == 1  # one step for all
    for request, made in zip(asked, found, strict=True):
        assert engine().submit(request).result() == made
    assert len({made.text for made in found}) > len(KINDS)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_pages_of_one_adapter_never_serve_another(backend: str) -> None:
    base = decoder()
    engine = Engine(base, backend=backend)
    for name in ("lora", "dora"):
        engine.add_adapter(name, learned(base, KINDS[name]))
    prompt = [5, 6, 7] * 100
    options: Any = {"max_new_tokens": 1}
    first = engine.submit(Request(prompt, adapter="lora", **options)).result()
    again = engine.submit(Request(prompt, adapter="lora", **options)).result()
    assert first.cached_tokens == 0 < again.cached_tokens
    for other in ("dora", None):
        assert engine.submit(Request(prompt, adapter=other, **options)).result().cached_tokens == 0
    engine.remove_adapter("lora")
    engine.add_adapter("lora", learned(base, KINDS["rslora"]))  # another of the same name
    assert engine.submit(Request(prompt, adapter="lora", **options)).result().cached_tokens == 0


@pytest.mark.parametrize("config", [WHOLE, EMBEDDING])
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_an_adapter_that_is_more_than_thin_parts_is_computed_in_the_same_engine(
    backend: str, config: AdapterConfig
) -> None:
    base = decoder()
    model = learned(base, config)
    engine = Engine(base, backend=backend)
    engine.add_adapter("more", model)
    engine.add_adapter("thin", learned(base, KINDS["lora"]))
    asked = [ask(name, number, max_new_tokens=6) for number, name in enumerate(["more", None, "thin", "more"])]
    found = [ticket.result() for ticket in [engine.submit(request) for request in asked]]
    merged = merge_adapter(model)
    for request, made in zip(asked, found, strict=True):
        of = merged if request.adapter == "more" else base
        if request.adapter != "thin":
            expected = Engine(of, backend="torch").submit(replace(request, adapter=None)).result()
            assert made.ids == expected.ids
            torch.testing.assert_close(torch.tensor(made.logprobs), torch.tensor(expected.logprobs), atol=1e-3, rtol=0)
    engine.remove_adapter("more")
    assert len(engine._lanes) == 1


def test_what_is_packed_is_shared() -> None:
    base = decoder(quantised=True)
    backend = NativeBackend(base.network)
    alone = NativeBackend(learned(base, WHOLE).network, share=backend)
    shared = {packed.handle for packed in alone._packed.values()} & {p.handle for p in backend._packed.values()}
    assert len(shared) == len(alone._packed) - 1 == 3 * 7 + 1  # all matrices but its own output matrix; the embedding
    expected = logits(alone, [1, 2, 3])
    del backend
    gc.collect()
    assert torch.equal(logits(alone, [1, 2, 3]), expected)  # what is shared lives as long as anyone holds it


def test_a_tap_sees_and_edits_rows_with_an_adapter() -> None:
    base = decoder()
    model = learned(base, KINDS["dora"])
    engine = Engine(base, backend="native")
    engine.add_adapter("dora", model)
    seen: list[torch.Tensor] = []
    watch = ActiveTap(["layers.1.attn.q"], sink=lambda name, x: seen.append(x.clone()))
    prompt = [1, 2, 3, 4, 5]
    engine.submit(Request(prompt, max_new_tokens=1, adapter="dora", tap=watch)).result()
    expected: list[torch.Tensor] = []
    model.logits(prompt, tap=ActiveTap(["layers.1.attn.q"], sink=lambda name, x: expected.append(x.clone())))
    torch.testing.assert_close(seen[0], expected[0], atol=1e-4, rtol=1e-4)
    edit = ActiveTap(edits={"layers.1.resid_pre": lambda x: x * 0})
    options: Any = {"max_new_tokens": 4, "sampling": {"temperature": 0}}
    made = engine.submit(Request(prompt, adapter="dora", tap=edit, **options)).result()
    alone = Engine(model, backend="torch").submit(Request(prompt, tap=edit, **options)).result()
    assert made.ids == alone.ids
    assert len(engine._lanes) == 2


def test_names_and_models_are_checked() -> None:
    base = decoder()
    engine = Engine(base)
    model = learned(base, KINDS["lora"])
    engine.add_adapter("lora", model)
    assert engine.adapters == {"lora": model}
    with pytest.raises(ConfigError, match="already"):
        engine.add_adapter("lora", model)
    with pytest.raises(ConfigError, match="of its own model"):
        engine.add_adapter("other", learned(decoder(), KINDS["lora"]))
    with pytest.raises(ConfigError, match="of its own model"):
        engine.add_adapter("other", base)
    with pytest.raises(InputError, match="did you mean lora"):
        engine.submit(Request("the", adapter="lara"))
    with pytest.raises(ConfigError, match="unknown adapter"):
        engine.remove_adapter("../lora")
    ticket = engine.submit(Request("the cat", adapter="lora", max_new_tokens=50))
    engine.step()
    with pytest.raises(ConfigError, match="in use"):
        engine.remove_adapter("lora")
    ticket.cancel()
    engine.remove_adapter("lora")
    with pytest.raises(InputError, match="unknown adapter"):
        engine.submit(Request("the", adapter="lora"))


def test_an_encoder_decoder_writes_with_an_adapter() -> None:
    torch.manual_seed(0)
    config = Seq2SeqConfig(TOKENIZER.vocab_size, 32, 32, 2, 16, 64, 2)
    base = Model(build_network(config).eval(), TOKENIZER)
    model = learned(base, AdapterConfig(r=4, lora_alpha=30))
    assert len(parts_of(model.network)) > 8
    engine = Engine(base)
    engine.add_adapter("a", model)
    asked = Request("the cat", {"temperature": 0}, max_new_tokens=5, adapter="a")
    plain = replace(asked, adapter=None)
    found = [ticket.result() for ticket in [engine.submit(asked), engine.submit(plain)]]
    assert found == [Engine(of).submit(plain).result() for of in (model, base)]


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_an_adapter_may_have_a_whole_embedding_of_its_own(backend: str) -> None:
    base = decoder(tied=False)
    model = learned(base, replace(WHOLE, modules_to_save=("embed_tokens", "lm_head")))
    engine = Engine(base, backend=backend)
    engine.add_adapter("whole", model)
    request = ask("whole", 1, max_new_tokens=4)
    expected = Engine(merge_adapter(model), backend="torch").submit(replace(request, adapter=None)).result()
    assert engine.submit(request).result().ids == expected.ids


@pytest.mark.parametrize(("backend", "copies"), [("native", 2), ("torch", 1)])
def test_adapters_are_in_the_memory_that_is_stated(backend: str, copies: int) -> None:
    base = decoder()
    engine = Engine(base, backend=backend)
    before = engine.memory().weights
    size = 0
    for name in ("lora", "rslora"):
        model = learned(base, KINDS[name])
        engine.add_adapter(name, model)
        size += sum(p.nbytes for part in parts_of(model.network).values() for p in part.parameters(recurse=False))
    assert engine.memory().weights - before == copies * size
    for name in ("lora", "rslora"):
        engine.remove_adapter(name)
    assert engine.memory().weights == before
