"""What every policy promises. One that is registered runs through this suite by being there."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lb
import lb.balance
from lb.balance import policies, policy_class
from lb.simulate.contract import (
    CHECKS,
    Check,
    judged,
    maker,
    whatever_happens,
    whatever_happens_with_all_rules,
)
from lb.simulate.driving import HAPPENINGS, LENGTHS, NAMES, Step, narrow_walk, walk
from tests.balance.watched import watch
from tests.core.fleet import made_pool, numbered, picked, serve

every_policy = pytest.mark.parametrize("policy", policies())


def test_the_suite_knows_every_policy_of_the_folder() -> None:
    assert {"round_robin", "random", "least_request", "p2c"} <= set(policies())
    for name, policy in policies().items():
        assert policy.name == name
        assert policy.__module__.startswith(lb.balance.__name__ + ".")


@every_policy
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.run.__name__)
def test_it_keeps_the_contract(policy: str, check: Check) -> None:
    """What `lb test-policy` asks of a class. Ours do also what is not binding."""
    if check.run not in WALKS:  # those are below, with steps that shrink
        assert judged(maker(policy_class(policy), {}), check).found == ""


WALKS = (whatever_happens, whatever_happens_with_all_rules)


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


# --- all of it at once ---

happenings = st.lists(
    st.builds(
        Step,
        what=st.one_of(st.sampled_from(["request"]), st.sampled_from(HAPPENINGS)),
        which=st.sampled_from(NAMES),
        weight=st.integers(0, 5),
        length=st.sampled_from(LENGTHS),
        members=st.lists(st.sampled_from(NAMES), unique=True).map("".join),
    ),
    max_size=60,
)


@every_policy
@settings(max_examples=60, deadline=None)
@given(steps=happenings, tiers=st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_whatever_happens_with_all_rules_on_the_policy_copes(
    policy: str, steps: list[Step], tiers: list[int]
) -> None:
    check = Check("it copes", lambda make: narrow_walk(make, steps, tiers))
    assert judged(maker(policy_class(policy), {}), check).found == ""


@every_policy
@settings(max_examples=60, deadline=None)
@given(steps=happenings)
def test_whatever_happens_only_the_eligible_serve_and_nothing_stays_in_flight(
    policy: str, steps: list[Step]
) -> None:
    check = Check("it copes", lambda make: walk(make, steps))
    assert judged(maker(policy_class(policy), {}), check).found == ""
