"""Prequal, Google's (Wydrowski et al., NSDI '24): the quickest of those that aren't hot, by recent probes."""

from collections.abc import Sequence
from random import Random

from lb.balance.base import Balancer
from lb.balance.load import Shares
from lb.balance.meters import Latency
from lb.balance.probes import CHECKS, Probes
from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.failure import Failure
from lb.core.message import Request


class Prequal(Balancer, name="prequal"):
    """Of the probes at hand, the cold backend of the least latency; if all are hot, the least busy. O(1)."""

    checks = CHECKS

    def __init__(self, clock: Clock, rng: Random, probes: int = 3, hot: float = 0.84, penalty: float = 1.0):
        super().__init__(clock, rng)
        self.probes = Probes(clock, Latency(clock, 10.0, penalty), probes, hot)

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.shares = Shares(backends)
        self.probes.keep(backends)

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        shares = self.shares if backends is self.shares.backends else Shares(backends)
        picked, self.reason, self.looked, self.scores = self.probes.pick(shares, self.rng)
        return picked

    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        self.probes.ended(backend, started, failure)
