"""Token buckets: a burst, then so many a second; and what an attacker with many addresses gains."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.rate import RateLimit


def passed(limit: RateLimit, key: str, now: float, tries: int = 100) -> int:
    return sum(limit.take(key, now) == 0.0 for _ in range(tries))


def test_a_burst_and_then_the_rate() -> None:
    limit = RateLimit(rate=10.0, burst=5)
    assert passed(limit, "a", 100.0) == 5
    assert limit.take("a", 100.0) == pytest.approx(0.1)
    assert limit.take("a", 100.06) == pytest.approx(0.04)
    assert passed(limit, "a", 100.1) == 1
    assert passed(limit, "a", 100.4) == 3
    assert passed(limit, "a", 1000.0) == 5, "a bucket never holds more than a burst"


def test_the_time_that_is_told_is_enough() -> None:
    limit = RateLimit(rate=3.0, burst=1)
    now = 100.0
    for _ in range(100):
        assert limit.take("a", now) == 0.0
        now += limit.take("a", now)


def test_each_key_has_its_own() -> None:
    limit = RateLimit(rate=1.0, burst=2)
    assert passed(limit, "a", 100.0) == 2
    assert passed(limit, "b", 100.0) == 2
    assert passed(limit, "a", 100.0) == 0


def test_full_buckets_are_forgotten() -> None:
    limit = RateLimit(rate=1.0, burst=1, most_keys=1000)
    for number in range(500):
        limit.take(number, 100.0)
    assert len(limit) == 500
    for number in range(600):
        limit.take(f"late {number}", 200.0 + 2 * number)
    assert len(limit) < 5


def test_it_never_holds_more_keys_than_it_may() -> None:
    limit = RateLimit(rate=0.001, burst=1, most_keys=100)
    for number in range(10_000):
        limit.take(number, 100.0)
        assert len(limit) <= 100


def test_who_pushes_others_out_gains_no_burst() -> None:
    """A thousand addresses, places for ten: what passes is what ten buckets hold, and no more."""
    limit = RateLimit(rate=1.0, burst=5, most_keys=10)
    assert sum(limit.take(number % 1000, 100.0) == 0.0 for number in range(10_000)) <= 10 * 5
    assert sum(limit.take(number % 1000, 110.0) == 0.0 for number in range(10_000)) <= 10 * 5


def test_who_keeps_asking_is_not_reached() -> None:
    limit = RateLimit(rate=1.0, burst=1, most_keys=100)
    now, attacker = 100.0, 0
    for _ in range(200):
        assert limit.take("regular", now) == 0.0
        for _ in range(90):
            limit.take(attacker, now)
            attacker += 1
        now += 1.0


@given(
    seed=st.integers(0, 1000),
    keys=st.integers(1, 30),
    most=st.integers(1, 10),
    burst=st.integers(1, 5),
    rate=st.sampled_from([0.5, 1.0, 3.0, 100.0]),
)
def test_all_together_pass_no_more_than_the_places_allow(
    seed: int, keys: int, most: int, burst: int, rate: float
) -> None:
    rng, limit = Random(seed), RateLimit(rate, burst, most)
    began = now = 100.0
    passed = 0
    for _ in range(300):
        now += rng.choice((0.0, 0.0, 0.01, 0.5))
        wait = limit.take(rng.randrange(keys), now)
        passed += wait == 0.0
        assert 0.0 <= wait <= burst / rate + 1e-6
        assert passed <= most * (burst + rate * (now - began)) + 1e-6


@pytest.mark.parametrize(("rate", "burst", "most"), [(0.0, 1, 1), (1.0, 0, 1), (1.0, 1, 0)])
def test_nonsense_is_refused(rate: float, burst: int, most: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        RateLimit(rate, burst, most)


def test_how_long_to_wait_can_be_asked_without_taking_a_token():
    limit = RateLimit(rate=2, burst=1)
    assert limit.wait("a", 0.0) == 0.0
    assert len(limit) == 0
    assert limit.take("a", 0.0) == 0.0
    assert limit.wait("a", 0.0) == limit.wait("a", 0.0) == pytest.approx(0.5)
    assert limit.wait("b", 0.0) == 0.0
    assert limit.wait("a", 0.5) == 0.0
    assert limit.take("a", 0.5) == 0.0
