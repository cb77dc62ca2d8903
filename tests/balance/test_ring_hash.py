"""The ring: how even its shares are, and how many keys move. The formulas are those of a Dirichlet law."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.balance.hashing import SIZE, Ring
from lb.core.backend import Backend, BackendSpec
from tests.balance.chance import SIGMAS, assert_share
from tests.balance.keyed import KEYS, keyed_pool, moved, owners
from tests.core.fleet import numbered, specs

ALL = [Backend(BackendSpec(f"b{number}", "h.test", number + 1)) for number in range(40)]


def relative_shares(ring: Ring, backends: int) -> list[float]:
    """The length of all arcs of each backend, 1 being the mean."""
    found: Counter[str] = Counter()
    before = ring.points[-1] - SIZE
    for point in ring.points:
        found[ring.at(point).id] += point - before
        before = point
    return [length * backends / SIZE for length in found.values()]


@pytest.mark.parametrize("vnodes", [1, 16, 160])
def test_shares_differ_by_1_over_the_root_of_vnodes(vnodes: int) -> None:
    """v of n·v arcs of a circle cut at random have a Beta(v, n·v - v) share of it: for its n-fold a variance
    of (n - 1) / (n·v + 1), close to 1 / v.

    Of r shares, the relative error of the standard deviation is √((κ - 1) / 4r), where the kurtosis κ of so
    many added arcs is 3 + 6 / v.
    """
    n, fleets = 100, 20
    shares = []
    for fleet in range(fleets):
        ring = Ring()
        ring.put({Backend(BackendSpec(f"{fleet}-{number}", "h.test", 1)): vnodes for number in range(n)})
        assert len(ring.points) == n * vnodes
        shares += relative_shares(ring, n)
    found = (sum((share - 1) ** 2 for share in shares) / len(shares)) ** 0.5
    expected = ((n - 1) / (n * vnodes + 1)) ** 0.5
    assert expected == pytest.approx(vnodes**-0.5, rel=0.01)
    error = ((2 + 6 / vnodes) / (4 * len(shares))) ** 0.5
    assert abs(found / expected - 1) <= SIGMAS * error


@given(
    st.lists(st.dictionaries(st.sampled_from(ALL), st.integers(1, 40), min_size=1), min_size=1, max_size=6)
)
def test_a_ring_that_has_changed_is_as_one_made_anew(series: list[dict[Backend, int]]) -> None:
    """Also where it has grown or shrunk so much that it is cut into other arcs."""
    ring, anew = Ring(), Ring()
    for counts in series:
        ring.put(counts)
    anew.put(series[-1])
    assert ring.points == anew.points == sorted(ring.points)
    assert [ring.at(point) for point in ring.points] == [anew.at(point) for point in ring.points]
    for point, after in zip(ring.points, [*ring.points[1:], ring.points[0] + SIZE], strict=True):
        assert ring.behind(point) == point
        assert ring.behind((point + 1) % SIZE) == after


def test_removing_one_of_ten_moves_a_tenth_of_the_keys_and_none_of_the_others() -> None:
    """Its share is a tenth give or take 1/√vnodes of it, and the keys are drawn from that."""
    pool = keyed_pool(numbered([1] * 10), "ring_hash")
    before = owners(pool)
    for name in list(pool.backends):
        pool.set_health(pool.backends[name], False)
        gone = moved(before, owners(pool))
        pool.set_health(pool.backends[name], True)
        assert {source for source, _ in gone} == {name}
        sigma = 0.1 * (1 / 160 + 9 / len(KEYS)) ** 0.5
        assert abs(len(gone) / len(KEYS) - 0.1) <= SIGMAS * sigma


def test_weights_are_points() -> None:
    pool = keyed_pool(specs(a=4, b=2, c=1, d=1000, e=1), "ring_hash", vnodes=500)
    owners(pool, KEYS[:1])
    ring = pool.policy.ring  # type: ignore[attr-defined]
    counts = Counter(ring.at(point).id for point in ring.points)
    assert counts == {"a": 2, "b": 1, "c": 1, "d": 500, "e": 1}  # no one has none


def test_keys_go_by_weight() -> None:
    pool = keyed_pool(specs(a=3, b=1), "ring_hash", vnodes=3000)
    # The share of a is Beta(3000, 1000): 3/4 give or take √(3/16 / 4001) = 0.7 %, as good as a constant
    # beside what is left to the keys.
    counts = Counter(owners(pool).values())
    assert abs(counts["a"] / len(KEYS) - 0.75) <= SIGMAS * (3 / 16 * (1 / 4001 + 1 / len(KEYS))) ** 0.5


def test_a_scale_of_all_weights_changes_nothing() -> None:
    """The pool makes all weights a thousand times as large when a backend starts slowly."""
    one, other = (keyed_pool(specs(a=w, b=w, c=2 * w), "ring_hash") for w in (1, 1000))
    assert owners(one) == owners(other)


def test_a_key_lies_on_the_arc_of_its_owner() -> None:
    pool = keyed_pool(numbered([1] * 10), "ring_hash", vnodes=1)
    counts = Counter(owners(pool).values())
    ring = pool.policy.ring  # type: ignore[attr-defined]
    before = ring.points[-1] - SIZE
    for point in ring.points:
        assert_share(counts[ring.at(point).id], len(KEYS), (point - before) / SIZE)
        before = point
