"""What every policy promises. One that is registered runs through this suite by being there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lb
import lb.balance
from lb.balance import policies
from lb.core.backend import ACTIVE, DISABLED, DRAINING, Backend, BackendSpec
from lb.core.failure import AT_LIMIT, NO_BACKENDS, NO_ELIGIBLE, RESET, Failure
from lb.core.pool import Pool
from lb.core.rules import OutlierRules, PoolRules
from tests.balance.chance import assert_shares, draws_to_reach
from tests.balance.watched import watch
from tests.core.clock import VirtualClock
from tests.core.fleet import made_pool, numbered, picked, serve, served, specs

every_policy = pytest.mark.parametrize("policy", policies())


def test_the_suite_knows_every_policy_of_the_folder() -> None:
    assert {"round_robin", "random", "least_request", "p2c"} <= set(policies())
    for name, policy in policies().items():
        assert policy.name == name
        assert policy.__module__.startswith(lb.balance.__name__ + ".")


# --- who may be picked ---


@every_policy
@pytest.mark.parametrize("reason", ["weight 0", "unhealthy", DRAINING, DISABLED])
def test_an_excluded_backend_is_never_picked(policy: str, reason: str) -> None:
    pool = made_pool(specs(a=1, excluded=2, b=1), policy)
    backend = pool.backends["excluded"]
    served(pool, 10)
    if reason == "weight 0":
        pool.set_weight(backend, 0)
    elif reason == "unhealthy":
        pool.set_health(backend, False)
    else:
        pool.set_state(backend, reason)
    assert backend.excluded == reason
    assert set(served(pool, 500)) == {"a", "b"}


@every_policy
def test_a_pool_of_none_and_of_one_is_no_question(policy: str) -> None:
    pool = made_pool(policy=policy)
    assert pool.pick(None) is NO_BACKENDS
    pool.update(specs(a=0))
    assert pool.pick(None) is NO_ELIGIBLE
    pool.update(specs(a=3))
    assert served(pool, 20) == ["a"] * 20
    pool.update(specs(a=3, b=1))
    assert set(served(pool, 200)) == {"a", "b"}


@every_policy
def test_those_tried_already_are_left_out(policy: str) -> None:
    pool = made_pool(specs(a=1, b=2, c=1, d=5), policy)
    a, b, c, d = pool.backends.values()
    counts = Counter[str]()
    for _ in range(100):
        first = serve(pool)
        assert picked(pool, tried=[first]) is not first
        assert picked(pool, tried=[a, b, d]) is c
        second = picked(pool, tried=[b, d])
        pool.start(second)  # a retry is an attempt like any other
        pool.end(second, pool.clock.time(), None, 200)
        counts[second.id] += 1
    assert set(counts) <= {"a", "c"}
    assert pool.policy_errors == 0


@every_policy
def test_every_backend_is_reached(policy: str) -> None:
    pool = made_pool(numbered([1] * 50), policy)
    assert set(served(pool, draws_to_reach(50))) == set(pool.backends)


# --- how often ---


@every_policy
@pytest.mark.parametrize("weights", [(1, 1, 1), (2, 1), (5, 1, 1), (1, 2, 3, 4), (1,) * 12, (100, 1)])
def test_idle_traffic_goes_by_weight(policy: str, weights: Sequence[int]) -> None:
    pool = made_pool(numbered(weights), policy)
    draws = 3000
    total = sum(weights)
    shares = {backend.id: backend.weight / total for backend in pool.backends.values()}
    assert_shares(Counter(served(pool, draws)), draws, shares)


@every_policy
def test_a_new_weight_counts_from_now_on(policy: str) -> None:
    pool = made_pool(specs(a=1, b=1, c=1), policy)
    served(pool, 100)
    pool.set_weight(pool.backends["b"], 8)
    assert_shares(Counter(served(pool, 3000)), 3000, {"a": 0.1, "b": 0.8, "c": 0.1})


@every_policy
def test_a_newcomer_gets_its_share_and_no_more(policy: str) -> None:
    pool = made_pool(specs(a=1, b=1, c=1), policy)
    served(pool, 3000)
    pool.update(specs(a=1, b=1, c=1, d=1))
    assert_shares(Counter(served(pool, 2000)), 2000, dict.fromkeys("abcd", 0.25))


@every_policy
def test_the_same_seed_gives_the_same_picks(policy: str) -> None:
    assert busy_picks(policy, seed=7) == busy_picks(policy, seed=7)


def busy_picks(policy: str, seed: int) -> list[str]:
    """Who gets 300 attempts of uneven length, 25 of them at a time."""
    pool = made_pool(specs(a=1, b=2, c=3, d=1), policy, seed)
    traffic = Traffic(pool)
    lengths = Random(1)
    names = []
    for _ in range(300):
        names.append(traffic.request(lengths.expovariate(1 / 0.25)).id)
        traffic.clock.advance(0.01)
    return names


# --- what it costs ---


# Compiled code can't be watched as it looks: these run with `make check-interpreted`.
watched = pytest.mark.skipif(lb.compiled(), reason="compiled")


@watched
@every_policy
@pytest.mark.parametrize("weights", [(1,), (1, 2, 5)], ids=["equal weights", "three weights"])
def test_an_attempt_costs_the_same_with_3000_backends_as_with_3(policy: str, weights: Sequence[int]) -> None:
    """Counted in looks at a backend: at most log2 of the growth more, four times over."""
    few, many = (looks_per_attempt(policy, [*weights] * (count // len(weights))) for count in (3, 3000))
    assert many <= few + 4 * log2(3000 / 3)


def looks_per_attempt(policy: str, weights: Sequence[int]) -> float:
    pool = made_pool(policy=policy)
    looks = watch(pool, numbered(weights))
    attempts = 300
    for _ in range(attempts // 2):
        serve(pool)
    for _ in range(attempts // 2):
        pool.start(picked(pool))
    assert pool.policy_errors == 0
    assert looks.count
    return looks.count / attempts


@watched
def test_a_full_scan_would_be_noticed() -> None:
    pool = made_pool()
    looks = watch(pool, numbered([1] * 3000))
    min(pool.eligible, key=lambda backend: backend.in_flight)
    assert looks.count >= 3000


# --- what it says ---


@every_policy
def test_a_pick_says_why_and_from_whom(policy: str) -> None:
    pool = made_pool(numbered([1, 2, 1, 3, 1]), policy)
    for _ in range(100):
        backend = picked(pool)
        _, _, looked, reason, *_ = pool.seen()
        assert reason
        assert set(looked) <= set(pool.eligible)
        assert not looked or backend in looked
        pool.start(backend)


# --- all of it at once ---


class Traffic:
    """Attempts on virtual time, each ending by itself; everyone who ever served is remembered."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        assert isinstance(pool.clock, VirtualClock)
        self.clock = pool.clock
        self.seen: set[Backend] = set()

    def request(self, length: float, failure: Failure | None = None) -> Backend:
        backend = picked(self.pool)
        self.seen.add(backend)
        self.pool.start(backend)
        started = self.clock.time()
        status = 0 if failure else 200
        self.clock.call_later(length, self.pool.end, backend, started, failure, status)
        return backend


