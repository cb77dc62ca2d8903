"""Rendezvous: the backend of the best score for the key (Thaler and Ravishankar, 1998), with no full scan."""

from lb.balance.hashing import SIZE, Keyed, Ring
from lb.core.backend import Backend

POINTS, PROBES = 16, 8
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: multiples of it lie evenly


class Rendezvous(Keyed, name="rendezvous"):
    """A key probes a circle at several places; a backend's score is how near it is behind one of them.

    The nearest, for its weight, wins (multi-probe hashing, Appleton and O'Reilly, 2015). A score depends on
    the key and that backend alone, so who comes or goes moves its own keys only, and so does a weight.
    O(different weights * log n); shares differ by 6 %, with a tenth of a ring's points.
    """

    place = "the best score for its key"

    def prepare(self, weights: dict[Backend, int]) -> None:
        by_weight: dict[int, dict[Backend, int]] = {}
        for backend, weight in weights.items():
            by_weight.setdefault(weight, {})[backend] = POINTS
        before = getattr(self, "rings", {})
        self.rings = {weight: before.get(weight) or Ring() for weight in by_weight}
        for weight, counts in by_weight.items():
            self.rings[weight].put(counts)

    def owner(self, hash_: int) -> Backend:
        step = hash_ * GOLDEN % SIZE | 1
        probes = [(hash_ + each * step) % SIZE for each in range(PROBES)]
        ranks = []
        for weight, ring in self.rings.items():
            distance, point = min([(behind - p, behind) for p in probes if (behind := ring.behind(p))])
            ranks.append((distance / weight, point, weight))
        _, point, weight = min(ranks)
        return self.rings[weight].at(point)
