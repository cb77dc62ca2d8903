"""Least time: the latency of late, times the requests in flight."""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lb.balance.base import Balancer, above
from lb.balance.choosers import Drawn
from lb.balance.meters import Latency
from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.failure import Failure
from lb.core.message import Request


class LeastTime(Balancer, name="least_time"):
    """Of two drawn at random, the one whose mean latency times its requests in flight is less. O(1)."""

    reason = "less mean latency times requests in flight, of two drawn"
    checks: ClassVar = {"decay": above(0), "penalty": above(0)}
    meter: ClassVar[type[Latency]] = Latency

    def __init__(self, clock: Clock, rng: Random, decay: float = 10.0, penalty: float = 1.0) -> None:
        super().__init__(clock, rng)
        self.latency = self.meter(clock, decay, penalty)
        self.chooser = Drawn(2, self.latency.cost, rng)

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.latency.keep(backends)
        self.chooser.rebuild(backends)

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        self.looked, self.scores = self.chooser.pick(backends), self.chooser.costs
        return self.looked[0]

    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        self.latency.ended(backend, started, failure)
