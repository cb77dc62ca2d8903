"""What policies share: drawing backends by weight, drawing two, and keeping the best one at hand."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import cycle, permutations
from operator import attrgetter
from random import Random

from lb.core.backend import Backend

FEW = 16  # backends whose pairs are kept

_weight = attrgetter("weight")

Rank = tuple[float, float]
Entry = tuple[Rank, int, Backend]  # the place in the set decides between equals

LOOKED_AT = 8
"""Where ranks change unseen, so many backends are looked at for each pick. Each takes 0.3 µs."""


class Shares:
    """Draws backends at random by weight: O(1) where few weights differ, O(log n) where all do.

    Backends of one weight lie side by side on a line, each as long as its weight. So a place on the line is
    found by looking at the ends of the weights alone, and the rest is a division: nothing as large as the
    fleet has to be searched, which would miss the processor's caches at each step.
    """

    def __init__(self, backends: Sequence[Backend], weights: Sequence[int] = ()) -> None:
        """The weights are those of the backends, or others where they are given."""
        self.backends = backends
        weights = weights or [*map(_weight, backends)]
        self.equal = len(set(weights)) <= 1
        # All pairs of a small fleet, so that drawing two is drawing one of them.
        self.pairs = tuple(permutations(backends, 2)) if self.equal and len(backends) <= FEW else ()
        self.groups: list[tuple[int, int, Sequence[Backend]]] = []  # where each begins, its weight, and who
        self.ends: list[int] = []
        if not self.equal:
            self._line_up(weights)

    def _line_up(self, weights: Sequence[int]) -> None:
        by_weight: dict[int, list[Backend]] = {}
        for backend, weight in zip(self.backends, weights, strict=True):
            by_weight.setdefault(weight, []).append(backend)
        end = 0
        for weight, group in by_weight.items():
            self.groups.append((end, weight, group))
            end += weight * len(group)
            self.ends.append(end)

    def draw(self, rng: Random) -> Backend:
        if self.equal:
            return self.backends[int(rng.random() * len(self.backends))]
        place = int(rng.random() * self.ends[-1])
        start, weight, group = self.groups[bisect_right(self.ends, place)]
        return group[(place - start) // weight]


def two_of(shares: Shares, rng: Random) -> tuple[Backend, Backend]:
    """Two different ones, drawn by weight. With replacement the busiest could win against itself.

    The second is drawn from what the first one leaves of the sum of weights.
    """
    if shares.pairs:
        return shares.pairs[int(rng.random() * len(shares.pairs))]
    backends = shares.backends
    if shares.equal:
        others = len(backends) - 1
        i, j = divmod(int(rng.random() * (others + 1) * others), others)
        return backends[i], backends[j if j < i else j + 1]
    ends = shares.ends
    place = int(rng.random() * ends[-1])
    start, weight, group = shares.groups[bisect_right(ends, place)]
    at = (place - start) // weight
    other = int(rng.random() * (ends[-1] - weight))
    if other >= start + at * weight:  # the first one's stretch of the line is left out
        other += weight
    start, weight, others_group = shares.groups[bisect_right(ends, other)]
    return group[at], others_group[(other - start) // weight]


def any_two(shares: Shares, rng: Random) -> tuple[Backend, Backend]:
    """Two drawn by weight, which may be one and the same."""
    return shares.draw(rng), shares.draw(rng)


def less_busy(a: Backend, b: Backend, weights: Mapping[Backend, int], rng: Random) -> Backend:
    """Of two drawn by these weights, the first one drawn being `a`. These are looked up only where they tell.

    If they are equally busy, the first: exactly its share. Of different weights, the chance is as weight over
    requests in flight (and this one).
    """
    busy_a, busy_b = a.in_flight, b.in_flight
    if busy_a == busy_b:
        return a
    weight_a, weight_b = weights[a], weights[b]
    if weight_a == weight_b:
        return a if busy_a < busy_b else b
    for_a, for_b = weight_a / (busy_a + 1), weight_b / (busy_b + 1)
    return a if rng.random() * (for_a + for_b) < for_a else b


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
