"""Prequal: recent probes, the hot-cold rule, and what its authors found with it (NSDI '24), in small."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from lb.balance import policy_class
from lb.balance.load import Shares
from lb.balance.meters import Latency
from lb.balance.probes import AGE, SIZE, Probes
from lb.core.backend import Backend
from lb.core.failure import RESET, Failure
from lb.core.pool import Pool
from tests.balance.test_least_time import traffic
from tests.core.clock import VirtualClock
from tests.core.fleet import load, made_pool, numbered, picked, specs


def made_probes(count: int, rate: int = 3, hot: float = 0.84) -> tuple[VirtualClock, Probes, list[Backend]]:
    clock = VirtualClock()
    fleet = [Backend(spec) for spec in numbered([1] * count)]
    probes = Probes(clock, Latency(clock, 10.0, 1.0), rate, hot)
    probes.keep(fleet)
    return clock, probes, fleet


def answered(clock: VirtualClock, probes: Probes, backend: Backend, seconds: float) -> None:
    probes.ended(backend, clock.time() - seconds, None)


class TestProbes:
    def test_each_is_good_for_a_second(self) -> None:
        clock, probes, fleet = made_probes(3)
        probes.look(fleet[0])
        clock.advance(AGE / 2)
        probes.look(fleet[1])
        assert len(probes.fresh()) == 2
        clock.advance(AGE * 0.6)
        assert [each.backend for each in probes.fresh()] == [fleet[1]]
        clock.advance(AGE)
        assert probes.fresh() == []

    def test_the_oldest_makes_way(self) -> None:
        _, probes, fleet = made_probes(SIZE + 5)
        for backend in fleet:
            probes.look(backend)
        assert {each.backend for each in probes.fresh()} == set(fleet[5:])

    def test_one_of_each_backend(self) -> None:
        _, probes, fleet = made_probes(3)
        for _ in range(5):
            probes.look(fleet[0])
        assert len(probes.fresh()) == 1

    @pytest.mark.parametrize(("count", "rate", "uses"), [(1000, 3, 1.025), (1000, 2, 2.066), (100, 2, 2.941)])
    def test_how_often_each_is_used(self, count: int, rate: int, uses: float) -> None:
        """(1 + 1) / ((1 - 16/n) * r_probe - 1): the paper's equation 1, no less than once."""
        _, probes, _ = made_probes(count, rate)
        assert probes.uses == pytest.approx(uses, abs=0.001)

    def test_where_all_fit_in_none_is_used_up(self) -> None:
        _, probes, fleet = made_probes(4)
        shares, rng = Shares(fleet), Random(1)
        probes.keep(shares.backends)
        for _ in range(100):
            probes.pick(shares, rng)
        assert len(probes.fresh()) == 4

    def test_with_each_pick_one_goes_in_turn_the_oldest_and_the_worst(self) -> None:
        clock, probes, fleet = made_probes(100, hot=1.0)
        for number, backend in enumerate(fleet[:6]):
            answered(clock, probes, backend, 0.1 - number / 100)
        ranked = probes.fresh()
        assert [each.backend for each in ranked] == fleet[5::-1]
        probes.used(ranked[0], ranked)
        assert fleet[0] not in {each.backend for each in probes.fresh()}, "the oldest"
        ranked = probes.fresh()
        probes.used(ranked[0], ranked)
        assert fleet[1] not in {each.backend for each in probes.fresh()}, "the slowest"

    def test_who_has_left_is_forgotten(self) -> None:
        clock, probes, fleet = made_probes(3)
        probes.look(fleet[0])
        probes.keep(fleet[1:])
        answered(clock, probes, fleet[0], 0.1)
        assert probes.fresh() == []


