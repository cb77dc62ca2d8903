"""The power of two choices (Mitzenmacher, 2001)."""

from collections.abc import Sequence
from random import Random

from lb.balance.base import Balancer, with_this_one
from lb.balance.load import Shares, any_two, two_of
from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.message import Request


class PowerOfTwo(Balancer, name="p2c"):
    """Of two drawn at random, the less busy: O(1), and the busiest of all is never picked.

    Of different weights, the chance is as weight / (in_flight + 1). `replacement`: both may be the same one.
    """

    score_of = staticmethod(with_this_one)
    reason = "not the busier of two drawn at random"
    shares = Shares(())

    def __init__(self, clock: Clock, rng: Random, replacement: bool = False) -> None:
        super().__init__(clock, rng)
        self.draw = any_two if replacement else two_of

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.shares = Shares(backends)

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        shares = self.shares if backends is self.shares.backends else Shares(backends)
        self.looked = a, b = self.draw(shares, self.rng)
        busy_a, busy_b = a.in_flight, b.in_flight
        if busy_a == busy_b:
            return a  # drawn first by weight: exactly its share
        if a.weight == b.weight:
            return a if busy_a < busy_b else b
        for_a, for_b = a.weight / (busy_a + 1), b.weight / (busy_b + 1)
        return a if self.rng.random() * (for_a + for_b) < for_a else b
