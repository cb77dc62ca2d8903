"""Choosers: how the backend of the least cost is found. What costs is a matter of meters: see meters.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from lb.balance.load import Ranking, Shares, two_of
from lb.core.backend import Backend
from lb.core.seen import per_weight, with_this_one

DRAWS = 8
"""Draws for each one that is wanted: of very uneven weights, the light ones may not come up."""


class Least:
    """The one of the smallest load for its weight, over all backends. Exact, in O(log n).

    Equally loaded ones take turns by weight (start-time fair queueing): an idle fleet gets its shares.
    """

    reason = "the least busy for its weight"
    score_of = staticmethod(per_weight)

    def __init__(self) -> None:
        self.turns: dict[Backend, float] = {}
        self.rebuild(())

    def rebuild(self, backends: Sequence[Backend]) -> None:
        turns = self.turns
        self.now = min(turns.values(), default=0.0)
        # No one is further ahead than by one turn, whatever the weights were before.
        self.turns = {b: min(turns.get(b, self.now), self.now + 1 / b.weight) for b in backends}
        self.ranking = Ranking(backends, lambda b: (b.in_flight / b.weight, self.turns[b]))

    def pick(self, backends: Sequence[Backend]) -> Sequence[Backend]:
        return (self.ranking.first(backends),)

    def started(self, backend: Backend) -> None:
        if backend in self.turns:
            self.now = max(self.now, self.turns[backend])
            self.turns[backend] = self.now + 1 / backend.weight
            self.ranking.changed(backend)

    def ended(self, backend: Backend) -> None:
        self.ranking.changed(backend)


class Drawn:
    """Of so many different ones drawn by weight, the one of the least cost. O(1) with equal weights.

    Where costs are equal, the one that was drawn first: exactly its share. Where weights differ, the chance
    of each of two is as its weight over its cost.
    """

    reason = "the least busy of those drawn"
    score_of = staticmethod(with_this_one)

    def __init__(self, choices: int, cost: Callable[[Backend], float], rng: Random) -> None:
        self.choices = choices
        self.cost = cost
        self.rng = rng
        self.shares = Shares(())
        self.costs: Sequence[float] = ()

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.shares = Shares(backends)

    def pick(self, backends: Sequence[Backend]) -> Sequence[Backend]:
        """The one, and then those that it was compared with; `costs` are theirs, in this order."""
        shares, rng = self.shares, self.rng
        if backends is not shares.backends:
            shares = Shares(backends)
        drawn = two_of(shares, rng) if self.choices == 2 else some_of(shares, rng, self.choices)
        costs = [self.cost(each) for each in drawn]
        best = 0
        for other in range(1, len(drawn)):
            cost, least = costs[other], costs[best]
            if cost == least:
                continue
            if drawn[best].weight == drawn[other].weight or not (cost and least):
                better = cost < least
            else:
                for_other = drawn[other].weight / cost
                better = rng.random() * (for_other + drawn[best].weight / least) < for_other
            if better:
                best = other
        self.costs = (costs[best], *costs[:best], *costs[best + 1 :])
        return (drawn[best], *drawn[:best], *drawn[best + 1 :])

    def started(self, backend: Backend) -> None:
        """Nothing is kept."""

    def ended(self, backend: Backend) -> None:
        """Nothing is kept."""


def some_of(shares: Shares, rng: Random, count: int) -> Sequence[Backend]:
    """Up to so many different ones, drawn by weight, in the order in which they were drawn."""
    drawn: dict[Backend, None] = {shares.draw(rng): None}
    if count >= len(shares.backends):
        drawn.update(dict.fromkeys(shares.backends))
        return tuple(drawn)
    for _ in range(DRAWS * count):
        if len(drawn) == count:
            break
        drawn[shares.draw(rng)] = None
    return tuple(drawn)