class TestHotAndCold:
    def test_the_quickest_of_the_cold(self) -> None:
        clock, probes, fleet = made_probes(5)
        for backend, seconds in zip(fleet, (0.03, 0.01, 0.02, 0.05, 0.04), strict=True):
            answered(clock, probes, backend, seconds)
        assert [each.backend.id for each in probes.fresh()] == ["b1", "b2", "b0", "b4", "b3"]

    def test_a_hot_one_comes_behind_all_others_however_quick_it_is(self) -> None:
        clock, probes, fleet = made_probes(6)
        for number, backend in enumerate(fleet):
            backend.own = 9 if number == 0 else 1
            answered(clock, probes, backend, 0.001 if number == 0 else 0.1)
        ranked = probes.fresh()
        assert ranked[-1].backend is fleet[0]
        assert [each.rank[0] for each in ranked] == [False] * 5 + [True]

    def test_at_a_quantile_of_0_the_least_busy(self) -> None:
        """Then all but the least busy are hot, and latency decides between equals alone."""
        clock, probes, fleet = made_probes(4, hot=0.0)
        for backend, busy, seconds in zip(fleet, (3, 1, 2, 4), (0.01, 0.5, 0.1, 0.01), strict=True):
            backend.own = busy
            answered(clock, probes, backend, seconds)
        assert [each.backend.id for each in probes.fresh()] == ["b1", "b2", "b0", "b3"]

    def test_latency_is_that_at_the_requests_in_flight_now(self) -> None:
        clock, probes, fleet = made_probes(1)
        fleet[0].own = 1
        answered(clock, probes, fleet[0], 0.2)  # there were two with it: 100 ms each
        fleet[0].own = 3
        probes.look(fleet[0])
        assert probes.fresh()[0].latency == pytest.approx(0.4)

    def test_a_request_counts_in_the_probe_that_sent_it(self) -> None:
        _, probes, fleet = made_probes(2)
        for backend in fleet:
            probes.look(backend)
        ranked = probes.fresh()
        probes.used(ranked[0], ranked)
        assert [each.load for each in ranked] == [1, 0]

    def test_weight_divides_what_counts_as_busy(self) -> None:
        pool = made_pool(specs(a=4, b=1), "prequal")
        load(pool, a=2, b=1)
        assert {picked(pool).id for _ in range(20)} == {"a"}


def test_with_too_few_probes_by_chance_and_by_weight() -> None:
    pool = made_pool(numbered([1] * 50), "prequal")
    pool.policy = policy_class("prequal")(pool.clock, Random(1), probes=1)  # type: ignore[arg-type]
    pool.refresh()
    picked(pool)
    assert pool.seen()[3] == "too few probes: drawn at random by weight"
    picked(pool)
    picked(pool)
    _, _, looked, reason, scores, _ = pool.seen()
    assert reason == "the quickest of those not hot"
    assert len(looked) == len(scores) >= 2


def behaviour_of(slow: float) -> object:
    def behaviour(backend: Backend, now: float) -> tuple[float, Failure | None, int]:
        return (slow if backend.id == "b0" else 0.02), None, 200

    return behaviour


def counted(pool: Pool, behaviour: object, per_second: int = 200, seconds: int = 30) -> Counter[str]:
    return Counter(name for name, _ in traffic(pool, per_second, seconds, behaviour))


def test_a_slow_one_gets_little_and_is_not_starved_for_ever() -> None:
    """What it took, 25 times as long, fades in 10 ln(25) = 32 s; then it is tried again."""
    counts = counted(made_pool(numbered([1] * 5), "prequal"), behaviour_of(0.5), 100, 90)
    assert 2 <= counts["b0"] <= 0.02 * 9000


def test_one_that_fails_fast_is_not_fed() -> None:
    def behaviour(backend: Backend, now: float) -> tuple[float, Failure | None, int]:
        return (0.001, RESET, 0) if backend.id == "b0" else (0.02, None, 200)

    counts = counted(made_pool(numbered([1] * 5), "prequal"), behaviour)
    assert 1 <= counts["b0"] <= 0.02 * 6000
