"""Log-probabilities of the prompt, against the network's own logits: in pieces, in company, on every backend."""

import math
import random
from itertools import pairwise
from typing import Any

import pytest
import torch

from cutaway.errors import ConfigError, NonFinite
from cutaway.generation import Engine, Generation, Request
from cutaway.generation.native.backend import SCORED, NativeBackend
from cutaway.models import (
    ActiveTap,
    Decoder,
    DecoderConfig,
    Model,
    RecurrentConfig,
    Seq2Seq,
    Seq2SeqConfig,
    build_network,
    load_model,
    save_model,
)
from cutaway.models.config_parts import RotaryScaling
from cutaway.tokenizers import Tokenizer, train_tokenizer

SIZES: dict[str, Any] = {"context": 400, "layers": 2, "width": 64, "heads": 4, "kv_heads": 2}
GROWING = RotaryScaling("dynamic", factor=2.0, original_context=100)
KINDS: dict[str, Any] = {
    "decoder": (DecoderConfig, SIZES),
    "decoder whose numbers depend on its length": (DecoderConfig, SIZES | {"rotary_scaling": GROWING}),
    "gru": (RecurrentConfig, {"width": 24, "hidden": 32, "layers": 2}),
    "lstm": (RecurrentConfig, {"width": 24, "hidden": 32, "layers": 2, "cell": "lstm"}),
}
BACKENDS = [("decoder", "native"), *((kind, "torch") for kind in KINDS)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat and the dog on the log. " * 20], "bpe", 320)


def make(tokenizer: Tokenizer, kind: str) -> Model:
    config, fields = KINDS[kind]
    torch.manual_seed(0)
    network = build_network(config(vocab_size=tokenizer.vocab_size, **fields)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return Model(network, tokenizer, "a test")


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    return make(tokenizer, "decoder")


def drawn(size: int, count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(size), k=count)


def read(engine: Engine, prompt: Any, top: int = 0, **options: Any) -> Generation:
    asked: dict[str, Any] = {"max_new_tokens": 0} | options
    return engine.submit(Request(prompt, prompt_logprobs=top, **asked)).result()


@pytest.mark.parametrize(("kind", "backend"), BACKENDS)
def test_they_are_what_the_network_says_whatever_the_pieces(tokenizer: Tokenizer, kind: str, backend: str):
    model = make(tokenizer, kind)
    ids = drawn(tokenizer.vocab_size, 330)
    expected = model.logits(ids)[0].log_softmax(-1)
    found = []
    for chunk in (7, 64, 300, 512):
        engine = Engine(model, backend=backend, chunk=chunk)
        made = read(engine, ids, top=3, max_new_tokens=2, sampling={"temperature": 0})
        assert made.prompt_ids == ids
        assert len(made.ids) == 2
        assert made.prompt_logprobs[0] is None
        for place, score in enumerate(made.prompt_logprobs[1:]):
            assert score is not None
            assert score[0] == pytest.approx(float(expected[place, ids[place + 1]]), abs=1e-5)
            top = expected[place].topk(3)
            assert [id for id, _ in score[1]] == top.indices.tolist()
            assert [value for _, value in score[1]] == pytest.approx(top.values.tolist(), abs=1e-5)
        found.append(made.prompt_logprobs)
        alone = Engine(model, backend=backend, chunk=chunk)
        plain = alone.submit(Request(ids, {"temperature": 0}, max_new_tokens=2)).result()
        assert (plain.ids, plain.logprobs) == (made.ids, made.logprobs)
        assert plain.prompt_logprobs == plain.prompt_ids == []
    if backend == "native" or kind.startswith("decoder"):
        assert all(one == found[0] for one in found)


def test_they_are_the_same_in_company_and_with_a_warm_cache_and_after_pages_were_given_back(model: Model):
    size = model.tokenizer.vocab_size
    shared = drawn(size, 150)
    prompts = [shared + drawn(size, 9 * i, seed=i) for i in range(6)] + [
        drawn(size, 60 * i + 1, seed=9) for i in range(6)
    ]
    for backend in ("native", "torch"):
        alone = [read(Engine(model, backend=backend), ids, top=2) for ids in prompts]
        for pages in (None, 16):
            engine = Engine(model, backend=backend, pages=pages, keep=8, chunk=300)
            for _ in range(2):
                tickets = [
                    engine.submit(Request(ids, prompt_logprobs=2, max_new_tokens=0 if i % 2 else 40, n=1 + i % 3))
                    for i, ids in enumerate(prompts)
                ]
                crowd = [engine.submit(Request(ids, max_new_tokens=60)) for ids in prompts]
                for ticket, one in zip(tickets, alone, strict=True):
                    for made in ticket.results():
                        assert made.prompt_logprobs == one.prompt_logprobs
                    assert ticket.cached_tokens == 0
                for ticket in crowd:
                    ticket.result()
            assert engine._lanes[0].pages.used == 0


def test_its_pages_are_found_by_others(model: Model):
    ids = drawn(model.tokenizer.vocab_size, 150)
    engine = Engine(model)
    read(engine, ids)
    assert engine.submit(Request([*ids, 1], max_new_tokens=1)).result().cached_tokens == 128
    assert read(engine, ids).cached_tokens == 0


def test_whatever_is_written_they_are_told_once_and_before(model: Model):
    ids = drawn(model.tokenizer.vocab_size, 200)
    kinds: list[dict[str, Any]] = [{"beams": 3, "n": 2}, {"n": 4}, {"speculate": "lookup"}, {"logprobs": 2}]
    for options in kinds:
        ticket = Engine(model).submit(Request(ids, prompt_logprobs=0, max_new_tokens=5, **options))
        next(iter(ticket))
        assert len(ticket.prompt_logprobs) == ticket.prompt_tokens == 200
        wanted = read(Engine(model), ids).prompt_logprobs
        assert all(made.prompt_logprobs == wanted for made in ticket.results())


def test_a_prompt_that_was_made_is_as_likely_as_when_it_was_made(model: Model):
    made = Engine(model).submit(Request("the cat", {"temperature": 1.0}, max_new_tokens=100, seed=3)).result()
    ids = [*model.ids("the cat")[0].tolist(), *made.ids]
    scores = read(Engine(model), ids).prompt_logprobs[-len(made.ids) :]
    assert [score[0] for score in scores if score] == made.logprobs


def test_nothing_predicts_the_first_token_and_what_begins_a_text_is_one(model: Model):
    assert read(Engine(model), [5], max_new_tokens=1).prompt_logprobs == [None]
    made = read(Engine(model), [5])
    assert (made.prompt_logprobs, made.ids, made.text, made.finish_reason) == ([None], [], "", "length")
    begin = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    }
    begin |= {"pair": begin["single"], "special_tokens": {"B": {"id": "B", "ids": [3], "tokens": ["B"]}}}
    text, before = "the cat", model.tokenizer.around
    plain = model.ids(text)[0].tolist()
    model.tokenizer.around = [begin]
    try:
        made = read(Engine(model), text)
    finally:
        model.tokenizer.around = before
    assert made.prompt_ids == [3, *plain]
    assert made.prompt_logprobs == read(Engine(model), [3, *plain]).prompt_logprobs
    assert made.prompt_logprobs[0] is None
    assert None not in made.prompt_logprobs[1:]


def test_logits_of_a_long_prompt_are_never_all_there(model: Model):
    backend = NativeBackend(model.network)
    engine = Engine(model, backend=backend)
    tickets = [engine.submit(Request(drawn(50, 390, seed=i), prompt_logprobs=0, max_new_tokens=3)) for i in range(3)]
    for ticket in tickets:
        ticket.result()
    assert backend._logits is not None
    assert len(backend._logits[0]) <= SCORED + len(tickets)


def test_one_that_looks_sees_its_prompt_once(model: Model):
    ids = drawn(model.tokenizer.vocab_size, 200)
    wanted = read(Engine(model), ids).prompt_logprobs
    for name in ("layers.0.resid_post", "logits"):
        seen: list[int] = []
        tap = ActiveTap([name], sink=lambda _, x, seen=seen: seen.append(x.shape[1]))
        assert read(Engine(model), ids, tap=tap).prompt_logprobs == wanted
        assert seen == [200]
    edited = ActiveTap(edits={"logits": lambda x: 0 * x})
    flat = read(Engine(model), ids, tap=edited).prompt_logprobs
    assert [score[0] for score in flat if score] == pytest.approx([-math.log(model.tokenizer.vocab_size)] * 199)


def test_an_encoder_decoder_tells_of_its_target(tokenizer: Tokenizer):
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "context": 32,
        "source_context": 32,
        "layers": 1,
        "encoder_layers": 1,
        "width": 16,
        "heads": 2,
    }
    network = build_network(Seq2SeqConfig(vocab_size=tokenizer.vocab_size, **sizes)).eval()
    model = Model(network, tokenizer)
    target = [7, 8, 9]
    made = read(Engine(model), "the cat", target=target)
    assert isinstance(network, Seq2Seq)
    expected = model.logits([network.config.start_id, *target], source="the cat")[0].log_softmax(-1)
    wanted = [float(row[id]) for row, id in zip(expected, target, strict=False)]
    assert [score[0] for score in made.prompt_logprobs if score] == pytest.approx(wanted, abs=1e-5)


