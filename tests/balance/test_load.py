"""What policies share: draws by weight, two at once, and the best one at hand."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.balance.load import LOOKED_AT, Ranking, Shares, two_of
from lb.core.backend import Backend, BackendSpec
from tests.balance.chance import LEAST, MOST, Scripted, assert_shares
from tests.core.fleet import numbered

weightings = pytest.mark.parametrize(
    "weights", [(1, 1), (1,) * 7, (2, 1), (1, 2), (3, 1, 2), (1, 65535), (65535, 1), (65535,) * 3000 + (1,)]
)


def backends(weights: tuple[int, ...]) -> list[Backend]:
    return [Backend(spec) for spec in numbered(weights)]


class TestShares:
    @weightings
    def test_the_least_and_the_most_of_chance_hit_the_ends(self, weights: tuple[int, ...]) -> None:
        fleet = backends(weights)
        shares = Shares(fleet)
        assert shares.draw(Scripted([LEAST])) is fleet[0]
        assert shares.draw(Scripted([MOST])) is fleet[-1]

    def test_each_point_belongs_to_one(self) -> None:
        fleet = backends((3, 1, 2))
        shares = Shares(fleet)
        drawn = [shares.draw(Scripted([point / 6])).id for point in range(6)]
        assert drawn == ["b0", "b0", "b0", "b1", "b2", "b2"]


class TestTwoOf:
    @weightings
    def test_any_chance_gives_two_different_ones(self, weights: tuple[int, ...]) -> None:
        """Two numbers are enough, however uneven the weights."""
        shares = Shares(backends(weights))
        for outcomes in product((LEAST, 0.25, 0.5, 0.75, MOST), repeat=2):
            one, other = two_of(shares, Scripted(outcomes))
            assert one is not other

    def test_the_second_comes_by_the_weights_of_the_rest(self) -> None:
        fleet = {backend.id: backend for backend in backends((3, 1, 2))}
        draws = 12_000
        rng = Random(5)
        shares = Shares(list(fleet.values()))
        pairs = Counter(f"{one.id} {other.id}" for one, other in (two_of(shares, rng) for _ in range(draws)))
        expected = {
            f"{one} {other}": fleet[one].weight / 6 * fleet[other].weight / (6 - fleet[one].weight)
            for one, other in product(fleet, repeat=2)
            if one != other
        }
        assert sum(expected.values()) == pytest.approx(1)
        assert_shares(pairs, draws, expected)


def by_load(backend: Backend) -> tuple[float, float]:
    return backend.in_flight, 0.0


class TestRanking:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=300))
    def test_the_first_is_always_a_lowest_and_the_first_of_equals(
        self, changes: list[tuple[int, int]]
    ) -> None:
        fleet = backends((1,) * 6)
        ranking = Ranking(fleet, by_load)
        for which, load in changes:
            fleet[which].own = load
            ranking.changed(fleet[which])
            assert ranking.first(fleet) is min(fleet, key=by_load)

    def test_of_a_part_it_is_the_lowest_there(self) -> None:
        fleet = backends((1,) * 4)
        for load, backend in enumerate(fleet):
            backend.own = load
        ranking = Ranking(fleet, by_load)
        assert ranking.first(fleet[2:]) is fleet[2]
        assert ranking.first(fleet) is fleet[0]

    def test_a_stranger_is_nobodys_business(self) -> None:
        fleet = backends((1, 1))
        ranking = Ranking(fleet, by_load)
        stranger = Backend(BackendSpec("stranger", "h", 1))
        stranger.own = -1
        ranking.changed(stranger)
        assert ranking.first(fleet) is fleet[0]

    def test_what_many_changes_have_outdated_is_forgotten(self) -> None:
        """Also where another backend stays the best all the time, and nothing outdated comes up."""
        fleet = backends((1, 1))
        ranking = Ranking(fleet, by_load)
        changes = 5000
        tracemalloc.start()
        try:
            for load in range(1, changes):
                fleet[1].own = load
                ranking.changed(fleet[1])
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert ranking.first(fleet) is fleet[0]
        assert held < 10 * changes  # an entry alone has more bytes than that


class Elsewhere:
    """What other processes have in flight, by place."""

    def __init__(self, *loads: int) -> None:
        self.loads = [*loads]

    def others(self, place: int) -> int:
        return self.loads[place]

    def set(self, place: int, count: int) -> None:
        pass


class TestRankingWithOtherProcesses:
    @staticmethod
    def made(*loads: int) -> tuple[Elsewhere, list[Backend], Ranking]:
        elsewhere, fleet = Elsewhere(*loads), backends((1,) * len(loads))
        for place, backend in enumerate(fleet):
            backend.shared, backend.place = elsewhere, place
        return elsewhere, fleet, Ranking(fleet, by_load)

    @given(st.lists(st.tuples(st.integers(0, LOOKED_AT - 1), st.integers(0, 4)), max_size=50))
    def test_of_a_few_it_is_always_the_lowest(self, changes: list[tuple[int, int]]) -> None:
        elsewhere, fleet, ranking = self.made(*[0] * LOOKED_AT)
        for place, load in changes:
            elsewhere.loads[place] = load
            assert ranking.first(fleet) is min(fleet, key=by_load)

    def test_of_many_whoever_is_first_is_as_good_as_it_seems(self) -> None:
        elsewhere, fleet, ranking = self.made(*range(100))
        for busy in range(60):
            elsewhere.loads[busy] = 1000
            assert ranking.first(fleet) is fleet[busy + 1]

    def test_of_many_who_has_become_better_is_found_when_its_turn_comes(self) -> None:
        elsewhere, fleet, ranking = self.made(*[5] * 100)
        elsewhere.loads[99] = 0
        found = [ranking.first(fleet) for _ in range(100 // LOOKED_AT + 1)]
        assert found[0] is fleet[0]
        assert found[-1] is fleet[99]

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 9)), max_size=100), st.data())
    def test_it_comes_to_rest_at_a_lowest(self, changes: list[tuple[int, int]], data: st.DataObject) -> None:
        elsewhere, fleet, ranking = self.made(*[3] * 30)
        for place, load in changes:
            if data.draw(st.booleans()):
                elsewhere.loads[place] = load
            else:
                fleet[place].own = load
                ranking.changed(fleet[place])
            ranking.first(fleet)
        for _ in range(30 // LOOKED_AT + 1):
            first = ranking.first(fleet)
        assert first.in_flight == min(each.in_flight for each in fleet)
