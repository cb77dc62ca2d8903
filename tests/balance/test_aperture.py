"""A deterministic aperture: each balancer a part, all of them together the whole, evenly."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.balance import policy_class
from lb.balance.ring import FINE, window
from lb.core.backend import Backend
from lb.core.pool import Pool
from tests.balance.chance import assert_shares
from tests.core.clock import VirtualClock
from tests.core.fleet import load, made_pool, numbered, picked, served


def fleet_of(count: int, weight: int = 1) -> list[Backend]:
    return [Backend(spec) for spec in numbered([weight] * count)]


def pool_of(count: int, peer: int, peers: int, size: int = 12) -> Pool:
    clock = VirtualClock()
    policy = policy_class("aperture")(clock, Random(1), peer=peer, peers=peers, size=size)  # type: ignore[call-arg]
    pool = Pool("greeter", policy, clock)
    pool.update(numbered([1] * count))
    return pool


class TestWindows:
    @given(
        weights=st.lists(st.integers(1, 9), min_size=1, max_size=60),
        peers=st.integers(1, 20),
        size=st.integers(1, 30),
    )
    def test_all_together_cover_each_backend_as_its_weight_says(
        self, weights: list[int], peers: int, size: int
    ) -> None:
        fleet = [Backend(spec) for spec in numbered(weights)]
        windows = [window(fleet, peer, peers, size) for peer in range(peers)]
        sums = Counter[Backend]()
        for each in windows:
            sums.update(each)
        per_weight = {backend: sums[backend] / backend.weight for backend in fleet}
        expected = sum(sums.values()) / sum(weights)
        # Each part is rounded to a thousandth of a weight, and what is less than one is left out.
        assert all(abs(each - expected) <= 2 * peers for each in per_weight.values())

    @given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 30))
    def test_each_has_enough(self, count: int, peers: int, size: int) -> None:
        fleet = fleet_of(count)
        for peer in range(peers):
            inside = sum(window(fleet, peer, peers, size).values()) / FINE
            assert inside >= min(size, count) - 0.1
            assert inside <= size + count / peers + 0.1, "and hardly more than one slice beyond"

    def test_a_balancer_alone_has_them_all(self) -> None:
        assert len(window(fleet_of(100), 0, 1, 12)) == 100

    def test_the_order_of_the_source_means_nothing(self) -> None:
        fleet = fleet_of(100)
        assert window(fleet, 3, 10, 12) == window(fleet[::-1], 3, 10, 12)

    def test_who_comes_changes_little(self) -> None:
        """Slices move by less than one backend each."""
        fleet = fleet_of(100)
        before, after = set(window(fleet[:99], 3, 10, 12)), set(window(fleet, 3, 10, 12))
        assert len(before ^ after) <= 4


def test_a_part_of_the_fleet_gets_it_all() -> None:
    pool = pool_of(1000, peer=7, peers=50)
    part = set(served(pool, 2000))
    assert 12 <= len(part) <= 33
    assert part == {backend.id for backend in window(pool.eligible, 7, 50, 12)}


def test_all_balancers_together_serve_evenly() -> None:
    """Though 30 backends do not divide by 7 balancers: a backend that is cut in two gets a half from each."""
    counts = Counter[str]()
    for peer in range(7):
        counts.update(served(pool_of(30, peer, 7, size=5), 6000))
    assert_shares(counts, 42_000, {f"b{number}": 1 / 30 for number in range(30)})


def test_the_less_busy_of_two_of_the_part() -> None:
    pool = pool_of(100, peer=0, peers=10)
    part = window(pool.eligible, 0, 10, 12)
    whole = [backend for backend, weight in part.items() if weight == FINE]
    for backend in part:
        if backend is not whole[0]:
            load(pool, **{backend.id: 5})
    assert Counter(picked(pool).id for _ in range(500)).most_common(1)[0][0] == whole[0].id


def test_after_a_failed_attempt_another_one_of_the_part_and_then_any() -> None:
    pool = pool_of(100, peer=0, peers=10)
    part = list(window(pool.eligible, 0, 10, 12))
    for _ in range(50):
        assert picked(pool, tried=part[:-2]) in part[-2:]
        assert picked(pool, tried=part[:-1]) is part[-1]
        assert picked(pool, tried=part) not in part
    assert pool.policy_errors == 0


def test_ill_ones_make_way_for_the_next_on_the_circle() -> None:
    pool = pool_of(100, peer=0, peers=10)
    for backend in list(window(pool.eligible, 0, 10, 12)):
        pool.set_health(backend, False)
    assert len(set(served(pool, 1000))) >= 12
    assert pool.policy_errors == 0


def test_without_peers_it_is_the_power_of_two_choices() -> None:
    pool = made_pool(numbered([1] * 5), "aperture")
    load(pool, b0=3, b1=2, b2=1)
    shares = {"b0": 0.0, "b1": 0.1, "b2": 0.2, "b3": 0.35, "b4": 0.35}  # of ten pairs, who is less busy
    assert_shares(Counter(picked(pool).id for _ in range(5000)), 5000, shares)


@pytest.mark.parametrize("peer", [3, 7])
def test_a_peer_beyond_the_last_is_refused(peer: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 2"):
        pool_of(10, peer, 3)