def test_a_quantised_model_tells_the_same_in_every_piece(tokenizer: Tokenizer, model: Model, tmp_path):
    kept = load_model(save_model(model, tmp_path / "small.gguf", "gguf", kind="Q4_0"), quantised=True)
    ids = drawn(tokenizer.vocab_size, 150)
    found = [read(Engine(kept, chunk=chunk), ids).prompt_logprobs for chunk in (1, 9, 512)]
    assert found[0] == found[1] == found[2]
    expected = kept.logits(ids)[0].log_softmax(-1)
    wanted = [float(expected[i, id]) for i, (_, id) in enumerate(pairwise(ids))]
    assert [score[0] for score in found[0] if score] == pytest.approx(wanted, abs=0.1)  # activations are rounded


def test_what_is_no_number_is_told(tokenizer: Tokenizer):
    for backend in ("native", "torch"):
        broken = make(tokenizer, "decoder")
        assert isinstance(broken.network, Decoder)
        with torch.no_grad():
            broken.network.lm_head.weight = torch.nn.Parameter(broken.network.lm_head.weight.clone())
            broken.network.embed_tokens.weight[3] = float("nan")
        engine = Engine(broken, backend=backend)
        good, bad = (engine.submit(Request(ids, prompt_logprobs=0, max_new_tokens=0)) for ids in ([1, 2, 4], [1, 3, 4]))
        assert len(good.result().prompt_logprobs) == 3
        with pytest.raises(NonFinite):
            bad.result()


def test_nothing_to_write_and_nothing_to_tell_is_refused():
    with pytest.raises(ConfigError, match="max_new_tokens must be at least 1"):
        Request("a", max_new_tokens=0)
    with pytest.raises(ConfigError, match="prompt_logprobs must be at least 0"):
        Request("a", prompt_logprobs=-1)
    Request("a", prompt_logprobs=0, max_new_tokens=0)
