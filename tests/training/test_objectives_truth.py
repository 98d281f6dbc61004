"""What networks learn where the answer is known, each with a control that must fail.

Sources are Markov chains, rules and counts, so that the best possible figures can be computed.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cutaway.models import ActiveTap, Encoder, Seq2Seq, build_network, load_model
from cutaway.models.model import checkpoints
from cutaway.tokenizers import TokenStore, prepare_examples, train_tokenizer
from cutaway.training import Run, evaluate, train, train_config
from cutaway.training.objectives import Objective, objective_from, replace_tokens

LETTERS = "abcde"
V = len(LETTERS)


def learn(data: Path, objective: dict[str, Any] | str | Objective, **settings: Any) -> Run:
    usual = {"network": {"layers": 1, "width": 32, "heads": 2}, "context": 12, "batch": 64, "dtype": "fp32"}
    usual |= {"compile": "off", "tensorboard": "off", "eval_tokens": 0, "eval_every": 10_000, "baseline": False}
    learned = objective_from(objective)
    values = {"out": f"{data}-{learned.name}", **usual, **settings, "data": str(data), "objective": learned}
    return train(train_config({**values, "threads": 1}))


def transitions() -> np.ndarray:
    table = np.random.default_rng(3).random((V, V)) ** 3
    return table / table.sum(1, keepdims=True)


def stationary(table: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eig(table.T)
    found = np.real(vectors[:, np.argmax(np.real(values))])
    return found / found.sum()


def walk(table: np.ndarray, length: int, seed: int) -> str:
    draw, edges, state, states = np.random.default_rng(seed), table.cumsum(1), 0, []
    for number in draw.random(length):
        state = min(int(np.searchsorted(edges[state], number)), V - 1)
        states.append(state)
    return "".join(LETTERS[state] for state in states)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus from a Markov source of five letters."""
    texts = {
        name: [walk(transitions(), size, seed)]
        for seed, (name, size) in enumerate((("train", 100_000), ("valid", 40_000)))
    }
    folder = tmp_path_factory.mktemp("chain") / "data"
    TokenStore.from_texts(texts, train_tokenizer(texts["train"], "char", 300), folder)
    return folder


def between(table: np.ndarray) -> np.ndarray:
    """(V, V, V): the chances of a letter between two others, by the one before and the one after."""
    both = table[:, None, :] * table.T[None]  # before, after, letter
    return both / both.sum(-1, keepdims=True)


def at_edges(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, V): the chances of a first letter by the one after it, and of a last by the one before."""
    first = stationary(table)[:, None] * table
    return (first / first.sum(0)).T, table


def chances(table: np.ndarray, states: Tensor) -> Tensor:
    """(B, T, V): the true chances of each letter, all the others being known."""
    first, last = (torch.from_numpy(edge) for edge in at_edges(table))
    middle = torch.from_numpy(between(table))
    return torch.cat((first[states[:, 1:2]], middle[states[:, :-2], states[:, 2:]], last[states[:, -2:-1]]), dim=1)


def letters_of(store: TokenStore) -> Tensor:
    return torch.tensor([store.tokenizer.id(letter) for letter in LETTERS])


ONE = {"rate": 1 / 12, "hidden": 1.0, "random": 0.0}  # one hidden letter in each window


def states_of(store: TokenStore, ids: Tensor) -> Tensor:
    letters = letters_of(store)
    assert torch.isin(ids, letters).all()
    return torch.searchsorted(letters, ids)


def test_a_masked_model_recovers_a_markov_source(chain: Path):
    """A hidden letter's chances are those between its neighbours, and the loss is their entropy."""
    table, T = transitions(), 12
    run = learn(chain, {"name": "masked", **ONE, "rate": 0.25}, steps=300, lr_rest=0.01)
    network, store = run.model.network.eval(), TokenStore.open(chain)
    valid, mask = store["valid"], store.tokenizer.mask
    texts = torch.from_numpy(valid.window(0, 300 * T).reshape(300, T))
    true = chances(table, states_of(store, texts))

    @torch.no_grad()
    def distance(network: Any) -> float:  # total variation, over all 259 tokens
        found = torch.zeros(*texts.shape, network.config.vocab_size)
        for place in range(T):
            ids = texts.clone()
            ids[:, place] = mask or 0
            found[:, place] = network(ids, places=torch.full((len(ids), 1), place))[:, 0].softmax(-1)
        found[..., letters_of(store)] -= true
        return float(found.abs().sum(-1).mean() / 2)

    assert distance(network) < 0.04
    assert distance(build_network(network.config).eval()) > 0.5  # an untrained copy

    # the expected loss with one hidden letter a window, from the table alone
    start, middle = stationary(table), between(table)
    first, last = at_edges(table)
    pairs = start[:, None] * table
    inner = -(pairs[:, :, None] * table[None] * np.log(middle.transpose(0, 2, 1))).sum()  # before, letter, after
    outer = -(pairs * np.log(first.T)).sum() - (pairs * np.log(last)).sum()
    one = objective_from({"name": "masked", **ONE})
    score = evaluate(network, valid, context=T, objective=one)
    assert score is not None
    assert score.loss == pytest.approx(((T - 2) * inner + outer) / T, rel=0.03)
    # and the best loss possible on just the letters that were hidden
    best, count = 0.0, 0
    for batch in one.in_order(valid, T):
        if "mask" in batch.tensors:
            break  # the end of the text
        targets, places = batch.tensors["targets"], batch.tensors["places"]
        states = states_of(store, batch.tensors["ids"].scatter(1, places, targets))
        found = chances(table, states).gather(1, places[..., None].expand(-1, -1, V))
        best -= float(found.gather(2, states_of(store, targets)[..., None]).log().sum())
        count += len(targets)
    assert count > 3000
    assert best / count < score.loss < 1.02 * best / count


