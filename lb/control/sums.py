"""The counts of all workers in one place: what they send, and how it adds up.

A worker sends what has come to its counters since the last time (`Tally`), and the supervisor adds that to
the counters of its own pools, backends and listeners (`Sums`), which metrics and the admin API show as ever.
So a worker's end takes nothing away: what it has sent stays counted, and goes with the backend, the listener
or the pool that it belongs to. What it had not sent yet is lost, which is no more than `INTERVAL` brings.

Gauges are sent as they are where they have changed. They are kept by worker, add up when they are asked for,
and go with the worker. Requests in flight are no business of this: the load table has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any

from lb.control.messages import Counts
from lb.core.backend import Backend, Histogram
from lb.core.pool import Pool
from lb.observe.clients import ClientMetrics

INTERVAL = 0.25
"""Seconds between two times that a worker sends its counts."""

PART = 0.02
"""Of a worker's time, so much at most goes into its counts: with many backends it sends less often."""

PIECE = 25
"""So many backends are read in one go, which takes a millisecond at most; then requests have a turn."""

BY_KEY = (
    *("requests", "failures", "rejected", "shadow_picks"),
    *("tunnel_ends", "handshakes", "proxy_headers"),
)
TOTALS = (
    *("sent", "received", "retries", "ejections", "policy_errors"),
    *("tunnel_sent", "tunnel_received", "tunnel_seconds"),
)
HISTOGRAMS = ("duration", "first_byte", "connect")

Owner = Backend | Pool | Any  # whatever has counters of these names
Gauges = Mapping[str, int]


class _Sent:
    """What has been sent of an owner's counters."""

    __slots__ = ("by_key", "gauges", "histograms", "totals")

    def __init__(self, owner: Owner) -> None:
        self.by_key: dict[str, dict[Any, int]] = {name: {} for name in BY_KEY if hasattr(owner, name)}
        self.totals = {name: 0 for name in TOTALS if hasattr(owner, name)}
        self.histograms = {
            name: ([0] * len(getattr(owner, name).counts), 0.0) for name in HISTOGRAMS if hasattr(owner, name)
        }
        self.gauges: dict[str, int] = {}

    def fresh(self, owner: Owner, gauges: Gauges) -> dict[str, Any]:
        """What has come since, and from now on counts as sent. Only what there is."""
        found: dict[str, Any] = {}
        for name, sent in self.by_key.items():
            now: dict[Any, int] = getattr(owner, name)
            if now != sent:
                found[name] = [(key, n - sent.get(key, 0)) for key, n in now.items() if n != sent.get(key)]
                self.by_key[name] = dict(now)
        for name, before in self.totals.items():
            count = getattr(owner, name)
            if count != before:
                found[name] = count - before
                self.totals[name] = count
        for name, (counts, seconds) in self.histograms.items():
            histogram: Histogram = getattr(owner, name)
            seen = histogram.counts
            if seen != counts:
                more = [(place, n - counts[place]) for place, n in enumerate(seen) if n != counts[place]]
                total = histogram.total
                found[name] = [more, total - seconds]
                self.histograms[name] = (seen.copy(), total)
        changed = {name: count for name, count in gauges.items() if count != self.gauges.get(name, 0)}
        if changed:
            found["gauges"] = changed
            self.gauges.update(changed)
        return found


def _none(owner: Any) -> Gauges:
    return {}


