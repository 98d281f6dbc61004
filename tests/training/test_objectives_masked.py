"""Hidden and replaced tokens, and what networks learn from them: answers that are known."""

import pytest
import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.models import Encoder, EncoderConfig
from cutaway.training.objectives import (
    Masked,
    Replaced,
    mask_tokens,
    masked_loss,
    replace_tokens,
    replaced_loss,
    replaced_token_loss,
)

V, MASK = 50, 50


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(**options: object) -> tuple[Tensor, Masked]:
    ids = torch.randint(V, (400, 101), generator=seeded(1))
    return ids, mask_tokens(ids, mask_id=MASK, vocab_size=V, generator=seeded(2), **options)  # pyright: ignore[reportArgumentType]


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


def test_the_same_generator_gives_the_same_masks():
    assert torch.equal(drawn()[1].ids, drawn()[1].ids)


def test_special_tokens_and_padding_are_never_chosen():
    ids = torch.randint(V, (50, 20), generator=seeded(1))
    allowed = ids >= 10
    allowed[:, 15:] = False
    masked = mask_tokens(ids, mask_id=MASK, vocab_size=V, generator=seeded(), allowed=allowed, rate=0.5)
    assert not masked.chosen[~allowed].any()
    assert torch.equal(masked.chosen.sum(1), (allowed.sum(1) * 0.5).round().clamp(min=1).long())
    everything = mask_tokens(ids, mask_id=MASK, vocab_size=V, generator=seeded(), rate=1.0, hidden=1.0, random=0.0)
    assert (everything.ids == MASK).all()


def test_whole_words_are_chosen_whole():
    starts = torch.rand(300, 60, generator=seeded(3)) < 0.4  # the first word may begin before the text
    ids, words = torch.zeros(300, 60, dtype=torch.int64), starts.cumsum(1)
    masked = mask_tokens(ids, mask_id=MASK, vocab_size=V, generator=seeded(4), starts=starts)
    for row, word in zip(masked.chosen, words, strict=True):
        chosen = set(word[row].tolist())
        assert row.tolist() == [w in chosen for w in word.tolist()]
        longest = max(int((word == w).sum()) for w in chosen)
        assert 9 <= int(row.sum()) < 9 + longest  # 15 % of 60, and up to the rest of one word more


def test_what_does_not_fit_is_named():
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"at most 1 together, but 0\.15, 0\.9 and 0\.2"):
        mask_tokens(ids, mask_id=1, vocab_size=2, generator=seeded(), hidden=0.9, random=0.2)
    with pytest.raises(ConfigError, match="rate must lie in"):
        mask_tokens(ids, mask_id=1, vocab_size=2, generator=seeded(), rate=0.0)
    allowed = torch.tensor([[True] * 3, [False] * 3])
    with pytest.raises(InputError, match="text 1 of 2 has no token"):
        mask_tokens(ids, mask_id=1, vocab_size=2, generator=seeded(), allowed=allowed)


def chain(transitions: Tensor, batch: int, length: int, generator: torch.Generator) -> Tensor:
    """(B, T) states of a Markov source that starts anywhere."""
    states = [torch.randint(len(transitions), (batch,), generator=generator)]
    while len(states) < length:
        states.append(torch.multinomial(transitions[states[-1]], 1, generator=generator)[:, 0])
    return torch.stack(states, dim=1)


def encoder(**fields: object) -> Encoder:
    torch.manual_seed(0)
    small = {"vocab_size": 6, "context": 16, "layers": 2, "width": 32, "heads": 2}
    return Encoder(EncoderConfig(**{**small, **fields}))  # pyright: ignore[reportArgumentType]


