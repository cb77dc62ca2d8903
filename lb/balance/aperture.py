"""A deterministic aperture, as Finagle has it: of a large fleet each of many balancers uses but a part."""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lb.balance.base import Balancer, at_least, with_this_one
from lb.balance.load import Shares, less_busy, two_of
from lb.balance.ring import peer_of, window
from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.message import Request


class Aperture(Balancer, name="aperture"):
    """The power of two choices among this balancer's part of the fleet: `peer` of so many `peers`.

    Together these parts cover all of it evenly. Each has `size` backends at least. O(1).
    """

    checks: ClassVar = {"peers": at_least(1), "peer": at_least(0), "size": at_least(1)}
    score_of = staticmethod(with_this_one)
    reason = "not the busier of two drawn of this balancer's part"

    def __init__(self, clock: Clock, rng: Random, peer: int = 0, peers: int = 1, size: int = 12) -> None:
        super().__init__(clock, rng)
        self.place, self.places = (peer_of(peer, peers), peers, size), dict[str, bytes]()

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.fleet, self.part = backends, window(backends, *self.place, self.places)
        self.shares = Shares(list(self.part), list(self.part.values()))

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        shares, part = self.shares, self.part
        if backends is not self.fleet:
            part = {each: part[each] for each in backends if each in part} or {e: e.weight for e in backends}
            shares = Shares(list(part), list(part.values()))
        self.looked = a, b = two_of(shares, self.rng) if len(part) > 1 else (*part, *part)
        return less_busy(a, b, part, self.rng)