def area(scores: Tensor, wanted: Tensor) -> float:
    """How often a wanted position has a higher score than another (area under the ROC curve)."""
    order = scores.argsort()
    ranks = torch.empty(len(scores), dtype=torch.float64)
    ranks[order] = torch.arange(len(scores), dtype=torch.float64)
    count = int(wanted.sum())
    return float(ranks[wanted].sum() - count * (count - 1) / 2) / (count * (len(scores) - count))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_discriminator_finds_replaced_letters_as_well_as_can_be(chain: Path, tmp_path: Path, seed: int):
    """With one filled letter a window, its chances follow from the source's and the generator's (Bayes' rule).

    At place t stands z with the chance m under the source and q under the generator, given the other letters. That the
    one letter that was filled in is at t has the weight q / m, and that it is another than it was then, 1 - m.

    Of what there is to know beyond the base rate, the greater part must be known. (All of it is not to be had by longer
    training: a better generator leaves less to find.)
    """
    table, T = transitions(), 12
    objective = objective_from({"name": "replaced", **ONE})
    network = {"layers": 2, "width": 32, "heads": 2}
    settings = {"steps": 1200, "network": network, "lr": 0.01, "lr_rest": 0.005, "seed": seed}
    run = learn(chain, objective, **settings, out=str(tmp_path / "run"))
    store = TokenStore.open(chain)
    generator = load_model(checkpoints(run.folder)[0] / "generator").network.eval()
    discriminator = run.model.network.eval()
    assert isinstance(generator, Encoder)
    assert isinstance(discriminator, Encoder)
    untrained = build_network(discriminator.config).eval()
    with torch.no_grad():
        for parameter in untrained.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    best, ours, theirs, truth = [], [], [], []
    for batch in objective.in_order(store["valid"], T):
        if "mask" in batch.tensors or len(truth) == 5:
            break
        ids, places, numbers = (batch.tensors[name] for name in ("ids", "places", "draws"))
        with torch.no_grad():
            guesses = generator(batch.tensors["hidden"], places=places)
            shown = replace_tokens(ids, places, torch.ones_like(places, dtype=torch.bool), guesses, numbers)
            plain = torch.isin(shown, letters_of(store)).all(1)  # but for what a generator in its youth makes
            ids, shown = ids[plain], shown[plain]
            q = torch.empty(shown.shape, dtype=torch.float64)
            for place in range(T):
                hidden = shown.clone()
                hidden[:, place] = store.tokenizer.mask or 0
                chance = generator(hidden, places=torch.full((len(ids), 1), place))[:, 0].double().softmax(-1)
                q[:, place] = chance.gather(1, shown[:, place : place + 1])[:, 0]
            states = states_of(store, shown)
            m = chances(table, states).gather(2, states[..., None])[..., 0]
            best.append(q / m * (1 - m) / (q / m).sum(1, keepdim=True))
            ours.append(discriminator(shown).sigmoid())
            theirs.append(untrained(shown).sigmoid())
            truth.append(shown != ids)
    best, ours, theirs, truth = (torch.cat(parts).flatten() for parts in (best, ours, theirs, truth))

    def loss(said: Tensor) -> float:
        return float(torch.nn.functional.binary_cross_entropy(said.double(), truth.double()))

    share = float(truth.double().mean())
    without = -share * math.log(share) - (1 - share) * math.log(1 - share)  # knowing the base rate alone
    assert loss(best) < 0.95 * without
    assert 0.6 < (without - loss(ours)) / (without - loss(best)) < 1
    assert area(best, truth) > 0.7
    assert area(ours, truth) > area(best, truth) - 0.03
    assert area(theirs, truth) < 0.6  # an untrained copy


