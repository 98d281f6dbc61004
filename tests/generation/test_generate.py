"""Generation: the same tokens as a plain loop, stop strings, whole characters, seeds."""

import json

import pytest
import tokenizers
import torch

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.generation import generate, stream
from cutaway.interp import look, record
from cutaway.models import Decoder, DecoderConfig, Model, Recurrent, RecurrentConfig
from cutaway.tokenizers import Tokenizer, train_tokenizer

TEXTS = ["the cat sat on the mat. 猫坐在垫子上😀 " * 20]


def make(kind: str, tokens: str = "char") -> Model:
    tokenizer = train_tokenizer(TEXTS, tokens, 300)
    torch.manual_seed(0)
    if kind == "decoder":
        network = Decoder(DecoderConfig(tokenizer.vocab_size, context=32, layers=2, width=32, heads=2))
    else:
        network = Recurrent(RecurrentConfig(tokenizer.vocab_size, width=16, hidden=24, layers=2, cell=kind))  # pyright: ignore
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return Model(network, tokenizer)


@pytest.fixture(scope="module", params=["decoder", "gru", "lstm"])
def model(request: pytest.FixtureRequest) -> Model:
    return make(request.param)


def test_greedy_equals_a_plain_loop(model: Model):
    ids = model.tokenizer.encode("the cat")
    expected = []
    for _ in range(20):
        chosen = int(model.logits(ids + expected)[0, -1].argmax())
        expected.append(chosen)
        if chosen == model.tokenizer.end_of_text:
            break
    made = generate(model, "the cat", max_new_tokens=20, temperature=0)
    assert made.ids == expected
    logprobs = model.logits(ids + expected)[0, len(ids) - 1 : -1].log_softmax(-1)
    assert made.logprobs == pytest.approx(logprobs[range(len(expected)), expected].tolist(), abs=1e-4)


def test_the_same_seed_gives_the_same_text_alone_and_in_company(model: Model):
    prompts = ["the ", "猫坐在", "cat sat on"]
    together = generate(model, prompts, max_new_tokens=12, seed=5)
    alone = [generate(model, prompt, max_new_tokens=12, seed=5 + i) for i, prompt in enumerate(prompts)]
    assert together == alone
    assert generate(model, "the ", max_new_tokens=12, seed=6).ids != together[0].ids


def test_generation_goes_on_past_the_context():
    model = make("decoder")
    made = generate(model, TEXTS[0][:32], max_new_tokens=70, temperature=1.5, seed=1)
    assert len(made.ids) == 70 or made.finish_reason == "end"
    assert made.finish_reason in ("length", "end")


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers():
    with pytest.raises(InputError, match="the prompt has 33 tokens, but this model sees 32 at once"):
        generate(make("decoder"), TEXTS[0][:33])


def test_sliding_forgets_the_earlier_half():
    model = make("decoder")
    made = generate(model, "the cat sat on the mat. the cat", max_new_tokens=3, temperature=0)  # 31 of 32
    ids = model.tokenizer.encode("the cat sat on the mat. the cat")
    assert len(ids) == 31
    second = int(model.logits(ids + made.ids[:1])[0, -1].argmax())
    third = int(model.logits((ids + made.ids[:2])[-16:])[0, -1].argmax())
    assert made.ids[1:] == [second, third]


def test_a_stop_string_across_tokens_ends_the_text_before_it(model: Model):
    free = generate(model, "the", max_new_tokens=30, temperature=1.0, seed=3)
    assert len(free.text) > 8
    stop = free.text[4:7]
    made = generate(model, "the", max_new_tokens=30, temperature=1.0, seed=3, stop=["never seen", stop])
    assert made.finish_reason == "stop"
    assert made.text == free.text[: free.text.index(stop)]


def test_streamed_texts_join_to_the_whole_and_hold_no_half_character():
    model = make("decoder", "bpe")
    ids = model.tokenizer.encode("猫😀坐")
    assert len(ids) >= 3
    for seed in range(5):
        pieces = [t.text for t in stream(model, "猫", max_new_tokens=40, temperature=2.0, seed=seed)]
        made = generate(model, "猫", max_new_tokens=40, temperature=2.0, seed=seed)
        assert "".join(pieces) == made.text
        kept = [i for i in made.ids if i != model.tokenizer.end_of_text]
        assert made.text == model.tokenizer.decode(kept)


def test_an_empty_prompt_begins_a_new_text(model: Model):
    made = generate(model, "", max_new_tokens=5, temperature=0)
    end = model.tokenizer.end_of_text
    assert end is not None
    assert made.ids[0] == int(model.logits([end])[0, -1].argmax())


