"""Hidden and replaced tokens: what is drawn, and what is lost."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.models import Encoder, EncoderConfig
from cutaway.tokenizers import TokenStore, train_tokenizer
from cutaway.training.losses import IGNORE, cross_entropy
from cutaway.training.objectives import (
    Masked,
    ReplacedPair,
    ReplacedTokens,
    mask_tokens,
    replace_tokens,
    replaced_loss,
)
from cutaway.training.objectives.masked import asked

V, MASK = 50, 50


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hide(ids: Tensor, seed: int = 0, **options: object) -> Masked:
    numbers = torch.rand(3, *ids.shape, generator=seeded(seed), dtype=torch.float64)
    return mask_tokens(ids, mask_id=MASK, vocab_size=V, draws=numbers, **options)  # pyright: ignore[reportArgumentType]


def drawn() -> tuple[Tensor, Masked]:
    ids = torch.randint(V, (400, 101), generator=seeded(1))
    return ids, hide(ids, 2)


def test_fifteen_of_a_hundred_by_80_10_10():
    ids, masked = drawn()
    assert (masked.chosen.sum(1) == 15).all()  # round(0.15 · 101)
    assert torch.equal(masked.ids[~masked.chosen], ids[~masked.chosen])
    shown, was = masked.ids[masked.chosen], ids[masked.chosen]
    hidden, kept = float((shown == MASK).float().mean()), float((shown == was).float().mean())
    assert hidden == pytest.approx(0.8, abs=0.02)
    assert kept == pytest.approx(0.1 + 0.1 / V, abs=0.02)  # a random token may be the same
    # every place and every token is as likely as any other
    places = masked.chosen.float().mean(0)
    assert (places - 15 / 101).abs().max() < 5 * (0.15 * 0.85 / 400) ** 0.5
    others = shown[(shown != MASK) & (shown != was)].bincount(minlength=V).float()
    assert (others - others.mean()).abs().max() < 5 * others.mean().sqrt()


def test_special_tokens_and_padding_are_never_chosen():
    ids = torch.randint(V, (50, 20), generator=seeded(1))
    allowed = ids >= 10
    allowed[:, 15:] = False
    allowed[0] = False  # a text without any
    masked = hide(ids, allowed=allowed, rate=0.5)
    assert not masked.chosen[~allowed].any()
    assert torch.equal(masked.chosen[1:].sum(1), (allowed[1:].sum(1) * 0.5).round().clamp(min=1).long())
    everything = hide(ids, rate=1.0, hidden=1.0, random=0.0)
    assert (everything.ids == MASK).all()


def test_whole_words_are_chosen_whole():
    starts = torch.rand(300, 60, generator=seeded(3)) < 0.4  # the first word may begin before the text
    ids, words = torch.zeros(300, 60, dtype=torch.int64), starts.cumsum(1)
    masked = hide(ids, 4, starts=starts)
    for row, word in zip(masked.chosen, words, strict=True):
        chosen = set(word[row].tolist())
        assert row.tolist() == [w in chosen for w in word.tolist()]
        longest = max(int((word == w).sum()) for w in chosen)
        assert 9 <= int(row.sum()) < 9 + longest  # 15 % of 60, and up to the rest of one word more


def test_what_does_not_fit_is_named():
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"at most 1 together, but 0\.15, 0\.9 and 0\.2"):
        hide(ids, hidden=0.9, random=0.2)
    with pytest.raises(ConfigError, match="rate must lie in"):
        hide(ids, rate=0.0)


def test_the_places_asked_about_are_the_chosen():
    ids, masked = torch.randint(V, (5, 9), generator=seeded(1)), torch.rand(5, 9, generator=seeded(2)) < 0.3
    masked[3] = False
    places, targets = asked(ids, masked)
    assert places.shape == (5, int(masked.sum(1).max()))
    for row in range(5):
        count = int(masked[row].sum())
        assert places[row, :count].tolist() == masked[row].nonzero()[:, 0].tolist()
        assert targets[row, :count].tolist() == ids[row][masked[row]].tolist()
        assert (targets[row, count:] == IGNORE).all()


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "word", "char"])
def test_where_words_begin(kind: str):
    text = "So the naïve reader's 2 books, 中文书!\nAnd more."
    tokenizer = train_tokenizer([text * 3], kind, 600)
    ids = np.array(tokenizer.encode(text))
    places = [len(tokenizer.decode_bytes(ids[:i]).decode("utf-8", "ignore")) for i in range(len(ids))]
    found = {place for place, start in zip(places, tokenizer.words.starts(ids), strict=True) if start}
    for word in ("the", "naïve", "reader", "books", "And", "more"):
        at = text.index(word)
        assert found & {at - 1, at}  # with the space before it or without
        assert not found & set(range(at + 1, at + len(word)))
    for sign in ("'", ",", "中", "!", "."):
        assert found & {text.index(sign) - 1, text.index(sign)}


def encoder(**fields: object) -> Encoder:
    torch.manual_seed(0)
    small = {"vocab_size": 6, "context": 16, "layers": 2, "width": 32, "heads": 2}
    return Encoder(EncoderConfig(**{**small, **fields}))  # pyright: ignore[reportArgumentType]


def test_asking_at_some_places_gives_their_logits():
    network, ids = encoder().eval(), torch.randint(6, (3, 10), generator=seeded(1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded(3)) * 0.1)
        places = torch.tensor([[0, 9], [4, 4], [7, 2]])
        everywhere = network(ids)
        assert torch.equal(network(ids, places=places), everywhere.gather(1, places[..., None].expand(-1, -1, 6)))


def test_a_draw_is_from_the_generators_chances():
    count = 100_000
    ids, places = torch.zeros(1, 2 * count, dtype=torch.int64), torch.arange(1, 2 * count, 2)[None]
    chances = torch.tensor([0.1, 0.2, 0.3, 0.4])
    numbers = torch.rand(1, count, generator=seeded(), dtype=torch.float64)
    asked_about = places != 1
    made = replace_tokens(ids, places, asked_about, chances.log().expand(1, count, 4), numbers)
    assert (made[0, ::2] == 0).all()
    assert made[0, 1] == 0  # a place that only fills the row up
    assert (made[0, 1::2].bincount() / count - chances).abs().max() < 0.006
    certain = torch.tensor([-1e4, 0.0, -1e4, -1e4]).expand(1, count, 4)
    assert (replace_tokens(ids, places, asked_about, certain, numbers)[0, 3::2] == 1).all()


def test_the_loss_counts_real_tokens():
    logits, replaced = torch.tensor([[0.0, 2.0, 9.0]]), torch.tensor([[False, True, False]])
    one = torch.tensor(0.5).log().neg() + torch.tensor(2.0).sigmoid().log().neg()
    real = torch.tensor([[True, True, False]])
    assert float(replaced_loss(logits, replaced, real)) == pytest.approx(float(one), abs=1e-6)
    assert float(replaced_loss(logits, replaced)) == pytest.approx(float(one) + 9.0001234, abs=1e-5)


def pair() -> ReplacedPair:
    discriminator = encoder(head="replaced_token", head_norm=False)
    made = ReplacedPair(encoder(width=16, heads=1, embed_width=32, layers=1), discriminator)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded(3)) * 0.1)
    return made


def test_no_gradient_passes_through_what_was_drawn():
    """The generator's gradient is that of its own loss; of what both read, the embedding, it is the sum."""
    both = pair()
    ids = torch.randint(5, (8, 10), generator=seeded(1))
    places, targets = asked(ids, hide(ids, hidden=1.0, random=0.0).chosen)
    hidden = ids.scatter(1, places, 5)
    numbers = torch.rand(places.shape, generator=seeded(4), dtype=torch.float64)
    guesses, shown, judged = both(hidden, ids, places, targets != IGNORE, numbers)
    (cross_entropy(guesses, targets) + 50 * replaced_loss(judged, shown != ids)).backward()
    shared = both.generator.embed_tokens.weight
    assert shared is both.discriminator.embed_tokens.weight is both.generator.lm_head.weight
    together = {name: p.grad.clone() for name, p in both.named_parameters() if p.grad is not None}
    assert together.keys() == dict(both.named_parameters()).keys()
    parts = []
    for loss in (
        cross_entropy(both.generator(hidden, places=places), targets),
        50 * replaced_loss(both.discriminator(shown), shown != ids),
    ):
        both.zero_grad()
        loss.backward()
        parts.append({name: p.grad.clone() for name, p in both.named_parameters() if p.grad is not None})
    assert parts[0].keys() & parts[1].keys() == {"generator.embed_tokens.weight"}
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, sum(part[name] for part in parts if name in part), rtol=1e-4, atol=1e-6)


