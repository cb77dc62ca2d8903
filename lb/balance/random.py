"""By chance."""

from collections.abc import Sequence

from lb.balance.base import Balancer
from lb.balance.load import Shares
from lb.core.backend import Backend
from lb.core.message import Request


class WeightedRandom(Balancer, name="random"):
    """Drawn at random, as often as the weights say. O(log n)."""

    reason = "drawn at random by weight"
    shares = Shares(())

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.shares = Shares(backends)

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        shares = self.shares if backends is self.shares.backends else Shares(backends)
        return shares.draw(self.rng)
