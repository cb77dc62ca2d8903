"""Smooth weighted round robin, as nginx has it since 1.3.1."""

from collections.abc import Sequence
from heapq import heapreplace

from lb.balance.base import Balancer
from lb.core.backend import Backend
from lb.core.message import Request


class RoundRobin(Balancer, name="round_robin"):
    """Each in turn, spread as evenly as the weights allow: 5, 1, 1 gives a a b a c a a.

    All earn their weight; the richest is picked and pays the sum of all weights. Those of one weight
    earn alike, so only the least indebted of each is compared: O(different weights + log n).
    """

    reason = "next in turn"
    fleet: Sequence[Backend] = ()

    def rebuild(self, backends: Sequence[Backend]) -> None:
        kept, self.fleet = self._debts() if self.fleet else {}, backends
        self.total = sum(b.weight for b in backends)
        self.heaps: dict[int, list[tuple[int, int, Backend]]] = {}  # by weight: debt, place, backend
        for entry in sorted((kept.get(b, 0), place, b) for place, b in enumerate(backends)):
            self.heaps.setdefault(entry[2].weight, []).append(entry)
        self.earned = dict.fromkeys(self.heaps, 0)

    def _debts(self) -> dict[Backend, int]:
        return {b: debt - self.earned[w] for w, heap in self.heaps.items() for debt, _, b in heap}

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        if backends is not self.fleet:  # a part of it, after a failed attempt: out of turn
            return min(backends, key=self._debts().__getitem__)
        for w in self.earned:
            self.earned[w] += w
        heap = min(self.heaps.values(), key=lambda h: (h[0][0] - self.earned[h[0][2].weight], h[0][1]))
        return heapreplace(heap, (heap[0][0] + self.total, *heap[0][1:]))[2]