def test_the_figures_are_what_they_say(corpus: Path):
    """A generator that always answers 0, and a discriminator that finds nothing: all is known."""
    both, objective = pair(), ReplacedTokens()
    with torch.no_grad():
        both.generator.lm_head.bias[0] = 1e4
        both.discriminator.head.out.weight.zero_()  # pyright: ignore[reportOptionalMemberAccess]
        both.discriminator.head.out.bias.fill_(-20.0)  # pyright: ignore[reportOptionalMemberAccess]
    ids = torch.randint(5, (8, 10), generator=seeded(1))
    places = torch.arange(6).expand(8, 6)
    real = torch.arange(10).expand(8, 10) < 6
    piece = {
        "ids": ids,
        "hidden": ids,
        "places": places,
        "targets": ids[:, :6],
        "draws": torch.rand(8, 6),
        "mask": real,
    }
    with torch.no_grad():
        score = objective.score(objective.measure(both, piece), TokenStore.open(corpus)["valid"])
    share = float((ids[:, :6] != 0).float().mean())
    assert score.tokens == 48
    assert score.figures["replaced"] == pytest.approx(share)
    assert score.figures["accuracy"] == pytest.approx(1 - share)
    assert (score.figures["recall"], score.figures["precision"]) == (0, 0)
    assert score.figures["discriminator_loss"] == pytest.approx(20 * share, rel=1e-5)
    assert score.figures["generator_loss"] == pytest.approx(1e4 * share, rel=1e-3)
    assert score.loss == pytest.approx(score.figures["generator_loss"] + 50 * score.figures["discriminator_loss"])