class Tally:
    """A worker's: knows what it has sent, and tells what is new.

    `pools` is asked each time, since a reload may replace them. `connections` says how many connections to a
    backend there are by state; `queued` how many requests wait for a pool.
    """

    def __init__(
        self,
        pools: Callable[[], Mapping[str, Pool]],
        clients: ClientMetrics,
        connections: Callable[[Backend], Gauges] = _none,
        queued: Callable[[Pool], int] = lambda pool: 0,
    ) -> None:
        self._pools = pools
        self._clients = clients
        self._connections = connections
        self._queued = queued
        self._sent: dict[Owner, _Sent] = {}
        self._took = 0.0

    @property
    def pause(self) -> float:
        """How long to wait before the next time, in seconds."""
        return max(INTERVAL, self._took / PART)

    def take(self) -> Iterator[Counts]:
        """What is new, in pieces of a millisecond's work at most. Each is to be sent, or it is lost.

        To be gone through to the end; between two pieces, anything may happen.
        """
        self._took = 0.0
        began = perf_counter()
        listeners, pools = [], []
        backends: list[tuple[str, Backend]] = []
        for name, stats in self._clients.listeners.items():
            if fresh := self._fresh(stats, {"connections": stats.connections}):
                listeners.append((name, fresh))
        for name, pool in self._pools().items():
            backends += [(name, backend) for backend in pool.backends.values()]
            if fresh := self._fresh(pool, {"queued": self._queued(pool), "tunnels": pool.tunnels}):
                pools.append((name, fresh))
        if listeners or pools:
            yield Counts(listeners, pools)
        for first in range(0, len(backends), PIECE):
            found = []
            for name, backend in backends[first : first + PIECE]:
                if fresh := self._fresh(backend, self._connections(backend)):
                    found.append(((name, backend.id, backend.spec.address), fresh))
            self._took += perf_counter() - began
            if found:
                yield Counts(backends=found)
            began = perf_counter()
        # As they are now: who came meanwhile may have been counted already.
        present = owners(self._pools(), self._clients)
        self._sent = {owner: sent for owner, sent in self._sent.items() if owner in present}

    def _fresh(self, owner: Owner, gauges: Gauges) -> dict[str, Any]:
        sent = self._sent.get(owner)
        if sent is None:
            sent = self._sent[owner] = _Sent(owner)
        return sent.fresh(owner, gauges)


class Sums:
    """The supervisor's: adds what workers send to its own counters, and keeps the gauges of each worker.

    Who is counted for but isn't there any more, a backend or a listener that has just left, is nobody's
    business.
    """

    def __init__(self, pools: Callable[[], Mapping[str, Pool]], clients: ClientMetrics) -> None:
        self._pools = pools
        self._clients = clients
        self._gauges: dict[object, dict[Owner, dict[str, int]]] = {}  # by worker, which may be anything

    def add(self, worker: object, counts: Counts) -> None:
        """What a worker has sent."""
        pools = self._pools()
        for name, fresh in counts.listeners:
            stats = self._clients.listeners.get(name)
            if stats is not None:
                self._merge(worker, stats, fresh)
                stats.connections = self.gauges(stats)["connections"]
        for name, fresh in counts.pools:
            if name in pools:
                self._merge(worker, pools[name], fresh)
                pools[name].tunnels = self.gauges(pools[name])["tunnels"]
        for (name, backend_id, address), fresh in counts.backends:
            backend = pools[name].backends.get(backend_id) if name in pools else None
            if backend is not None and backend.spec.address == address:
                self._merge(worker, backend, fresh)

    def _merge(self, worker: object, owner: Owner, fresh: dict[str, Any]) -> None:
        for name, more in fresh.items():
            if name == "gauges":
                self._gauges.setdefault(worker, {}).setdefault(owner, {}).update(more)
            elif name in BY_KEY:
                counts = getattr(owner, name)
                for value, count in more:
                    counts[value] = counts.get(value, 0) + count
            elif name in TOTALS:
                setattr(owner, name, getattr(owner, name) + more)
            elif name in HISTOGRAMS:
                getattr(owner, name).add(*more)

    def forget(self, worker: object) -> None:
        """A worker is gone: with it go its connections and who waited there. What it counted stays."""
        self._gauges.pop(worker, None)
        for stats in self._clients.listeners.values():
            stats.connections = self.gauges(stats)["connections"]
        for pool in self._pools().values():
            pool.tunnels = self.gauges(pool)["tunnels"]

    def gauges(self, owner: Owner) -> Counter[str]:
        """The gauges of an owner, all workers together; 0 where nobody has said anything."""
        found: Counter[str] = Counter()
        for by_owner in self._gauges.values():
            found.update(by_owner.get(owner, {}))
        return found

    def connections(self, backend: Backend) -> dict[str, int]:
        """Open connections to a backend by state."""
        found = self.gauges(backend)
        return {"active": found["active"], "idle": found["idle"]}

    def queued(self, pool: Pool) -> int:
        """How many requests wait for a free backend."""
        return self.gauges(pool)["queued"]

    def prune(self) -> None:
        """Forgets the gauges of backends, pools and listeners that are no more. To be called now and then."""
        present = owners(self._pools(), self._clients)
        for by_owner in self._gauges.values():
            for owner in by_owner.keys() - present:
                del by_owner[owner]


def owners(pools: Mapping[str, Pool], clients: ClientMetrics) -> set[Owner]:
    """All that have counters: listeners, pools, backends."""
    backends = (backend for pool in pools.values() for backend in pool.backends.values())
    return {*clients.listeners.values(), *pools.values(), *backends}
