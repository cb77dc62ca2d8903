"""Choosers: the best of those drawn. The least of all is in test_least_request.py."""

from __future__ import annotations

from collections import Counter
from math import comb
from random import Random

import pytest

from lb.balance import policy_class
from lb.balance.choosers import Drawn, some_of
from lb.balance.load import Shares, any_two
from lb.core.backend import Backend
from lb.core.pool import Pool
from tests.balance.chance import assert_shares
from tests.core.clock import VirtualClock
from tests.core.fleet import load, numbered, picked, specs

DRAWS = 20_000


def pool_of(policy: str, weights: dict[str, int], **options: object) -> Pool:
    clock = VirtualClock()
    pool = Pool("greeter", policy_class(policy)(clock, Random(1), **options), clock)  # type: ignore[arg-type]
    pool.update(specs(**weights))
    return pool


def counted(pool: Pool, draws: int = DRAWS) -> Counter[str]:
    return Counter(picked(pool).id for _ in range(draws))


# --- p2c with replacement, Envoy's way ---


@pytest.mark.parametrize(
    ("weights", "busy", "shares"),
    [
        # The busy one is picked only when both draws are it: 1/9, and the others share the rest.
        ({"a": 1, "b": 1, "c": 1}, {"c": 1}, {"a": 4 / 9, "b": 4 / 9, "c": 1 / 9}),
        ({"a": 1, "b": 1}, {"b": 1}, {"a": 3 / 4, "b": 1 / 4}),
        ({"a": 2, "b": 1}, {}, {"a": 2 / 3, "b": 1 / 3}),
    ],
)
def test_with_replacement(weights: dict[str, int], busy: dict[str, int], shares: dict[str, float]) -> None:
    pool = pool_of("p2c", weights, replacement=True)
    load(pool, **busy)
    assert_shares(counted(pool), DRAWS, shares)


def test_both_may_be_the_same() -> None:
    fleet = [Backend(spec) for spec in numbered([1, 1])]
    shares, rng = Shares(fleet), Random(1)
    same = sum(one is other for one, other in (any_two(shares, rng) for _ in range(1000)))
    assert_shares(Counter(same=same, other=1000 - same), 1000, {"same": 0.5, "other": 0.5})


# --- the least busy of N ---


@pytest.mark.parametrize("choices", [1, 2, 3, 5, 6, 9])
def test_of_six_by_rank(choices: int) -> None:
    """Who has k busier ones is picked when it is drawn and all the others drawn are among these k."""
    pool = pool_of("least_request", dict.fromkeys("abcdef", 1), choices=choices)
    load(pool, b=1, c=2, d=3, e=4, f=5)
    drawn = min(choices, 6)
    shares = {name: comb(5 - rank, drawn - 1) / comb(6, drawn) for rank, name in enumerate("abcdef")}
    assert_shares(counted(pool), DRAWS, shares)


@pytest.mark.parametrize("choices", [2, 3, 4])
def test_idle_ones_get_their_shares(choices: int) -> None:
    pool = pool_of("least_request", {"a": 5, "b": 3, "c": 2}, choices=choices)
    assert_shares(counted(pool), DRAWS, {"a": 0.5, "b": 0.3, "c": 0.2})


def test_two_of_different_weights_by_weight_over_requests() -> None:
    pool = pool_of("least_request", {"a": 2, "b": 1}, choices=2)
    load(pool, a=1)
    assert_shares(counted(pool), DRAWS, {"a": 0.5, "b": 0.5})  # 2 / 2 against 1 / 1


def test_a_cost_of_nothing_wins_whatever_the_weights() -> None:
    light, heavy = (Backend(spec) for spec in numbered([1, 9]))
    drawn = Drawn(2, lambda backend: 0.0 if backend is light else 5.0, Random(1))
    drawn.rebuild([light, heavy])
    assert {drawn.pick([light, heavy])[0] for _ in range(100)} == {light}


def test_drawing_comes_to_an_end_however_uneven_the_weights() -> None:
    fleet = [Backend(spec) for spec in numbered([65535] + [1] * 9)]
    assert 1 <= len(some_of(Shares(fleet), Random(1), 5)) <= 5


def test_with_choices_nothing_is_kept() -> None:
    assert pool_of("least_request", {"a": 1}, choices=2)._on_start is None
    assert pool_of("least_request", {"a": 1})._on_start is not None


@pytest.mark.parametrize(("choices", "least", "most"), [(1, 5, 8), (2, 3, 4), (3, 2, 3)])
def test_balls_into_bins(choices: int, least: int, most: int) -> None:
    """4096 balls into as many bins: the fullest has about ln n / ln ln n of them with one choice, and
    ln ln n / ln d + O(1) with d (Azar et al., 1994; Mitzenmacher, 2001, table 1: 5 to 8, 3 to 4, 2 to 3)."""
    for seed in range(3):
        fleet = [Backend(spec) for spec in numbered([1] * 4096)]
        drawn = Drawn(choices, lambda backend: float(backend.own), Random(seed))
        drawn.rebuild(fleet)
        for _ in fleet:
            drawn.pick(fleet)[0].own += 1
        assert least <= max(backend.own for backend in fleet) <= most
