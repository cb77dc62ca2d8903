"""What all policies promise that go by a key: ring_hash, maglev and rendezvous."""

from __future__ import annotations

from collections import Counter
from math import ceil, log2
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lb
from lb.balance.hashing import InFlight, Ring, hash_of, hashes_of
from lb.core.backend import Backend, BackendSpec
from tests.balance.chance import assert_share
from tests.balance.keyed import KEYS, keyed_pool, moved, owners, pick_for
from tests.balance.watched import watch
from tests.core.fleet import ids, load, numbered, picked, specs

POLICIES = ("ring_hash", "maglev", "rendezvous")
every_policy = pytest.mark.parametrize("policy", POLICIES)
exact_policy = pytest.mark.parametrize("policy", ["ring_hash", "rendezvous"])
"""Those that move no other keys than they must. Maglev moves a few: see test_maglev.py."""


# --- stable ---


@every_policy
def test_a_key_has_its_backend_whatever_the_seed_the_order_and_the_load(policy: str) -> None:
    one, other = keyed_pool(numbered([1] * 10), policy), keyed_pool(numbered([1] * 10)[::-1], policy)
    load(other, b3=50)
    assert owners(one) == owners(one) == owners(other)


@every_policy
def test_a_new_address_of_a_backend_moves_nothing(policy: str) -> None:
    pool = keyed_pool(numbered([1] * 5), policy)
    before = owners(pool)
    pool.update([BackendSpec(name, f"{name}.elsewhere.test", 80) for name in pool.backends])
    assert owners(pool) == before


def test_hashes_are_those_of_every_machine() -> None:
    """Or balancers of different versions would disagree."""
    assert hash_of(b"key") == 0xF54CA9C3ADCC7CCE
    assert hashes_of("a", 9)[8] == 0x54F44B7044F94326
    assert hashes_of("a", 20)[:9] == hashes_of("a", 9)
    assert len(set(hashes_of("a", 1000) + hashes_of("b", 1000))) == 2000


@every_policy
@settings(max_examples=20, deadline=None)
@given(
    steps=st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 4), min_size=2), max_size=4)
)
def test_history_does_not_matter(policy: str, steps: list[dict[str, int]]) -> None:
    """Who has seen backends come and go agrees with who has just begun."""
    keys, last = KEYS[:50], {"a": 1, "b": 2, "c": 1}
    pool = keyed_pool(specs(a=1, b=1), policy)
    for weights in [*steps, last]:
        pool.update(specs(**weights))
        if weights is last or policy != "maglev":  # maglev's table takes 50 ms
            owners(pool, keys)
    assert owners(pool, keys) == owners(keyed_pool(specs(**last), policy), keys)


# --- who must move ---


@exact_policy
def test_who_goes_moves_its_own_keys_alone_and_who_comes_back_gets_them_back(policy: str) -> None:
    pool = keyed_pool(numbered([1] * 10), policy)
    before = owners(pool)
    pool.set_health(pool.backends["b4"], False)
    gone = moved(before, owners(pool))
    assert {source for source, _ in gone} == {"b4"}
    assert len(gone) == Counter(before.values())["b4"]
    assert len({heir for _, heir in gone}) == 9  # all of the others inherit
    pool.set_health(pool.backends["b4"], True)
    assert owners(pool) == before


@exact_policy
def test_who_comes_takes_keys_and_none_moves_among_the_others(policy: str) -> None:
    pool = keyed_pool(numbered([1] * 10), policy)
    before = owners(pool)
    pool.update(numbered([1] * 11))
    assert {heir for _, heir in moved(before, owners(pool))} == {"b10"}


@exact_policy
def test_a_weight_moves_keys_from_or_to_that_backend_alone(policy: str) -> None:
    pool = keyed_pool(numbered([4] * 10), policy)
    before = owners(pool)
    pool.set_weight(pool.backends["b3"], 2)
    less = owners(pool)
    assert {source for source, _ in moved(before, less)} == {"b3"}
    pool.set_weight(pool.backends["b3"], 3)
    assert {heir for _, heir in moved(less, owners(pool))} == {"b3"}


# --- a part of the set ---


@every_policy
def test_a_retry_goes_to_the_same_other_one_each_time(policy: str) -> None:
    pool = keyed_pool(numbered([1] * 6), policy)
    seconds = set()
    for key in KEYS[:100]:
        first = pick_for(pool, key)
        second = pick_for(pool, key, tried=[first])
        assert second is not first
        assert pick_for(pool, key, tried=[first]) is second
        if first.id == "b0":
            seconds.add(second.id)
    assert len(seconds) > 2, "not all to one"


@every_policy
def test_of_the_last_two_both_are_found(policy: str) -> None:
    pool = keyed_pool(numbered([1] * 300), policy)
    tried = list(pool.eligible[:-2])
    assert {pick_for(pool, key, tried) for key in KEYS[:60]} == set(pool.eligible[-2:])


# --- without a key ---


