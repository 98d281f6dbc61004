"""What a model makes of questions and texts, against the slow way: one text at a time through `Model.logits`."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.evaluation import compare, evaluate, perplexity, read_suite, run
from cutaway.evaluation.boundaries import cut, prefix, windows
from cutaway.generation import Engine
from cutaway.models import (
    Decoder,
    DecoderConfig,
    Encoder,
    EncoderConfig,
    Model,
    Recurrent,
    RecurrentConfig,
    Seq2Seq,
    Seq2SeqConfig,
)
from cutaway.tokenizers import train_tokenizer

TEXT = "The cat sees the dog. The dogs see a cat! Where do they sleep, 猫? In the old house by the river. "
PAIRS = [
    ("The dogs sleep.", "The dogs sleeps."),
    ("The cat sees.", "The cat see."),
    ("A dog.", "A dog."),
    ("They do!", "They does!"),
]


def talker(seed: int = 0, context: int = 48, network: type = Decoder) -> Model:
    tokenizer = train_tokenizer([TEXT * 20], "bpe", 330)
    torch.manual_seed(seed)
    if network is Decoder:
        made = Decoder(DecoderConfig(tokenizer.vocab_size, context=context, layers=2, width=32, heads=4))
    else:
        made = Recurrent(RecurrentConfig(tokenizer.vocab_size, context=context, layers=1, width=32))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(made, tokenizer, f"talker-{seed}")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [{"good": good, "bad": bad, "uid": f"u{i % 2}"} for i, (good, bad) in enumerate(PAIRS)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return tmp_path / "pairs.jsonl"


def slowly(model: Model, ids: list[int], start: int) -> tuple[float, bool]:
    """The log-likelihood of the tokens from `start` on, and whether greedy decoding would write them."""
    logprobs = model.logits(ids)[0, :-1].double().log_softmax(-1)
    targets = torch.tensor(ids[1:])
    chosen = logprobs.gather(1, targets[:, None])[start - 1 :, 0]
    return float(chosen.sum()), bool((logprobs.argmax(-1) == targets)[start - 1 :].all())


@pytest.mark.parametrize("network", [Decoder, Recurrent])
def test_pairs_are_counted_as_the_slow_way_does(pairs: Path, network: type) -> None:
    model = talker(network=network)
    made = evaluate(Engine(model), read_suite(pairs))
    begin, right = prefix(model), 0
    for answer, pair in zip(made.answers, PAIRS, strict=True):
        wanted = [slowly(model, [begin, *model.tokenizer.encode(f" {text}")], 1)[0] for text in pair]
        assert [one.logprob for one in answer.choices] == pytest.approx(wanted, abs=2e-3)
        assert answer.right == (answer.choices[0].logprob >= answer.choices[1].logprob)
        right += answer.right
    assert made.answers[2].right  # of equals the first one counts, as in lm-eval
    assert (made.right, made.items) == (right, 4)
    assert made.figures["acc"].value == right / 4
    assert {(group.level, group.name, group.items) for group in made.groups} == {
        ("paradigm", "u0", 2),
        ("paradigm", "u1", 2),
    }


def test_last_words_are_right_where_the_model_would_write_them(tmp_path: Path) -> None:
    model = talker()
    rows = [{"text": "The cat sees the dog"}, {"text": "Where do they sleep"}]
    for begin in ("The old", "In the", "They"):
        written = model.generate(f"{begin} dogs", max_new_tokens=1, temperature=0)
        rows.append({"text": f"{begin} dogs{written.text}"} if written.text.startswith(" ") else {"text": f"{begin} x"})
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    made = evaluate(Engine(model), read_suite(tmp_path / "words.jsonl"))
    found = []
    for answer in made.answers:
        split = cut(model, answer.item.context, answer.item.choices[0])
        logprob, greedy = slowly(model, split.ids, split.start)
        assert answer.choices[0].logprob == pytest.approx(logprob, abs=2e-3)
        assert answer.right == greedy
        found.append(logprob)
    assert made.figures["perplexity"].value == pytest.approx(math.exp(-sum(found) / len(found)), rel=1e-3)


def test_choices_divide_by_their_characters(tmp_path: Path) -> None:
    row = {"question": "The cat", "choices": ["sees", "sees the old house by the river"], "answer": 1}
    (tmp_path / "c.jsonl").write_text(json.dumps(row), "utf-8")
    (answer,) = evaluate(Engine(talker()), read_suite(tmp_path / "c.jsonl")).answers
    short, long = (one.logprob for one in answer.choices)
    assert answer.right == (long > short)
    assert answer.right_by_length == (long / 31 > short / 4)


def test_of_what_is_too_long_the_end_is_read_and_it_is_said(tmp_path: Path) -> None:
    model = talker(context=16)
    (tmp_path / "w.jsonl").write_text(json.dumps({"text": TEXT * 3 + "The end"}), "utf-8")
    made = evaluate(Engine(model), read_suite(tmp_path / "w.jsonl"))
    ids = model.tokenizer.encode(TEXT * 3 + "The end")[-16:]
    count = len(model.tokenizer.encode(" end"))
    assert made.answers[0].choices[0].logprob == pytest.approx(slowly(model, ids, 16 - count)[0], abs=2e-3)
    assert "16 tokens" in made.notes[0]


def test_every_token_of_a_text_is_predicted_once_from_enough_before_it() -> None:
    ids = list(range(100))
    for window, stride in ((16, 8), (16, 1), (16, 15), (200, 100), (2, 1)):
        seen: list[int] = []
        for number, part in enumerate(windows(ids, window, stride)):
            assert len(part.ids) <= window
            assert part.start >= window - stride or number == 0
            seen += part.ids[part.start :]
        assert seen == ids[1:]


def test_perplexity_is_that_of_the_slow_way() -> None:
    model, texts = talker(), [TEXT * 4, "A cat."]
    made = perplexity(Engine(model), texts, window=24, stride=10)
    nats = tokens = 0
    for text in texts:
        ids = [prefix(model), *model.tokenizer.encode(text)]
        tokens += len(ids) - 1
        for at in range(1, len(ids)):  # token by token: the window in which it stands begins where the rule says
            steps = max(0, -(-(at + 1 - 24) // 10))
            end = min(len(ids), 24 + 10 * steps)
            begin = max(0, end - 24)
            nats -= float(model.logits(ids[begin : at + 1])[0, -2].double().log_softmax(-1)[ids[at]])
    assert (made.tokens, made.texts, made.bytes) == (tokens, 2, sum(len(text.encode()) for text in texts))
    assert made.figures["perplexity"].value == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert made.figures["bits_per_byte"].value == pytest.approx(nats / math.log(2) / made.bytes, rel=1e-4)
    assert made.pieces.sum(0) == pytest.approx([nats, tokens, made.bytes], rel=1e-4)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    model = talker()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
    made = perplexity(Engine(model), [TEXT])
    assert made.figures["perplexity"].value == pytest.approx(model.config.vocab_size, rel=1e-5)


def test_two_models_are_compared_on_the_same_items(pairs: Path) -> None:
    engines, suite = [Engine(talker(0)), Engine(talker(1))], read_suite(pairs)
    first, second = (evaluate(engine, suite) for engine in engines)
    (difference,) = compare(first, second)
    only = [
        (a.right and not b.right, b.right and not a.right) for a, b in zip(first.answers, second.answers, strict=True)
    ]
    assert (difference.only_first, difference.only_second) == tuple(map(sum, zip(*only, strict=True)))
    assert difference.difference.value == pytest.approx((second.right - first.right) / 4)
    (none,) = compare(first, first)
    assert (none.p, none.mcnemar, none.difference.value) == (1.0, 1.0, 0.0)
    with pytest.raises(ConfigError, match="not the same questions"):
        compare(first, evaluate(engines[1], suite.first(1)))


def test_models_of_other_tokens_are_compared_by_bits_per_byte() -> None:
    text = [TEXT * 10] * 8  # pieces enough for the test to tell
    other = talker(1)
    tokenizer = train_tokenizer([TEXT], "char", 300)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=48, layers=1, width=32, heads=4))
    pair = [perplexity(Engine(model), text) for model in (other, Model(network, tokenizer))]
    assert np.array_equal(pair[0].pieces[:, 2], pair[1].pieces[:, 2])
    (difference,) = compare(*pair)
    values = [one.figures["bits_per_byte"].value for one in pair]
    assert difference.difference.value == pytest.approx(values[1] - values[0])
    assert difference.p < 0.05
    with pytest.raises(ConfigError, match="not the same texts"):
        compare(pair[0], perplexity(Engine(other), [TEXT]))


def test_an_encoder_ranks_pairs_by_hiding_each_token_and_refuses_the_rest(pairs: Path) -> None:
    tokenizer = train_tokenizer([TEXT * 20], "bpe", 330)
    torch.manual_seed(0)
    sizes = {"context": 64, "layers": 1, "width": 32, "heads": 4, "head": "masked_lm"}
    model = Model(Encoder(EncoderConfig(tokenizer.vocab_size, **sizes)), tokenizer, "filler")
    made = evaluate(Engine(model), read_suite(pairs))
    ids = model.ids(PAIRS[0][0])[0]
    total = 0.0
    for place, id in enumerate(ids.tolist()):
        if id in tokenizer.special.values():
            continue
        hidden = ids.clone()
        hidden[place] = tokenizer.mask or 0
        total += float(model.logits(hidden)[0, place].double().log_softmax(-1)[id])
    assert made.answers[0].choices[0].logprob == pytest.approx(total, abs=1e-3)
    assert "pseudo" in made.notes[0]
    with pytest.raises(ConfigError, match="fills gaps"):
        perplexity(Engine(model), [TEXT])


def test_an_encoder_decoder_is_refused(pairs: Path) -> None:
    tokenizer = train_tokenizer([TEXT * 20], "bpe", 330)
    network = Seq2Seq(Seq2SeqConfig(tokenizer.vocab_size, context=32, layers=1, width=32, heads=4))
    engine = Engine(Model(network, tokenizer, "translator"))
    with pytest.raises(ConfigError, match="translator is an encoder–decoder"):
        run([engine], [read_suite(pairs)])
    with pytest.raises(ConfigError, match="translator is an encoder–decoder"):
        perplexity(engine, [TEXT])


def test_what_cannot_be_measured_is_told() -> None:
    engine = Engine(talker())
    for window, stride, words in ((49, 1, "2 … 48"), (48, 48, "fewer than the window"), (48, 0, "at least one")):
        with pytest.raises(ConfigError, match=words):
            perplexity(engine, [TEXT], window=window, stride=stride)
    with pytest.raises(InputError, match="no text"):
        perplexity(engine, [""])
    with pytest.raises(InputError, match="nothing to score"):
        cut(engine.model, "x", "")
    with pytest.raises(ConfigError, match="a suite of questions or a text"):
        run([engine])
