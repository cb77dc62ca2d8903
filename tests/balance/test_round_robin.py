"""Smooth weighted round robin, beside a plain one of nginx's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.backend import BackendSpec
from tests.core.fleet import made_pool, numbered, served, specs


class Nginx:
    """ngx_http_upstream_get_peer: all earn their weight, the richest is picked and pays the sum. O(n)."""

    def __init__(self) -> None:
        self.weights: dict[str, int] = {}
        self.current: dict[str, int] = {}

    def update(self, backends: Sequence[BackendSpec]) -> None:
        """Who stays keeps what it has earned."""
        self.weights = {spec.id: spec.weight for spec in backends}
        self.current = {spec.id: self.current.get(spec.id, 0) for spec in backends}

    def pick(self) -> str:
        for name, weight in self.weights.items():
            self.current[name] += weight
        best = max(self.current, key=self.current.__getitem__)  # the first of equals
        self.current[best] -= sum(self.weights.values())
        return best


@pytest.mark.parametrize(
    ("weights", "turns"),
    [
        ({"a": 5, "b": 1, "c": 1}, "a a b a c a a"),
        ({"a": 4, "b": 2, "c": 1}, "a b a c a b a"),
        ({"a": 3, "b": 2}, "a b a b a"),
        ({"a": 1, "b": 1, "c": 1}, "a b c"),
        ({"a": 1, "b": 1, "c": 5}, "c c a c b c c"),
        ({"a": 2, "b": 2}, "a b a b"),
    ],
)
def test_the_turns_are_as_even_as_the_weights_allow(weights: dict[str, int], turns: str) -> None:
    expected = turns.split()
    pool = made_pool(specs(**weights), "round_robin")
    assert served(pool, 3 * len(expected)) == 3 * expected


@pytest.mark.parametrize("weights", [(5, 1, 1), (1, 1, 1, 1, 1, 1, 1), (4, 2, 1), (3, 2, 1, 1), (1000, 400)])
def test_7000_requests_are_divided_exactly(weights: Sequence[int]) -> None:
    pool = made_pool(numbered(weights), "round_robin")
    counts = Counter(served(pool, 7000))
    assert [counts[name] for name in pool.backends] == [weight * 7000 // sum(weights) for weight in weights]


fleets = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 12), min_size=2)
"""At least two: with one there is nothing to take turns in."""


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=12), st.integers(1, 150))
def test_the_turns_are_nginxs(weights: list[int], length: int) -> None:
    backends = numbered(weights)
    nginx = Nginx()
    nginx.update(backends)
    assert served(made_pool(backends, "round_robin"), length) == [nginx.pick() for _ in range(length)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(fleets, st.integers(0, 40)), min_size=1, max_size=6))
def test_they_stay_nginxs_while_backends_come_and_go(phases: list[tuple[dict[str, int], int]]) -> None:
    pool = made_pool(policy="round_robin")
    nginx = Nginx()
    for weights, length in phases:
        pool.update(specs(**weights))
        nginx.update(specs(**weights))
        assert served(pool, length) == [nginx.pick() for _ in range(length)]


class TestSurvivorsKeepTheirTurn:
    def test_when_one_comes(self) -> None:
        pool = made_pool(specs(a=1, b=1, c=1), "round_robin")
        assert served(pool, 2) == ["a", "b"]
        pool.update(specs(a=1, b=1, c=1, d=1))
        assert served(pool, 5) == ["c", "d", "a", "b", "c"]

    def test_when_one_goes(self) -> None:
        pool = made_pool(specs(a=1, b=1, c=1, d=1), "round_robin")
        assert served(pool, 2) == ["a", "b"]
        pool.update(specs(b=1, c=1, d=1))
        assert served(pool, 2) == ["c", "d"]

    def test_when_health_flaps(self) -> None:
        """Or else the first in the list would get the traffic after every change.

        Each pays 3 or 4 for a turn, by how many there are at the time, and all that stay earn alike: what
        they have paid is the same up to one turn, so their turns are in the ratio of 4 to 3 at most.
        """
        pool = made_pool(specs(a=1, b=1, c=1, d=1), "round_robin")
        counts = Counter[str]()
        for _ in range(300):
            pool.set_health(pool.backends["d"], not pool.backends["d"].healthy)
            counts.update(served(pool, 1))
        assert max(counts[name] for name in "abc") <= 4 / 3 * min(counts[name] for name in "abc") + 2


def test_a_retry_does_not_take_anyones_turn() -> None:
    pool = made_pool(specs(a=1, b=1, c=1), "round_robin")
    turns = []
    for _ in range(2):
        turns += served(pool, 3)
        pool.pick(None, tried=[pool.backends["a"]])
    assert turns == ["a", "b", "c"] * 2
