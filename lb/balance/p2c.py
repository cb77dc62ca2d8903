"""The power of two choices (Mitzenmacher, 2001)."""

from collections.abc import Sequence

from lb.balance.base import Balancer
from lb.balance.load import Shares, two_of
from lb.core.backend import Backend
from lb.core.message import Request


class PowerOfTwo(Balancer, name="p2c"):
    """Of two drawn at random, the less busy: O(1), and the busiest of all is never picked.

    With different weights drawing is O(log n); where those of the two differ, the chance of each is as its
    weight over its requests in flight (and this one), so that idle backends get just their shares.
    """

    reason = "not the busier of two drawn at random"
    shares = Shares(())

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.shares = Shares(backends)

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        shares = self.shares if backends is self.shares.backends else Shares(backends)
        self.looked = a, b = two_of(shares, self.rng)
        busy_a, busy_b = a.in_flight, b.in_flight
        if busy_a == busy_b:
            return a  # drawn first by weight: exactly its share
        if a.weight == b.weight:
            return a if busy_a < busy_b else b
        for_a = a.weight / (busy_a + 1)
        for_b = b.weight / (busy_b + 1)
        return a if self.rng.random() * (for_a + for_b) < for_a else b
