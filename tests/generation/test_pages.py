"""Pages: whatever is opened, forked, written to and closed, none is lost and none is another's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.generation.pages import Pages, Table

SIZE = 4
IDS = st.lists(st.integers(0, 2), min_size=1, max_size=30)  # few tokens, so that prefixes are often the same


class World:
    """Tables with what each token's place really holds, as a backend would."""

    def __init__(self, most: int, keep: int | None) -> None:
        self.pages = Pages(most, SIZE, keep)
        self.memory: dict[tuple[int, int], tuple] = {}  # (page, place) -> tenant and all tokens up to there
        self.tables: list[tuple[str, list[int], Table]] = []

    def write(self, tenant: str, ids: list[int], table: Table, start: int) -> bool:
        copies = self.pages.grow(table, start, len(ids))
        if copies is None:
            return False
        for source, target in copies:
            for place in range(SIZE):
                if (source, place) in self.memory:
                    self.memory[target, place] = self.memory[source, place]
        for i in range(start, len(ids)):
            self.memory[table.pages[i // SIZE], i % SIZE] = (tenant, *ids[: i + 1])
        return True

    def check(self) -> None:
        held = [page for _, _, table in self.tables for page in table.pages]
        assert self.pages.used == len(set(held))
        assert self.pages.available == self.pages.most - self.pages.used
        assert self.pages.used + self.pages.kept <= self.pages.made <= self.pages.most
        for tenant, ids, table in self.tables:
            for i in range(len(ids)):
                assert self.memory[table.pages[i // SIZE], i % SIZE] == (tenant, *ids[: i + 1])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_token_stays_where_it_was_written_and_no_page_is_lost(data: st.DataObject):
    most = data.draw(st.integers(4, 14))
    keep = data.draw(st.one_of(st.none(), st.integers(0, 5)))
    world = World(most, keep)
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["open", "open", "add", "fork", "back", "close"]))
        if what == "open":
            tenant, ids = data.draw(st.sampled_from("ab")), data.draw(IDS)
            table, found = world.pages.open(tenant, ids, data.draw(st.sampled_from([0, SIZE, 2 * SIZE])))
            assert found < len(ids)
            assert found == SIZE * len(table.pages)
            if world.write(tenant, ids, table, found):
                world.tables.append((tenant, ids, table))
            else:
                world.pages.close(table)
        elif world.tables:
            place = data.draw(st.integers(0, len(world.tables) - 1))
            tenant, ids, table = world.tables[place]
            if what == "add":
                more = ids + data.draw(IDS)
                if world.write(tenant, more, table, len(ids)):
                    ids[:] = more
                    world.pages.seal(table, ids, data.draw(st.integers(0, len(ids))))
            elif what == "fork":
                world.tables.append((tenant, list(ids), world.pages.fork(table)))
            elif what == "back":  # guesses behind what is sealed turn out wrong
                start = data.draw(st.integers(SIZE * len(table.keys), len(ids)))
                other = ids[:start] + data.draw(IDS)
                if world.write(tenant, other, table, start):
                    ids[:] = other
                    needed = world.pages.needed(len(other))
                    assert len(table.pages) >= needed
            else:
                world.pages.close(table)
                del world.tables[place]
        world.check()
    for _, _, table in world.tables:
        world.pages.close(table)
    assert world.pages.used == 0
    assert world.pages.available == most
    assert world.pages.kept <= (most if keep is None else keep)


def filled(pages: Pages, tenant: str, ids: list[int]) -> Table:
    table, found = pages.open(tenant, ids)
    assert pages.grow(table, found, len(ids)) is not None
    pages.seal(table, ids, len(ids))
    return table


def test_t18_full_pages_are_found_again_by_the_same_tenant_alone():
    pages = Pages(10, SIZE)
    ids = list(range(11))
    first = filled(pages, "a", ids)
    second, found = pages.open("a", ids)
    assert (second.pages, found) == (first.pages[:2], 8)
    assert pages.open("b", ids)[1] == 0
    assert pages.open("", ids)[1] == 0
    assert pages.open("a", ids[:8])[1] == 4  # the last token must be computed
    assert pages.open("a", [9, *ids[1:]])[1] == 0
    assert pages.open("a", ids[4:])[1] == 0  # the same tokens behind others are others
    pages.close(first)
    pages.close(second)
    assert pages.open("a", ids)[1] == 8


def test_the_page_unused_for_longest_goes_first_and_the_end_of_a_text_before_its_beginning():
    pages = Pages(4, SIZE)
    old, new = filled(pages, "", [1] * 8), filled(pages, "", [2] * 8)
    pages.close(old)
    pages.close(new)
    assert pages.kept == 4
    third = filled(pages, "", [3] * 4)
    assert pages.open("", [2] * 9)[1] == 8
    assert pages.open("", [1] * 9)[1] == 4
    assert third.pages == [1]


def test_keep_bounds_what_nobody_uses():
    pages = Pages(8, SIZE, keep=1)
    pages.close(filled(pages, "", [1] * 12))
    assert (pages.kept, pages.used, pages.made) == (1, 0, 3)


@pytest.mark.parametrize("start", [4, 5, 7])
def test_a_shared_page_is_copied_before_it_is_written_to(start: int):
    pages = Pages(4, SIZE)
    table, _ = pages.open("")
    assert pages.grow(table, 0, 7) == []
    other = pages.fork(table)
    assert pages.grow(other, start, 8) == [(1, 2)]
    assert (table.pages, other.pages) == ([0, 1], [0, 2])
    assert pages.grow(table, start, 8) == []  # it is its own again
    third = pages.fork(table)
    assert pages.grow(third, 0, 8) is None  # two copies, but one page is left
    assert third.pages == [0, 1]
