"""Guessing ahead changes no text and no distribution, and is tried only where it pays."""

import itertools
import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from chain import Chain
from scipy.stats import chisquare

from cutaway.errors import ConfigError
from cutaway.generation import generate
from cutaway.generation.drafts import Drafter
from cutaway.generation.engine import Engine
from cutaway.generation.request import Request
from cutaway.generation.sampling import Sampling, distribution, keep
from cutaway.generation.speculate import Lookup, Rates, worth
from cutaway.models import DecoderConfig, Model, RecurrentConfig, build_network
from cutaway.tokenizers import Tokenizer, train_tokenizer

REPEATS = "the cat sat on the mat. the cat sat on the mat. the cat"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat."], "char", 300)


def make(tokenizer: Tokenizer, seed: int, kind: str = "decoder", noise: float = 0.25) -> Model:
    size = tokenizer.vocab_size
    torch.manual_seed(0)
    if kind == "decoder":
        network = build_network(DecoderConfig(size, context=128, layers=2, width=16, heads=2))
    else:
        network = build_network(RecurrentConfig(size, width=8, hidden=12, layers=1))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * noise)
    return Model(network, tokenizer)


OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0.7, "seed": 3},
    {"temperature": 1.0, "top_k": 3, "seed": 4, "n": 3},
    {"temperature": 0, "repetition_penalty": 1.3, "frequency_penalty": 0.2},
    {"temperature": 0.4, "presence_penalty": 1.0, "seed": 5},
    {"temperature": 0.5, "regex": "(the |cat |sat |on |mat. )*", "seed": 6},
]


