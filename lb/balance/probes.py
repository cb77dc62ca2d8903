"""Probes, as Prequal has them (Wydrowski et al., "Load is not what you should balance", NSDI '24, section 4):
what a backend was like a moment ago, good for a few picks and for a second.

Prequal asks replicas at random for their requests in flight and their latency. We need not ask: our own
requests in flight are known, those of our other workers too, and so is how long late requests took. So a
probe is a look, of which there are some at random with each request, and one where a request ends. What other
balancers have in flight we learn from the latency alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from operator import attrgetter
from random import Random
from typing import Any

from lb.balance.base import above, at_least
from lb.balance.load import Shares
from lb.balance.meters import Latency
from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.failure import Failure

_rank = attrgetter("rank")

Picked = tuple[Backend, str, Sequence[Backend], Sequence[float]]

FEWEST = 2
"""With fewer probes a pick is by chance: the paper's section 4.3."""

SHOWN = 8
"""So many probes `lb explain` shows."""

SIZE = 16
"""Probes at most, as in the paper."""

AGE = 1.0
"""Seconds that a probe is good for, as in the paper."""

SPARE = 1.0
"""The paper's delta: the pool of probes is to gain as many as are used up, and this much more."""


def between_0_and_1(value: float) -> None:
    """A check of an option."""
    if not 0 <= value <= 1:
        raise ValueError(f"must be a share from 0 to 1, not {value}")


CHECKS: Mapping[str, Callable[[Any], object]] = {
    "probes": at_least(1),
    "hot": between_0_and_1,
    "penalty": above(0),
}
"""Of the options of who goes by probes."""


class Probe:
    """A backend as it was at a time: its requests in flight for its weight, and the latency to expect there
    with these, in seconds."""

    __slots__ = ("at", "backend", "latency", "load", "rank", "uses")

    def __init__(self, backend: Backend, latency: float, at: float) -> None:
        self.backend = backend
        self.load = backend.in_flight / backend.weight
        self.latency = latency
        self.at = at
        self.uses = 0
        self.rank = (False, 0.0)  # whether it is hot, and then its load, else its latency


class Probes:
    """The pool of probes: at most `SIZE`, one of each backend, none older than `AGE` seconds.

    A probe is used as often as keeps the pool full: b_reuse of the paper's section 4, equation 1. With each
    pick one is taken out, in turn the oldest and the worst, so that bad ones don't gather.
    """

    def __init__(self, clock: Clock, latency: Latency, rate: int, quantile: float) -> None:
        self.rate = rate  # looks at random with each pick
        self.quantile = quantile
        self.uses = 1.0
        self.holds_all = True
        self._clock = clock
        self._latency = latency
        self._pool: dict[Backend, Probe] = {}  # the oldest first
        self._worst_next = False
        self.keep(())

    def keep(self, backends: Sequence[Backend]) -> None:
        """These are the backends from now on. Where the pool has room for all, none is taken out."""
        self._fleet, self._here = backends, frozenset(backends)
        self._latency.keep(backends)
        self._pool = {each: probe for each, probe in self._pool.items() if each in self._here}
        count = max(1, len(backends))
        self.holds_all = count <= SIZE
        gained = (1 - min(SIZE, count) / count) * self.rate - 1
        self.uses = max(1.0, (1 + SPARE) / gained) if gained > 0 else inf

    def pick(self, shares: Shares, rng: Random) -> Picked:
        """The backend, why, who was compared, and their latencies."""
        for _ in range(self.rate):
            self.look(shares.draw(rng))
        ranked = self.fresh()
        if shares.backends is not self._fleet:  # a part, after a failed attempt
            there = frozenset(shares.backends)
            ranked = [probe for probe in ranked if probe.backend in there]
        if len(ranked) < FEWEST:
            return shares.draw(rng), "too few probes: drawn at random by weight", (), ()
        best = self.best(ranked, rng)
        self.used(best, ranked)
        shown = [best, *[probe for probe in ranked[:SHOWN] if probe is not best]]
        reason = "all probed are hot: the least busy" if best.rank[0] else "the quickest of those not hot"
        return best.backend, reason, [each.backend for each in shown], [each.latency for each in shown]

    def look(self, backend: Backend) -> None:
        """A probe of this backend, in place of an older one. One that has left is nobody's business."""
        if backend not in self._here:
            return
        self._pool.pop(backend, None)
        if len(self._pool) >= SIZE:
            del self._pool[next(iter(self._pool))]
        self._pool[backend] = Probe(backend, self._latency.cost(backend), self._clock.time())

    def fresh(self) -> list[Probe]:
        """Those that are good for another pick, the best first: the cold ones by latency, then the hot ones
        by requests in flight. Hot is who has more of them than the quantile of all."""
        now, uses = self._clock.time() - AGE, self.uses
        fresh = [probe for probe in self._pool.values() if probe.at >= now and probe.uses < uses]
        if len(fresh) < len(self._pool):
            self._pool = {probe.backend: probe for probe in fresh}
        loads = sorted([probe.load for probe in fresh])
        limit = loads[int(self.quantile * (len(loads) - 1))] if loads else 0.0
        for probe in fresh:
            hot = probe.load > limit
            probe.rank = (hot, probe.load if hot else probe.latency)
        fresh.sort(key=_rank)
        return fresh

    def ended(self, backend: Backend, started: float, failure: Failure | None) -> None:
        """An attempt has ended. The paper keeps latencies by the requests in flight, and goes by those at so
        many as there are now. We keep the part that falls to each of them."""
        now = self._clock.time()
        part = (now - started) / (backend.in_flight + 1)
        self._latency.ended(backend, now - part, failure)
        self.look(backend)

    def best(self, ranked: Sequence[Probe], rng: Random) -> Probe:
        """The first one. Of several that are equally good, one by weight; those of a large fleet have been
        drawn by weight already."""
        equal = [probe for probe in ranked if probe.rank == ranked[0].rank]
        if len(equal) == 1:
            return equal[0]
        weights = [probe.backend.weight for probe in equal] if self.holds_all else None
        return rng.choices(equal, weights)[0]

    def used(self, probe: Probe, ranked: Sequence[Probe]) -> None:
        """It decided a pick among these, and has one more in flight from now on."""
        probe.uses += 1
        probe.load += 1 / probe.backend.weight
        if self.holds_all:
            return
        out = ranked[-1] if self._worst_next else next(iter(self._pool.values()))
        self._worst_next = not self._worst_next
        self._pool.pop(out.backend, None)
