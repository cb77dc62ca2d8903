"""What the policies share that send requests of one key to one backend (consistent hashing).

They differ in `Keyed.owner`: whom a hash belongs to. The rest is here: where the key comes from, who is asked
instead of a backend that is full or was tried, and what becomes of a request without a key.

Hashes are the same in every process and on every machine, and depend on the backends' IDs alone, not on their
order: any number of balancers agree.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Sequence
from hashlib import blake2b
from math import ceil
from random import Random
from struct import unpack
from typing import ClassVar

from lb.balance.base import Balancer, at_least
from lb.balance.p2c import PowerOfTwo
from lb.core.affinity import key_reader
from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.failure import Failure
from lb.core.message import Request

SIZE = 2**64
"""Hashes are whole numbers below this."""

ARC = 64
"""So many points an arc of a ring has, give or take."""

OTHERS = 64
"""So many other backends a key may be sent to, in an order of its own, before the least busy one takes it.
With a bound of c, no more than 1/c of the backends are full: 0.91^64 = 0.2 % get there where c is 1.1."""


def hash_of(key: bytes) -> int:
    """A key's hash: 64 bits of BLAKE2 (RFC 7693)."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


def rehashed(hash_: int) -> int:
    """Another hash, for a second choice that has nothing to do with the first."""
    return hash_of(hash_.to_bytes(8, "little"))


def hashes_of(name: str, count: int) -> list[int]:
    """So many hashes of a name. Of fewer, they are the first: who gets more keeps what it has."""
    found: list[int] = []
    while len(found) < count:  # eight at a time
        found += unpack("<8Q", blake2b(f"{name} {len(found)}".encode()).digest())
    return found[:count]


