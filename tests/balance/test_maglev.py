"""Maglev's table: as even as can be, and few others than those that must move when a backend goes."""

from __future__ import annotations

from collections import Counter

import pytest

from lb.balance.hashing import hash_of
from lb.balance.maglev import SLOTS
from lb.core.backend import Backend
from lb.core.pool import Pool
from tests.balance.keyed import KEYS, keyed_pool, owners, pick_for, policy_of, settle
from tests.core.fleet import numbered, specs


def table(pool: Pool) -> list[Backend]:
    settle(pool)
    pick_for(pool, b"any")
    found: list[Backend] = policy_of(pool).table  # type: ignore[attr-defined]
    assert len(found) == SLOTS == 65537
    return found


@pytest.mark.parametrize("count", [2, 3, 10, 1000])
def test_slot_counts_differ_by_one_at_most(count: int) -> None:
    counts = Counter(table(keyed_pool(numbered([1] * count), "maglev")))
    assert len(counts) == count
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("weights", [{"a": 5, "b": 1, "c": 1}, {"a": 1000, "b": 1}, {"a": 7, "b": 3}])
def test_slots_go_by_weight(weights: dict[str, int]) -> None:
    """A turn is 1 at most off, and the last round may be broken off anywhere."""
    pool = keyed_pool(specs(**weights), "maglev")
    counts = Counter(backend.id for backend in table(pool))
    for name, weight in weights.items():
        assert abs(counts[name] - SLOTS * weight / sum(weights.values())) <= 2


@pytest.mark.parametrize(("count", "share"), [(10, 0.102), (100, 0.0157), (1000, 0.0072)])
def test_removing_one_changes_so_many_entries(count: int, share: float) -> None:
    """The paper's table of 65,537 slots. Its own 1/n must move; others move since turns are taken anew.

    The mean of several removals; what they differ by is their own standard error, five times over.
    """
    pool = keyed_pool(numbered([1] * count), "maglev")
    before = table(pool)
    changed = []
    for number in range(0, count, count // 10):
        backend = pool.backends[f"b{number}"]
        pool.set_health(backend, False)
        after = table(pool)
        changed.append(sum(one is not other for one, other in zip(before, after, strict=True)) / SLOTS)
        pool.set_health(backend, True)
    mean = sum(changed) / len(changed)
    error = (sum((each - mean) ** 2 for each in changed) / (len(changed) - 1) / len(changed)) ** 0.5
    assert min(changed) >= 1 / count - 1 / SLOTS
    assert abs(mean - share) <= 5 * error + 0.00005 * (10 if count == 10 else 1)  # as far as it is rounded


def test_a_key_goes_by_its_slot() -> None:
    pool = keyed_pool(numbered([1] * 7), "maglev")
    slots = table(pool)
    for key in (b"a", b"b", b"192.0.2.1"):
        assert pick_for(pool, key) is slots[hash_of(key) % SLOTS]


def test_changes_one_upon_another_make_one_table_a_second() -> None:
    """Meanwhile nobody is picked who has left, and all other keys stay where they are."""
    pool = keyed_pool(specs(a=1, b=1, c=1), "maglev")
    before = owners(pool)
    pick_for(pool, b"any")
    pool.update(specs(a=1, b=1))
    first = owners(pool)
    made = table_of(pool)
    pool.update(specs(a=1, c=1, d=1))
    now = {key: pick_for(pool, key).id for key in KEYS}
    assert table_of(pool) is made
    assert set(now.values()) == {"a"}  # c and d are not in it yet
    settle(pool)
    assert set(owners(pool).values()) == {"a", "c", "d"}
    assert table_of(pool) is not made
    pool.update(specs(a=1, b=1, c=1))
    assert owners(pool) == before
    assert set(first.values()) == {"a", "b"}


def table_of(pool: Pool) -> object:
    return policy_of(pool).table  # type: ignore[attr-defined]