@every_policy
def test_without_a_key_it_is_as_with_p2c(policy: str) -> None:
    pool = keyed_pool(specs(a=1, b=1, c=1), policy)
    load(pool, c=5)
    chosen = Counter(pick_for(pool, b"").id for _ in range(2000))
    assert_share(chosen["a"], 2000, 0.5)
    assert set(chosen) == {"a", "b"}
    assert "no key" in pool.seen()[3]
    assert picked(pool).id in "ab"


# --- a bound on the load ---


@every_policy
@pytest.mark.parametrize("bound", [1.1, 1.25, 1.5, 2])
def test_no_backend_has_more_than_its_bound(policy: str, bound: float) -> None:
    """At any time load ≤ ⌈c · total / n⌉, with a tenth of the keys asked for half of the time."""
    pool = keyed_pool(numbered([1] * 10), policy, bounded_load=bound)
    rng = Random(3)
    under_way: list[Backend] = []
    for step in range(4000):
        if under_way and rng.random() < (0.3 if step < 1000 else 0.5):
            pool.end(under_way.pop(rng.randrange(len(under_way))), 0.0, None, 200)
            continue
        key = KEYS[int(10 * rng.random())] if rng.random() < 0.5 else rng.choice(KEYS)
        backend = pick_for(pool, key)
        pool.start(backend)
        under_way.append(backend)
        assert backend.in_flight <= ceil(bound * pool.in_flight / 10)
    assert pool.in_flight > 100


@every_policy
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=6),
    st.lists(st.integers(0, 30), max_size=60),
    st.sampled_from([1.0, 1.1, 2.0]),
)
def test_the_bound_goes_by_weight(policy: str, weights: list[int], keys: list[int], bound: float) -> None:
    pool = keyed_pool(numbered(weights), policy, bounded_load=bound)
    for key in keys:
        backend = pick_for(pool, KEYS[key % 3])
        pool.start(backend)
        assert backend.in_flight <= ceil(bound * pool.in_flight * backend.weight / sum(weights))


@every_policy
def test_below_the_bound_it_changes_nothing(policy: str) -> None:
    bounded = keyed_pool(numbered([1] * 10), policy, bounded_load=2.0)
    load(bounded, **{f"b{number}": 20 for number in range(10)})
    assert owners(bounded) == owners(keyed_pool(numbered([1] * 10), policy))


@every_policy
def test_without_a_bound_nothing_is_counted(policy: str) -> None:
    """What is off costs nothing: the pool calls no hook."""
    plain, bounded = keyed_pool(specs(a=1, b=1), policy), keyed_pool(specs(a=1, b=1), policy, bounded_load=2)
    assert plain._on_start is plain._on_end is None
    assert bounded._on_start is not None


def test_in_flight_is_counted_once_however_often_it_is_told() -> None:
    """A policy that takes over is told of what was in flight before."""
    fleet = [Backend(spec) for spec in specs(a=1, b=1)]
    fleet[0].own = 3
    load_ = InFlight(fleet)
    load_.changed(fleet[0])
    load_.changed(Backend(specs(c=1)[0]))
    assert load_.total == 3
    fleet[1].own = 2
    load_.changed(fleet[1])
    assert load_.total == 5


def test_the_policy_can_be_replaced_under_load() -> None:
    pool = keyed_pool(specs(a=1, b=1), "p2c")
    load(pool, a=3, b=1)
    policy = keyed_pool(specs(a=1, b=1), "ring_hash", bounded_load=1.0).policy
    assert pool.key_of is None
    pool.replace_policy(policy)
    assert pool.key_of is not None
    assert pick_for(pool, b"x").id == pick_for(pool, b"y").id == "b"  # a has more than ⌈5 / 2⌉ already


# --- what it costs ---


@every_policy
@pytest.mark.skipif(lb.compiled(), reason="compiled")
def test_a_key_costs_the_same_with_3000_backends_as_with_3(policy: str) -> None:
    looks = {}
    for count in (3, 3000):
        pool = keyed_pool((), policy, bounded_load=1.25)
        watched = watch(pool, numbered([1] * count))
        pick_for(pool, KEYS[0])  # prepares
        watched.count = 0
        for key in KEYS[:300]:
            pool.start(pick_for(pool, key))
        looks[count] = watched.count / 300
    assert looks[3000] <= looks[3] + 4 * log2(1000)


# --- the ring ---


def test_a_ring_wraps() -> None:
    a, b = (Backend(spec) for spec in specs(a=1, b=1))
    ring = Ring()
    ring.put({a: 1, b: 1})
    first, last = ring.points
    assert ring.behind(0) == ring.behind(first) == first
    assert ring.behind(first + 1) == last
    assert ring.at(ring.behind(last + 1)) is ring.at(first)
    assert ids({ring.at(first), ring.at(last)}) in (["a", "b"], ["b", "a"])


# --- options ---


@every_policy
def test_the_key_is_read_where_the_option_says(policy: str) -> None:
    pool = keyed_pool(specs(a=1, b=1), policy, key="header:x-user")
    assert pool.key_of is not None
    with pytest.raises(ValueError, match="must be header:NAME"):
        keyed_pool(specs(a=1), policy, key="nothing")