class Ring:
    """Points of backends on a circle of hashes.

    The circle is cut into arcs of the same length, so many that each has some hundred points: who comes or
    goes changes a few short arrays, however large the ring is.
    """

    def __init__(self) -> None:
        self._counts: dict[Backend, int] = {}
        self._arcs = [_Arc()]
        self._shift = 64  # an arc is called by what is left of a hash that is shifted by so many bits

    def put(self, counts: dict[Backend, int]) -> None:
        """So many points for each backend, and none for others. Points that stay are where they were."""
        before, self._counts = self._counts, counts
        if not ARC / 4 < sum(counts.values()) / len(self._arcs) < ARC * 4:
            before = {}
            self._cut(sum(counts.values()))
        for backend, count in before.items():  # first, since another one of the same ID may have come
            left = counts.get(backend, 0)
            if count > left:
                for point in hashes_of(backend.id, count)[left:]:
                    self._arcs[point >> self._shift].remove(point, backend)
        for backend, count in counts.items():
            there = before.get(backend, 0)
            if count > there:
                for point in hashes_of(backend.id, count)[there:]:
                    self._arcs[point >> self._shift].add(point, backend)

    def _cut(self, points: int) -> None:
        bits = (points // ARC).bit_length()
        self._arcs, self._shift = [_Arc() for _ in range(2**bits)], 64 - bits

    @property
    def points(self) -> list[int]:
        """All of them, in order."""
        return [point for arc in self._arcs for point in arc.points]

    def behind(self, hash_: int) -> int:
        """The first point that isn't before this: beyond `SIZE`, where that is only after a whole turn."""
        number = hash_ >> self._shift
        points = self._arcs[number].points
        place = bisect_left(points, hash_)
        if place < len(points):
            return points[place]
        arcs = self._arcs
        for further in range(number + 1, len(arcs)):
            if arcs[further].points:
                return arcs[further].points[0]
        return SIZE + next(arc.points[0] for arc in arcs if arc.points)

    def at(self, point: int) -> Backend:
        """Whose point this is."""
        point %= SIZE
        arc = self._arcs[point >> self._shift]
        return arc.owners[bisect_left(arc.points, point)]


class _Arc:
    """A part of a ring: its points in order, beside each other in memory, and whose they are."""

    __slots__ = ("owners", "points")

    def __init__(self) -> None:
        self.points = array("Q")
        self.owners: list[Backend] = []

    def add(self, point: int, owner: Backend) -> None:
        place = bisect_left(self.points, point)
        self.points.insert(place, point)
        self.owners.insert(place, owner)

    def remove(self, point: int, owner: Backend) -> None:
        place = bisect_left(self.points, point)
        while self.owners[place] is not owner:  # two of 2^64 may be the same
            place += 1
        del self.points[place], self.owners[place]


class InFlight:
    """How many requests of this process a set of backends has in flight, kept at hand."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._each = {backend: backend.own for backend in backends}
        self.total = sum(self._each.values())

    def changed(self, backend: Backend) -> None:
        """It may have more or fewer now. One that is not in the set is nobody's business."""
        before = self._each.get(backend)
        if before is not None:
            self._each[backend] = backend.own
            self.total += backend.own - before


class Keyed(Balancer):
    """Requests of one key go to one backend. A request without a key goes where p2c sends it.

    With a `bounded_load` of c, a backend takes no more than c times its share of the requests that are in
    flight, the one to be sent included, rounded up (Mirrokni, Thorup and Zadimoghaddam, 2016). What is above
    goes to others, drawn by the key (Chen, Coleman and Shrivastava, 2021): what overflows spreads, and does
    not fill the next one. Each process bounds its own requests. 0 is no bound.
    """

    checks: ClassVar = {"key": key_reader, "bounded_load": at_least(1)}
    place = "its key's place"
    rest = 0.0  # seconds from one time that `prepare` is called to the next, where it takes long
    fleet: Sequence[Backend] = ()

    def __init__(self, clock: Clock, rng: Random, key: str = "client", bounded_load: float = 0.0) -> None:
        super().__init__(clock, rng)
        self.key_of = key_reader(key)
        self.bound = bounded_load
        self.keyless = PowerOfTwo(clock, rng)
        self.weights: dict[Backend, int] = {}
        self.stale = False
        self.due = 0.0  # when what is stale may be prepared anew
        if bounded_load:
            self.on_start = self.on_end = self._count  # type: ignore[method-assign]

    def prepare(self, weights: dict[Backend, int]) -> None:
        """These are the backends with their weights from now on, in the order of their IDs."""
        raise NotImplementedError

    def owner(self, hash_: int) -> Backend:
        """Whom a hash belongs to."""
        raise NotImplementedError

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self.fleet = backends
        self.keyless.rebuild(backends)
        weights = {backend: backend.weight for backend in sorted(backends, key=lambda each: each.id)}
        self.stale = self.stale or weights != self.weights
        self.weights = weights
        if self.bound:
            self.load, self.sum = InFlight(backends), sum(weights.values())

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        key = b"" if request is None else request.key
        if not key:
            backend = self.keyless.pick(request, backends)
            self.reason, self.looked = "it has no key: not the busier of two drawn", self.keyless.looked
            return backend
        if self.stale and self.clock.time() >= self.due:
            # Not in `rebuild`, of which there may be several before anyone asks.
            self.prepare(self.weights)
            self.stale, self.due = False, self.clock.time() + self.rest
        among: Collection[Backend] = self.weights if backends is self.fleet else backends
        hash_ = hash_of(key)
        backend = self.owner(hash_)
        if backend in among and not (self.bound and self._is_full(backend)):
            self.reason, self.looked = self.place, (backend,)
            return backend
        return self._instead(hash_, backend, among if among is self.weights else frozenset(among))

    def _instead(self, hash_: int, owner: Backend, backends: Collection[Backend]) -> Backend:
        """Another one, where the owner can't take it. Both are shown."""
        backend = self._next(hash_, backends)
        self.looked = (backend, owner)
        return backend

    def _next(self, hash_: int, backends: Collection[Backend]) -> Backend:
        self.reason = f"{self.place} is another's, which can't take it: the next in the key's own order"
        for _ in range(OTHERS):
            hash_ = rehashed(hash_)
            backend = self.owner(hash_)
            if backend in backends and not (self.bound and self._is_full(backend)):
                return backend
        # The one of the smallest load for its weight has less than its share of all, so it is not full.
        return min(backends, key=lambda each: (each.own / each.weight, each.id))

    def _is_full(self, backend: Backend) -> bool:
        most = ceil(self.bound * (self.load.total + 1) * backend.weight / self.sum)
        return backend.own >= most

    def _count(self, backend: Backend, started: float = 0.0, failure: Failure | None = None) -> None:
        self.load.changed(backend)
