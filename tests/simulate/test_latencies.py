"""Figures of few values are exact; of very many, counted by size, right to 0.1 %."""

from __future__ import annotations

from random import Random

import pytest

from lb.simulate.latencies import Latencies


def of(*values: float) -> Latencies:
    found = Latencies()
    found.extend(values)
    return found


def test_quantiles_are_values_that_occurred() -> None:
    found = of(*range(1, 1001)).summary()
    assert found == {"mean": 500.5, "p50": 500, "p90": 900, "p99": 990, "p99.9": 999, "max": 1000}
    assert Latencies().summary()["max"] == 0.0


def test_few_are_not_folded() -> None:
    few = of(3.0, 1.0)
    few.fold()
    assert list(few) == [3.0, 1.0]


def test_folded_ones_are_right_to_a_thousandth() -> None:
    rng = Random(1)
    values = [rng.lognormvariate(-3, 2) for _ in range(30_000)] + [0.0, 1.0]
    exact, folded = of(*values), Latencies()
    for place in range(0, len(values), 1000):  # in several portions, the last of which isn't folded
        folded.extend(values[place : place + 1000])
        folded.fold(2000)
    assert len(folded) < 3000 < folded.size == len(values)
    wanted, found = exact.summary(), folded.summary()
    assert (found["mean"], found["max"]) == pytest.approx((wanted["mean"], wanted["max"]), rel=1e-12)
    assert found == pytest.approx(wanted, rel=0.001)
    assert folded.size == len(values)
    folded.append(10 * wanted["max"])
    assert folded.summary()["max"] == 10 * wanted["max"]