def test_a_masked_model_recovers_the_transitions_of_a_markov_source():
    """From one side alone a gap's chances are a row of the matrix; from both sides, two of its numbers multiplied."""
    draws = seeded(5)
    transitions = torch.rand(5, 5, generator=draws).pow(3)
    transitions /= transitions.sum(1, keepdim=True)
    network, steps = encoder(), 500
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        ids = chain(transitions, 128, 8, draws)
        masked = mask_tokens(ids, mask_id=5, vocab_size=5, generator=draws, rate=0.25)
        loss = masked_loss(network(masked.ids), ids, masked.chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    ids = chain(transitions, 200, 8, draws)
    with torch.no_grad():
        last, middle = ids.clone(), ids.clone()
        last[:, -1] = middle[:, 4] = 5
        one_side = network(last)[:, -1, :5].softmax(-1)
        both_sides = network(middle)[:, 4, :5].softmax(-1)
    recovered = torch.stack([one_side[ids[:, -2] == state].mean(0) for state in range(5)])
    assert (recovered - transitions).abs().max() < 0.06
    expected = transitions[ids[:, 3]] * transitions[:, ids[:, 5]].T
    expected /= expected.sum(1, keepdim=True)
    assert (both_sides - expected).abs().mean() < 0.03


def test_a_draw_is_from_the_generators_chances():
    ids = torch.zeros(1, 200_000, dtype=torch.int64)
    chosen = torch.ones_like(ids, dtype=torch.bool)
    chosen[:, ::2] = False
    chances = torch.tensor([0.1, 0.2, 0.3, 0.4])
    made = replace_tokens(ids, chosen, chances.log().expand(1, 200_000, 4), seeded())
    assert (made.ids[~chosen] == 0).all()
    assert torch.equal(made.replaced, made.ids != 0)
    assert (made.ids[chosen].bincount() / 100_000 - chances).abs().max() < 0.006


def test_the_loss_counts_real_tokens():
    logits, replaced = torch.tensor([[0.0, 2.0, 9.0]]), torch.tensor([[False, True, False]])
    one = torch.tensor(0.5).log().neg() + torch.tensor(2.0).sigmoid().log().neg()
    real = torch.tensor([[True, True, False]])
    assert float(replaced_loss(logits, replaced, real)) == pytest.approx(float(one) / 2, abs=1e-6)
    assert float(replaced_loss(logits, replaced)) == pytest.approx((float(one) + 9.0001234) / 3, abs=1e-5)


def pair() -> tuple[Encoder, Encoder]:
    discriminator = encoder(head="replaced_token", head_norm=False)
    return encoder(width=16, layers=1), discriminator


def test_no_gradient_passes_through_what_was_drawn():
    generator, discriminator = pair()
    ids = torch.randint(5, (8, 10), generator=seeded(1))
    masked = mask_tokens(ids, mask_id=5, vocab_size=5, generator=seeded(2), hidden=1.0, random=0.0)
    with torch.no_grad():
        for network in (generator, discriminator):
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=seeded(3)) * 0.1)
    loss, parts = replaced_token_loss(generator, discriminator, ids, masked, seeded(4))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(parts["generator"] + 50 * parts["discriminator"], rel=1e-5)
    together = [parameter.grad.clone() for parameter in generator.parameters() if parameter.grad is not None]
    generator.zero_grad()
    masked_loss(generator(masked.ids), ids, masked.chosen).backward()
    alone = [parameter.grad for parameter in generator.parameters() if parameter.grad is not None]
    assert len(together) == len(alone) > 0
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert all(parameter.grad is not None for parameter in discriminator.parameters())


def test_the_parts_are_what_they_say():
    """A generator that always answers 0, and a discriminator that finds nothing: all is known."""
    generator, discriminator = pair()
    with torch.no_grad():
        generator.lm_head.bias[0] = 1e4
        discriminator.head.out.bias.fill_(-20.0)  # pyright: ignore[reportOptionalMemberAccess]
    ids = torch.randint(5, (8, 10), generator=seeded(1))
    masked, real = Masked(ids, torch.ones_like(ids, dtype=torch.bool)), torch.arange(10).expand(8, 10) < 6
    loss, parts = replaced_token_loss(generator, discriminator, ids, masked, seeded(4), real=real, weight=2.0)
    share = float((ids[:, :6] != 0).float().mean())
    assert parts["replaced"] == pytest.approx(share)
    assert parts["found"] == pytest.approx(1 - share)
    assert parts["discriminator"] == pytest.approx(20 * share, rel=1e-5)
    assert float(loss.detach()) == pytest.approx(parts["generator"] + 2 * parts["discriminator"], rel=1e-5)


def test_a_discriminator_finds_what_breaks_a_rule():
    """Texts count upwards in a circle, so every replaced token is one that its neighbours give away."""
    draws, discriminator, steps = seeded(6), pair()[1], 400
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1, (i + 1) / 20) * (1 - i / steps))

    def shown(batch: int) -> Replaced:
        ids = (torch.randint(5, (batch, 1), generator=draws) + torch.arange(12)) % 5
        chosen = mask_tokens(ids, mask_id=5, vocab_size=5, generator=draws).chosen
        return replace_tokens(ids, chosen, torch.zeros(batch, 12, 5), draws)

    for _ in range(steps):
        made = shown(64)
        loss = replaced_loss(discriminator(made.ids), made.replaced)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    made = shown(500)
    with torch.no_grad():
        judged = discriminator.eval()(made.ids) > 0
    assert 0.08 < float(made.replaced.float().mean()) < 0.16
    assert float((judged == made.replaced).float().mean()) > 0.985
