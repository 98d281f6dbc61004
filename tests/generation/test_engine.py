"""The engine, on a backend whose logits are a hash of all that a sequence has seen, read from its pages."""

import copy
import gc
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hashed import BROKEN, PAGE, Pages, V, logits_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from cutaway.errors import ConfigError, InputError, NonFinite
from cutaway.generation import Engine, Request, Ticket, generate, stream
from cutaway.generation.backend import Logits, Rows
from cutaway.generation.job import Sequence as Running
from cutaway.generation.sampling import Sampling, distribution
from cutaway.models import OFF, ActiveTap, Decoder, DecoderConfig, Model, Tap
from cutaway.tokenizers import train_tokenizer


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = train_tokenizer(["abcdefgh" * 3], "char", 300)
    made = Model(Decoder(DecoderConfig(V, context=40, layers=1, width=8, heads=1)), tokenizer)
    tokenizer.end_of_text = None
    return made


def engine(model: Model, *, chunk: int = 8, pages: int = 200, backend: Pages | None = None, **options: Any) -> Engine:
    return Engine(model, backend=backend or Pages(), pages=pages, chunk=chunk, **options)


def plain(prompt: Sequence[int], count: int, context: int = 40) -> list[int]:
    """What is likeliest, token by token."""
    seen = list(prompt)
    window = list(prompt)
    for _ in range(count):
        if len(window) > context:
            window = seen[-(context // 2) :]
        logits = logits_of(window)
        chosen = max(range(V), key=lambda i: logits[i])
        seen.append(chosen)
        window.append(chosen)
    return seen[len(prompt) :]


def request(number: int, **options: Any) -> Request:
    """One of many: long and short, drawn and not, that begin the same or not."""
    length = 1 + number * 7 % 30
    prompt = [1] * (number % 3 * PAGE) + [(number * i + i // 3) % 9 for i in range(length)]
    sampling = {"temperature": 0} if number % 4 == 0 else {"temperature": 1.0, "top_p": 0.9}
    fields: dict[str, Any] = {"sampling": sampling, "max_new_tokens": 3 + number * 5 % 23, "seed": number} | options
    return Request(prompt[:36], **fields)


def alone(model: Model, one: Request) -> list[tuple]:
    return told(engine(model).submit(one))


def told(ticket: Ticket) -> list[tuple]:
    return [(made.ids, made.logprobs, made.finish_reason) for made in ticket.results()]


def nothing_left(of: Engine) -> None:
    (lane, *_) = of._lanes
    assert lane.pages.used == 0
    assert lane.backend.sequences == set()  # pyright: ignore[reportAttributeAccessIssue]
    assert of.idle
    assert not of._waiting
    assert not lane.running


def test_greedy_is_a_plain_loop(model: Model):
    made = engine(model).submit(Request([1, 2, 3], {"temperature": 0}, max_new_tokens=90)).result()
    assert made.ids == plain([1, 2, 3], 90)


def test_pages_found_between_two_returns_leave_no_gap(model: Model):
    """A sequence gives its pages back, finds more than it had computed, and has to give them back once more."""
    several = [request(n) for n in (0, 35)] + [request(28, n=3), request(38), request(6, n=3), request(0)]
    several += [request(31, n=3)] + [request(n) for n in (33, 0, 17)] + [request(19, n=3)]
    several += [request(n) for n in (13, 36, 0, 22, 0)]
    steps = [3, 1, 2, 0, 1, 2, 1, 1, 2]  # between two submissions
    together = engine(model, pages=30, chunk=3, keep=5, backend=Pages(PAGE))
    tickets = []
    for i, one in enumerate(several):
        tickets.append(together.submit(one))
        for _ in range(steps[i] if i < len(steps) else 0):
            together.step()
    assert [told(ticket) for ticket in tickets] == [alone(model, one) for one in several]


def test_sequences_of_a_full_context_find_pages_again(model: Model):
    """Three of 40 tokens took all 30 pages when they were put back: they need no more to be let in."""
    several = [request(8, n=3), request(31, speculate="lookup"), request(8, beams=3, sampling={})]
    together = engine(model, pages=30, keep=5, backend=Pages(2 * PAGE))
    tickets = []
    for one, steps in zip(several, (0, 0, 1), strict=True):
        tickets.append(together.submit(one))
        for _ in range(steps):
            together.step()
    while together.step():
        pass
    assert all(ticket.ended for ticket in tickets)
    assert [told(ticket) for ticket in tickets] == [alone(model, one) for one in several]


def test_a_product_before_what_was_found_had_no_guesses():
    one = Running(0, list(range(20)), 20, held=4, products={0: 4, 4: 4, 12: 4}, reached=16)
    assert one.again() == (4, 0)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_request_gives_the_same_whatever_else_runs(model: Model, data: st.DataObject):
    draw = data.draw
    numbers = draw(st.lists(st.integers(0, 40), min_size=1, max_size=16))
    kinds = st.sampled_from([{}, {}, {"n": 3}, {"logprobs": 2}, {"speculate": "lookup"}, {"beams": 3, "sampling": {}}])
    several = [request(n, **draw(kinds)) for n in numbers]
    together = engine(
        model,
        pages=draw(st.sampled_from([30, 42, 200])),  # few of them: requests must wait, and give theirs back
        chunk=draw(st.sampled_from([3, 8, 100])),
        max_batch=draw(st.sampled_from([3, 64])),
        keep=draw(st.sampled_from([0, 5, None])),
        backend=Pages(draw(st.sampled_from([0, PAGE, 2 * PAGE]))),
    )
    tickets = []
    for one in several:
        tickets.append(together.submit(one))
        for _ in range(draw(st.integers(0, 3))):
            together.step()
    for ticket, one in zip(tickets, several, strict=True):
        assert told(ticket) == alone(model, one)
    nothing_left(together)


def test_pages_that_run_out_cost_time_and_nothing_else(model: Model):
    few = engine(model, pages=12, keep=0)
    several = [Request([n + 1] * 8, {"temperature": 1.0}, max_new_tokens=28, seed=n) for n in range(4)]
    tickets = [few.submit(one) for one in several]
    found = [told(ticket) for ticket in tickets]
    lane = few._lanes[0].backend
    assert isinstance(lane, Pages)
    whole = [rows for step in lane.steps for rows in step if rows.start == 0 and rows.sequence == 3]
    assert len(whole) > 1  # the last one began anew
    assert found == [alone(model, one) for one in several]
    nothing_left(few)


def test_a_prompt_seen_before_is_not_computed_again(model: Model):
    made = engine(model)
    ids = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2]
    first, second = (made.submit(Request(ids, max_new_tokens=4, seed=3)).result() for _ in range(2))
    assert (first.prompt_tokens, first.cached_tokens, second.cached_tokens) == (10, 0, 8)
    assert first == second
    answer = made.submit(Request([*ids, *first.ids, 5], max_new_tokens=1)).result()
    assert answer.cached_tokens == 12  # what was generated is found too
    looked = made.submit(Request(ids, max_new_tokens=4, seed=3, tap=ActiveTap(["seen"], sink=lambda *_: None))).result()
    assert looked.cached_tokens == 0  # somebody wants to see it computed


def test_t18_nothing_computed_for_one_tenant_is_used_for_another(model: Model):
    made = engine(model)
    backend = made._lanes[0].backend
    assert isinstance(backend, Pages)
    ids, work = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2], {}
    for tenant in ("a", "b", "a", "", "b"):
        before = len(backend.steps)
        found = made.submit(Request(ids, {"temperature": 0}, max_new_tokens=2, tenant=tenant)).result()
        assert found.ids == plain(ids, 2)
        rows = sum(len(rows.ids) for step in backend.steps[before:] for rows in step)
        work.setdefault(tenant, []).append((found.cached_tokens, rows))
    # a stranger's first request is computed whole, as if nobody had asked before
    assert work == {"a": [(0, 11), (8, 3)], "b": [(0, 11), (8, 3)], "": [(0, 11)]}
    tables = [made._lanes[0].pages.open(tenant, [*ids, 1])[0] for tenant in ("a", "b", "")]
    assert len({page for table in tables for page in table.pages}) == sum(len(table.pages) for table in tables) == 6


def test_where_a_product_depends_on_its_size_whole_pieces_alone_are_found(model: Model):
    made = engine(model, chunk=16, backend=Pages(chunk=2 * PAGE))
    ids = [(i * 5) % 7 for i in range(25)]
    first = made.submit(Request(ids, max_new_tokens=9)).result()
    backend = made._lanes[0].backend
    assert isinstance(backend, Pages)
    pieces = [rows.start + len(rows.ids) for step in backend.steps for rows in step if len(rows.ids) > 1]
    assert pieces == [8, 16, 24]
    again = made.submit(Request([*ids, *first.ids], max_new_tokens=1)).result()
    assert again.cached_tokens == 24


def test_several_continuations_share_their_prompt(model: Model):
    made = engine(model)
    ticket = made.submit(Request([1] * 22, {"temperature": 1.0}, max_new_tokens=6, n=5, seed=9))
    while not any(ticket._all):
        made.step()
    assert made._lanes[0].pages.used == 6  # nothing is copied yet
    made.step()
    assert made._lanes[0].pages.used == 5 + 5  # five full ones, and each its own behind them
    samples = ticket.results()
    assert len({tuple(one.ids) for one in samples}) > 1
    assert samples[0] == made.submit(Request([1] * 22, {"temperature": 1.0}, max_new_tokens=6, seed=9)).result()
    nothing_left(made)


def test_tokens_of_several_continuations_come_as_they_are_made(model: Model):
    tokens = list(engine(model).submit(Request([1], max_new_tokens=3, n=2)))
    assert [token.sample for token in tokens] == [0, 1] * 3
    assert [token.finish_reason for token in tokens] == [None] * 4 + ["length"] * 2


@pytest.mark.parametrize("n", [1, 3])
def test_cancelled_at_any_token_it_leaves_no_page(model: Model, n: int):
    made, lengths = engine(model, keep=0), set()
    for steps in range(18):
        ticket = made.submit(Request([1] * 21, max_new_tokens=8, n=n))
        other = made.submit(Request([2] * 9, {"temperature": 0}, max_new_tokens=6))
        for _ in range(steps):
            made.step()
        ticket.cancel()
        ticket.cancel()
        result = ticket.result()
        assert result.finish_reason == ("length" if len(result.ids) == 8 else "cancelled")
        lengths.add(len(result.ids))
        assert other.result().ids == plain([2] * 9, 6)
        nothing_left(made)
        assert made._lanes[0].pages.kept == 0
    assert lengths == set(range(9))


def test_two_thousand_requests_leave_nothing_behind(model: Model):
    made = engine(model, pages=60, keep=20)

    def batch(start: int, count: int) -> None:
        tickets = [made.submit(request(n % 41, seed=n, max_new_tokens=2)) for n in range(start, start + count)]
        for number, ticket in enumerate(tickets):
            if number % 7 == 0:
                ticket.cancel()
        for ticket in tickets:
            ticket.results()
        backend = made._lanes[0].backend
        assert isinstance(backend, Pages)
        backend.steps.clear()

    batch(0, 200)
    gc.collect()
    before = sys.getallocatedblocks()
    for start in range(200, 2200, 200):
        batch(start, 200)
    gc.collect()
    assert sys.getallocatedblocks() - before < 1000  # of memory; one kept of each request would be 2,000
    nothing_left(made)
    assert made._lanes[0].pages.made <= 60


def test_a_long_prompt_does_not_hold_up_the_others(model: Model):
    made = engine(model, chunk=4)
    short = made.submit(Request([1, 2], {"temperature": 0}, max_new_tokens=20))
    made.step()
    long = made.submit(Request([3] * 36, max_new_tokens=1))
    late = made.submit(Request([4, 5], max_new_tokens=1))
    backend = made._lanes[0].backend
    assert isinstance(backend, Pages)
    for _ in range(3):
        made.step()
        assert any(len(rows.ids) == 1 for rows in backend.steps[-1])  # the short one goes on at every step
        assert sum(len(rows.ids) for rows in backend.steps[-1] if len(rows.ids) > 1) <= 4
    assert late.done
    assert not long.done
    assert short.result().ids == plain([1, 2], 20)
    long.result()


def test_prompts_that_come_at_once_begin_together(model: Model):
    made = engine(model, chunk=8)
    first = made.submit(Request([1, 2, 3, 4], max_new_tokens=9))
    made.step()
    crowd = [made.submit(Request([3 + i, 2, 1, 0], max_new_tokens=9)) for i in range(5)]
    backend = made._lanes[0].backend
    assert isinstance(backend, Pages)
    made.step()  # of one that writes and five that wait: 16 tokens instead of 8
    assert [len(rows.ids) for rows in backend.steps[-1]] == [1, 4, 4, 4, 4]
    late = made.submit(Request([9] * 8, max_new_tokens=1))
    made.step()  # of five that write and two that wait: no more than 8
    assert [len(rows.ids) for rows in backend.steps[-1]] == [1, 1, 1, 1, 1, 4, 4]
    for ticket in (first, *crowd, late):
        ticket.result()


def test_tenants_are_let_in_in_turn(model: Model):
    made = engine(model, max_batch=1)
    waiting = [made.submit(Request([1], max_new_tokens=1, tenant=name)) for name in "aaaabbc"]
    order = ""
    while waiting:
        made.step()
        order += "".join(ticket.request.tenant for ticket in waiting if ticket.done)
        waiting = [ticket for ticket in waiting if not ticket.done]
    assert order == "abcabaa"


def test_what_is_wrong_with_one_request_never_touches_another(model: Model):
    made = engine(model)

    def fails(name: str, value: torch.Tensor) -> None:
        raise KeyError("the caller's own")

    good = made.submit(Request([1, 2, 3], {"temperature": 0}, max_new_tokens=9))
    broken = made.submit(Request([1, 2, BROKEN], max_new_tokens=9, n=2))
    tapped = made.submit(Request([1, 2], max_new_tokens=9, tap=ActiveTap(["seen"], sink=fails)))
    with pytest.raises(NonFinite, match="NaN or infinite"):
        broken.result()
    with pytest.raises(KeyError, match="the caller's own"):
        list(tapped)
    twice = made.submit(Request([1, 2], max_new_tokens=9, n=3, tap=ActiveTap(["seen"], sink=fails)))
    with pytest.raises(KeyError, match="the caller's own"):
        twice.results()
    assert good.result().ids == plain([1, 2, 3], 9)
    nothing_left(made)


def test_a_backend_that_fails_fails_those_alone_that_it_fails_for(model: Model):
    class Fragile(Pages):
        def step(self, batch: Sequence[Rows]) -> Logits:
            if any(7 in rows.ids for rows in batch):
                raise MemoryError("no room")
            return super().step(batch)

        def reserve(self, pages: int) -> None:
            if pages > 8:
                raise MemoryError("no room for pages")
            super().reserve(pages)

    made = engine(model, backend=Fragile())
    bad, good = (
        made.submit(Request([7], max_new_tokens=3)),
        made.submit(Request([1], {"temperature": 0}, max_new_tokens=1)),
    )
    assert good.result().ids == plain([1], 1)
    with pytest.raises(MemoryError, match="no room"):
        bad.result()
    with pytest.raises(MemoryError, match="no room for pages"):
        made.submit(Request([1] * 36, max_new_tokens=1)).result()
    nothing_left(made)


def test_what_fails_before_its_first_step_leaves_nothing_and_nobody_waiting(model: Model):
    class Fragile(Pages):
        broken = True

        def open(self, sequence: int, source: Any = None, tap: Tap = OFF) -> None:
            if self.broken:
                self.broken = False
                raise MemoryError("no room to open")
            super().open(sequence, source, tap)

        def close(self, sequence: int) -> None:
            self.sequences.discard(sequence)

        def reserve(self, pages: int) -> None:
            if pages > 8:
                raise MemoryError("no room for pages")
            super().reserve(pages)

    made = engine(model, backend=Fragile())
    greedy: dict[str, Any] = {"sampling": {"temperature": 0}, "max_new_tokens": 3}
    bad, good = made.submit(Request([7], **greedy)), made.submit(Request([1], **greedy))
    assert good.result().ids == plain([1], 3)
    with pytest.raises(MemoryError, match="to open"):
        bad.result()
    looked = Request([1] * 30, max_new_tokens=9, tap=ActiveTap(["seen"]))
    bad, good = made.submit(looked), made.submit(Request([2], **greedy))
    with pytest.raises(MemoryError, match="no room for pages"):
        bad.result()
    assert good.result().ids == plain([2], 3)
    nothing_left(made)


def test_two_that_wait_for_the_same_stream_both_see_its_end(model: Model):
    made = engine(model)
    ticket = made.submit(Request([1], {"temperature": 0}, max_new_tokens=5), lazy=True)
    step = made._step

    def one() -> bool:
        ticket.waiting = False  # as the other leaves it
        made._step = step
        return step()

    made._step = one
    waits = threading.Thread(target=ticket.results, daemon=True)
    waits.start()
    waits.join(20)
    assert not waits.is_alive()
    assert ticket.result().ids == plain([1], 5)


def test_what_could_never_run_is_refused_with_numbers(model: Model):
    with pytest.raises(InputError, match="41 tokens, but this model sees 40"):
        engine(model).submit(Request([1] * 41))
    small = engine(model, pages=4)
    with pytest.raises(InputError, match=r"may need 8 pages of 4 tokens, 0.0 MB of keys and values, but there are 4"):
        small.submit(Request([1] * 20, max_new_tokens=9))
    with pytest.raises(InputError, match="may need 10 pages"):
        small.submit(Request([1], max_new_tokens=3, n=10))
    assert small.submit(Request([1] * 10, max_new_tokens=5)).result().finish_reason == "length"
    with pytest.raises(InputError, match=r"the keys and values of 4 tokens take 0\.0 MB, but only 0\.0 MB are there"):
        Engine(model, backend=Pages(), memory=999)
    with pytest.raises(ConfigError, match="chunk must be at least 1"):
        engine(model, chunk=0)
    with pytest.raises(ConfigError, match="unknown backend 'cuda'"):
        Engine(model, backend="cuda")


def test_logprobs_tell_the_likeliest_beside_each(model: Model):
    made = engine(model).submit(Request([1, 2], {"temperature": 1.0}, max_new_tokens=5, logprobs=3)).result()
    seen = [1, 2]
    for id, logprob, top in zip(made.ids, made.logprobs, made.top, strict=True):
        expected = torch.tensor(logits_of(seen)).log_softmax(-1)
        assert logprob == pytest.approx(float(expected[id]), abs=1e-5)
        assert [value for _, value in top] == pytest.approx(expected.topk(3).values.tolist(), abs=1e-5)
        assert [float(expected[other]) for other, _ in top] == pytest.approx([value for _, value in top], abs=1e-5)
        seen.append(id)


def test_tokens_are_drawn_with_their_probabilities(model: Model):
    made = engine(model, pages=4000, max_batch=1000)
    how = {"temperature": 0.7, "top_k": 8}
    samples = made.submit(Request([1, 2], how, max_new_tokens=1, n=1500, seed=4)).results()
    seeds = [made.submit(Request([1, 2], how, max_new_tokens=1, seed=n)) for n in range(1500)]
    wanted = distribution(torch.tensor(logits_of([1, 2])), Sampling(**how)).double()
    kept = wanted > 0
    for drawn in (samples, [ticket.result() for ticket in seeds]):
        counts = torch.bincount(torch.tensor([one.ids[0] for one in drawn]), minlength=V)
        assert counts[~kept].sum() == 0
        assert chisquare(counts[kept].numpy(), (wanted[kept] / wanted.sum() * 1500).numpy()).pvalue > 0.001


def test_a_server_thread_steps_for_all_others(model: Model):
    made = engine(model, pages=30)
    found = {}
    server = threading.Thread(target=made.run)
    server.start()

    def ask(number: int) -> None:
        ticket = made.submit(request(number))
        if number % 5 == 0:
            next(iter(ticket))
            ticket.cancel()
        found[number] = told(ticket)

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    (lane,) = made._lanes
    made.close()
    server.join(60)
    assert not server.is_alive()
    assert len(found) == 20
    assert all(found[number] == alone(model, request(number)) for number in range(20) if number % 5)
    assert (lane.pages.used, lane.backend.sequences, made.idle) == (0, set(), True)  # pyright: ignore[reportAttributeAccessIssue]


def test_callers_in_several_threads_step_for_each_other(model: Model):
    made, found = engine(model), {}

    def ask(number: int) -> None:
        found[number] = told(made.submit(request(number), lazy=number % 2 == 0))

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert found == {number: alone(model, request(number)) for number in range(12)}
    nothing_left(made)


def test_a_stream_is_computed_no_further_than_it_is_read(model: Model):
    made = engine(model)
    backend = made._lanes[0].backend
    assert isinstance(backend, Pages)
    lazy = made.submit(Request([1, 2], max_new_tokens=30), lazy=True)
    assert made.idle
    tokens = iter(lazy)
    first = [next(tokens).id for _ in range(3)]
    assert len(backend.steps) == 3
    other = made.submit(Request([3], max_new_tokens=5)).result()
    assert len(other.ids) == 5
    assert len(backend.steps) == 3 + 5
    assert first + [token.id for token in tokens] == made.submit(Request([1, 2], max_new_tokens=30)).result().ids
    nothing_left(made)


def test_a_stream_that_waits_gives_its_pages_to_who_does_not(model: Model):
    made = engine(model, pages=10, keep=0)
    tokens = iter(made.submit(Request([1] * 20, {"temperature": 0}, max_new_tokens=9), lazy=True))
    first = [next(tokens).id for _ in range(3)]
    assert made.submit(Request([2] * 20, {"temperature": 0}, max_new_tokens=9)).result().ids == plain([2] * 20, 9)
    assert first + [token.id for token in tokens] == plain([1] * 20, 9)
    nothing_left(made)


def test_a_stream_cancelled_before_it_began_has_ended(model: Model):
    ticket = engine(model).submit(Request([1]), lazy=True)
    ticket.cancel()
    assert list(ticket) == []
    assert ticket.result().finish_reason == "cancelled"


def test_a_tap_that_asks_the_engine_that_shows_it_a_step_is_told_so(model: Model):
    made = engine(model)

    def ask(name: str, value: torch.Tensor) -> None:
        made.submit(Request([1])).result()

    nested = ActiveTap(["seen"], sink=ask)
    with pytest.raises(ConfigError, match="a tap cannot wait for the engine"):
        made.submit(Request([1], tap=nested)).result()


# the engine that a model keeps


@pytest.fixture
def real() -> Model:
    tokenizer = train_tokenizer(["the cat sat on the mat. " * 20], "char", 300)
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=64, layers=1, width=16, heads=2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return Model(network, tokenizer)


def test_a_stream_that_is_dropped_leaves_nothing(real: Model):
    tokens = stream(real, "the", max_new_tokens=20)
    next(tokens)
    tokens.close()  # pyright: ignore[reportAttributeAccessIssue]
    stream(real, "the")  # never begun
    assert real.engine[1].idle
    assert real.engine[1]._lanes[0].pages.used == 0


def test_changed_weights_are_noticed(real: Model):
    generate(real, "the", max_new_tokens=2)
    before = real.engine
    generate(real, "the", max_new_tokens=2)
    assert real.engine is before
    with torch.no_grad():
        real.network.get_parameter("norm.scale").mul_(2)
    generate(real, "the", max_new_tokens=2)
    assert real.engine[1] is not before[1]
    after = real.engine
    weight = real.network.get_parameter("norm.scale")
    weight.data = weight.data.clone()
    generate(real, "the", max_new_tokens=2)
    assert real.engine[1] is not after[1]


def test_a_copy_of_a_model_has_an_engine_of_its_own(real: Model):
    made = generate(real, "the cat", max_new_tokens=5)
    twin = copy.deepcopy(real)
    assert twin.engine is None
    assert generate(twin, "the cat", max_new_tokens=5) == made
