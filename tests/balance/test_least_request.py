"""The fewest in flight for the weight, and turns among equals."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.backend import Backend
from tests.core.fleet import load, made_pool, numbered, picked, serve, served, specs


def busyness(backend: Backend) -> Fraction:
    return Fraction(backend.in_flight, backend.weight)


steps = st.lists(
    st.one_of(
        st.just(("start", 0, 0)),
        st.tuples(st.just("end"), st.integers(0, 10_000), st.just(0)),
        st.tuples(st.just("weight"), st.integers(0, 9), st.integers(0, 6)),
        st.tuples(st.just("health"), st.integers(0, 9), st.integers(0, 1)),
    ),
    max_size=120,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=10), steps)
def test_it_is_always_one_of_the_least_busy(weights: list[int], steps: list[tuple[str, int, int]]) -> None:
    pool = made_pool(numbered(weights), "least_request")
    backends = list(pool.backends.values())
    under_way: list[Backend] = []
    for what, which, value in steps:
        backend = backends[which % len(backends)]
        if what == "end" and under_way:
            pool.end(under_way.pop(which % len(under_way)), pool.clock.time(), None, 200)
        elif what == "weight":
            pool.set_weight(backend, value)
        elif what == "health":
            pool.set_health(backend, bool(value))
        if not pool.eligible:
            continue
        chosen = picked(pool)
        assert busyness(chosen) == min(map(busyness, pool.eligible))
        if what == "start":
            pool.start(chosen)
            under_way.append(chosen)


def test_among_those_not_tried_it_is_the_least_busy_too() -> None:
    pool = made_pool(specs(a=1, b=1, c=1, d=2), "least_request")
    load(pool, b=2, c=1, d=3)
    a, b, c, d = pool.backends.values()
    assert picked(pool) is a
    assert picked(pool, tried=[a]) is c
    assert picked(pool, tried=[a, c]) is d  # 3 for a weight of 2 are fewer than 2 for 1
    assert picked(pool, tried=[a, c, d]) is b


def test_a_download_counts_until_its_last_byte() -> None:
    pool = made_pool(specs(a=1, b=1), "least_request")
    downloading = picked(pool)
    pool.start(downloading)
    assert downloading.id not in served(pool, 20)


@pytest.mark.parametrize("weights", [(1, 1, 1), (3, 1), (5, 2, 1), (7, 3, 3, 1)])
def test_idle_ones_take_turns_by_weight(weights: tuple[int, ...]) -> None:
    """Start-time fair queueing: nobody is ahead of another by more than one request, told by weight."""
    pool = made_pool(numbered(weights), "least_request")
    counts = dict.fromkeys(pool.backends, 0)
    for _ in range(400):
        backend = serve(pool)
        counts[backend.id] += 1
        behind = min(counts[other.id] / other.weight for other in pool.backends.values())
        assert counts[backend.id] / backend.weight - behind <= 1 / backend.weight + 1e-9


def test_equals_start_in_the_order_of_the_set_and_then_take_turns() -> None:
    pool = made_pool(specs(a=1, b=1, c=1), "least_request")
    assert served(pool, 6) == ["a", "b", "c", "a", "b", "c"]


def test_a_newcomer_is_not_flooded_for_having_served_less() -> None:
    pool = made_pool(specs(a=1, b=1), "least_request")
    served(pool, 1000)
    pool.update(specs(a=1, b=1, c=1))
    counts = Counter(served(pool, 30))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_one_that_rests_saves_nothing_up() -> None:
    pool = made_pool(specs(a=1, b=1, c=1), "least_request")
    load(pool, c=1)
    served(pool, 1000)
    pool.end(pool.backends["c"], pool.clock.time(), None, 200)
    assert served(pool, 9).count("c") <= 4
