"""Least requests in flight, over all backends."""

from collections.abc import Sequence

from lb.balance.base import Balancer
from lb.balance.load import Ranking
from lb.core.backend import Backend
from lb.core.failure import Failure
from lb.core.message import Request


class LeastRequest(Balancer, name="least_request"):
    """The one with the fewest requests in flight for its weight. Exact, in O(log n).

    Equally busy ones take turns by weight (start-time fair queueing): an idle fleet gets its shares.
    """

    reason = "the least busy for its weight"

    def rebuild(self, backends: Sequence[Backend]) -> None:
        turns = getattr(self, "turns", {})
        self.now = min(turns.values(), default=0.0)
        # No one is further ahead than by one turn, whatever the weights were before.
        self.turns = {b: min(turns.get(b, self.now), self.now + 1 / b.weight) for b in backends}
        self.ranking = Ranking(backends, lambda b: (b.in_flight / b.weight, self.turns[b]))

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        first = self.ranking.first(backends)
        self.looked = (first,)
        return first

    def on_start(self, backend: Backend) -> None:
        if backend in self.turns:
            self.now = max(self.now, self.turns[backend])
            self.turns[backend] = self.now + 1 / backend.weight
            self.ranking.changed(backend)

    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        self.ranking.changed(backend)
