"""What policies share: drawing backends by weight, drawing two, and keeping the best one at hand."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate, cycle, permutations
from random import Random

from lb.core.backend import Backend

FEW = 16  # backends whose pairs are kept

Rank = tuple[float, float]
Entry = tuple[Rank, int, Backend]  # the place in the set decides between equals

LOOKED_AT = 8
"""Where ranks change unseen, so many backends are looked at for each pick. Each takes 0.3 µs."""


class Shares:
    """Draws backends at random by weight, in O(log n)."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = backends
        self.equal = len({backend.weight for backend in backends}) <= 1
        self.ends = list(accumulate(backend.weight for backend in backends))
        # All pairs of a small fleet, so that drawing two is drawing one of them.
        few = self.equal and len(backends) <= FEW
        self.pairs = tuple(permutations(backends, 2)) if few else ()

    def draw(self, rng: Random) -> Backend:
        if self.equal:
            return self.backends[int(rng.random() * len(self.backends))]
        return self.backends[bisect_right(self.ends, int(rng.random() * self.ends[-1]))]


def two_of(shares: Shares, rng: Random) -> tuple[Backend, Backend]:
    """Two different ones, drawn by weight. With replacement the busiest could win against itself.

    The second is drawn from what the first one leaves of the sum of weights.
    """
    pairs = shares.pairs
    if pairs:
        return pairs[int(rng.random() * len(pairs))]
    backends = shares.backends
    if shares.equal:
        others = len(backends) - 1
        i, j = divmod(int(rng.random() * (others + 1) * others), others)
        return backends[i], backends[j if j < i else j + 1]
    ends = shares.ends
    i = bisect_right(ends, int(rng.random() * ends[-1]))
    start, end = ends[i] - backends[i].weight, ends[i]
    drawn = int(rng.random() * (ends[-1] - end + start))
    return backends[i], backends[bisect_right(ends, drawn if drawn < start else drawn + end - start)]


def any_two(shares: Shares, rng: Random) -> tuple[Backend, Backend]:
    """Two drawn by weight, which may be one and the same."""
    return shares.draw(rng), shares.draw(rng)


class Ranking:
    """The backend of the lowest rank at hand, while ranks change one at a time: O(log n) a change.

    A heap in which a change adds a new entry and outdates the old one, which is dropped when it comes up.

    Where other worker processes share the backends, ranks change unseen. Of a few backends, each is looked
    at; of more, a few in turn before each pick, and then whoever comes up first, so that it is as good as it
    seems. Who has become better unseen is found a moment later: there are others that are good.
    """

    def __init__(self, backends: Sequence[Backend], rank: Callable[[Backend], Rank]) -> None:
        self.backends = backends
        self.rank = rank
        self._unseen = any(backend.shared is not None for backend in backends)
        self._entries: dict[Backend, Entry] = {b: (rank(b), place, b) for place, b in enumerate(backends)}
        self._heap = sorted(self._entries.values())
        self._in_turn = cycle(backends)

    def first(self, backends: Sequence[Backend]) -> Backend:
        """The lowest of the whole set; of a part of it, as after a failed attempt, by looking at each."""
        if backends is not self.backends or (self._unseen and len(backends) <= LOOKED_AT):
            return min(backends, key=self.rank)
        if self._unseen:
            for _ in range(LOOKED_AT):
                self._look_at(next(self._in_turn))
        while True:
            backend = self._heap[0][2]
            if self._entries[backend] is not self._heap[0]:
                heappop(self._heap)
            elif not self._unseen or not self._look_at(backend):
                return backend

    def _look_at(self, backend: Backend) -> bool:
        """Whether this backend's rank has changed unseen. It is known from now on."""
        different = self.rank(backend) != self._entries[backend][0]
        if different:
            self.changed(backend)
        return different

    def changed(self, backend: Backend) -> None:
        """This backend's rank may be another now. One that is not in the set is nobody's business."""
        old = self._entries.get(backend)
        if old is None:
            return
        self._entries[backend] = entry = (self.rank(backend), old[1], backend)
        heappush(self._heap, entry)
        if len(self._heap) > 4 * len(self._entries) + 64:  # mostly outdated ones
            self._heap = list(self._entries.values())
            heapify(self._heap)