def test_spans_of_a_rule_are_restored(tmp_path: Path):
    """The alphabet in a circle: what stood in a gap follows from what stands around it. Letters at random do not."""
    circle = "".join(chr(ord("a") + i % 12) for i in range(30_000))
    draw = random.Random(0)
    noise = "".join(draw.choice("abcdefghijkl") for _ in range(30_000))
    tokenizer, accuracy = train_tokenizer([circle], "char", 300), []
    for name, text, steps in (("circle", circle, 250), ("noise", noise, 60)):
        TokenStore.from_texts({"train": [text], "valid": [text[:5000]]}, tokenizer, tmp_path / name)
        run = learn(tmp_path / name, "span", steps=steps, context=24, batch=32, lr=0.01)
        accuracy.append(run.metrics["accuracy"])
    assert accuracy[0] > 0.97
    assert accuracy[1] < 0.7  # the sentinels and the end are easily known, the letters not


def reversed_words(folder: Path, lengths: tuple[int, int], count: int) -> Path:
    draw = random.Random(0)
    words = ["".join(draw.choice("abcdefgh") for _ in range(draw.randint(*lengths))) for _ in range(count)]
    (folder / "words.tsv").write_text("word\tback\n" + "\n".join(f"{word}\t{word[::-1]}" for word in words))
    out = folder / "pairs"
    prepare_examples(str(folder / "words.tsv"), out, text="word", target="back", tokenizer="char", vocab_size=300)
    return out


