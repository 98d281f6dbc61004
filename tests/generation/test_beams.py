"""Beam search: texts and scores of transformers on every kind of network, and the best of all where all are tried."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from cutaway.errors import ConfigError
from cutaway.generation import generate
from cutaway.generation.engine import Engine
from cutaway.generation.request import Generation, Request
from cutaway.models import DecoderConfig, Model, RecurrentConfig, build_network, load_model, save_model
from cutaway.models.generation_config import parse_generation
from cutaway.tokenizers import train_tokenizer

SEARCHES: list[dict[str, Any]] = [
    {"num_beams": 3},
    {"num_beams": 4, "length_penalty": 2.0, "num_return_sequences": 3},
    {"num_beams": 4, "length_penalty": -1.0, "early_stopping": True, "num_return_sequences": 4},
    {"num_beams": 2, "length_penalty": 0.0, "early_stopping": "never"},
    {"num_beams": 5, "length_penalty": 1.5, "early_stopping": "never", "num_return_sequences": 2},
    {"num_beams": 3, "repetition_penalty": 1.7, "num_return_sequences": 3},
    {"num_beams": 3, "suppress_tokens": [5, 6, 7, 8], "renormalize_logits": True, "num_return_sequences": 2},
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the cat sat on the mat"], "char", 300)


def several(model: Model, prompt: str, **options: Any) -> list[Generation]:
    made: Any = generate(model, prompt, **options)
    return made if isinstance(made, list) else [made]


def spread(network: torch.nn.Module, seed: int) -> None:
    """Random weights of which the likeliest tokens are not all the same."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.25)


@pytest.fixture(scope="module", params=["decoder", "t5", "bart", "marian"])
def folder(request: pytest.FixtureRequest, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("beams") / request.param
    size = tokenizer.vocab_size
    if request.param == "decoder":
        network = build_network(DecoderConfig(size, context=64, layers=2, width=16, heads=2, tied=False))
        spread(network, 2)
        return save_model(Model(network, tokenizer), place, "huggingface")
    torch.manual_seed(3)
    small: dict[str, Any] = {"vocab_size": size, "d_model": 16, "pad_token_id": 1, "decoder_start_token_id": 2}
    small["eos_token_id"] = 3
    if request.param == "t5":
        config = transformers.T5Config(**small, num_layers=1, num_heads=2, d_kv=8, d_ff=24, initializer_factor=8.0)
        network = transformers.T5ForConditionalGeneration(config)
    else:
        sides = itertools.product(("encoder", "decoder"), (("layers", 1), ("ffn_dim", 24), ("attention_heads", 2)))
        small |= {f"{side}_{what}": number for side, (what, number) in sides}
        small |= {"max_position_embeddings": 60, "init_std": 1.0, "forced_eos_token_id": None}
        if request.param == "bart":
            network = transformers.BartForConditionalGeneration(transformers.BartConfig(**small))
        else:
            network = transformers.MarianMTModel(transformers.MarianConfig(**small))
    network.save_pretrained(place)
    tokenizer.save(place)
    return place


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: "-".join(str(value) for value in search.values()))
def test_equals_transformers(search: dict[str, Any], folder: Path):
    ours = load_model(folder)
    decoder = ours.config.kind == "decoder"
    kind: Any = transformers.AutoModelForCausalLM if decoder else transformers.AutoModelForSeq2SeqLM
    theirs = kind.from_pretrained(folder)
    ids = ours.ids("the cat") if decoder else ours.source_ids("the cat")
    first = ids.shape[1] if decoder else 1
    # two tokens that come early end a text, so that some hypotheses end before others
    plain = generate(ours, "the cat", temperature=0, max_new_tokens=12).ids
    ends = [plain[5], plain[-1]]
    said = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": ends, "pad_token_id": 1, "bos_token_id": None}
    if not decoder:
        said["decoder_start_token_id"] = 2
    wanted = transformers.GenerationConfig(**said, **search)
    made = theirs.generate(
        ids,
        generation_config=wanted,
        attention_mask=torch.ones_like(ids),
        return_dict_in_generate=True,
        output_scores=True,
    )
    n = search.get("num_return_sequences", 1)
    ours.generation = parse_generation(json.loads(wanted.to_json_string()), "what they use")
    found = several(ours, "the cat", n=n)
    for text, their_ids in zip(found, made.sequences[:, first:].tolist(), strict=True):
        if text.finish_reason == "end":
            assert text.ids[-1] in ends
        assert text.ids == their_ids[: len(text.ids)]
        assert set(their_ids[len(text.ids) :]) <= {1}, "what is longer is filled up"
    if "repetition_penalty" not in search and "suppress_tokens" not in search:  # then scores are of what was changed
        scores = [sum(text.logprobs) / len(text.ids) ** search.get("length_penalty", 1.0) for text in found]
        assert scores == pytest.approx(made.sequences_scores.tolist(), rel=2e-5, abs=1e-5)


