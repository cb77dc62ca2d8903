"""Each file in config/scenarios/ is a scenario that runs, and shows what it says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from lb.simulate.default import ONE_SLOW_REPLICA
from lb.simulate.run import Result, result_of, simulate
from lb.simulate.scenario import Poisson
from tests.simulate.library import LIBRARY, library
from tests.simulate.worlds import named, ran


@cache
def results(name: str) -> dict[str, Result]:
    """Of all policies that tell the difference."""
    policies = [named(policy) for policy in ("round_robin", "random", "least_request", "p2c")]
    return {result.policy: result for result in simulate(library(name), policies)}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_it_runs_and_loses_no_request(path: Path) -> None:
    full = library(path.stem)
    assert full.about
    arrivals = full.arrivals
    if isinstance(arrivals, Poisson) and arrivals.rate > 2000:
        full = replace(full, duration=full.warm_up + 1)
    world = ran(full)
    result = result_of(world)
    assert result.requests > 0
    assert not any(pool.in_flight or len(pool.waiting) for pool in world.pools)
    if full.rules.retries is None and not full.rules.requests_per_backend:
        # Who begins before the warm-up ends may end after it, and is counted at neither.
        assert sum(each.attempts for each in result.backends) == result.requests
    assert result.policy_errors == 0


def test_the_default_is_in_the_library() -> None:
    assert library("one-slow-replica") == ONE_SLOW_REPLICA


def test_a_slow_replica_is_avoided_by_who_looks_at_load() -> None:
    found = results("one-slow-replica")
    for blind in ("round_robin", "random"):
        for seeing in ("least_request", "p2c"):
            assert found[seeing].latency["p90"] < 0.5 * found[blind].latency["p90"]


def test_a_black_hole_attracts_who_looks_at_load_alone() -> None:
    """It is out for 20 of 55 s, so a fifth of 20/55 of all requests is lost by turns: 7.3 %."""
    found = results("black-hole")
    turns = found["round_robin"]
    assert turns.failed / turns.requests == pytest.approx(20 / 55 / 5, abs=0.005)
    assert found["least_request"].failed > 2 * turns.failed


def test_a_black_hole_is_ejected_and_nobody_notices() -> None:
    for result in results("black-hole-ejected").values():
        assert (result.failed, result.ejections > 0, result.retries > 0) == (0, True, True)


def test_workers_that_know_of_each_other_balance_better() -> None:
    blind, shared = results("blind-workers"), results("shared-workers")
    for policy in ("least_request", "p2c"):
        assert shared[policy].latency["p50"] < blind[policy].latency["p50"]
    assert shared["random"].latency == blind["random"].latency
