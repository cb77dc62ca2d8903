"""A ring of hashes, as ketama has it (Karger et al., 1997)."""

from random import Random
from typing import ClassVar

from lb.balance.base import at_least
from lb.balance.hashing import Keyed, Ring
from lb.core.backend import Backend
from lb.core.clock import Clock


class RingHash(Keyed, name="ring_hash"):
    """Each backend has many points on a ring; a key belongs to the first point behind its hash. O(log n).

    The heaviest ones have `vnodes` points, others as their weight says. Who comes or goes moves its own keys
    only. Shares differ by 1/√vnodes (standard deviation).
    """

    checks: ClassVar = {**Keyed.checks, "vnodes": at_least(1)}
    place = "the first behind its key on the ring"

    def __init__(
        self, clock: Clock, rng: Random, key: str = "client", bounded_load: float = 0.0, vnodes: int = 160
    ) -> None:
        super().__init__(clock, rng, key, bounded_load)
        self.vnodes = vnodes
        self.ring = Ring()

    def prepare(self, weights: dict[Backend, int]) -> None:
        unit = self.vnodes / max(weights.values())
        self.ring.put({backend: max(1, round(weight * unit)) for backend, weight in weights.items()})

    def owner(self, hash_: int) -> Backend:
        return self.ring.at(self.ring.behind(hash_))