def recurrent(tokenizer: Any, cell: Any) -> Model:
    network = build_network(RecurrentConfig(tokenizer.vocab_size, width=8, hidden=12, layers=1, cell=cell))
    spread(network, 5)
    return Model(network, tokenizer)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_enough_beams_find_the_most_probable_text_of_all(cell: str, tokenizer: Any):
    model = recurrent(tokenizer, cell)
    allowed = "abc"
    ids = [model.tokenizer.id(letter) for letter in allowed]
    prompt = model.tokenizer.encode("the")
    found = several(model, "the", beams=27, n=3, max_new_tokens=3, regex="[abc]{9}")
    scores = {}
    for text in itertools.product(ids, repeat=3):
        logprobs = model.logits([*prompt, *text])[0, len(prompt) - 1 : -1].log_softmax(-1)
        scores[text] = float(logprobs[range(3), text].sum())
    best = sorted(scores, key=lambda text: -scores[text])[:3]
    assert [tuple(text.ids) for text in found] == best
    assert [sum(text.logprobs) for text in found] == pytest.approx([scores[text] for text in best], abs=1e-4)
    assert {text.finish_reason for text in found} == {"length"}


def test_alternatives_and_forms_go_with_the_search(tokenizer: Any):
    model = recurrent(tokenizer, "gru")
    made = generate(model, "the", beams=4, max_new_tokens=20, choices=["cat", "mat", "a mat"], logprobs=2)
    assert made.text in ("cat", "mat", "a mat")
    assert made.finish_reason == "end"
    assert [len(top) for top in made.top] == [2] * len(made.ids)
    first = model.logits("the")[0, -1].log_softmax(-1)
    assert made.top[0][0] == (int(first.argmax()), pytest.approx(float(first.max()), abs=1e-5))


def test_a_search_leaves_no_page_and_no_state(tokenizer: Any):
    network = build_network(DecoderConfig(tokenizer.vocab_size, context=64, layers=1, width=16, heads=2))
    engine = Engine(Model(network, tokenizer), backend="torch")
    pages = engine._lanes[0].pages
    ticket = engine.submit(Request("the cat", beams=4, n=2, max_new_tokens=9))
    assert len(ticket.results()) == 2
    assert pages.used == 0
    ticket = engine.submit(Request("the cat", beams=4, max_new_tokens=9))
    engine.step()
    engine.step()
    assert pages.used > 0
    ticket.cancel()
    engine.step()
    assert pages.used == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams must be at least 1"),
        ({"beams": True}, "beams must be at least 1 and a whole number"),
        ({"beams": 257}, "there may be at most 256 beams, but 257 were given"),
        ({"beams": 2, "n": 3}, "of 2 beams at most 2 texts can be told, but n = 3 was given"),
        ({"beams": 2, "temperature": 0.5}, "a beam search draws nothing"),
        ({"beams": 2, "speculate": "lookup"}, "a beam search guesses nothing ahead"),
        ({"beams": 2, "length_penalty": float("nan")}, "length_penalty must be a number in -100 … 100, but nan"),
        ({"beams": 2, "early_stopping": "soon"}, 'early_stopping must be true, false or "never"'),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], message: str, tokenizer: Any):
    with pytest.raises(ConfigError, match=message):
        generate(recurrent(tokenizer, "gru"), "the", **options)