@pytest.mark.parametrize("kind", ["decoder", "gru"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_look_up_changes_no_token(options: dict[str, Any], kind: str, tokenizer: Tokenizer):
    model = make(tokenizer, 1, kind)
    # what it writes is made to repeat, so that guesses are tried and some are right
    bias = {model.tokenizer.id(letter): 8.0 for letter in "theca"}
    options = {"logit_bias": bias, "max_new_tokens": 60} | options
    plain = generate(model, REPEATS, **options)
    ahead = generate(model, REPEATS, **options, speculate="lookup")
    plain, ahead = (one if isinstance(one, list) else [one] for one in (plain, ahead))
    assert [one.ids for one in ahead] == [one.ids for one in plain]
    for one, other in zip(ahead, plain, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert sum(one.guessed for one in ahead) > 0
    if "regex" not in options:  # what a form forces is guessed anyway
        assert all(one.guessed == 0 and one.acceptance is None for one in plain)


def test_a_text_that_repeats_takes_fewer_steps(tokenizer: Tokenizer):
    cycle = torch.zeros(tokenizer.vocab_size, tokenizer.vocab_size)
    for one, other in itertools.pairwise("the car"):
        cycle[tokenizer.id(one), tokenizer.id(other)] = 9.0
    cycle[tokenizer.id("r"), tokenizer.id("t")] = 9.0
    steps = {}
    for way in (None, "lookup"):
        chain = Chain(cycle)
        engine = Engine(make(tokenizer, 1), backend=chain)
        made = engine.submit(Request("the ca", {"temperature": 0}, max_new_tokens=110, speculate=way)).result()
        assert made.text == ("r" + "the car" * 20)[:110]
        steps[way] = chain.steps
    assert steps[None] == 110
    assert steps["lookup"] < 30
    assert made.guessed > 80
    assert made.acceptance is not None
    assert made.acceptance > 0.95


def test_look_up_finds_the_longest_match_and_goes_on_with_it():
    text = [1, 2, 3, 4, 5, 9, 9, 2, 3, 7, 8, 1, 2, 3]
    look = Lookup(text, most=4)
    look.rates = Rates([1.0] * 8)  # so that every guess pays
    assert look.guess() == [4, 5, 9, 9]  # behind 1 2 3, though 2 3 stood later too
    look.add(4)
    assert look.guess() == [5, 9, 9, 2]
    look.add(0)
    assert look.guess() == []  # never seen
    look.add(8)
    assert look.guess() == [1, 2, 3, 4]  # one token is a match too


def test_look_up_tries_nothing_where_nothing_repeats_and_much_where_all_does():
    numbers = random.Random(0)

    def saved(ids: list[int], start: int) -> tuple[float, int]:
        """Steps saved, where one more row costs a quarter of a step; and how much was guessed."""
        look, place, time, guessed = Lookup(ids[:start]), start, 0.0, 0
        while place < len(ids):
            guesses = look.guess()
            right = 0
            while right < min(len(guesses), len(ids) - place) and guesses[right] == ids[place + right]:
                right += 1
            time, guessed = time + 1 + 0.25 * len(guesses), guessed + len(guesses)
            for id in ids[place : place + right + 1]:
                look.add(id)
            place += right + 1
        return (len(ids) - start) / time, guessed

    for letters in (5, 50, 5000):
        speed, guessed = saved([numbers.randrange(letters) for _ in range(3000)], 100)
        assert speed > 0.97
        assert guessed < 100
    page = [numbers.randrange(5000) for _ in range(1000)]
    assert saved(page * 2, 1000)[0] > 2.5
    edited = [numbers.randrange(5000) if numbers.random() < 0.05 else id for id in page]
    assert saved(page + edited, 1000)[0] > 1.5


def test_how_many_guesses_pay():
    assert worth([], 0.25) == 0
    assert worth([0.2] * 10, 0.25) == 0
    assert worth([1.0] * 10, 0.25) == 10
    # (1 + .7 + .49) / 1.5 = 1.46, with a third guess 2.533 / 1.75 = 1.447
    assert worth([0.7] * 10, 0.25) == 2
    assert worth([0.9] * 10, 1.0) == 0


# drafts

LETTERS = "abc"


def chains(tokenizer: Tokenizer, noise: float) -> tuple[Model, Chain, Chain]:
    """A model, and what computes it and its draft: three letters follow each other with known probabilities."""
    model = make(tokenizer, 1)
    generator, ids = torch.Generator().manual_seed(4), [tokenizer.id(letter) for letter in LETTERS]
    table = torch.full((tokenizer.vocab_size, tokenizer.vocab_size), -60.0)
    table[:, ids] = torch.randn(tokenizer.vocab_size, 3, generator=generator)
    other = table.clone()
    other[:, ids] += torch.randn(tokenizer.vocab_size, 3, generator=generator) * noise
    return model, Chain(table), Chain(other)


def joint(chain: Chain, prompt: list[int], ids: list[int], length: int, how: Sampling) -> dict[tuple[int, ...], float]:
    """The probability of every text of this length."""
    found = {}
    for text in itertools.product(ids, repeat=length):
        before = [prompt[-1], *text]
        steps = [
            float(distribution(chain.table[before[place]], how, prompt, text[:place])[text[place]])
            for place in range(length)
        ]
        found[text] = float(np.prod(steps))
    return found


@pytest.mark.parametrize(
    ("noise", "options"),
    [
        (0.3, {"temperature": 1.0}),
        (1.5, {"temperature": 0.7, "top_p": 0.8}),
        (1.5, {"temperature": 1.0, "presence_penalty": 1.5, "repetition_penalty": 1.4}),
        (0.7, {"temperature": 1.0, "regex": "[abc]{2}(ab|b|ca|cc)"}),
    ],
    ids=str,
)
def test_a_draft_changes_no_distribution(noise: float, options: dict[str, Any], tokenizer: Tokenizer):
    model, target, draft = chains(tokenizer, noise)
    small = make(tokenizer, 2)
    drafter = Drafter(small, model, backend=draft)
    drafter.cost = 0.0  # so that as many are guessed as may be
    small.drafter = (small.fingerprint(), model.fingerprint()), drafter
    ids, prompt = [tokenizer.id(letter) for letter in LETTERS], tokenizer.encode("cab")
    regex = options.get("regex")
    options = {name: value for name, value in options.items() if name != "regex"}
    expected = joint(target, prompt, ids, 4, Sampling(**options))
    if regex:  # each token is drawn from what the form allows: all but the last two letters are free
        expected = held(target, prompt, ids, Sampling(**options), re.compile(regex))
    engine, drawn = Engine(model, backend=target), Counter()
    guessed, right, count = 0, 0.0, 1200
    tickets = [
        engine.submit(Request(prompt, options, max_new_tokens=4, seed=seed, n=50, speculate=small, regex=regex))
        for seed in range(count // 50)
    ]
    while engine.step():
        pass
    for ticket in tickets:
        for made in ticket.results():
            drawn[tuple(id for id in made.ids if id in ids)] += 1
            guessed += made.guessed
            right += made.guessed * (made.acceptance or 0)
    assert guessed > count
    assert 0.1 < right / guessed < 0.97
    assert sum(expected.values()) == pytest.approx(1, abs=1e-6)
    assert drawn.keys() <= {text for text, share in expected.items() if share > 0}
    often = [text for text in expected if expected[text] * count >= 5]
    counted = [*(drawn[text] for text in often), count - sum(drawn[text] for text in often)]
    wanted = [*(expected[text] for text in often), 1 - sum(expected[text] for text in often)]
    if wanted[-1] * count < 5:
        counted.pop()
        wanted.pop()
    assert len(counted) > 5
    assert chisquare(counted, np.array(wanted) / sum(wanted) * sum(counted)).pvalue > 0.001


def held(
    chain: Chain, prompt: list[int], ids: list[int], how: Sampling, form: re.Pattern[str]
) -> dict[tuple[int, ...], float]:
    """The probability of every text of a form, of up to four letters, where each is drawn among those that may come."""
    letter = dict(zip(ids, LETTERS, strict=True))
    whole = ["".join(text) for length in (3, 4) for text in itertools.product(LETTERS, repeat=length)]
    whole = [text for text in whole if form.fullmatch(text)]
    found: dict[tuple[int, ...], float] = {}
    waiting: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    while waiting:
        text, share = waiting.pop()
        written = "".join(letter[id] for id in text)
        may = [id for id in ids if any(one.startswith(written + letter[id]) for one in whole)]
        if not may:
            found[text] = share
            continue
        allowed = np.zeros(len(chain.table), bool)
        allowed[may] = True
        shares = keep(chain.table[(*prompt, *text)[-1]].numpy(), how, allowed=allowed).dense(len(chain.table))
        waiting += [((*text, id), share * float(shares[id])) for id in may]
    return found


def greedy(model: Model, **options: Any) -> list[list[int]]:
    made = generate(model, REPEATS, temperature=0, **options)
    return [one.ids for one in (made if isinstance(made, list) else [made])]


@pytest.mark.parametrize(
    "options",
    [{}, {"repetition_penalty": 1.3}, {"regex": "(the |cat |sat )*"}, {"n": 3}, {"max_new_tokens": 2}],
    ids=str,
)
def test_a_draft_changes_no_greedy_token(options: dict[str, Any], tokenizer: Tokenizer):
    model, draft = make(tokenizer, 1), make(tokenizer, 2)
    options = {"max_new_tokens": 40} | options
    assert greedy(model, **options, speculate=draft) == greedy(model, **options)


def test_a_draft_that_is_always_right_saves_steps_and_leaves_no_page(tokenizer: Tokenizer):
    model, target, _ = chains(tokenizer, 0)
    small, same = make(tokenizer, 2), Chain(target.table)
    drafter = Drafter(small, model, backend=same)
    drafter.cost = 0.3  # as if it were small
    small.drafter = (small.fingerprint(), model.fingerprint()), drafter
    engine = Engine(model, backend=target)
    made = engine.submit(Request("cab", {"temperature": 1.0}, max_new_tokens=60, seed=1, speculate=small)).result()
    assert len(made.ids) == 60
    assert made.acceptance == 1
    assert target.steps <= 3 + 60 // 5
    assert same.rows < 3 + 60 + target.steps, "what was guessed right is not computed again"
    assert drafter.pages.used == engine._lanes[0].pages.used == 0
    ticket = engine.submit(Request("cab", max_new_tokens=60, speculate=small))
    engine.step()
    engine.step()
    assert drafter.pages.used > 0
    ticket.cancel()
    engine.step()
    assert drafter.pages.used == 0


def test_a_text_longer_than_the_drafts_context_goes_on_without_it(tokenizer: Tokenizer):
    model = make(tokenizer, 1)
    draft = Model(build_network(DecoderConfig(tokenizer.vocab_size, context=70, layers=1, width=8, heads=1)), tokenizer)
    plain = generate(model, REPEATS, temperature=0, max_new_tokens=90)  # past both contexts
    assert generate(model, REPEATS, temperature=0, max_new_tokens=90, speculate=draft).ids == plain.ids


def test_a_draft_is_checked(tokenizer: Tokenizer):
    model = make(tokenizer, 1)
    other = make(train_tokenizer(["other letters"], "bpe", 300), 1)
    with pytest.raises(ConfigError, match="a draft must have the same tokenizer as the model"):
        generate(model, "the", speculate=other)
    with pytest.raises(ConfigError, match="must be decoders, but the draft is a recurrent"):
        generate(model, "the", speculate=make(tokenizer, 1, "gru"))
    with pytest.raises(ConfigError, match="unknown way to guess ahead: 'look-up'; did you mean lookup"):
        generate(model, "the", speculate="look-up")
    with pytest.raises(ConfigError, match='speculate must be "lookup" or a draft model, but 3 was given'):
        generate(model, "the", speculate=3)