@pytest.mark.parametrize("kind", ["template", "roberta", "gpt2"])
def test_a_text_begins_as_the_tokenizers_file_says_and_ids_as_they_are(kind: str):
    model = make("decoder", "bpe")
    begin = "<|endoftext|>"
    id = model.tokenizer.id(begin)
    around = {
        "template": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {begin: {"id": begin, "ids": [id], "tokens": [begin]}},
        },
        "roberta": {
            "type": "RobertaProcessing",
            "cls": [begin, id],
            "sep": [begin, id],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
        "gpt2": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    }[kind]
    plain = model.tokenizer
    model.tokenizer = Tokenizer(json.dumps(json.loads(plain.text) | {"post_processor": around}))
    outsider = tokenizers.Tokenizer.from_str(model.tokenizer.text).encode("the cat").ids
    expected = outsider[: 1 + outsider.index(plain.encode("the cat")[-1])]  # a text that goes on has no end yet
    assert expected == [id] * (kind != "gpt2") + plain.encode("the cat")
    made = generate(model, "the cat", max_new_tokens=6, temperature=0)
    assert made.prompt_tokens == len(expected)
    assert made.ids == generate(model, expected, max_new_tokens=6, temperature=0).ids
    # and what one looks at is what is generated
    assert model.ids("the cat")[0].tolist() == expected
    assert record(model, "the cat", "logits")["logits"][0, -1].argmax() == made.ids[0]
    assert record(model, ["the cat", "the"], "logits").ids[0].tolist() == expected
    assert len(look(model, "the cat").tokens) == len(expected)
    assert model.ids(plain.encode("the cat"))[0].tolist() == plain.encode("the cat")


def test_ids_continue_as_the_text_that_they_spell(model: Model):
    ids = model.tokenizer.encode("the cat")
    made, by_ids = generate(model, "the cat", max_new_tokens=8), generate(model, ids, max_new_tokens=8)
    assert (by_ids.prompt, by_ids.ids, by_ids.text) == (ids, made.ids, made.text)


def test_several_prompts_give_a_list_and_one_gives_one(model: Model):
    assert [made.seed for made in generate(model, ["a", ""], max_new_tokens=1, seed=7)] == [7, 8]
    assert generate(model, [], max_new_tokens=1).prompt == []


def test_the_prompt_is_checked_before_the_first_token(model: Model):
    with pytest.raises(InputError, match=r"token ids must lie in 0 … \d+, but 9999 … 9999 was given"):
        stream(model, [9999])
    with pytest.raises(InputError, match="a prompt must be text or token ids, but None"):
        stream(model, None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="lone surrogate"):
        generate(model, ["the", "\ud800"])
    model = make("decoder")
    model.tokenizer.end_of_text = None
    with pytest.raises(InputError, match="no token that begins a text"):
        stream(model, "")
    model.tokenizer.begin_of_text = 5
    assert generate(model, "", max_new_tokens=1, temperature=0).ids == [int(model.logits([5])[0, -1].argmax())]


def test_the_method_is_the_function(model: Model):
    assert model.generate("the", max_new_tokens=5) == generate(model, "the", max_new_tokens=5)


def test_training_mode_is_restored(model: Model):
    model.network.train()
    generate(model, "the", max_new_tokens=2)
    assert model.network.training
    model.network.eval()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"max_new_tokens": 2.5}, "whole number below 2\\^63, but 2.5"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**64}, "seed must be at least 0 and a whole number below"),
        ({"temperature": "warm"}, r"temperature must be float, but 'warm' \(str\) was given"),
        ({"top_k": 2.0}, "top_k must be int"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, but 1.5"),
        ({"stop": ["a", ""]}, "stop string is empty"),
        ({"stop": ["a", 3]}, "stop must be text or several texts, but 3"),
    ],
)
def test_what_is_wrong_is_named_before_the_first_token(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        stream(make("decoder"), "the", **options)


def test_a_nan_is_never_hidden():
    model = make("decoder")
    with torch.no_grad():
        model.network.lm_head.weight[3] = float("nan")
    with pytest.raises(NonFinite):
        generate(model, "the", max_new_tokens=2)


def test_an_unknown_option_meets_near_ones(model: Model):
    with pytest.raises(ConfigError, match="did you mean top_p"):
        model.generate("the", topp=0.9)


def test_ids_that_are_no_whole_numbers_are_refused(model: Model):
    with pytest.raises(InputError, match="whole numbers"):
        model.logits([1.5, 2.0])  # pyright: ignore[reportArgumentType]  # that is the point
