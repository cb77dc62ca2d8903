"""Rendezvous: the score of a backend for a key is its own, and the best one wins."""

from __future__ import annotations

from collections import Counter

import pytest

from lb.balance.hashing import SIZE, hash_of, hashes_of
from lb.balance.rendezvous import GOLDEN, POINTS, PROBES
from lb.core.backend import BackendSpec
from tests.balance.chance import SIGMAS
from tests.balance.keyed import KEYS, keyed_pool, owners
from tests.core.fleet import numbered, specs


def score(name: str, weight: int, key: bytes) -> float:
    """How near one of the backend's points is behind one of the key's probes, for its weight. By hand."""
    hash_ = hash_of(key)
    probes = [(hash_ + each * (hash_ * GOLDEN % SIZE | 1)) % SIZE for each in range(PROBES)]
    return min((point - probe) % SIZE for point in hashes_of(name, POINTS) for probe in probes) / weight


@pytest.mark.parametrize("weights", [(1, 1), (1,) * 9, (3, 1, 2), (5, 5, 1, 1, 1000)])
def test_the_best_score_wins(weights: tuple[int, ...]) -> None:
    backends = numbered(weights)
    found = owners(keyed_pool(backends, "rendezvous"), KEYS[:200])
    for key, name in found.items():
        assert name == min(backends, key=lambda each: score(each.id, each.weight, key)).id


def spread() -> float:
    """How much shares differ, relative to their mean (standard deviation).

    Let there be points at a mean distance of 1 and k probes for as long a stretch. The winner's distance has
    the density k·e^(-kx), and a point can only win with one that is shorter than the gap g before it: it has
    1 - e^(-kg) of what it would have at most. Of exponential g, the mean is k / (k + 1), and the variance
    1 / (2k + 1) - 1 / (k + 1)². A backend adds up `POINTS` of them.
    """
    k = PROBES
    variance = 1 / (2 * k + 1) - 1 / (k + 1) ** 2
    return variance**0.5 / (k / (k + 1)) / POINTS**0.5


def test_shares_differ_by_what_the_probes_leave() -> None:
    """Counted in keys, of which those of one backend differ by chance too. 300 shares: 4 % error of each."""
    assert 0.05 < spread() < 0.07
    n, shares = 10, []
    for fleet in range(30):
        pool = keyed_pool([BackendSpec(f"{fleet}-{each}", "h.test", 1) for each in range(n)], "rendezvous")
        counts = Counter(owners(pool, KEYS[:2000]).values())
        shares += [counts[name] * n / 2000 for name in pool.backends]
    found = sum((share - 1) ** 2 for share in shares) / len(shares)
    expected = (spread() ** 2 + n / 2000) * (1 - 1 / n)
    assert abs(found / expected - 1) <= SIGMAS * (2 / len(shares)) ** 0.5


def test_keys_go_by_weight() -> None:
    """Over 40 fleets; of each the share differs by the spread of both, of n backends by about that of one."""
    found = []
    for fleet in range(40):
        backends = [BackendSpec(f"{fleet}-{weight}", "h.test", 1, weight) for weight in (3, 1)]
        counts = Counter(owners(keyed_pool(backends, "rendezvous"), KEYS[:500]).values())
        found.append(counts[f"{fleet}-3"] / 500)
    mean = sum(found) / 40
    error = (sum((each - mean) ** 2 for each in found) / 39 / 40) ** 0.5
    assert error < 0.02
    assert abs(mean - 0.75) <= SIGMAS * error


def test_a_scale_of_all_weights_changes_nothing() -> None:
    one, other = (keyed_pool(specs(a=w, b=w, c=2 * w), "rendezvous") for w in (1, 1000))
    assert owners(one) == owners(other)