@dataclass(frozen=True)
class Step:
    """Something that happens to a pool under traffic."""

    what: str
    which: str = "a"
    weight: int = 1
    length: float = 0.1
    members: str = "abc"

    def happen(self, traffic: Traffic) -> None:
        pool = traffic.pool
        backend = pool.backends.get(self.which)
        if self.what == "members":
            pool.update([BackendSpec(name, f"{name}.test", 1, self.weight) for name in self.members])
        elif self.what == "time":
            traffic.clock.advance(self.length)
        elif self.what in ("request", "reset"):
            if pool.eligible:
                traffic.request(self.length, RESET if self.what == "reset" else None)
            else:
                assert isinstance(pool.pick(None), Failure)
        elif backend is None:
            return
        elif self.what == "weight":
            pool.set_weight(backend, self.weight)
        elif self.what in ("up", "down"):
            pool.set_health(backend, self.what == "up")
        else:
            pool.set_state(backend, self.what)


happenings = st.lists(
    st.builds(
        Step,
        what=st.one_of(
            st.sampled_from(["request"]),
            st.sampled_from(["reset", "time", "members", "weight", "up", "down", ACTIVE, DRAINING, DISABLED]),
        ),
        which=st.sampled_from("abcde"),
        weight=st.integers(0, 5),
        length=st.sampled_from([0.0, 0.05, 0.3, 2.0]),
        members=st.lists(st.sampled_from("abcde"), unique=True).map("".join),
    ),
    max_size=60,
)


ALL_ON = PoolRules(
    slow_start=5.0,
    panic_threshold=0.3,
    requests_per_backend=3,
    requests=8,
    outliers=OutlierRules(consecutive_failures=2, ejection=1.0, failure_rate=0.5, minimum_requests=3),
)


@every_policy
@settings(max_examples=60, deadline=None)
@given(steps=happenings, tiers=st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_whatever_happens_with_all_rules_on_the_policy_copes(
    policy: str, steps: list[Step], tiers: list[int]
) -> None:
    made = [BackendSpec(name, f"{name}.test", 1, 2, tier) for name, tier in zip("abcde", tiers, strict=True)]
    pool = made_pool(made, policy, rules=ALL_ON)
    traffic = Traffic(pool)
    for step in steps:
        if step.what not in ("request", "reset") or pool.pick(None) is not AT_LIMIT:
            step.happen(traffic)
        chosen = pool.pick(None)
        if isinstance(chosen, Backend):
            assert chosen in pool.eligible
            assert chosen.state == ACTIVE
            assert chosen.in_flight < 3
            assert pool.in_flight < 8
        assert all(each.weight >= 1 and each.share <= 1.0 for each in pool.eligible)
        assert not pool.eligible or max(each.share for each in pool.eligible) == 1.0
    traffic.clock.advance(10.0)
    assert all(backend.in_flight == 0 for backend in traffic.seen)
    assert (pool.in_flight, pool.policy_errors) == (0, 0)


@every_policy
@settings(max_examples=60, deadline=None)
@given(steps=happenings)
def test_whatever_happens_only_the_eligible_serve_and_nothing_stays_in_flight(
    policy: str, steps: list[Step]
) -> None:
    pool = made_pool(specs(a=1, b=2, c=1), policy)
    traffic = Traffic(pool)
    for step in steps:
        step.happen(traffic)
        if pool.eligible:
            backend = picked(pool)
            assert backend in pool.eligible
            assert not backend.excluded
    traffic.clock.advance(10.0)
    assert all(backend.in_flight == 0 for backend in traffic.seen)
    assert pool.policy_errors == 0