def diagonals(network: Any, store: TokenStore, count: int = 50) -> Tensor:
    """(layers, H): how much each head of cross-attention looks at the letter that comes next, backwards."""
    assert isinstance(network, Seq2Seq)
    valid, masses = store["valid"], []
    for number in range(min(count, valid.examples)):
        source, target = (torch.from_numpy(valid.document(2 * number + part))[None] for part in (0, 1))
        seen: dict[str, Tensor] = {}
        names = [
            name for name in network.tap_names() if name.endswith("cross_attn.pattern") and name.startswith("layers")
        ]
        ids = torch.cat((torch.tensor([[network.config.start_id]]), target[:, :-1]), dim=1)
        with torch.no_grad():
            network.eval()(ids, source=source, tap=ActiveTap(names, sink=seen.__setitem__))
        masses.append(torch.stack([seen[name][0].flip(-1).diagonal(dim1=-2, dim2=-1).mean(-1) for name in names]))
    return torch.stack(masses).mean(0)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_encoder_decoder_learns_to_reverse(tmp_path: Path, seed: int):
    """Eight letters, backwards: the one head of cross-attention looks from the last to the first.

    That is one way to do it: some seeds (0) let the encoder move letters first, and then the head looks elsewhere.
    """
    data = reversed_words(tmp_path, (8, 8), 4000)
    network = {"layers": 1, "width": 64, "heads": 1, "position": "learned"}
    run = learn(data, "seq2seq", steps=400, context=16, batch=32, network=network, lr=0.01, lr_rest=0.005, seed=seed)
    store = TokenStore.open(data)
    assert store["valid"].examples > 100
    assert run.metrics["exact"] > 0.99
    assert float(diagonals(run.model.network, store)[0, 0]) > 0.95
    untrained = build_network(run.model.network.config)
    assert float(diagonals(untrained, store)[0, 0]) < 0.3
    score = evaluate(untrained, store["valid"], context=16, objective=run.objective)
    assert score is not None
    assert score.figures["exact"] == 0
    # what it writes by itself is what the figure says
    written = run.model.generate(["abcdefgh", "hhgaabcd"], temperature=0, max_new_tokens=12)
    assert [one.text for one in written] == ["hgfedcba", "dcbaaghh"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_an_encoder_decoder_learns_to_reverse_words_of_any_length(tmp_path: Path, seed: int):
    """With T5's relative positions the network must find out where a word ends; its heads may share the work."""
    data = reversed_words(tmp_path, (4, 8), 20_000)
    network = {"layers": 2, "width": 64, "heads": 2}
    run = learn(data, "seq2seq", steps=4000, context=16, network=network, lr=0.01, lr_rest=0.004, seed=seed)
    assert run.metrics["exact"] > 0.99


def labelled(folder: Path, rows: Sequence[tuple[str, object]]) -> Path:
    folder.mkdir()
    (folder / "rows.tsv").write_text("text\tlabel\n" + "\n".join(f"{text}\t{label}" for text, label in rows))
    prepare_examples(
        str(folder / "rows.tsv"),
        folder / "data",
        text="text",
        label="label",
        tokenizer="char",
        vocab_size=300,
        valid=0.2,
    )
    return folder / "data"


def random_words(count: int) -> list[str]:
    draw = random.Random(1)
    return list(dict.fromkeys("".join(draw.choice("abcdef") for _ in range(draw.randint(6, 14))) for _ in range(count)))


def test_a_classifier_reaches_the_bayes_rate_and_chance_on_shuffled_labels(tmp_path: Path):
    """Does a come before b? One label in five is wrong, so no one can be right more often than four times in five."""
    draw, words = random.Random(2), [w for w in random_words(6000) if "a" in w and "b" in w]
    rule = {word: word.index("a") < word.index("b") for word in words}
    noisy = {word: rule[word] != (draw.random() < 0.2) for word in words}
    names = {True: "before", False: "after"}
    data = labelled(tmp_path / "noisy", [(word, names[noisy[word]]) for word in words])
    run = learn(data, "classify", steps=400, context=16, network={"layers": 2, "width": 32, "heads": 2}, lr=0.01)
    valid = TokenStore.open(data)["valid"]
    held_out = [valid.tokenizer.decode(valid.document(number)) for number in range(valid.examples)]
    best = sum(rule[word] == noisy[word] for word in held_out) / len(held_out)
    assert len(held_out) > 600
    assert run.model.config.labels == ("after", "before")  # pyright: ignore[reportAttributeAccessIssue]
    assert run.metrics["accuracy"] == pytest.approx(best, abs=0.02)
    right = sum((run.model.logits(word)[0, 1] > run.model.logits(word)[0, 0]) == rule[word] for word in held_out[:200])
    assert right > 190  # it has the rule, not its noise
    shuffled = list(noisy.values())
    draw.shuffle(shuffled)
    chance = labelled(
        tmp_path / "shuffled", [(word, names[label]) for word, label in zip(words, shuffled, strict=True)]
    )
    control = learn(chance, "classify", steps=60, context=16, lr=0.01)
    assert control.metrics["accuracy"] == pytest.approx(0.5, abs=0.07)


def test_a_regression_counts(tmp_path: Path):
    """How many a are there? Counts that belong to other words explain nothing."""
    words = random_words(4000)
    counts = [10 * word.count("a") - 3 for word in words]
    run = learn(labelled(tmp_path / "true", list(zip(words, counts, strict=True))), "regress", steps=400, context=16)
    assert run.metrics["r2"] > 0.98
    assert run.metrics["r"] > 0.99
    for word, count in (("aabcdeaf", 27), ("bcdefbcd", -3)):
        assert float(run.model.logits(word)[0, 0]) == pytest.approx(count, abs=4)
    random.Random(3).shuffle(counts)
    control = learn(
        labelled(tmp_path / "other", list(zip(words, counts, strict=True))), "regress", steps=60, context=16
    )
    assert control.metrics["r2"] < 0.05
