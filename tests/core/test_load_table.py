"""The table of loads that worker processes share: who sees what, and who gets which place."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.load_table import CELL, LoadTable, Places
from lb.core.pool import Pool
from tests.core.fleet import load, made_pool, numbered, picked

PLACES = 4


def tables(rows: int, places: int = PLACES) -> list[LoadTable]:
    """The same memory seen from each row, and last from none."""
    memory = memoryview(bytearray(rows * places * CELL))
    return [*(LoadTable(memory, rows, row) for row in range(rows)), LoadTable(memory, rows)]


def test_a_worker_sees_what_the_others_have_and_not_its_own() -> None:
    a, b, c, onlooker = tables(3)
    a.set(0, 5)
    b.set(0, 2)
    b.set(1, 7)
    assert [each.others(0) for each in (a, b, c, onlooker)] == [2, 5, 7, 7]
    assert [each.others(1) for each in (a, b, c, onlooker)] == [7, 0, 7, 7]
    assert [each.total(0) for each in (a, b, c, onlooker)] == [7, 7, 7, 7]


def test_who_is_alone_has_no_others() -> None:
    alone, onlooker = tables(1)
    alone.set(3, 9)
    assert (alone.others(3), onlooker.others(3)) == (0, 9)


def test_an_onlooker_changes_nothing() -> None:
    a, onlooker = tables(1)
    onlooker.set(0, 5)
    assert (a.others(0), onlooker.total(0)) == (0, 0)


def test_what_a_dead_worker_had_goes_and_nothing_else() -> None:
    a, b, onlooker = tables(2)
    for place in range(PLACES):
        a.set(place, 1)
        b.set(place, 10)
    onlooker.clear(1)
    assert [onlooker.total(place) for place in range(PLACES)] == [1] * PLACES
    assert a.others(0) == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2**31 - 1)), max_size=30))
def test_it_adds_up(writes: list[tuple[int, int, int]]) -> None:
    seen = tables(3)
    wanted = {(row, place): 0 for row in range(3) for place in range(PLACES)}
    for row, place, count in writes:
        seen[row].set(place, count)
        wanted[row, place] = count
    for row in range(3):
        for place in range(PLACES):
            others = sum(wanted[other, place] for other in range(3) if other != row)
            assert seen[row].others(place) == others


class TestPlaces:
    def test_each_has_one_and_keeps_it(self) -> None:
        places = Places(tables(2)[-1])
        assert [places.take(key) for key in "abab"] == [0, 1, 0, 1]

    def test_a_place_is_not_dealt_out_again_before_all_have_heard(self) -> None:
        places = Places(tables(2)[-1])
        given_back = places.take("a")
        places.leave("a")
        assert places.left() == [given_back]
        assert [places.take(key) for key in "bcd"] == [1, 2, 3]
        assert places.take("e") == -1
        places.free(places.left())
        assert places.left() == []
        assert places.take("e") == given_back

    def test_nor_before_all_are_done_there(self) -> None:
        worker, onlooker = tables(1)
        places = Places(onlooker)
        worker.set(places.take("a"), 1)
        places.leave("a")
        places.free(places.left())
        assert places.left() == [0]
        worker.set(0, 0)
        places.free(places.left())
        assert places.left() == []

    def test_who_left_after_the_workers_were_asked_waits_for_the_next_time(self) -> None:
        places = Places(tables(1)[-1])
        for key in "ab":
            places.take(key)
        places.leave("a")
        heard = places.left()
        places.leave("b")
        places.free(heard)
        assert places.left() == [1]

    def test_who_comes_back_meanwhile_gets_another_one(self) -> None:
        places = Places(tables(1)[-1])
        assert places.take("a") == 0
        places.leave("a")
        assert places.take("a") == 1

    def test_who_was_free_longest_comes_first(self) -> None:
        places = Places(tables(1)[-1])
        places.take("a")
        places.leave("a")
        places.free(places.left())
        assert [places.take(key) for key in "bcde"] == [1, 2, 3, 0]

    def test_where_all_are_taken_the_rest_goes_without_and_it_is_said_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        places = Places(tables(1)[-1])
        with caplog.at_level(logging.WARNING):
            assert [places.take(key) for key in range(PLACES + 2)] == [0, 1, 2, 3, -1, -1]
        assert [each.getMessage() for each in caplog.records] == [
            "more than 4 backends: of the rest, each worker knows only what it sent there itself"
        ]
        places.leave(PLACES)  # one of those without

    def test_who_is_unknown_can_leave(self) -> None:
        places = Places(tables(1)[-1])
        places.leave("nobody")
        assert places.left() == []


class TestSeveralWorkers:
    """Pools of two workers over one table, with the same four backends."""

    @staticmethod
    def made(policy: str) -> list[Pool]:
        pools = []
        for seed, table in enumerate(tables(2)[:2]):
            pool = made_pool(numbered([1] * PLACES), policy, seed)
            for place, backend in enumerate(pool.backends.values()):
                backend.shared, backend.place = table, place
            pool.refresh()
            pools.append(pool)
        return pools

    @staticmethod
    def loads(pool: Pool) -> list[int]:
        return [each.in_flight for each in pool.backends.values()]

    def test_least_request_fills_up_what_others_have_left(self) -> None:
        first, second = self.made("least_request")
        load(first, b0=10)
        for _ in range(30):
            second.start(picked(second))
        assert self.loads(first) == self.loads(second) == [10] * PLACES

    def test_p2c_sees_them_too(self) -> None:
        first, second = self.made("p2c")
        load(first, b0=10)
        for _ in range(30):
            second.start(picked(second))
        assert second.backends["b0"].own <= 3  # only from when the others have ten as well
        assert max(self.loads(first)) - min(self.loads(first)) <= 4

    def test_a_dead_worker_makes_no_difference_any_more(self) -> None:
        first, second = self.made("least_request")
        load(first, b0=10)
        shared = second.backends["b0"].shared
        assert isinstance(shared, LoadTable)
        shared.clear(0)
        assert self.loads(second) == [0] * PLACES
