"""Least requests in flight."""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lb.balance.base import Balancer, at_least
from lb.balance.choosers import Drawn, Least
from lb.balance.meters import busy
from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.failure import Failure
from lb.core.message import Request


class LeastRequest(Balancer, name="least_request"):
    """The one with the fewest requests in flight for its weight: of all, or of `choices` drawn at random."""

    checks: ClassVar = {"choices": at_least(0)}

    def __init__(self, clock: Clock, rng: Random, choices: int = 0) -> None:
        super().__init__(clock, rng)
        self.chooser = Drawn(choices, busy, rng) if choices else Least()
        self.reason, self.score_of = self.chooser.reason, self.chooser.score_of
        if choices:
            self.on_start, self.on_end = super().on_start, super().on_end  # type: ignore[method-assign]

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.chooser.rebuild(backends)

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        self.looked = self.chooser.pick(backends)
        return self.looked[0]

    def on_start(self, backend: Backend) -> None:
        self.chooser.started(backend)

    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        self.chooser.ended(backend)
