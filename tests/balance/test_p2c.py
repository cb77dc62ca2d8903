"""Two at random, the less busy of them. The chances are worked out by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from lb.core.pool import Pool
from tests.balance.chance import assert_shares
from tests.core.fleet import load, made_pool, picked, specs

DRAWS = 6000


def counted(pool: Pool, tried: Sequence[str] = ()) -> Counter[str]:
    """Picks that start nothing, so that the load stays as it is."""
    out = [pool.backends[name] for name in tried]
    return Counter(picked(pool, out).id for _ in range(DRAWS))


@pytest.mark.parametrize(
    ("weights", "in_flight", "shares"),
    [
        pytest.param(
            {"a": 1, "b": 1, "c": 1},
            {},
            {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3},
            id="all idle",
        ),
        pytest.param(
            {"a": 1, "b": 1, "c": 1},
            {"b": 1, "c": 2},
            {"a": 2 / 3, "b": 1 / 3, "c": 0},  # a is in two of three pairs, b wins the third; c never
            id="the busiest of all is never picked",
        ),
        pytest.param(
            {"a": 1, "b": 1, "c": 1, "d": 1},
            {"a": 9, "b": 2, "c": 1},
            {"d": 3 / 6, "c": 2 / 6, "b": 1 / 6, "a": 0},  # of six pairs
            id="by rank among four",
        ),
        pytest.param({"a": 1, "b": 1}, {"a": 1}, {"a": 0, "b": 1}, id="of two the less busy"),
        pytest.param({"a": 2, "b": 1}, {}, {"a": 2 / 3, "b": 1 / 3}, id="idle ones get just their shares"),
        pytest.param({"a": 5, "b": 3, "c": 2}, {}, {"a": 0.5, "b": 0.3, "c": 0.2}, id="three idle shares"),
        pytest.param(
            {"a": 2, "b": 1},
            {"a": 1},
            {"a": 1 / 2, "b": 1 / 2},  # 2 / (1 + 1) against 1 / (0 + 1)
            id="twice the weight with one in flight is as good as an idle one",
        ),
        pytest.param({"a": 3, "b": 1}, {"a": 2}, {"a": 1 / 2, "b": 1 / 2}, id="and three times with two"),
        pytest.param({"a": 4, "b": 1}, {"b": 1}, {"a": 8 / 9, "b": 1 / 9}, id="4 / 1 against 1 / 2"),
        pytest.param({"a": 2, "b": 1}, {"a": 5, "b": 5}, {"a": 2 / 3, "b": 1 / 3}, id="equally busy"),
    ],
)
def test_chances(weights: dict[str, int], in_flight: dict[str, int], shares: dict[str, float]) -> None:
    pool = made_pool(specs(**weights), "p2c")
    load(pool, **in_flight)
    assert_shares(counted(pool), DRAWS, shares)


def test_two_different_ones_are_drawn() -> None:
    pool = made_pool(specs(a=9, b=1, c=1), "p2c")
    for _ in range(1000):
        picked(pool)
        _, _, (one, other), *_ = pool.seen()
        assert one is not other


def test_the_tried_ones_are_not_drawn() -> None:
    pool = made_pool(specs(a=1, b=1, c=2, d=1), "p2c")
    assert_shares(counted(pool, tried="ad"), DRAWS, {"b": 1 / 3, "c": 2 / 3})
