"""How far a count may stray when chance decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, log
from random import Random

SIGMAS = 5  # beyond: once in 1.7 million runs by chance; and the seeds are fixed


def assert_share(count: int, draws: int, share: float) -> None:
    """A count of a binomial: `draws` times by a chance of `share`, within five standard deviations."""
    sigma = (draws * share * (1 - share)) ** 0.5
    assert abs(count - draws * share) <= SIGMAS * sigma, f"{count} of {draws}, not {share:.3f} of them"


def assert_shares(counts: Mapping[str, int], draws: int, shares: Mapping[str, float]) -> None:
    """Each name's count is as its share says, and nobody else has one."""
    assert sum(counts.values()) == draws
    assert set(counts) <= set(shares)
    for name, share in shares.items():
        assert_share(counts.get(name, 0), draws, share)


def draws_to_reach(backends: int) -> int:
    """How many draws by equal chance reach all of so many, but for once in a billion times.

    The chance that any one is left out of d draws is below n * (1 - 1/n)^d.
    """
    return ceil(log(1e-9 / backends) / log(1 - 1 / backends))


class Scripted(Random):
    """Chance that comes out as it is told to."""

    def __new__(cls, outcomes: Iterable[float]) -> Scripted:
        return super().__new__(cls)

    def __init__(self, outcomes: Iterable[float]) -> None:
        super().__init__(0)
        self.outcomes = iter(outcomes)

    def random(self) -> float:
        return next(self.outcomes)


LEAST, MOST = 0.0, 1 - 2**-53
"""The ends of what `random()` returns."""
